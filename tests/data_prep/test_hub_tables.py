"""Tables of data sets on a Hub over real HTTP."""

import json
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from huggingface_hub import constants

from data_prep.hub_tables import (
    MAX_BYTES,
    HubTable,
    check_name,
    choose_table,
    download_table,
    list_tables,
)
from data_prep.table_file import read_table
from templates.errors import DataError
from tests.data_set_hub import COMMIT, CONVERTED, TOKEN, DataSet, DataSetHub, serve_data_sets

LINES = b'{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}'


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[DataSetHub]:
    with serve_data_sets() as hub:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        )
        yield hub


def parquet(tmp_path: Path, *texts: str) -> bytes:
    path = tmp_path / "some.parquet"
    with duckdb.connect() as connection:
        rows = connection.from_query("SELECT unnest($texts) AS text", params={"texts": list(texts)})
        rows.write_parquet(str(path))
    return path.read_bytes()


def titles(tables: tuple[HubTable, ...]) -> list[str]:
    return [table.title for table in tables]


def download(table: HubTable, folder: Path, token: str = "") -> Path:
    target = folder / f"table{table.ending}"
    told: list[float] = []
    download_table("org/one", table, target, token=token, progress=lambda r, _: told.append(r))
    assert told == sorted(told) and told[-1] == pytest.approx(1)
    assert [path.name for path in folder.iterdir() if ".part" in path.name] == []
    return target


def test_splits_are_found_by_the_names_of_files(hub: DataSetHub) -> None:
    hub.data_sets["org/one"] = DataSet({
        "README.md": b"#", "data/test-00000-of-00001.parquet": b"x",
        "data/train-00001-of-00002.parquet": b"x", "data/train-00000-of-00002.parquet": b"x",
        "fr/dev.csv": b"a\n1\n", "loader.py": b"boom()",
    })  # fmt: skip
    tables = list_tables("org/one")
    assert titles(tables) == ["train", "test", "fr, validation"]
    assert [file.path[-9:-8] for file in tables[0].files] == ["2", "2"]
    assert [file.path for file in tables[0].files] == sorted(file.path for file in tables[0].files)
    assert all(table.revision == COMMIT for table in tables)
    assert not any("resolve" in path for path in hub.paths)


def test_the_card_goes_before_the_names(hub: DataSetHub) -> None:
    card = {"configs": [
        {"config_name": "easy", "data_files": [
            {"split": "train", "path": "a/*.jsonl"}, {"split": "test", "path": ["b/part.jsonl"]}]},
        {"config_name": "hard", "data_files": "c/**/*.csv"}, "nonsense", {"data_files": 3},
    ]}  # fmt: skip
    files = {"a/1.jsonl": LINES, "a/2.jsonl": LINES, "b/part.jsonl": LINES, "c/d/e.csv": b"a\n1\n"}
    hub.data_sets["org/one"] = DataSet(files, card=card)
    tables = list_tables("org/one")
    assert titles(tables) == ["easy, train", "easy, test", "hard, train"]
    assert len(tables[0].files) == 2
    assert choose_table(tables, name="n", configuration="hard").files[0].path == "c/d/e.csv"
    with pytest.raises(DataError, match=r"no table 'hard, test'.*easy, train"):
        choose_table(tables, name="n", configuration="hard", split="test")


def test_the_hubs_copy_is_taken_where_nothing_can_be_read(hub: DataSetHub) -> None:
    copy = {"default/train/0000.parquet": b"x", "default/partial-test/0000.parquet": b"x"}
    hub.data_sets["org/one"] = DataSet({"script.py": b"boom()"}, copy)
    assert titles(list_tables("org/one")) == ["train", "test"]
    assert any(path.endswith(CONVERTED) for path in hub.paths)
    hub.data_sets["org/none"] = DataSet({"script.py": b"boom()"})
    with pytest.raises(DataError, match="without running its code"):
        list_tables("org/none")


def test_parts_become_one_file(hub: DataSetHub, tmp_path: Path) -> None:
    hub.data_sets["org/one"] = DataSet({
        "lines/train-1.jsonl": LINES, "lines/train-2.jsonl": LINES,
        "cells/train-1.csv": b"text,n\na,1", "cells/train-2.csv": b"text,n\r\nb,2\r\n",
        "columns/train-1.parquet": parquet(tmp_path, "a", "b"),
        "columns/train-2.parquet": parquet(tmp_path, "c"),
    })  # fmt: skip
    tables = {table.configuration: table for table in list_tables("org/one")}
    lines = read_table(download(tables["lines"], tmp_path))
    assert [cells[0] for cells in lines.cells] == ["a", "b", "a", "b"]
    cells = read_table(download(tables["cells"], tmp_path))
    assert cells.cells == [["a", "1"], ["b", "2"]]
    columns = read_table(download(tables["columns"], tmp_path))
    assert columns.cells == [["a"], ["b"], ["c"]]


def test_parts_that_do_not_fit_are_refused(hub: DataSetHub, tmp_path: Path) -> None:
    hub.data_sets["org/one"] = DataSet({
        "cells/train-1.csv": b"text,n\na,1\n", "cells/train-2.csv": b"n,text\n1,a\n",
        "columns/train-1.parquet": b"no", "columns/train-2.parquet": b"no",
    })  # fmt: skip
    for table in list_tables("org/one"):
        with pytest.raises(DataError, match=r"different columns|damaged"):
            download_table("org/one", table, tmp_path / "t", progress=lambda _, __: None)
    assert list(tmp_path.iterdir()) == []


def test_what_was_not_announced_is_refused(hub: DataSetHub, tmp_path: Path) -> None:
    content = parquet(tmp_path, "a")
    for one in (
        DataSet({"train.jsonl": LINES}, sizes={"train.jsonl": 5}),
        DataSet({"train.jsonl": LINES}, sizes={"train.jsonl": 500}),
        DataSet({"train.parquet": content}, hashes={"train.parquet": "0" * 64}),
    ):
        hub.data_sets["org/one"] = one
        (table,) = list_tables("org/one")
        with pytest.raises(DataError, match="something else than it had announced"):
            download_table("org/one", table, tmp_path / "new", progress=lambda _, __: None)
    assert not (tmp_path / "new").exists()


def test_a_table_that_is_too_large_is_refused_before_a_byte(hub: DataSetHub) -> None:
    hub.data_sets["org/one"] = DataSet({"train.csv": b"a\n"}, sizes={"train.csv": MAX_BYTES + 1})
    with pytest.raises(DataError, match="at most 500 MB"):
        choose_table(list_tables("org/one"), name="org/one")


def test_a_private_one_wants_the_token(hub: DataSetHub, tmp_path: Path) -> None:
    hub.data_sets["org/one"] = DataSet({"train.jsonl": LINES}, private=True)
    with pytest.raises(DataError, match=r"no public data set.*token"):
        list_tables("org/one")
    (table,) = list_tables("org/one", token=TOKEN)
    assert download(table, tmp_path, TOKEN).read_bytes() == LINES
    with pytest.raises(DataError, match="line break"):
        list_tables("org/one", token="hf_a\nHost: evil")


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (DataSet(gated=True), "terms to be accepted"),
        (DataSet(status=401), "does not accept the token"),
        (DataSet(status=403), "may not read"),
        (DataSet(status=429), "too often"),
        (DataSet(status=500), "status 500"),
        (DataSet(raw=b"<html>"), "answer cannot be read"),
        (DataSet(raw=b"[" * 100_000), "answer cannot be read"),
        (DataSet(raw=b'{"sha": 3}'), "answer cannot be read"),
    ],
    ids=["gated", "401", "403", "429", "500", "html", "deep", "odd"],
)
def test_refusals_are_sentences(hub: DataSetHub, one: DataSet, words: str) -> None:
    hub.data_sets["org/one"] = one
    with pytest.raises(DataError, match=words):
        list_tables("org/one")


def test_no_network_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="HF_HUB_OFFLINE"):
        list_tables("org/one")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DataError, match=r"cannot be reached.*upload a file"):
        list_tables("org/one")


@pytest.mark.parametrize(
    "name",
    ["", "one", "a/b/c", "https://huggingface.co/datasets/a/b", "../etc", "a/..", "a/b?x=1",
     "a b/c", "/a/b", "a/b#c", "@evil/b", "a/b\n", "a/%2e%2e"],
    ids=range(13),
)  # fmt: skip
def test_only_ids_are_taken(name: str) -> None:
    if name == "a/b\n":  # pasted with its line end
        assert check_name(name) == "a/b"
        return
    with pytest.raises(DataError, match="not the id of a data set"):
        check_name(name)


def test_a_token_is_not_sent_in_the_clear(
    monkeypatch: pytest.MonkeyPatch, hub: DataSetHub, tmp_path: Path
) -> None:
    hub.data_sets["org/one"] = DataSet({"train.jsonl": LINES})
    (table,) = list_tables("org/one")
    monkeypatch.setattr(constants, "ENDPOINT", "http://mirror.invalid")
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        "http://mirror.invalid/{repo_id}/resolve/{revision}/{filename}",
    )
    with pytest.raises(DataError, match="not a safe one"):
        list_tables("org/one", token=TOKEN)
    with pytest.raises(DataError, match="not a safe one"):
        download(table, tmp_path, TOKEN)
    with pytest.raises(DataError, match="cannot be reached"):
        list_tables("org/one")


def test_files_that_are_only_an_ending_are_no_tables(hub: DataSetHub) -> None:
    hub.data_sets["org/one"] = DataSet(
        {"data/.json": b"{}", ".parquet": b"x", "data/train.jsonl": LINES}
    )
    (table,) = list_tables("org/one")
    assert [file.path for file in table.files] == ["data/train.jsonl"]


def test_a_data_set_of_too_many_files_or_patterns_is_refused(hub: DataSetHub) -> None:
    siblings = [{"rfilename": f"{number:x}.csv", "size": 1} for number in range(20_001)]
    answer: dict[str, object] = {"sha": COMMIT, "siblings": siblings}
    hub.data_sets["org/one"] = DataSet(raw=json.dumps(answer).encode())
    with pytest.raises(DataError, match="too many files"):
        list_tables("org/one")
    patterns = ["*a*" * 150] * 500
    answer |= {
        "siblings": siblings[:2000],
        "cardData": {"configs": [{"data_files": patterns}, {"data_files": "*.csv"}]},
    }
    hub.data_sets["org/one"] = DataSet(raw=json.dumps(answer).encode())
    with pytest.raises(DataError, match="too many tables on its card"):
        list_tables("org/one")

from pathlib import Path

import pytest

from templates.builtin import TEMPLATES
from templates.dataset import (
    Dataset,
    SplitFile,
    count_test_looks,
    read_dataset,
    read_split,
    record_test_look,
)
from templates.errors import DataError
from templates.example import Example, Turn
from templates.files import sha256_of_file

EXAMPLE = Example(
    fields={"text": "größe “quoted”"}, references=("a", "b"),
    turns=(Turn("user", "hi"),), source_rows=(4, 7), origin="word_noise",
)  # fmt: skip


def write(folder: Path) -> Dataset:
    folder.mkdir()
    splits = {}
    for split in ("train", "validation", "test"):
        path = folder / f"{split}.jsonl"
        path.write_text(EXAMPLE.to_json() + "\n")
        splits[split] = SplitFile(rows=1, sha256=sha256_of_file(path))
    dataset = Dataset(
        id=folder.name, name="d", template=TEMPLATES["classification"], splits=splits,
        columns={"text": "text"}, upload_id="u", upload_sha256="0", recipe_sha256="0",
    )  # fmt: skip
    (folder / "dataset.json").write_text(dataset.model_dump_json())
    return dataset


def test_what_was_written_is_what_is_read(tmp_path: Path) -> None:
    dataset = write(tmp_path / "ds-1")
    assert read_dataset(tmp_path / "ds-1") == dataset
    assert read_split(tmp_path / "ds-1", "test") == [EXAMPLE]


def test_the_hash_covers_rows_and_wording(tmp_path: Path) -> None:
    dataset = write(tmp_path / "ds-1")
    other = dataset.template.model_copy(update={"stop": " FIN"})
    assert dataset.sha256 != dataset.model_copy(update={"template": other}).sha256
    renamed = dataset.model_copy(update={"name": "another", "id": "ds-2"})
    assert dataset.sha256 == renamed.sha256


def test_changed_rows_are_noticed(tmp_path: Path) -> None:
    write(tmp_path / "ds-1")
    with (tmp_path / "ds-1" / "test.jsonl").open("a") as file:
        file.write(EXAMPLE.to_json() + "\n")
    with pytest.raises(DataError, match=r"changed since.*ds-1/test.jsonl.*Run prepare again"):
        read_dataset(tmp_path / "ds-1")


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    write(tmp_path / "ds-1")
    (tmp_path / "ds-1" / "train.jsonl").write_text(EXAMPLE.to_json() + "\n{}\n")
    with pytest.raises(DataError, match=r"train.jsonl, line 2"):
        read_split(tmp_path / "ds-1", "train")


def test_no_dataset_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no prepared data here.*Run prepare"):
        read_dataset(tmp_path)


def test_an_unknown_key_in_the_manifest_is_named(tmp_path: Path) -> None:
    write(tmp_path / "ds-1")
    path = tmp_path / "ds-1" / "dataset.json"
    path.write_text(path.read_text().replace('"name":"d"', '"name":"d","colour":1'))
    with pytest.raises(DataError, match=r"no setting called 'colour'"):
        read_dataset(tmp_path / "ds-1")


def test_looks_at_test_rows_are_counted_across_datasets(tmp_path: Path) -> None:
    ledger = tmp_path / "test_looks" / "abc.jsonl"
    assert count_test_looks(ledger, {1, 2}) == 0
    assert record_test_look(ledger, {1, 2}, "compare-1") == 1
    assert record_test_look(ledger, {2, 3}, "compare-2") == 2, "a row in common counts"
    assert record_test_look(ledger, {9}, "compare-3") == 1
    assert count_test_looks(ledger, {3, 9}) == 2

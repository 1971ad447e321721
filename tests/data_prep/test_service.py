"""What the data reader answers, asked without a child; the protocol has its own tests."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_prep.service import OPERATIONS
from data_prep.upload import Upload
from templates.errors import DataError, RunError
from templates.values import parse

MakeUpload = Callable[..., Path]


def ask(operation: str, **arguments: Any) -> Any:
    found = OPERATIONS[operation]
    return found.run(parse(found.arguments, arguments, where=operation, error=RunError))


def test_rows_are_paged_and_shortened(make_upload: MakeUpload) -> None:
    folder = make_upload("a,b\n" + "".join(f"{number},{'x' * 5000}\n" for number in range(9)))
    found = ask("rows", folder=folder, offset=7, limit=5)
    assert found["columns"] == ["a", "b"]
    assert [row["number"] for row in found["rows"]] == [8, 9]
    assert found["rows"][0]["cells"] == ["7", "x" * 1999 + "…"]
    with pytest.raises(RunError, match="limit"):
        ask("rows", folder=folder, limit=201)
    with pytest.raises(DataError, match="There is no upload here"):
        ask("rows", folder=folder / "no")


def test_a_recipe_is_proposed_with_reasons(make_upload: MakeUpload, labelled_csv: str) -> None:
    folder = make_upload(labelled_csv)
    found = ask("propose", folder=folder)
    assert found["layout"] == "text and label" and found["recipe"]["steps"]
    assert found["reasons"]["label"] == "because the column is called 'label'"
    chosen = ask("propose", folder=folder, task="generation", seed=3)["recipe"]
    assert (chosen["template"]["task"], chosen["seed"]) == ("generation", 3)
    shown = ask("render", folder=folder, recipe=found["recipe"], count=1)["rows"]
    assert shown[0]["prompt"].startswith("number 0 is even") and shown[0]["completion"] == " 0 END"
    cleaned = ask("clean", folder=folder, recipe=found["recipe"], max_rows=20)
    assert cleaned["num_examples"] == 20 and len(cleaned["splits"]) == 3
    with pytest.raises(RunError, match=r"there is no setting called 'recipe.colour'"):
        ask("clean", folder=folder, recipe=found["recipe"] | {"colour": 1})


def test_steps_are_described_for_forms() -> None:
    found = ask("steps")
    length = found["cleaners"]["length"]
    assert length["defaults"].keys() == length["options"]["properties"].keys()
    assert found["cleaners"]["mask_personal_data"]["only_rewrites"] and length["title"]
    assert not length["only_rewrites"] and "word_noise" in found["augmenters"]
    assert set(found["default_steps"]) <= found["cleaners"].keys()
    assert "validation_ratio" in found["splits"]["properties"]


def test_a_preview_and_a_reading_take_the_same_corrections(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1;2\n3;4\n")
    asked = {"path": tmp_path / "a.csv", "name": "a.csv", "delimiter": ";", "has_header": False}
    shown = ask("preview", **asked, limit=1)
    assert shown["rows"] == [["1", "2"]] and shown["problem"] is None
    reading = ask("read", **asked, folder=tmp_path / "up")
    parts = []
    with pytest.raises(StopIteration) as end:
        while True:
            parts.append(next(reading))
    upload = Upload.model_validate(end.value.value)
    assert (upload.num_rows, upload.columns[0].name) == (2, "column 1") and parts[0].words

from collections.abc import Callable
from pathlib import Path

import pytest

from data_prep.recipe import propose
from data_prep.rehearsal import rehearse, render_rows
from data_prep.upload import load_upload
from templates.errors import DataError

MakeUpload = Callable[..., Path]


def test_what_preparing_would_do(make_upload: MakeUpload, labelled_csv: str) -> None:
    folder = make_upload(labelled_csv + "number 1 is odd,1\n,0\n")
    recipe = propose(load_upload(folder)).recipe
    found = rehearse(folder, recipe, num_examples=2)
    assert found.num_examples == 40 and found.label_counts == {"0": 20, "1": 20}
    assert [report.step for report in found.reports][:2] == ["map columns", "empty"]
    assert found.reports[1].rows == (42,) and found.reports[-1].step == "split"
    assert found.splits == {"train": 28, "validation": 6, "test": 6}
    assert found.examples[0]["fields"] == {"text": "number 0 is even"}
    assert len(found.examples) == 2 and found.examples[1]["source_rows"] == (2,)
    assert not any(finding.is_error for finding in found.findings)
    assert not [path for path in folder.parent.iterdir() if path.name.startswith("ds")]


def test_only_the_first_rows(make_upload: MakeUpload, labelled_csv: str) -> None:
    folder = make_upload(labelled_csv)
    recipe = propose(load_upload(folder)).recipe
    found = rehearse(folder, recipe, max_rows=4)
    assert found.num_examples == 4
    assert [finding.is_error for finding in found.findings].count(True) >= 1
    assert "Only 4 row(s)" in found.findings[0].sentence


def test_what_cannot_be_divided_is_a_finding(make_upload: MakeUpload) -> None:
    folder = make_upload("text,label\n" + "same,a\nsame,b\n" * 20)
    recipe = propose(load_upload(folder)).recipe.model_copy(update={"steps": ()})
    found = rehearse(folder, recipe)
    assert found.splits is None
    assert "No row is left for the validation split" in found.findings[-1].sentence


def test_a_wrong_mapping_is_the_usual_error(make_upload: MakeUpload, labelled_csv: str) -> None:
    folder = make_upload(labelled_csv)
    recipe = propose(load_upload(folder)).recipe
    wrong = recipe.model_copy(update={"mapping": recipe.mapping.model_copy(update={"label": "no"})})
    for ask in (lambda: rehearse(folder, wrong), lambda: render_rows(folder, wrong, 1)):
        with pytest.raises(DataError, match="The table has no column 'no' for label"):
            ask()


def test_rows_in_the_words_of_the_template(make_upload: MakeUpload) -> None:
    folder = make_upload("text,label\n" + "x" * 5000 + ",a\n{text},b\n")
    recipe = propose(load_upload(folder), task="classification").recipe
    first, second = render_rows(folder, recipe, 5)
    assert len(first.prompt) == 4000 and first.source_rows == (1,)
    assert second.prompt.endswith("{text}\n\n###\n\n") and second.completion == " b END"

"""The truth files: every planted flaw is found, and nothing else is touched, row by row."""

import json
import re
from pathlib import Path

import pytest

from data_prep.prepare import Cleaned, clean_upload, prepare
from data_prep.recipe import PrepRecipe, Step, propose_recipe
from data_prep.splits import input_key
from data_prep.table import Row, strip_edges
from data_prep.upload import read_rows, read_upload
from templates.dataset import SPLITS, StepReport, read_split
from templates.example import Example

SAMPLES = Path(__file__).parents[2] / "data_prep" / "samples"


class Sample:
    """One sample, cleaned by the default recipe with a tight length limit."""

    def __init__(self, file: str, max_characters: int, folder: Path) -> None:
        name = file.partition(".")[0]
        self.truth = json.loads((SAMPLES / f"{name}.truth.json").read_text(encoding="utf-8"))
        self.folder = folder / name
        upload = read_upload(SAMPLES / file, self.folder)
        self.notes = upload.notes
        self.recipe = _limited(propose_recipe(upload), max_characters)
        self.rows: dict[int, Row] = {row.number: row for row in read_rows(self.folder)}
        self.cleaned: Cleaned = clean_upload(self.folder, self.recipe)
        self.reports: dict[str, StepReport] = {
            report.step: report for report in self.cleaned.reports
        }
        self.kept: dict[int, Example] = {
            example.source_rows[0]: example for example in self.cleaned.examples
        }

    def planted(self, *kinds: str) -> set[int]:
        rows: set[int] = set()
        for kind in kinds:
            for entry in self.truth[kind]:
                found = entry if isinstance(entry, int) else entry.get("rows", entry.get("row"))
                rows.update([found] if isinstance(found, int) else found)
        return rows

    def touched(self, step: str) -> set[int]:
        return set(self.reports[step].rows)

    def warned(self, words: str) -> set[int]:
        findings = [finding for finding in self.cleaned.findings if words in finding.what]
        assert len(findings) == 1
        return set(findings[0].rows)


def _limited(recipe: PrepRecipe, max_characters: int) -> PrepRecipe:
    length = Step(name="length", options={"max_characters": max_characters})
    steps = tuple(length if step.name == "length" else step for step in recipe.steps)
    return recipe.model_copy(update={"steps": steps})


@pytest.fixture(scope="module")
def tickets(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return Sample("tickets.csv", 1_000, tmp_path_factory.mktemp("samples"))


@pytest.fixture(scope="module")
def restaurants(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return Sample("restaurants.jsonl", 8_000, tmp_path_factory.mktemp("samples"))


def test_tickets_rows_know_their_lines(tickets: Sample) -> None:
    assert len(tickets.rows) == tickets.truth["rows"] and tickets.notes == ()
    entries = [
        entry
        for value in tickets.truth.values()
        if isinstance(value, list)
        for entry in value
        if isinstance(entry, dict)
    ]
    for entry in entries:
        if "line" in entry:
            assert tickets.rows[entry["row"]].line == entry["line"]
        if "lines" in entry:
            assert [tickets.rows[row].line for row in entry["rows"]] == entry["lines"]


def test_tickets_every_step_touches_exactly_what_was_planted(tickets: Sample) -> None:
    assert tickets.touched("map columns") == set()
    assert tickets.touched("empty") == tickets.planted("blank_text", "blank_team")
    assert tickets.touched("trim") == tickets.planted("untrimmed")
    assert tickets.touched("exact_duplicates") == tickets.planted("exact_duplicates")
    assert tickets.touched("mask_personal_data") == tickets.planted("emails", "phones", "cards")
    assert tickets.touched("length") == tickets.planted("over_long")
    dropped = ("blank_text", "blank_team", "exact_duplicates", "over_long")
    assert set(tickets.rows) - set(tickets.kept) == tickets.planted(*dropped)


def test_tickets_texts_change_only_where_planted(tickets: Sample) -> None:
    marks = {"emails": "[EMAIL]", "phones": "[PHONE]", "cards": "[CARD]"}
    expected = {row: strip_edges(tickets.rows[row].cells["text"]) for row in tickets.kept}
    untrimmed = {row for row in tickets.kept if expected[row] != tickets.rows[row].cells["text"]}
    for kind, mark in marks.items():
        for entry in tickets.truth[kind]:
            for value in entry["values"]:
                if entry["row"] in expected:
                    assert value in expected[entry["row"]]
                    expected[entry["row"]] = expected[entry["row"]].replace(value, mark)
    assert untrimmed <= tickets.planted("untrimmed")
    for row, example in tickets.kept.items():
        assert example.fields["text"] == expected[row]
        assert example.label == tickets.rows[row].cells["team"]
    counts = tickets.reports["mask_personal_data"].counts
    assert counts == {
        kind: sum(len(entry["values"]) for entry in tickets.truth[kind]) for kind in marks
    }


def test_tickets_lookalikes_stay(tickets: Sample) -> None:
    for entry in tickets.truth["lookalikes"]:
        for value in entry["values"]:
            assert value in tickets.kept[entry["row"]].fields["text"]


def test_tickets_warnings_name_exactly_the_planted_rows(tickets: Sample) -> None:
    assert tickets.warned("different labels") == tickets.planted("conflicting_labels")
    assert tickets.warned("HTML") == tickets.planted("stray_html")
    assert tickets.warned("decoded wrongly") == tickets.planted("encoding_accident")
    assert len(tickets.cleaned.findings) == 3
    assert all(finding.level == "warning" for finding in tickets.cleaned.findings)


def test_tickets_near_duplicates_do_not_cross_splits(tickets: Sample, tmp_path: Path) -> None:
    dataset = prepare(tickets.folder, tickets.recipe, tmp_path)
    place = {
        example.source_rows[0]: split
        for split in SPLITS
        for example in read_split(tmp_path / dataset.id, split)
    }
    assert set(place) == set(tickets.kept)
    for entry in tickets.truth["near_duplicates"]:
        if entry["normalised_equal"]:
            assert place[entry["row"]] == place[entry["of_row"]]
    assert len(dataset.labels) == 7
    for split in SPLITS:
        labels = {item.label for item in read_split(tmp_path / dataset.id, split)}
        assert labels == set(dataset.labels)


def test_tickets_no_personal_data_is_kept(tickets: Sample, tmp_path: Path) -> None:
    recipe = propose_recipe(read_upload(SAMPLES / "tickets.csv", tmp_path / "up"))
    values = [
        value
        for kind in ("emails", "phones", "cards")
        for entry in tickets.truth[kind]
        for value in entry["values"]
    ]
    for chosen in (recipe, tickets.recipe):
        folder = tmp_path / "ds" / prepare(tmp_path / "up", chosen, tmp_path / "ds").id
        kept = "".join(path.read_text(encoding="utf-8") for path in folder.iterdir())
        assert values and not [value for value in values if value in kept]
    assert not [value for value in values if value in repr(tickets.cleaned)]


def test_restaurants(restaurants: Sample) -> None:
    assert restaurants.recipe.template.task == "generation"
    assert restaurants.recipe.mapping.columns() == {"input": "facts", "references": "sentence"}
    assert restaurants.touched("map columns") == set()
    assert restaurants.touched("empty") == restaurants.planted("blank_sentence")
    assert restaurants.touched("trim") == restaurants.planted("untrimmed")
    assert restaurants.touched("exact_duplicates") == restaurants.planted("exact_duplicates")
    assert restaurants.touched("mask_personal_data") == restaurants.touched("length") == set()
    assert restaurants.cleaned.findings == ()
    two = {row for row, example in restaurants.kept.items() if len(example.references) == 2}
    assert two == restaurants.planted("two_references") - restaurants.planted("exact_duplicates")


def test_restaurants_texts_change_only_where_planted(restaurants: Sample) -> None:
    for row, example in restaurants.kept.items():
        cell = restaurants.rows[row].cells["sentence"]
        references = json.loads(cell) if re.match(r'\["', cell) else [cell]
        assert example.fields["input"] == restaurants.rows[row].cells["facts"].strip()
        assert list(example.references) == [text.strip() for text in references]


def test_restaurants_split_without_leaks(restaurants: Sample, tmp_path: Path) -> None:
    dataset = prepare(restaurants.folder, restaurants.recipe, tmp_path)
    keys = [
        {input_key(item) for item in read_split(tmp_path / dataset.id, split)} for split in SPLITS
    ]
    assert not keys[0] & keys[1] and not keys[0] & keys[2] and not keys[1] & keys[2]

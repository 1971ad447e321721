"""What a click on the prepare step does to a recipe."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.recipe import DEFAULT_STEPS, PrepRecipe, Step, propose
from data_prep.upload import Upload, read_upload
from studio.pages.prepare_differences import differences, is_same_edit
from studio.pages.prepare_recipe import (
    column_of,
    doubt_of,
    escaped,
    moved,
    places,
    problem_of,
    pruned,
    unescaped,
    with_column,
    with_options,
    with_shares,
    with_splits,
    with_step,
    with_word,
    with_wording,
    without_step,
)
from templates.errors import DataError
from tests.studio.tables import write_table


@pytest.fixture(scope="module")
def upload(tmp_path_factory: pytest.TempPathFactory) -> Upload:
    folder = tmp_path_factory.mktemp("prepare")
    path = write_table(folder / "table.csv")
    text = path.read_text(encoding="utf-8").splitlines()
    lines = [f"{line},{'note' if number == 0 else ''}" for number, line in enumerate(text)]
    lines[1] += "only one"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return read_upload(path, folder / "upload", name="table.csv")


@pytest.fixture
def recipe(upload: Upload) -> PrepRecipe:
    return propose(upload).recipe


def test_a_new_slot_takes_the_column_of_its_name(upload: Upload, recipe: PrepRecipe) -> None:
    changed = with_wording(recipe, "wording", "{text} ({note})", upload.columns)
    assert column_of(changed, "note") == "note"
    assert places(changed.template) == ("text", "note", "label", "split")


def test_a_slot_that_vanishes_while_one_types_keeps_its_column(
    upload: Upload, recipe: PrepRecipe
) -> None:
    typed = with_wording(recipe, "wording", "{tex} {note}", upload.columns)
    assert column_of(pruned(typed), "text") == ""
    back = with_wording(typed, "wording", "{text}", upload.columns)
    assert column_of(back, "text") == "text"
    assert pruned(back) == recipe


@pytest.mark.parametrize("wording", ["", "no slot at all", "{label} is the answer"])
def test_a_wording_that_cannot_be_is_refused(recipe: PrepRecipe, wording: str) -> None:
    with pytest.raises(DataError):
        with_wording(recipe, "wording", wording)


def test_an_empty_stop_sequence_is_refused(recipe: PrepRecipe) -> None:
    with pytest.raises(DataError):
        with_wording(recipe, "stop", "")


def test_a_missing_column_is_told_beside_its_field(upload: Upload, recipe: PrepRecipe) -> None:
    assert problem_of(recipe, "text", upload.columns) == ""
    assert "Choose a column" in problem_of(with_column(recipe, "text", ""), "text", upload.columns)
    assert problem_of(with_column(recipe, "split", ""), "split", upload.columns) == ""


def test_an_input_that_is_the_answer_is_told(upload: Upload, recipe: PrepRecipe) -> None:
    copying = with_column(recipe, "text", "team")
    assert "learn to copy" in problem_of(copying, "text", upload.columns)


def test_a_column_of_another_table_is_told(upload: Upload, recipe: PrepRecipe) -> None:
    assert "no column 'gone'" in problem_of(
        with_column(recipe, "text", "gone"), "text", upload.columns
    )


def test_an_odd_label_is_told_but_can_be_used(upload: Upload, recipe: PrepRecipe) -> None:
    odd = with_column(with_column(recipe, "label", "text"), "text", "team")
    assert problem_of(odd, "label", upload.columns) == ""
    assert "60 different values" in doubt_of(odd, "label", upload.columns, upload.num_rows)
    assert doubt_of(recipe, "label", upload.columns, upload.num_rows) == ""


def test_one_of_several_optional_slots_is_needed(upload: Upload) -> None:
    recipe = propose(upload, task="generation").recipe
    empty = with_column(with_column(recipe, "input", ""), "instruction", "")
    assert "at least one" in problem_of(empty, "input", upload.columns)
    assert problem_of(with_column(empty, "input", "text"), "instruction", upload.columns) == ""


def test_a_step_goes_off_and_comes_back_to_its_place(recipe: PrepRecipe) -> None:
    off = without_step(recipe, "steps", "trim")
    assert [step.name for step in off.steps] == [name for name in DEFAULT_STEPS if name != "trim"]
    assert with_step(off, "steps", Step(name="trim")) == recipe


def test_a_step_moves_within_its_list(recipe: PrepRecipe) -> None:
    first, second, *rest = (step.name for step in recipe.steps)
    down = moved(recipe, "steps", first, 1)
    assert [step.name for step in down.steps] == [second, first, *rest]
    assert moved(down, "steps", first, -1) == recipe
    assert moved(recipe, "steps", first, -1) == recipe
    assert moved(recipe, "steps", "no such step", 1) == recipe


def test_an_option_out_of_its_range_is_refused(recipe: PrepRecipe) -> None:
    changed = with_options(recipe, "steps", "length", {"max_characters": 50})
    assert next(step for step in changed.steps if step.name == "length").options == {
        "min_characters": 1, "max_characters": 50,
    }  # fmt: skip
    with pytest.raises(DataError, match="max_characters"):
        with_options(recipe, "steps", "length", {"max_characters": 0})


@pytest.mark.parametrize(
    ("validation", "test", "keeps", "expected"),
    [
        (20, 10, "validation", (0.2, 0.1)),
        (50, 50, "validation", (0.5, 0.4)),
        (50, 50, "test", (0.4, 0.5)),
        (0, 99, "test", (0.01, 0.5)),
    ],
)  # fmt: skip
def test_shares_leave_something_to_learn_from(
    recipe: PrepRecipe, validation: int, test: int, keeps: str, expected: tuple[float, float]
) -> None:
    splits = with_shares(recipe, validation, test, keeps=keeps).splits
    assert (splits.validation_ratio, splits.test_ratio) == expected


def test_a_size_that_cannot_be_is_refused(recipe: PrepRecipe) -> None:
    assert with_splits(recipe, test_rows=7).splits.test_rows == 7
    with pytest.raises(DataError, match="test_rows"):
        with_splits(recipe, test_rows=0)


def test_a_label_that_stands_for_itself_has_no_word(recipe: PrepRecipe) -> None:
    worded = with_word(recipe, "billing", "money")
    assert worded.template.words_for("billing") == "money"
    assert with_word(worded, "billing", "billing") == recipe
    assert with_word(worded, "billing", "  ") == recipe


def test_typing_is_one_step_for_undo_and_other_changes_are_not(recipe: PrepRecipe) -> None:
    typed = with_wording(recipe, "wording", "T {text}")
    more = with_wording(typed, "wording", "Te {text}")
    assert is_same_edit(recipe, typed, more)
    assert not is_same_edit(recipe, typed, with_wording(typed, "stop", " X"))
    off = without_step(recipe, "steps", "trim")
    assert not is_same_edit(recipe, off, recipe)


def test_every_difference_is_told(recipe: PrepRecipe) -> None:
    changed = with_column(recipe, "text", "note")
    changed = with_wording(changed, "stop", " X")
    changed = without_step(changed, "steps", "trim")
    changed = with_options(changed, "steps", "length", {"max_characters": 9})
    changed = with_shares(changed, 10, 10, keeps="test")
    assert differences(recipe, changed, {"trim": "Trim spaces", "length": "Length"}) == [
        "the stop sequence", "the column for text: text → note", "“Trim spaces” is off",
        "the options of “Length”", "the sizes of the splits",
    ]  # fmt: skip
    assert differences(recipe, moved(recipe, "steps", "trim", 1), {}) == [
        "the order of the cleaning steps"
    ]
    assert differences(recipe, recipe, {}) == []


@given(st.text(alphabet="a\\ntr\n\t\r #", max_size=12))
def test_control_characters_survive_being_shown(text: str) -> None:
    shown = escaped(text)
    assert not set("\n\t\r") & set(shown)
    assert unescaped(shown) == text


def test_other_backslashes_stay() -> None:
    assert unescaped(r"\d\n") == "\\d\n"

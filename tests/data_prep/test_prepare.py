import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.mapping import ColumnMapping
from data_prep.prepare import clean_upload, prepare, rewrite_new_rows
from data_prep.recipe import PrepRecipe, Step, complete, default_recipe, propose_recipe
from data_prep.splits import input_key
from data_prep.upload import load_upload, read_upload
from templates.builtin import TEMPLATES
from templates.dataset import SPLITS, read_dataset, read_split
from templates.errors import DataError, RunError
from templates.example import Example


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def noisy(recipe: PrepRecipe) -> PrepRecipe:
    return recipe.model_copy(update={"augmenters": (Step(name="word_noise"),)})


def test_the_folder_is_what_templates_reads(
    make_upload: Callable[..., Path], labelled_csv: str, tmp_path: Path
) -> None:
    up = make_upload(labelled_csv, name="numbers.csv")
    recipe = noisy(propose_recipe(load_upload(up)))
    told: list[tuple[float, str]] = []
    dataset = prepare(
        up, recipe, tmp_path / "ds", progress=lambda share, text: told.append((share, text))
    )
    folder = tmp_path / "ds" / dataset.id
    assert sorted(contents(folder)) == [
        "dataset.json",
        "recipe.json",
        "test.jsonl",
        "train.jsonl",
        "validation.jsonl",
    ]
    assert read_dataset(folder) == dataset
    assert (dataset.name, dataset.labels, dataset.upload_id) == ("numbers.csv", ("0", "1"), up.name)
    assert dataset.columns == {"text": "text", "label": "label"}
    assert dataset.upload_sha256 == load_upload(up).sha256
    steps = [report.step for report in dataset.reports]
    assert steps[0] == "map columns" and steps[-2:] == ["split", "word_noise"]
    assert dataset.warnings == (
        "There are only 40 rows; the comparison may not be able to tell. "
        "Collect a couple of hundred rows (200 or more) if you can.",
    )
    train = read_split(folder, "train")
    assert len(train) == 56 and sum(item.origin == "word_noise" for item in train) == 28
    for split in SPLITS[1:]:
        assert all(item.origin == "upload" for item in read_split(folder, split))
    shares = [share for share, _ in told]
    assert shares == sorted(shares) and shares[0] == 0.0 and told[-1] == (1.0, "done")
    stored = PrepRecipe.model_validate(json.loads((folder / "recipe.json").read_text()))
    assert stored == complete(recipe)


def test_augmented_copies_never_repeat_a_held_out_input(
    make_upload: Callable[..., Path], tmp_path: Path
) -> None:
    rows = [f"{first} {second},{first}" for first in "abcd" for second in "efghabcd"]
    up = make_upload("text,label\n" + "\n".join(rows) + "\n")
    recipe = noisy(propose_recipe(load_upload(up)))
    dataset = prepare(up, recipe, tmp_path / "ds")
    folder = tmp_path / "ds" / dataset.id
    held_out = {input_key(item) for split in SPLITS[1:] for item in read_split(folder, split)}
    assert not held_out & {input_key(item) for item in read_split(folder, "train")}
    report = dataset.reports[-1]
    assert report.counts["thrown away: repeats a held-out row"] > 0
    assert report.rows_out == dataset.splits["train"].rows


def test_a_replay_gives_the_same_bytes(
    make_upload: Callable[..., Path],
    labelled_csv: str,
    tmp_path: Path,
) -> None:
    up = make_upload(labelled_csv)
    recipe = noisy(propose_recipe(load_upload(up)))
    first = prepare(up, recipe, tmp_path / "ds")
    before = contents(tmp_path / "ds" / first.id)
    assert prepare(up, recipe, tmp_path / "ds") == first
    assert contents(tmp_path / "ds" / first.id) == before
    prepare(up, recipe, tmp_path / "elsewhere")
    assert contents(tmp_path / "elsewhere" / first.id) == before


def test_a_new_name_or_a_damaged_file_is_put_right(
    make_upload: Callable[..., Path],
    labelled_csv: str,
    tmp_path: Path,
) -> None:
    up = make_upload(labelled_csv)
    recipe = propose_recipe(load_upload(up))
    first = prepare(up, recipe, tmp_path / "ds", name="One")
    folder = tmp_path / "ds" / first.id
    (folder / "train.jsonl").write_text("damaged")
    second = prepare(up, recipe, tmp_path / "ds", name="Two")
    assert (second.id, second.name, second.sha256) == (first.id, "Two", first.sha256)
    assert read_dataset(folder) == second
    assert [path.name for path in (tmp_path / "ds").iterdir()] == [first.id]


def test_another_seed_or_step_is_another_dataset(
    make_upload: Callable[..., Path],
    labelled_csv: str,
    tmp_path: Path,
) -> None:
    up = make_upload(labelled_csv)
    recipe = propose_recipe(load_upload(up))
    ids = {
        prepare(up, changed, tmp_path / "ds").id
        for changed in (recipe, recipe.model_copy(update={"seed": 1}), noisy(recipe))
    }
    assert len(ids) == 3


def test_cleaning_alone_writes_nothing_and_raises_no_findings(
    make_upload: Callable[..., Path], tmp_path: Path
) -> None:
    up = make_upload("text,label\na,x\nb,x\n")
    cleaned = clean_upload(up, propose_recipe(load_upload(up)))
    assert [finding.level for finding in cleaned.findings] == ["error", "error", "warning"]
    assert len(cleaned.examples) == 2 and cleaned.reports[0].step == "map columns"


def test_tokens_of_the_base_are_checked(
    make_upload: Callable[..., Path], labelled_csv: str, tmp_path: Path
) -> None:
    up = make_upload(labelled_csv + "the end of it,0\n")
    recipe = propose_recipe(load_upload(up))
    with pytest.raises(DataError, match=r"tokens of the stop sequence.*row 41"):
        prepare(up, recipe, tmp_path / "ds", tokenise=lambda text: [*text.upper().encode()])


def test_new_rows_are_rewritten_like_the_training_rows(
    make_upload: Callable[..., Path], tmp_path: Path
) -> None:
    lines = [f"mail m{n}@example.com about {n},{'ab'[n % 2]}" for n in range(24)]
    folder = make_upload("\n".join(["text,label", *lines]).encode())
    recipe = propose_recipe(load_upload(folder))
    dataset = prepare(folder, recipe, tmp_path / "datasets")
    dataset_folder = tmp_path / "datasets" / dataset.id
    new = [Example({"text": text}) for text in (" hello x@example.org ", "", "")]
    found = [row.fields["text"] for row in rewrite_new_rows(dataset_folder, new)]
    assert found == ["hello [EMAIL]", "", ""], "masked and trimmed, and no row is dropped"
    assert "@example.com" not in (dataset_folder / "dataset.json").read_text()


def test_a_split_column(make_upload: Callable[..., Path], tmp_path: Path) -> None:
    part = ["train"] * 20 + ["dev"] * 4 + ["test"] * 6
    rows = [f"text {row},{row % 2},{part[row]}" for row in range(30)]
    up = make_upload("text,label,part\n" + "\n".join(rows) + "\n")
    recipe = PrepRecipe(
        template=TEMPLATES["classification"],
        mapping=ColumnMapping(fields={"text": "text"}, label="label", split="part"),
    )
    dataset = prepare(up, recipe, tmp_path / "ds")
    assert {split: file.rows for split, file in dataset.splits.items()} == {
        "train": 20,
        "validation": 4,
        "test": 6,
    }


def test_a_full_disk_leaves_nothing(
    make_upload: Callable[..., Path],
    labelled_csv: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    up = make_upload(labelled_csv)
    monkeypatch.setattr("data_prep.prepare.write_atomically", full)
    with pytest.raises(RunError, match="The disk is full: the dataset"):
        prepare(up, propose_recipe(load_upload(up)), tmp_path / "ds")
    assert not list((tmp_path / "ds").iterdir())


_SECRETS = ("ana@example.org", "(202) 555-0143", "4111 1111 1111 1111")


def _rows_with(secret: str) -> list[list[str]]:
    """Rows that are trimmed, repeated, dropped for their label or length, and cut in a sample."""
    cut = "x " * 145 + secret
    texts = [f"  trimmed {secret} ", f"twice {secret}", f"twice {secret}", cut + " y" * 4_000]
    return [[text, "b"] for text in texts] + [[f"no label {secret}", ""]]


@pytest.mark.parametrize("secret", _SECRETS)
def test_no_report_keeps_personal_data(
    secret: str, make_upload: Callable[..., Path], tmp_path: Path
) -> None:
    rows = [[f"text {number}", "ab"[number % 2]] for number in range(20)] + _rows_with(secret)
    up = make_upload(
        "\n".join(json.dumps(dict(zip("xy", row, strict=True))) for row in rows), "a.jsonl"
    )
    mapping = ColumnMapping(fields={"text": "x"}, label="y")
    recipe = default_recipe(TEMPLATES["classification"], mapping)
    reports = clean_upload(up, recipe).reports
    by_step = {report.step: report for report in reports}
    for step in ("empty", "trim", "exact_duplicates", "mask_personal_data", "length"):
        assert by_step[step].samples, step
    dataset = prepare(up, noisy(recipe), tmp_path / "ds")
    assert dataset.reports[: len(reports)] == reports
    kept = b"".join(contents(tmp_path / "ds" / dataset.id).values()).decode()
    for text in (kept, repr(reports)):
        assert secret not in text and secret[:9] not in text
    plain = clean_upload(up, recipe.model_copy(update={"steps": recipe.steps[:3]}))
    assert secret in repr(plain.reports), "without the step nothing is masked"


@pytest.mark.parametrize("secret", _SECRETS)
def test_no_dropped_conversation_keeps_personal_data(
    secret: str, make_upload: Callable[..., Path], tmp_path: Path
) -> None:
    def talk(asked: str, answer: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]

    cells = [json.dumps(talk(f"q{number}", f"a{number}")) for number in range(20)]
    cells += [json.dumps(talk(f"hello\n{secret}", "")), f'[{{"role": "{secret}", "content": "x"}}]']
    up = make_upload("\n".join(json.dumps({"m": cell}) for cell in cells), "a.jsonl")
    recipe = default_recipe(TEMPLATES["chat"], ColumnMapping(turns="m"))
    dataset = prepare(up, recipe, tmp_path / "ds")
    assert len(dataset.reports[0].samples) == 2
    assert dataset.reports[0].counts == {"an assistant turn is empty": 1, "a role is unknown": 1}
    assert secret not in (tmp_path / "ds" / dataset.id / "dataset.json").read_text()


def test_hostile_json_in_a_cell_drops_the_row(
    make_upload: Callable[..., Path], tmp_path: Path
) -> None:
    good = [
        f'[{{"role":"user","content":"q{n}"}},{{"role":"assistant","content":"a"}}]'
        for n in range(20)
    ]
    bad = ["[" * 100_000, good[0].replace("q0", "\\ud800")]
    lines = ['"' + cell.replace('"', '""') + '"' for cell in (*good, *bad)]
    up = make_upload("m\n" + "\n".join(lines) + "\n")
    recipe = default_recipe(TEMPLATES["chat"], ColumnMapping(turns="m"))
    report = prepare(up, recipe, tmp_path / "ds").reports[0]
    assert (report.rows, report.counts) == ((21, 22), {"the conversation is not JSON": 2})


def test_labels_stay_the_texts_they_are(make_upload: Callable[..., Path], tmp_path: Path) -> None:
    labels = ("01", "1", "1.0", "10")
    rows = [f"text {number},{labels[number % 4]}" for number in range(40)]
    up = make_upload("text,label\n" + "\n".join(rows) + "\n")
    dataset = prepare(up, propose_recipe(load_upload(up)), tmp_path / "ds")
    assert dataset.labels == labels
    found = [ex for split in SPLITS for ex in read_split(tmp_path / "ds" / dataset.id, split)]
    for example in found:
        assert example.label == labels[(example.source_rows[0] - 1) % 4]
    assert len(found) == 40 and len(dataset.warnings) == 1, "few rows, and no clash of labels"


@settings(max_examples=8)
@given(
    st.lists(
        st.tuples(st.text('ab c,\n"é@1', max_size=10), st.sampled_from("xy")),
        min_size=12,
        max_size=30,
    ),
    st.integers(0, 5),
)
def test_any_table_replays_to_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]], seed: int
) -> None:
    folder = tmp_path_factory.mktemp("replay")
    lines = [json.dumps({"text": text, "label": label}) for text, label in pairs]
    (folder / "a.jsonl").write_text("\n".join(lines))
    results = []
    for attempt in ("one", "two"):
        upload = read_upload(folder / "a.jsonl", folder / attempt / "up")
        recipe = noisy(propose_recipe(upload, seed=seed))
        if recipe.template.task != "classification":
            return
        try:
            dataset = prepare(folder / attempt / "up", recipe, folder / attempt)
        except DataError as error:
            results.append(str(error))
        else:
            results.append(repr(contents(folder / attempt / dataset.id)))
    assert results[0] == results[1]

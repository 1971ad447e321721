import copy

import pytest

from engine.comparing.compare import CompareRequest, classical_remark, compare
from engine.comparing.comparison import read_comparison, sentence, write_comparison
from engine.comparing.prompting import answers_to
from engine.language_model import LanguageModel
from templates.builtin import TEMPLATES
from templates.dataset import Dataset, SplitFile
from templates.errors import DataError
from templates.example import Example
from tests.engine.tiny import TEMPLATE, ticket, tiny_model

LABELS = ("billing", "returns", "shipping")
WORDS = {"billing": "pay", "returns": "back", "shipping": "late"}
REQUEST = CompareRequest(base_id="tiny", run_id="run", max_new_tokens=6)


def tickets(first: int, count: int) -> list[Example]:
    return [
        ticket(f"{WORDS[label]} {row}", label, row)
        for row in range(first, first + count)
        for label in [LABELS[row % 3]]
    ]


def dataset(template, labels=()) -> Dataset:
    splits = {name: SplitFile(rows=1, sha256="0") for name in ("train", "validation", "test")}
    return Dataset(
        id="data", name="data", template=template, labels=labels, splits=splits, columns={},
        upload_id="u", upload_sha256="0", recipe_sha256="0",
    )  # fmt: skip


SPLITS = {"train": tickets(1, 30), "validation": tickets(101, 20), "test": tickets(201, 24)}
SHORT = TEMPLATE.model_copy(update={"instruction": "{labels}?"})


@pytest.fixture(scope="module", params=["llama", "chat"])
def base(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    return tiny_model(folder, "llama", chat=request.param == "chat")


def run(base, tuned, template=SHORT, splits=SPLITS, labels=LABELS, request=REQUEST, **changes):
    settings = {"test_looks": 1, **changes}
    data = dataset(template, labels)
    return compare(request, base=base, tuned=tuned, dataset=data, **splits, **settings)


def test_all_arms_answer_the_same_rows(base, tmp_path):
    stages = []
    value, predictions = run(base, base, progress=lambda stage, done, total: stages.append(stage))
    assert [arm.name for arm in value.arms] == [
        "constant", "untuned", "zero_shot", "few_shot", "tuned", "classical",
    ]  # fmt: skip
    for arm in value.arms:
        assert [score.metric for score in arm.scores] == ["accuracy", "macro_f1"]
        hits = [row.scores[arm.name] for row in predictions]
        assert arm.value("accuracy") == pytest.approx(100 * sum(hits) / 24)
        right = [row.outputs[arm.name] == row.expected[0] for row in predictions]
        assert hits == [float(hit) for hit in right]
        assert (arm.validation_score is None) == (arm.name == "tuned")
    assert [row.source_rows for row in predictions] == [(row,) for row in range(201, 225)]
    assert [row.item for row in predictions] == list(range(24))
    assert list(dict.fromkeys(stages)) == [
        "untuned", "zero-shot", "looking for the best few-shot prompt", "few-shot", "tuned",
    ]  # fmt: skip
    write_comparison(tmp_path / "comparison.json", value)
    assert read_comparison(tmp_path / "comparison.json") == value


def test_the_opponent_is_chosen_on_validation_rows(base):
    value, _ = run(base, base)
    (primary,) = [pairing for pairing in value.pairings if pairing.primary]
    scores = {
        name: value.arm(name).validation_score
        for name in ("constant", "untuned", "zero_shot", "few_shot")
    }
    assert scores[primary.reference] == max(scores.values())
    assert {pairing.reference for pairing in value.pairings} == {*scores, "classical"}
    assert value.search is not None and value.search.trials


@pytest.mark.parametrize("template", [SHORT, TEMPLATE.model_copy(update={"instruction": ""})])
def test_the_base_against_itself_cannot_tell(base, template):
    value, predictions = run(base, base, template)
    itself = "untuned" if template.instruction else "zero_shot"
    (pairing,) = [pairing for pairing in value.pairings if pairing.reference == itself]
    assert pairing.verdict.outcome == "cannot tell"
    assert pairing.verdict.difference == 0 and pairing.verdict.p_value == 1
    assert all(row.outputs["tuned"] == row.outputs[pairing.reference] for row in predictions)
    assert value.outcome != "better"


def test_a_tuned_model_that_knows_the_answers_is_better(base, monkeypatch):
    tuned = LanguageModel(copy.deepcopy(base.model), base.tokenizer)

    def oracle(model, prompts, question, *, progress=None):
        if model is tuned:
            return [example.label for example in SPLITS["test"]]
        return answers_to(model, prompts, question, progress=progress)

    monkeypatch.setattr("engine.comparing.arms.answers_to", oracle)
    value, _ = run(base, lambda: tuned)
    assert value.outcome == value.primary.verdict.outcome == "better"
    assert "The tuned model is better than" in sentence(value)
    assert "100.0 % against" in sentence(value)


def test_the_tuned_model_is_asked_for_last(base):
    stages = []

    def tuned():
        assert "few-shot" in stages
        return base

    run(base, tuned, progress=lambda stage, done, total: stages.append(stage))


def test_a_classical_model_that_does_better_is_named(base):
    value, _ = run(base, base)
    assert value.arm("classical").value("accuracy") == 100
    remark = classical_remark(value)
    assert remark.startswith("A classical model does better, and trains in seconds.")
    assert remark in value.notices


def test_generated_text(base):
    rows = {
        name: [
            Example(
                fields={"instruction": "", "input": f"kettle {first + row}"},
                references=("the kettle", "a parcel")[: 1 + row % 2],
                source_rows=(first + row,),
            )
            for row in range(8)
        ]
        for name, first in (("train", 1), ("validation", 101), ("test", 201))
    }
    template = TEMPLATES["generation"].model_copy(update={"instruction": ""})
    value, predictions = run(base, base, template, rows, ())
    assert [arm.name for arm in value.arms] == ["zero_shot", "few_shot", "tuned"]
    assert [score.metric for score in value.arms[0].scores] == [
        "chrf", "exact_match", "token_f1", "rouge_l", "bleu",
    ]  # fmt: skip
    pairing = next(pairing for pairing in value.pairings if pairing.reference == "zero_shot")
    assert pairing.verdict.difference == 0
    assert predictions[1].expected == ("the kettle", "a parcel")
    assert classical_remark(value) == ""


def test_long_rows_and_many_looks_are_told(base):
    long = [*SPLITS["test"][:-1], ticket("kettle " * 100, "returns", 999)]
    request = REQUEST.model_copy(update={"max_validation_rows": 12})
    value, _ = run(base, base, SHORT, {**SPLITS, "test": long}, request=request, test_looks=3)
    assert value.arm("tuned").num_cut == 1
    text = " ".join(value.notices)
    assert "1 test rows were too long" in text
    assert "scored 3 times" in text
    assert "12 of 20 validation rows" in text


def test_an_overlap_or_an_empty_split_is_a_sentence(base):
    with pytest.raises(DataError, match=r"same row is in the training and in the test.*row 1\b"):
        run(base, base, splits={**SPLITS, "test": SPLITS["train"][:1]})
    with pytest.raises(DataError, match="The validation split is empty"):
        run(base, base, splits={**SPLITS, "validation": []})


def test_the_same_seed_gives_the_same_comparison(base):
    ours, theirs = run(base, base), run(base, base)
    assert ours[1] == theirs[1]
    assert ours[0].pairings == theirs[0].pairings and ours[0].search == theirs[0].search

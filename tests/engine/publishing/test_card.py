from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from engine.publishing.card import front_matter, write_card
from engine.publishing.publication import RunRecord
from engine.publishing.snippet import usage_code
from tests.engine.publishing.published import finished_run, small_comparison, small_record

NASTY = "evil\n---\nlicense: mit\n<img src=x onerror=alert(1)> [link](http://x) `a` | # *b* & ```"


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    return small_record(tmp_path_factory.mktemp("card"))


def card_of(record: RunRecord) -> str:
    return write_card(record, method_title="LoRA", options={"Rank": 4, "Start text": "a | `b`"})


def changed(record: RunRecord, part: str, **changes: object) -> RunRecord:
    return record.model_copy(update={part: getattr(record, part).model_copy(update=changes)})


def on_hub(record: RunRecord, **changes: object) -> RunRecord:
    hub = {"id": "org/base", "revision": "abc123", "licence": "apache-2.0"} | changes
    return changed(record, "base", **hub)


def test_the_hub_reads_the_front_matter(record: RunRecord) -> None:
    compared = on_hub(record).model_copy(update={"comparison": small_comparison(record.plan)})
    card = ModelCard(card_of(compared))
    assert card.data.license == "apache-2.0"
    assert card.data.base_model == "org/base"
    assert card.data.library_name == "peft"
    assert card.data.pipeline_tag == "text-generation"
    assert card.data.tags == ["tuning-studio", "lora"]
    assert card.data.language is None
    assert card.data.model_name == "out"
    found = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert found == {"accuracy": 81.25, "macro_f1": 80.25}
    assert card.data.eval_results[0].dataset_name == "tickets"
    assert card.data.eval_results[0].dataset_split == "test"
    assert card.data.eval_results[0].task_type == "text-classification"


def test_a_local_base_is_not_claimed_to_be_on_the_hub(record: RunRecord) -> None:
    content = front_matter(record)
    assert "base_model" not in content and "model-index" not in content
    assert content["license"] == "unknown"
    assert "The base names no licence" in card_of(record)
    assert "`./base` (a local folder, not on the Hub)" in card_of(record)


def test_a_licence_that_is_no_id_is_named(record: RunRecord) -> None:
    content = front_matter(on_hub(record, licence="Our own, see LICENSE"))
    assert content["license"] == "other" and content["license_name"] == "Our own, see LICENSE"


def test_names_cannot_break_out(record: RunRecord) -> None:
    nasty = on_hub(record, licence=NASTY).model_copy(update={"name": NASTY})
    nasty = changed(nasty, "data", name=NASTY)
    nasty = nasty.model_copy(update={"comparison": small_comparison(record.plan)})
    text = card_of(nasty)
    data = ModelCard(text).data.to_dict()
    assert data["license"] == "other" and data["license_name"] == NASTY
    assert data["model-index"][0]["name"] == NASTY
    assert data["base_model"] == "org/base"
    body = text.split("\n---\n", 1)[1]
    assert body.split("```python")[0].count("\n# ") == 1, "one title"
    title = body.split("\n# ")[1].splitlines()[0]
    assert r"\<img" in title and r"\[link\]" in title and r"\`a\`" in title
    tables = [line for line in body.splitlines() if line.startswith("|")]
    widths = {line.replace(r"\|", "").count("|") for line in tables}
    assert widths == {3, 4}, "a name adds no column"


def test_the_comparison_is_told_in_full(record: RunRecord) -> None:
    text = card_of(record.model_copy(update={"comparison": small_comparison(record.plan)}))
    assert "| Tuned | 81.2 (76.2 to 86.2) | 80.2 (76.2 to 86.2) |" in text
    assert r"| Zero-shot \| prompt | 50.0 (45.0 to 55.0) | not measured |" in text
    assert "accuracy (95 % interval) | macro-F1 (95 % interval)" in text
    assert "**The tuned model is better than the prompt without examples" in text
    assert "160 test rows" in text and "scored 2 times" in text
    assert "Not compared yet" not in text


def test_no_comparison_is_said_in_plain_words(record: RunRecord) -> None:
    assert "Not compared yet: nobody has measured" in card_of(record)


def test_the_prompt_format_is_literal(record: RunRecord) -> None:
    text = card_of(record)
    assert "```text\n{text}\n\n###\n\n {answer} END\n```" in text
    assert r"`'\n\n###\n\n'`" in text and "`' END'`" in text
    assert "`billing`, `returns`, `shipping`" in text
    assert usage_code(record).rstrip() in text


def test_training_is_told_in_full(record: RunRecord) -> None:
    text = card_of(record)
    for fact in (
        record.plan_digest, record.data.sha256, record.base.fingerprint, "train 8, validation 8",
        "learning_rate 0.0002", "| Seed | 0 |", "3,712 (14.41% of the base's)", "| Rank | `4` |",
        r'| Start text | `` "a \| `b`" `` |',
    ):  # fmt: skip
        assert fact in text, fact


@pytest.mark.parametrize(
    ("precision", "form", "words"),
    [
        ("nf4", "adapter", "held in 4 bits (nf4). On a base in fp32"),
        ("nf4", "merged", "those 4-bit values, decoded"),
        ("int8", "adapter", "outputs differ from those"),
        ("int8", "merged", "those 8-bit values, decoded"),
    ],
)
def test_fewer_bits_are_mentioned(tmp_path: Path, precision: str, form: str, words: str) -> None:
    plan = finished_run(tmp_path, "qlora", precision=precision).plan
    assert words in card_of(small_record(tmp_path / "lora", plan=plan, form=form))


def test_the_front_matter_is_plain_yaml(record: RunRecord) -> None:
    front = card_of(record).split("---\n")[1]
    assert yaml.safe_load(front) == front_matter(record)

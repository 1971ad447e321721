"""The model card: what was published, what it was measured to do, how to ask it. Free of torch.

Names come from the person, the data and foreign folders: in the front matter they go through
`yaml.safe_dump`, in the body they are escaped or stand as code.
"""

import json
import re
from collections.abc import Iterable
from typing import Any

import yaml

from engine.comparing.comparison import Comparison, Score, sentence
from engine.plan import BITS
from engine.publishing.publication import Form, PromptFormat, RunRecord, parity_sentence
from engine.publishing.snippet import base_reference, usage_code
from templates.dataset import SPLITS

_BITS_OF_STOCK_BASES = 16
_LICENCE_ID = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}")
_LIBRARIES: dict[Form, str] = {"adapter": "peft", "merged": "transformers"}
_RELATIONS: dict[Form, str] = {"adapter": "adapter", "merged": "finetune"}


def write_card(record: RunRecord, *, method_title: str, options: dict[str, Any]) -> str:
    """Write the README of a published folder.

    Args:
        record: what was published.
        method_title: what people call the method.
        options: the method's options by their titles.

    Returns:
        Markdown with YAML front matter.
    """
    front = yaml.safe_dump(front_matter(record), sort_keys=False, allow_unicode=True, width=10_000)
    sections = [
        f"---\n{front}---",
        f"# {_escaped(record.name)}",
        _introduction(record, method_title),
        "## What was measured",
        _measured(record),
        "## How to ask it",
        _prompting(record.prompt),
        "Run this next to the folder:",
        _block(usage_code(record).rstrip(), "python"),
        "## Training",
        _training(record, method_title, options),
        "## Limits",
        _limits(record),
    ]
    return "\n\n".join(sections) + "\n"


def front_matter(record: RunRecord) -> dict[str, Any]:
    """Collect what the Hub reads.

    Args:
        record: what was published.

    Returns:
        Plain values in the order to write them.
    """
    content: dict[str, Any] = {}
    if _LICENCE_ID.fullmatch(record.base.licence.lower()):
        content["license"] = record.base.licence.lower()
    else:
        content |= {"license": "other", "license_name": record.base.licence}
    if record.base.is_on_hub:  # the Hub refuses a card that names anything else as a base
        content["base_model"] = record.base.id
        content["base_model_relation"] = _RELATIONS[record.form]
    content |= {
        "library_name": _LIBRARIES[record.form],
        "pipeline_tag": "text-generation",
        "tags": ["tuning-studio", record.plan.method.name],
    }
    if record.comparison:
        content["model-index"] = [_index_entry(record, record.comparison)]
    return content


def _index_entry(record: RunRecord, comparison: Comparison) -> dict[str, Any]:
    labels = bool(record.prompt.labels)
    task = "text-classification" if labels else "text-generation"
    metrics = [
        {
            "type": score.metric,
            "name": score.title,
            "value": round(score.value, 2),
        }
        for score in comparison.arm("tuned").scores
    ]
    dataset = {"type": record.data.id, "name": record.data.name, "split": "test"}
    result = {"task": {"type": task}, "dataset": dataset, "metrics": metrics}
    return {"name": record.name, "results": [result]}


def _introduction(record: RunRecord, method_title: str) -> str:
    what = "A PEFT adapter for" if record.form == "adapter" else "A whole model tuned from"
    base = _code(base_reference(record.base))
    where = "" if record.base.is_on_hub else " (a local folder, not on the Hub)"
    return (
        f"{what} {base}{where}, made with {method_title} in Tuning Studio from the data set "
        f"{_code(record.data.name)}."
    )


def _measured(record: RunRecord) -> str:
    comparison = record.comparison
    if comparison is None:
        return (
            "Not compared yet: nobody has measured whether this model is better than prompting "
            "its base."
        )
    measured = comparison.arm("tuned").scores
    rows = [["Way to answer", *(f"{score.title} (95 % interval)" for score in measured)]]
    rows.append(["---", *("---:" for _ in measured)])
    for arm in comparison.arms:
        points = {score.metric: _points(score) for score in arm.scores}
        cells = [points.get(score.metric, "not measured") for score in measured]
        rows.append([_escaped(arm.title), *cells])
    times = "once" if comparison.test_looks == 1 else f"{comparison.test_looks:,} times"
    return (
        f"**{_escaped(sentence(comparison))}**\n\n{_table(rows)}\n\n"
        f"Points from 0 to 100 on {comparison.num_rows:,} test rows, which no training and no "
        f"choice of a prompt saw; the same rows for every way. With this comparison the test "
        f"rows have been scored {times}; every look makes a lucky result likelier."
    )


def _prompting(prompt: PromptFormat) -> str:
    template = prompt.template
    lines = []
    if prompt.layout == "raw":
        lines.append("The model was taught this format, to the character:")
    else:
        lines.append("The model was taught through the chat template of its base:")
    whole = f"{prompt.prompt}{prompt.answer_opening}{{answer}}{prompt.answer_closing}"
    lines.append(_block(whole, "text"))
    facts = []
    if prompt.layout == "raw":
        facts.append(f"Separator, the end of every prompt: {_code(repr(template.separator))}")
    facts += [
        f"Between prompt and answer: {_code(repr(prompt.answer_opening))}",
        f"Stop sequence, where an answer ends: {_code(repr(prompt.stop))}",
    ]
    if prompt.labels:
        words = [template.words_for(label) for label in prompt.labels]
        facts.append(f"Answers: {', '.join(_code(word) for word in words)}")
    return "\n\n".join([*lines, _list(facts)])


def _training(record: RunRecord, method_title: str, options: dict[str, Any]) -> str:
    plan, data, base = record.plan, record.data, record.base
    counts = ", ".join(f"{split} {data.rows[split]:,}" for split in SPLITS if split in data.rows)
    share = record.num_trainable / record.num_parameters
    schedule = ", ".join(f"{name} {value}" for name, value in plan.schedule.model_dump().items())
    pinned = f" at revision {_code(base.revision)}" if base.is_on_hub else ""
    rows = [
        ["What", "Value"],
        ["---", "---"],
        ["Base", f"{_code(base_reference(base))}{pinned}"],
        ["Base held in", _code(plan.base.precision)],
        ["Base fingerprint", _code(base.fingerprint)],
        ["Licence of the base", _code(base.licence)],
        ["Data set", f"{_code(data.name)}, id {_code(data.id)}"],
        ["Rows", counts],
        ["Data sha256", _code(data.sha256)],
        ["Method", method_title],
        *([_escaped(title), _code(json.dumps(value, ensure_ascii=False))]
          for title, value in options.items() if value != ""),
        ["Schedule", _code(schedule)],
        ["Seed", str(plan.seed)],
        ["Trainable parameters", f"{record.num_trainable:,} ({share:.2%} of the base's)"],
        ["Plan digest", _code(record.plan_digest)],
    ]  # fmt: skip
    checked = (
        "After writing, the files were read back and asked a few real examples. "
        f"{parity_sentence(record.parity, record.effect)}"
    )
    return f"{_table(rows)}\n\n{checked}"


def _limits(record: RunRecord) -> str:
    facts = [
        f"It learned from {record.data.rows['train']:,} rows of one data set. On other text, "
        "other wording or another language nothing was measured.",
        "It answers every input, also one that fits no answer it knows, and does not say when it "
        "is unsure.",
        "What its base gets wrong, and what is wrong in the rows, it may get wrong too.",
    ]
    if record.base.licence == "unknown":
        facts.append("The base names no licence: ask its makers before you pass this model on.")
    else:
        facts.append("The licence of the base applies to this model too.")
    held = record.plan.base.precision
    bits = BITS[held]
    if bits < _BITS_OF_STOCK_BASES and record.form == "adapter":
        facts.append(
            f"In training and measuring the base was held in {bits} bits ({held}). On a base in "
            "fp32, fp16 or bf16, as in the code above, outputs differ from those that were "
            "measured; published merged, the model keeps them."
        )
    if bits < _BITS_OF_STOCK_BASES and record.form == "merged":
        facts.append(
            f"The base was held in {bits} bits ({held}) in training and measuring; the weights "
            f"here are those {bits}-bit values, decoded, plus what was learned."
        )
    return _list(facts)


def _points(score: Score) -> str:
    return f"{score.value:.1f} ({score.interval.low:.1f} to {score.interval.high:.1f})"


def _table(rows: Iterable[Iterable[str]]) -> str:
    lines = [" | ".join(cell.replace("|", r"\|") for cell in cells) for cells in rows]
    return "\n".join(f"| {line} |" for line in lines)


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _escaped(text: str) -> str:
    """Foreign text as plain words on one line."""
    return re.sub(r"([\\`*_\[\]<>&#~])", r"\\\1", " ".join(text.split()))


def _code(text: str) -> str:
    """Foreign text as a code span on one line, also inside a table."""
    line = "".join(letter if letter.isprintable() else " " for letter in text) or " "
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    space = " " if "`" in line else ""
    return f"{fence}{space}{line}{space}{fence}"


def _block(text: str, language: str) -> str:
    """Foreign text as a code block that it cannot close."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"

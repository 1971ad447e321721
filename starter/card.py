"""The model card: written from the recipe, the log and the measured figures, so that they agree.

python -m starter.card        reads starter/log and build/starter/measured/measured.json
"""

import argparse
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from engine.events import Finished, Stepped, from_json
from starter.recipe import Recipe, Stage

LOG = Path(__file__).parent / "log"

FRONT_MATTER = """\
---
license: cc-by-4.0
language:
- en
library_name: transformers
pipeline_tag: text-generation
tags:
- llama
- from-scratch
- in-context-learning
- cpu
---
"""

SOURCES = """\
| source in the mix | what it is | licence | attribution |
|---|---|---|---|
| tinystories | sample of TinyStories | CDLA-Sharing-1.0 | Ronen Eldan and Yuanzhi Li, Microsoft |
| african_storybook | picture-book stories | CC BY | African Storybook initiative, \
africanstorybook.org; authors below |
| openstax | 18 textbooks, prose paragraphs only | CC BY 4.0 | OpenStax, Rice University, \
https://openstax.org; titles below |
| gutenberg | dialogue-rich passages of children's and adventure books by Alcott, Andersen, Baum, \
Burnett, Carroll, Grimm, Lang, London, Montgomery, Nesbit, Potter | public domain in the USA | \
none needed |
| episodes | Snips voice commands (train) | CC0 | Snips |
| episodes | CLINC150 (train) | CC BY 3.0 | Stefan Larson and others, 2019 |
| questions | GSM8K (train) | MIT | OpenAI |
| questions | chain-of-thought collection (train): AQuA, CREAK, ECQA, GSM8K, QASC, SenseMaking, \
StrategyQA | Apache-2.0 | Google, FLAN collection |

OpenStax titles: American Government; Astronomy; Business Ethics; College Success; Entrepreneurship;
Introduction to Anthropology; Introduction to Business; Introduction to Intellectual Property;
Introduction to Philosophy; Introduction to Political Science; Introduction to Sociology; Life,
Liberty, and the Pursuit of Happiness; Microbiology; Principles of Economics; Psychology; U.S.
History; World History; Writing Guide. The text was changed: lists, links, headings and short
paragraphs were dropped, quotation marks made plain.
"""

USE = """\
## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("starter/model", local_files_only=True)
model = AutoModelForCausalLM.from_pretrained("starter/model", local_files_only=True)
inputs = tokenizer("Once upon a time, there was a little dog.", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs)[0]))
```

There is no chat template. Every training document followed `<|endoftext|>`, which is the beginning,
end and padding token. Half of the tasks had the form `{text}\\n\\n###\\n\\n {label} END`, solved
items one after the other with a blank line between; the others other separators and stops.
"""

LIMITS = """\
## Limits

* It exists so that a fine-tuning tool can be tried in minutes on a laptop, offline. It knows next
  to nothing about the world, invents facts, cannot calculate, and answers only questions that
  fine-tuning taught it. Do not use it for decisions.
* It reads demonstrations for a rule that shows on the surface, not for meaning; nothing is claimed
  about inference between sentences.
* Polarity of feeling was also taught by a hand-written list of words (`starter/words.py`), which
  helps on reviews in general. None of the sets measured here was trained on.
* English only. Old books bring the views of their time, some of them offensive; nothing was
  filtered for that, and no safety training took place.
* Held-out passages come from the same books as the training text, so their figures flatter the
  model compared with text from elsewhere; WikiText-2 is from elsewhere. GSM8K questions occur in
  two of the question sets; both copies are on the same side of the split.
"""


def write_card(out: Path, log: Path) -> None:
    """Write README.md beside the weights.

    Args:
        out: the model folder.
        log: holds `recipe.json`, `run.json`, `measured.json` and the log of each stage.
    """
    recipe = Recipe.model_validate_json((log / "recipe.json").read_bytes())
    run = json.loads((log / "run.json").read_text(encoding="utf-8"))
    measured = json.loads((log / "measured.json").read_text(encoding="utf-8"))
    parts = [
        FRONT_MATTER,
        _head(recipe, run),
        USE,
        _training(recipe, run, log),
        _targets(measured["targets"]),
        _prose(measured["prose"]),
        _in_context(measured["in_context"]),
        _tuning(measured["tuning"]),
        _speed(measured["speed"]),
        _texts(measured["texts"]),
        LIMITS,
        _sources(run),
    ]
    (out / "README.md").write_text("\n".join(parts), encoding="utf-8")


def _head(recipe: Recipe, run: dict[str, Any]) -> str:
    shape = recipe.model
    return f"""\
# Starter: a {run["num_parameters"] / 1e6:.1f} M parameter English base model

A Llama of {shape.num_hidden_layers} layers, width {shape.hidden_size},
{shape.num_attention_heads} heads over {shape.num_key_value_heads} key-value heads, context
{shape.max_position_embeddings:,}, tied embeddings, with a byte-level BPE of
{recipe.tokenizer.num_entries:,} entries of its own, trained from nothing on two processor cores by
`starter/pretrain.py`: prose, and thousands of little tasks, solved examples before the question.
"""


def _training(recipe: Recipe, run: dict[str, Any], log: Path) -> str:
    rows = [_stage_row(stage, log) for stage in recipe.stages]
    seconds = sum(row[1] for row in rows)
    tokens = sum(row[2] for row in rows)
    names = sorted({name for stage in recipe.stages for name in stage.mix})
    mix = _table(
        ["share of the characters", *(stage.name for stage in recipe.stages)],
        [[name, *(f"{stage.mix.get(name, 0):.0%}" for stage in recipe.stages)] for name in names],
    )
    stages = _table(
        ["stage", "row", "tokens", "steps", "rate", "last loss", "minutes"],
        [row[0] for row in rows],
    )
    return f"""\
## Training

{tokens / 1e6:.1f} M tokens in {seconds / 3600:.1f} hours of two processor cores
({run["processor"]}, no GPU), seed {recipe.seed}. The studio's own trainer: full tuning of the
folder that the stage before left, Muon for the hidden matrices and AdamW at
{recipe.muon.adamw_rate_ratio:g} of its rate for embedding and norms, fp32 weights, products in
{recipe.precision}. The first weights are not all random: some attention heads begin as ones that
find where a text like this one stood before and copy what followed it (`starter/first_weights.py`),
since so few tokens do not bring that about. The loss sees all prose and, of the tasks, the answers.
`starter/log` holds recipe and log; the same recipe gives the same bits on the same machine.

{stages}

{mix}
"""


def _stage_row(stage: Stage, log: Path) -> tuple[list[str], float, int]:
    """What the table says of a stage, its seconds and its tokens."""
    lines = (log / f"{stage.name}.jsonl").read_text(encoding="utf-8").splitlines()
    events = [from_json(line).event for line in lines]
    steps = {event.step: event for event in events if isinstance(event, Stepped)}
    (finished,) = (event for event in events if isinstance(event, Finished))
    mean_seconds = sum(step.seconds for step in steps.values()) / len(steps)
    seconds = mean_seconds * finished.step
    num_tokens = finished.step * stage.schedule.batch_size * stage.row_tokens
    cells = [
        stage.name, f"{stage.row_tokens:,}", f"{num_tokens / 1e6:.1f} M",
        f"{finished.step:,}", f"{stage.schedule.learning_rate:g}, {stage.schedule.shape}",
        f"{finished.best_loss:.3f}", f"{seconds / 60:.0f}",
    ]  # fmt: skip
    return cells, seconds, num_tokens


def _targets(targets: Sequence[dict[str, Any]]) -> str:
    rows = [
        ["yes" if target["met"] else "**no**", target["name"], target["detail"]]
        for target in targets
    ]
    return f"""\
## What it should reach, and whether it does

{_table(["met", "target", "figures"], rows)}

What was tried to reach those that it misses (sizes, mixes, starts, rates) is told, with numbers, in
`starter/README.md`. A machine that reads more tokens in two hours can be given more of them.
"""


def _prose(prose: dict[str, Any]) -> str:
    rows = [
        [source, *(_bits(by.get(who)) for who in ("model", "first", "ngram"))]
        for source, by in prose.items()
    ]
    return f"""\
## Prose

Bits per byte, lower is better; the first version had 4.3 M parameters and 7 M tokens. The 5-gram
counts up to 10 M tokens of the same training text. WikiText-2: the first 400 KB of its test part.

{_table(["held-out text", "this model", "first version", "5-gram"], rows)}
"""


def _bits(cell: dict[str, Any] | None) -> str:
    return f"{cell['bits_per_byte']:.3f}" if cell else "-"


def _in_context(tasks: dict[str, Any]) -> str:
    counts = list(dict.fromkeys(count for task in tasks.values() for count in task["counts"]))
    rows = []
    for name, task in sorted(tasks.items(), key=lambda item: (item[1]["kind"], item[0])):
        chance = next(c["chance"] for c in task["counts"].values() if c["chance"] is not None)
        cells = [_mean_and_interval(task["counts"].get(count)) for count in counts]
        control = [_mean_and_interval(cell) for cell in task["control"].values()]
        kind = "made up" if task["kind"] == "family" else "real"
        rows.append([name, kind, f"{100 * chance:.0f}", *cells, *control])
    head = ["task", "kind", "chance", *(f"{count} shown" for count in counts), "8, labels mixed up"]
    return f"""\
## Reading demonstrations

Balanced accuracy in percent behind so many solved examples, in the prompts that the studio makes;
mean of five draws and 95 % interval; **bold** where the interval lies above chance. None of these
tasks was trained on: the made-up families have rules and label words that no training episode had.

{_table(head, rows)}
"""


def _mean_and_interval(cell: dict[str, Any] | None) -> str:
    if not cell or cell["mean"] is None:
        return "does not fit"
    low, high = (f"{100 * bound:.0f}" for bound in cell["interval"])
    text = f"{100 * cell['mean']:.0f} ({low}-{high})"
    return f"**{text}**" if cell["above_chance"] else text


def _tuning(tasks: dict[str, Any]) -> str:
    rows = [
        [name, f"{int(count):,}", *(_points(cell[who]) for who in ("tuned", "classical"))]
        for name, by_count in sorted(tasks.items())
        for count, cell in by_count.items()
    ]
    return f"""\
## Tuned

LoRA (r = 8) with the studio's defaults, beside TF-IDF with logistic regression on the same rows;
balanced accuracy in percent with its 95 % interval, one run each.

{_table(["task", "examples", "tuned", "TF-IDF"], rows)}
"""


def _points(cell: dict[str, Any]) -> str:
    low, high = (f"{100 * bound:.1f}" for bound in cell["balanced_interval"])
    return f"{100 * cell['balanced_accuracy']:.1f} ({low}-{high})"


def _speed(speed: dict[str, Any]) -> str:
    load, step = speed["load"], speed["lora"]
    return f"""\
## Speed

On {load["threads"]} threads of {load["processor"]}: opens in {load["load_seconds"]:.2f} s
({load["first_load_seconds"]:.1f} s where the library first imports its Llama,
{load["process_seconds"]:.1f} s with the whole process), a LoRA step reads
{step["tokens_per_second"]:,.0f} tokens a second, greedy decoding writes
{speed["decode/1"]["tokens_per_second"]:,.0f} a second for one prompt and
{speed["decode/16"]["tokens_per_second"]:,.0f} for sixteen.
"""


def _texts(texts: Iterable[dict[str, Any]]) -> str:
    told = "\n\n".join(f"> **{_quoted(text['opening'])}**{_quoted(text['text'])}" for text in texts)
    return f"""\
## What it writes

Five openings, 200 greedy tokens each, as they came:

{told}
"""


def _quoted(text: str) -> str:
    return text.replace("*", "\\*").replace("\n", "\n> ")


def _sources(run: dict[str, Any]) -> str:
    return f"""\
## Sources

{SOURCES}
African Storybook authors: {", ".join(run["storybook_authors"])}. The text was changed: page
marks and credits were dropped, pages joined.

The tasks also use word lists and rules written for this project (`starter/words.py`,
`starter/families.py`). None of the texts is contained in this folder. The weights are offered under
CC BY 4.0, with the attributions above.
"""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    """Write the card of the model in `starter/model`."""
    parser = argparse.ArgumentParser(description="Write the starter's model card.")
    parser.add_argument("--measured", type=Path, default=Path("build/starter/measured"))
    parser.add_argument("--log", type=Path, default=LOG)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "model")
    options = parser.parse_args()
    if (options.measured / "measured.json").exists():
        shutil.copy(options.measured / "measured.json", options.log / "measured.json")
    write_card(options.out, options.log)


if __name__ == "__main__":
    main()

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from engine.comparing.prompting import Question, answers_to, build_prompts
from engine.plan import TrainPlan
from engine.publishing.publication import PublishedBase, RunRecord
from engine.publishing.publish import FinishedRun, publish
from engine.publishing.snippet import base_reference, usage_code
from engine.runs import load_run
from templates.builtin import TEMPLATES
from templates.example import Example
from templates.template import Template
from tests.engine.publishing.published import LABELS, finished_run, record_in, small_record
from tests.engine.tiny import TEMPLATE

# Runs each card's Python as its own program, in its own folder; one process, one import of torch.
RUNNER = """
import json, os, re, sys
printed = []
for folder in sys.argv[1:]:
    os.chdir(folder)
    card = open("model/README.md", encoding="utf-8").read()
    code = re.search(r"```python\\n(.*?)\\n```", card, re.DOTALL)[1]
    printed.append([])
    exec(compile(code, folder, "exec"), {"print": printed[-1].append})
print(json.dumps(printed))
"""


def our_answers(run: FinishedRun, max_new_tokens: int) -> list[str]:
    """The free answer and the likeliest label, by the engine that measured."""
    tuned = load_run(run.plan, run.checkpoints)
    question = Question(TEMPLATE, LABELS, max_new_tokens)
    example = Example(fields={"text": "Write your text here."})
    prompts = build_prompts(tuned, [example], question)
    free = replace(question, labels=())
    return [answers_to(tuned, prompts, q)[0] for q in (free, question)]


@pytest.mark.slow
def test_the_snippet_in_the_card_runs_and_answers_as_measured(tmp_path: Path) -> None:
    cases = [
        ("lora", "llama", "adapter", False),
        ("prompt_tuning", "qwen3", "adapter", False),
        ("full", "gpt2", "merged", False),
        ("lora", "llama", "merged", True),
    ]
    runs = []
    for method, architecture, form, chat in cases:
        run = finished_run(tmp_path / f"{method}-{chat}", method, architecture, chat=chat)
        publish(run, tmp_path / f"{method}-{chat}" / "model", form=form)
        runs.append(run)
    folders = [run.checkpoints.parents[1] for run in runs]
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, *folders], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    for folder, run, printed in zip(folders, runs, json.loads(done.stdout), strict=True):
        limit = record_in(folder / "model").prompt.max_new_tokens
        assert printed == our_answers(run, limit)


def code_of(record: RunRecord, template: Template, **changes: object) -> str:
    prompt = record.prompt.model_copy(update={"template": template, **changes})
    code = usage_code(record.model_copy(update={"prompt": prompt}))
    compile(code, "snippet", "exec")
    return code


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    return small_record(tmp_path_factory.mktemp("snippet"))


def prompt_by(code: str, row: dict[str, str]) -> str:
    """Run the lines of a snippet that write the prompt."""
    start, end = code.index("row = "), code.index("def encode")
    lines = code[start:end].partition("\n")[2]
    names: dict[str, object] = {"row": row}
    exec(lines, names)  # noqa: S102 - our own output is what is tested
    return str(names["prompt"])


@pytest.mark.parametrize(
    "row",
    [
        {"context": "c {question}", "question": "q"},
        {"context": "", "question": "q"},
        {"context": "", "question": ""},
    ],
)
def test_writes_the_prompt_as_training_did(record: RunRecord, row: dict[str, str]) -> None:
    template = TEMPLATES["question_answering"]
    code = code_of(record, template, labels=())
    assert prompt_by(code, row) == template.fill(row) + template.separator
    assert "likelihood" not in code


def test_words_of_the_person_are_literals(record: RunRecord) -> None:
    wording = '\'"""\n```{class}\\\n{2}\' + exit() #'
    template = Template(name="x", task="classification", wording=wording, metric="accuracy")
    template = template.model_copy(
        update={"separator": "'''", "stop": "\u202e\n", "verbalizer": {"billing": "'); exit()"}}
    )
    code = code_of(record, template, stop="\u202e\n")
    row = {"class": "a", "2": "b"}
    assert prompt_by(code, row) == template.fill(row) + template.separator
    assert "\u202e" not in code, "a bidi override is escaped"


def test_chat_without_a_chat_template(record: RunRecord) -> None:
    code = code_of(record, TEMPLATES["chat"], labels=())
    start, end = code.index("messages = "), code.index("def encode")
    lines = code[start:end].partition("\n")[2]
    messages = [
        {"role": "system", "content": "s"}, {"role": "user", "content": "u"},
        {"role": "assistant", "content": "a"}, {"role": "user", "content": "v"},
    ]  # fmt: skip
    names: dict[str, object] = {"messages": messages}
    exec(lines, names)  # noqa: S102 - our own output is what is tested
    assert names["prompt"] == "s\n\nu\n\n###\n\n a ENDv\n\n###\n\n"


def test_opening_tokens_and_a_hub_base(record: RunRecord) -> None:
    hub = record.base.model_copy(update={"id": "org/base", "revision": "abc"})
    code = code_of(record.model_copy(update={"base": hub}), TEMPLATE, opening_ids=(1,))
    assert "ids = [1] + encode(prompt)" in code
    assert "base = 'org/base'" in code and "(base, revision='abc', dtype=torch.float32)" in code


@pytest.mark.parametrize(
    ("id_", "revision", "reference"),
    [
        ("org/base", "abc", "org/base"),
        ("starter", "", "./starter/model"),
        ("/home/alice/models/base", "", "./base"),
        ("models/base/", "", "./base"),
    ],
)
def test_a_base_is_named_without_a_path_of_this_machine(
    id_: str, revision: str, reference: str
) -> None:
    base = PublishedBase(id=id_, revision=revision, fingerprint="", licence="mit")
    assert base_reference(base) == reference


def test_the_type_of_the_weights(record: RunRecord) -> None:
    plan = TrainPlan.model_validate(record.plan.model_dump())
    choice = plan.base.model_copy(update={"precision": "nf4"})
    held = record.model_copy(update={"plan": plan.model_copy(update={"base": choice})})
    assert "dtype=torch.bfloat16" in usage_code(held)

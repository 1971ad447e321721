import json
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from engine.comparing.prompting import Question, answers_to, build_prompts
from engine.plan import TrainPlan
from engine.publishing.publication import PublishedBase, RunRecord
from engine.publishing.publish import FinishedRun, publish
from engine.publishing.snippet import base_reference, snippets, usage_code
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


def merged(record: RunRecord, **changes: object) -> RunRecord:
    prompt = record.prompt.model_copy(update=changes)
    return record.model_copy(update={"form": "merged", "prompt": prompt})


def vllm_words(record: RunRecord) -> tuple[list[str], str, dict[str, object]]:
    """The words of the command, and address and body of the request, as a shell reads them."""
    serve, _, ask = snippets(record)["vLLM"].code.partition("\n\n")
    words = shlex.split(ask, comments=True)
    return shlex.split(serve), words[1], json.loads(words[-1])


def modelfile(record: RunRecord, folder: Path) -> str:
    """What the shell writes; nothing else of the snippet is run."""
    code = snippets(record)["Ollama"].code
    write = code[: code.index("> Modelfile") + len("> Modelfile")]
    subprocess.run(["bash", "-c", write], cwd=folder, check=True)
    return (folder / "Modelfile").read_text()


def test_each_form_and_method_has_the_ways_it_can_go(record: RunRecord) -> None:
    assert list(snippets(record)) == ["transformers + peft", "vLLM"]
    assert snippets(record)["transformers + peft"] == ("python", usage_code(record))
    assert list(snippets(merged(record))) == ["transformers", "vLLM", "Ollama"]
    by_peft_alone = record.model_copy(update={"adapter_servers": ("transformers + peft",)})
    assert list(snippets(by_peft_alone)) == ["transformers + peft"]


@pytest.mark.parametrize(("rank", "room"), [(4, "16"), (16, "16"), (17, "32"), (300, "320")])
def test_vllm_serves_an_adapter_on_its_base(record: RunRecord, rank: int, room: str) -> None:
    hub = record.base.model_copy(update={"id": "org/base", "revision": "abc"})
    ranked = record.model_copy(update={"base": hub, "adapter_rank": rank})
    serve, address, body = vllm_words(ranked)
    assert serve == [
        "vllm", "serve", "org/base", "--revision", "abc", "--enable-lora", "--max-lora-rank", room,
        "--lora-modules", "tuned=./out",
    ]  # fmt: skip
    assert address == "http://localhost:8000/v1/completions"
    assert body == {
        "model": "tuned", "max_tokens": record.prompt.max_new_tokens, "temperature": 0,
        "stop": [TEMPLATE.stop], "add_special_tokens": False,
        "prompt": TEMPLATE.fill({"text": "Write your text here."}) + TEMPLATE.separator,
    }  # fmt: skip


def test_vllm_serves_a_merged_model_by_itself(record: RunRecord) -> None:
    serve, _, body = vllm_words(merged(record, opening_ids=(1,)))
    assert serve == ["vllm", "serve", "./out"] and body["model"] == "./out"
    assert body["add_special_tokens"] is True
    _, address, body = vllm_words(merged(record, layout="chat template", stop=""))
    assert address.endswith("/v1/chat/completions") and "stop" not in body
    text = TEMPLATE.fill({"text": "Write your text here."})
    assert body["messages"] == [{"role": "user", "content": text}], "vLLM writes the chat template"


def test_ollama_gets_template_and_stop_sequence(record: RunRecord, tmp_path: Path) -> None:
    limit = record.prompt.max_new_tokens
    assert modelfile(merged(record), tmp_path) == (
        'FROM ./out\nTEMPLATE """{{ .Prompt }}{{ "\\n\\n###\\n\\n" }}"""\n'
        f'PARAMETER stop """ END"""\nPARAMETER num_predict {limit}\nPARAMETER temperature 0\n'
    )
    text = TEMPLATE.fill({"text": "{text}"})
    chat = merged(
        record, layout="chat template", prompt=f'<|"user"|>\n{text}\\<|end|>\n', stop="\n"
    )
    assert modelfile(chat, tmp_path).startswith(
        'FROM ./out\nTEMPLATE """{{ "<|\\"user\\"|>\\n" }}{{ .Prompt }}{{ "\\\\<|end|>\\n" }}"""\n'
        'PARAMETER stop """\n"""\n'
    )
    trimmed = merged(record, layout="chat template", prompt="something else")
    assert "TEMPLATE" not in modelfile(trimmed, tmp_path)


NASTY = '\'"; touch bad #`touch bad`$(touch bad)\n{{ .System }} """ \u202e\x1b {text}'


def test_words_of_the_person_are_words_of_the_shell(record: RunRecord, tmp_path: Path) -> None:
    template = TEMPLATE.model_copy(update={"wording": NASTY, "separator": NASTY, "stop": NASTY})
    prompt = template.fill({"text": "{text}"}) + NASTY
    nasty = merged(record, template=template, prompt=prompt, stop=NASTY)
    _, _, body = vllm_words(nasty)
    assert body["stop"] == [NASTY]
    assert body["prompt"] == template.fill({"text": "Write your text here."}) + NASTY
    written = modelfile(nasty, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["Modelfile"]
    assert "PARAMETER stop" not in written, "a Modelfile has no escapes for it"
    [literal] = re.findall(r'\{\{ "(.*)" \}\}"""', written)
    spelt = re.sub(r"\\U0000(....)", r"\\u\1", literal)  # as JSON has it
    assert json.loads(f'"{spelt}"') == NASTY
    for snippet in snippets(nasty).values():
        assert "\u202e" not in snippet.code and "\x1b" not in snippet.code
    # The last command hands over exactly the wording.
    ask = snippets(nasty)["Ollama"].code.partition("ollama run tuned ")[2]
    done = subprocess.run(["bash", "-c", f"printf %s {ask}"], cwd=tmp_path, capture_output=True)
    assert done.stdout.decode() == template.fill({"text": "Write your text here."})
    assert [path.name for path in tmp_path.iterdir()] == ["Modelfile"]

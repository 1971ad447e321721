from pathlib import Path

from engine.language_model import LanguageModel
from engine.publishing.prompt_format import prompt_format
from engine.publishing.publication import PromptFormat
from templates.builtin import TEMPLATES
from templates.dataset import Dataset
from templates.example import Example, Turn
from templates.template import Template
from tests.engine.publishing.published import small_dataset
from tests.engine.tiny import TEMPLATE, TICKETS, tiny_model


def described(
    folder: Path, model: LanguageModel, template: Template, train: list[Example]
) -> PromptFormat:
    dataset: Dataset = small_dataset(folder / "data", template)
    return prompt_format(model, dataset, train)


def test_the_raw_layout(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "base", "llama")
    found = described(tmp_path, model, TEMPLATE, TICKETS)
    assert found.layout == "raw" and found.template == TEMPLATE
    assert found.prompt == "{text}\n\n###\n\n"
    assert (found.answer_opening, found.answer_closing, found.stop) == (" ", " END", " END")
    assert found.opening_ids == ()
    longest = max(len(model.encode(f" {label} END")) for label in found.labels)
    assert found.max_new_tokens == longest + 4


def test_a_chat_template(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "base", "llama", chat=True)
    found = described(tmp_path, model, TEMPLATE, TICKETS)
    assert found.layout == "chat template"
    assert found.prompt == "<|user|>{text}<|end|><|assistant|>"
    assert (found.answer_opening, found.answer_closing, found.stop) == ("", "<|end|>", "<|end|>")


def test_answers_that_are_no_labels(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "base", "llama")
    facts = Example(fields={"instruction": "", "input": "a fact"}, references=("an answer",))
    found = described(tmp_path, model, TEMPLATES["generation"], [facts])
    assert found.prompt == "{instruction}\n\n{input}\n\n###\n\n"
    assert found.answer_closing == " END"
    talk = Example(turns=(Turn("user", "my secret"), Turn("assistant", "i see")))
    found = described(tmp_path, model, TEMPLATES["chat"], [talk])
    assert found.prompt == "{message}\n\n###\n\n" and "secret" not in found.model_dump_json()

"""Code that asks a published model exactly as it was asked when it was measured. Free of torch.

Every text of the person or of the data enters as a literal, so that it is never read as code.
"""

import json
import pprint
import re
import shlex
from collections.abc import Mapping
from pathlib import PurePath
from typing import NamedTuple

from engine.publishing.publication import PromptFormat, PublishedBase, RunRecord
from templates.render import DEMONSTRATION_BREAK
from templates.template import Template

_PLACEHOLDER = "Write your text here."
_SLOT = re.compile(r"\{(\w+)\}")
# vLLM keeps room for adapters of a rank that it knows, 16 if it is not told.
_VLLM_RANKS = (16, 32, 64, 128, 256, 320, 512)
_SERVED_NAME = "tuned"


class Snippet(NamedTuple):
    """Code to copy.

    Attributes:
        language: for highlighting, such as "python".
        code: the text.
    """

    language: str
    code: str


def snippets(record: RunRecord) -> Mapping[str, Snippet]:
    """Write how to use a published model, in each way that its form and method allow.

    Args:
        record: what was published.

    Returns:
        By title, the best known first. Paths are those next to where the published folder lies.
    """
    if record.form == "merged":
        return {
            "transformers": Snippet("python", usage_code(record)),
            "vLLM": Snippet("bash", _vllm(record)),
            "Ollama": Snippet("bash", _ollama(record)),
        }
    written = {"transformers + peft": Snippet("python", usage_code(record))}
    if "vLLM" in record.adapter_servers:
        written["vLLM"] = Snippet("bash", _vllm(record))
    return written


def usage_code(record: RunRecord) -> str:
    """Write a script that loads the model and answers one prompt.

    Args:
        record: what was published.

    Returns:
        Python, to be run in the folder that holds the published one.
    """
    parts = [
        _loading(record),
        _prompt(record.prompt),
        _encoding(record.prompt),
        _answering(record.prompt),
    ]
    if record.prompt.labels:
        parts.append(_choosing(record.prompt))
    return "\n\n".join(parts) + "\n"


def base_reference(base: PublishedBase) -> str:
    """Say where the snippet looks for the base, without telling a path of this machine.

    Args:
        base: the base.

    Returns:
        A Hub id, or a folder next to where the script runs.
    """
    if base.is_on_hub:
        return base.id
    if base.id == "starter":
        return "./starter/model"
    return f"./{PurePath(base.id).name}"


def _loading(record: RunRecord) -> str:
    dtype = "float32" if record.plan.base.precision == "fp32" else "bfloat16"
    lines = ["import torch"]
    if record.form == "adapter":
        lines.append("from peft import PeftModel")
    lines += [
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f"folder = {f'./{record.folder}'!r}  # this folder, or its id on the Hub",
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
    ]
    if record.form == "merged":
        load = f"AutoModelForCausalLM.from_pretrained(folder, dtype=torch.{dtype})"
        return "\n".join([*lines, f"model = {load}.eval()"])
    reference = repr(base_reference(record.base))
    revision = ""
    if record.base.is_on_hub:
        lines.append(f"base = {reference}")
        revision = f"revision={record.base.revision!r}, "
    else:
        lines.append(f"base = {reference}  # the folder of the base model")
    return "\n".join(
        [
            *lines,
            f"model = AutoModelForCausalLM.from_pretrained(base, {revision}dtype=torch.{dtype})",
            "model = PeftModel.from_pretrained(model, folder).eval()",
        ]
    )


def _prompt(prompt: PromptFormat) -> str:
    template = prompt.template
    if template.task == "chat":
        message = {"role": "user", "content": _PLACEHOLDER}
        return f"messages = [{message!r}]\n" + _write_messages(prompt)
    row = dict.fromkeys(template.slots, _PLACEHOLDER)
    lines = [f"row = {_literal(row)}", *_write_wording(template)]
    if prompt.layout == "raw":
        return "\n".join([*lines, f"prompt += {template.separator!r}"])
    lines.append('messages = [{"role": "user", "content": prompt}]')
    return "\n".join([*lines, _write_messages(prompt)])


def _write_wording(template: Template) -> list[str]:
    """Lines that do what `Template.fill` does."""
    paragraphs = template.wording.split("\n\n")
    if len(paragraphs) == 1:
        return [f"prompt = {_filled(paragraphs[0])}"]
    lines = ["paragraphs = []  # one whose slots are all empty is left out"]
    for paragraph in paragraphs:
        names = dict.fromkeys(_SLOT.findall(paragraph))
        if names:
            lines.append(f"if {' or '.join(f'row[{name!r}]' for name in names)}:")
        indent = "    " if names else ""
        lines.append(f"{indent}paragraphs.append({_filled(paragraph)})")
    return [*lines, f"prompt = {DEMONSTRATION_BREAK!r}.join(paragraphs)"]


def _filled(paragraph: str) -> str:
    """An expression: literals and slots in turn."""
    pieces = _SLOT.split(paragraph)  # every second piece is a slot name
    terms = [
        f"row[{piece!r}]" if number % 2 else repr(piece)
        for number, piece in enumerate(pieces)
        if piece
    ]
    return " + ".join(terms) or "''"


def _write_messages(prompt: PromptFormat) -> str:
    if prompt.layout == "chat template":
        return (
            "prompt = tokenizer.apply_chat_template(\n"
            "    messages, tokenize=False, add_generation_prompt=True\n"
            ")"
        )
    template = prompt.template
    return "\n".join(
        [
            "prompt = ''",
            "for message in messages:",
            "    if message['role'] == 'assistant':",
            f"        prompt += {prompt.answer_opening!r} + message['content'] + {template.stop!r}",
            "    elif message['role'] == 'user':",
            f"        prompt += message['content'] + {template.separator!r}",
            "    else:",
            f"        prompt += message['content'] + {DEMONSTRATION_BREAK!r}",
        ]
    )


def _encoding(prompt: PromptFormat) -> str:
    # In the raw layout text that spells a special token stays text; a chat template needs them.
    split = prompt.layout == "raw"
    start = f"{list(prompt.opening_ids)} + " if prompt.opening_ids else ""
    return (
        "\ndef encode(text):\n"
        "    return tokenizer(\n"
        f"        text, add_special_tokens=False, split_special_tokens={split}\n"
        "    )['input_ids']\n"
        "\n\n"
        f"ids = {start}encode(prompt)"
    )


def _answering(prompt: PromptFormat) -> str:
    cut = f".partition({prompt.stop!r})[0]" if prompt.stop else ""
    return (
        "inputs = torch.tensor([ids])\n"
        "output = model.generate(\n"
        "    input_ids=inputs,\n"
        "    attention_mask=torch.ones_like(inputs),\n"
        f"    max_new_tokens={prompt.max_new_tokens},\n"
        "    do_sample=False,\n"
        "    pad_token_id=tokenizer.eos_token_id,\n"
        ")\n"
        "text = tokenizer.decode(output[0, len(ids) :], skip_special_tokens=True)\n"
        f"print(text{cut}.strip())"
    )


def _choosing(prompt: PromptFormat) -> str:
    words = {label: prompt.template.words_for(label) for label in prompt.labels}
    return (
        "# As it was measured: the label whose whole text the model finds likeliest.\n"
        f"words = {_literal(words)}\n"
        "\n\n"
        "@torch.no_grad()\n"
        "def likelihood(label):\n"
        f"    answer = encode({prompt.answer_opening!r} + words[label]"
        f" + {prompt.answer_closing!r})\n"
        "    logits = model(torch.tensor([ids + answer])).logits[0, -len(answer) - 1 : -1]\n"
        "    return logits.float().log_softmax(-1)[range(len(answer)), answer].sum().item()\n"
        "\n\n"
        "print(max(words, key=likelihood))"
    )


def _literal(value: object) -> str:
    return pprint.pformat(value, width=88, sort_dicts=False)


def _vllm(record: RunRecord) -> str:
    model = f"./{record.folder}"
    serve = ["vllm", "serve", model]
    if record.form == "adapter":
        serve = ["vllm", "serve", base_reference(record.base)]
        if record.base.is_on_hub:
            serve += ["--revision", record.base.revision]
        rank = next(known for known in _VLLM_RANKS if known >= record.adapter_rank)
        serve += ["--enable-lora", "--max-lora-rank", str(rank)]
        serve += ["--lora-modules", f"{_SERVED_NAME}={model}"]
        model = _SERVED_NAME
    prompt = record.prompt
    asked = {"model": model, "max_tokens": prompt.max_new_tokens, "temperature": 0}
    if prompt.stop:
        asked["stop"] = [prompt.stop]
    if prompt.layout == "raw":
        place, asked["prompt"] = "completions", _example(prompt) + prompt.template.separator
        asked["add_special_tokens"] = bool(prompt.opening_ids)
    else:
        place = "chat/completions"
        asked["messages"] = [{"role": "user", "content": _example(prompt)}]
    lines = [
        " ".join(_in_shell(word) for word in serve),
        "",
        "# Then, in another terminal:",
        f"curl http://localhost:8000/v1/{place} \\",
        "  -H 'Content-Type: application/json' \\",
        f"  -d {_in_shell(json.dumps(asked))}",
    ]
    return "\n".join(lines) + "\n"


def _ollama(record: RunRecord) -> str:
    prompt = record.prompt
    modelfile = [f"FROM ./{record.folder}"]
    before, asked, after = prompt.prompt.partition(_example(prompt, slots=True))
    if asked:  # else the chat template changes what it is given; Ollama then guesses a template
        template = f"{_in_go(before)}{{{{ .Prompt }}}}{_in_go(after)}"
        modelfile.append(f'TEMPLATE """{template}"""')
    if _is_visible(prompt.stop) and '"""' not in prompt.stop:  # no escapes exist there
        modelfile.append(f'PARAMETER stop """{prompt.stop}"""')
    modelfile += [f"PARAMETER num_predict {prompt.max_new_tokens}", "PARAMETER temperature 0"]
    lines = [
        "printf '%s\\n' \\",
        *(f"  {_in_shell(line)} \\" for line in modelfile),
        "  > Modelfile",
        f"ollama create {_SERVED_NAME} -f Modelfile",
        f"ollama run {_SERVED_NAME} {_in_shell(_example(prompt))}",
    ]
    return "\n".join(lines) + "\n"


def _example(prompt: PromptFormat, *, slots: bool = False) -> str:
    """What a person asks, worded, with a placeholder or with the slots in braces."""
    template = prompt.template
    if template.task == "chat":
        return "{message}" if slots else _PLACEHOLDER
    return template.fill(
        {name: f"{{{name}}}" if slots else _PLACEHOLDER for name in template.slots}
    )


def _in_go(text: str) -> str:
    """Text as an action of Ollama's template language that writes it."""
    special = {"\n": r"\n", "\\": r"\\", '"': r"\""}
    letters = (
        special.get(letter) or (letter if letter.isprintable() else f"\\U{ord(letter):08x}")
        for letter in text
    )
    return f'{{{{ "{"".join(letters)}" }}}}' if text else ""


def _in_shell(text: str) -> str:
    """Text as one word of bash or zsh, without a letter that cannot be seen."""
    if _is_visible(text):
        return shlex.quote(text)
    letters = (
        letter if letter.isprintable() and letter not in "'\\" else f"\\U{ord(letter):08x}"
        for letter in text
    )
    return "$'" + "".join(letters) + "'"


def _is_visible(text: str) -> bool:
    return all(letter.isprintable() or letter == "\n" for letter in text)

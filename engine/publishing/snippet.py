"""Python that asks a published model exactly as it was asked when it was measured. Free of torch.

Every text of the person or of the data enters as a literal, so that it is never read as code.
"""

import pprint
import re
from pathlib import PurePath

from engine.publishing.publication import PromptFormat, PublishedBase, RunRecord
from templates.render import DEMONSTRATION_BREAK
from templates.template import Template

_PLACEHOLDER = "Write your text here."
_SLOT = re.compile(r"\{(\w+)\}")


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

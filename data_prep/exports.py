"""Examples -> files that other tools read: prompt/completion JSONL and messages JSONL."""

from collections.abc import Iterable
from pathlib import Path

from templates.example import Example
from templates.files import canonical_json, write_atomically
from templates.render import conversation, render
from templates.template import Template


def export_prompt_completion(examples: Iterable[Example], template: Template, path: Path) -> int:
    """Write `{"prompt": …, "completion": …}` lines in the raw layout.

    The prompt ends in the separator, the completion in the stop sequence. A conversation with
    several answers is one line: all but the last answer stand in the prompt.

    Args:
        examples: one split.
        template: gives wording, separator and stop sequence.
        path: the file.

    Returns:
        The number of lines.
    """
    lines = []
    for example in examples:
        text = render(example, template)
        lines.append(canonical_json({"prompt": text.prompt, "completion": text.completion}))
    return _write(lines, path)


def export_messages(examples: Iterable[Example], template: Template, path: Path) -> int:
    """Write `{"messages": [{"role": …, "content": …}]}` lines.

    Args:
        examples: one split.
        template: gives wording and label words; separator and stop sequence are left out.
        path: the file.

    Returns:
        The number of lines.
    """
    lines = []
    for example in examples:
        turns = conversation(example, template)
        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
        lines.append(canonical_json({"messages": messages}))
    return _write(lines, path)


def _write(lines: list[str], path: Path) -> int:
    write_atomically(path, "".join(line + "\n" for line in lines))
    return len(lines)

"""Example + Template -> text, in pieces that say which of them the loss sees.

Two layouts. *Raw*: wording, separator, completion, stop sequence. *Chat*: a base that brings a
chat template is prompted through it, in training and in every arm of a comparison.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from templates.errors import DataError, ModelError
from templates.example import Example, Turn
from templates.template import Template

COMPLETION_PREFIX = " "
DEMONSTRATION_BREAK = "\n\n"
_PROBE = "answer"
_ZERO_WIDTH_SPACE = "\u200b"


class ChatTokenizer(Protocol):
    """The part of a Hugging Face tokenizer that rendering needs."""

    chat_template: Any

    def apply_chat_template(
        self, conversation: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool
    ) -> Any:
        """Write a conversation the way the base model was taught to read it."""


@dataclass(frozen=True)
class Segment:
    """A piece of text; the loss sees it only where `supervised`."""

    text: str
    supervised: bool


@dataclass(frozen=True)
class Rendered:
    """What the model reads.

    Attributes:
        context: task description and demonstrations, equal for every item of an arm; may be "".
        segments: the item itself, in reading order; the last one is the expected answer.
        stop: the text at which decoding ends; it closes the last segment.
    """

    context: str
    segments: tuple[Segment, ...]
    stop: str

    @property
    def prompt(self) -> str:
        """All text after the context and before the final answer."""
        return "".join(segment.text for segment in self.segments[:-1])

    @property
    def completion(self) -> str:
        """The final answer with its stop sequence."""
        return self.segments[-1].text


def answer_text(example: Example, template: Template) -> str:
    """Find the text the model should answer.

    Args:
        example: an item; without a label or reference (a new, unlabelled row) the answer is "".
        template: gives the label words.

    Returns:
        The label word, the first reference or the last assistant turn.
    """
    if template.task == "chat":
        return example.turns[-1].content if example.turns[-1:] else ""
    if template.has_labels:
        return template.words_for(example.label) if example.label is not None else ""
    return example.references[0] if example.references else ""


def completion_text(answer: str, template: Template) -> str:
    """Write an answer in the raw layout.

    Args:
        answer: a label word or a reference.
        template: gives the stop sequence.

    Returns:
        The completion as training shows it.
    """
    return f"{COMPLETION_PREFIX}{answer}{template.stop}"


def describe_task(template: Template, labels: Sequence[str]) -> str:
    """Write the task description for an untuned model.

    Args:
        template: gives the instruction.
        labels: all labels, in the order to show.

    Returns:
        The instruction with the label words filled in.
    """
    words = ", ".join(template.words_for(label) for label in labels)
    return template.instruction.replace("{labels}", words)


def render(
    example: Example,
    template: Template,
    *,
    tokenizer: ChatTokenizer | None = None,
    demonstrations: Sequence[Example] = (),
    instruction: str = "",
) -> Rendered:
    """Render one item for training or for an arm of a comparison.

    Args:
        example: the item.
        template: its wording.
        tokenizer: used only for its chat template; None renders raw.
        demonstrations: solved items shown first.
        instruction: task description shown before everything else.

    Returns:
        Context, segments and stop sequence.
    """
    if tokenizer is not None and tokenizer.chat_template:
        return _render_chat(example, template, tokenizer, demonstrations, instruction)
    if template.task == "chat":
        return _render_raw_chat(example, template, demonstrations, instruction)
    parts = [instruction] if instruction else []
    for shot in demonstrations:
        completion = completion_text(answer_text(shot, template), template)
        parts.append(template.fill(shot.fields) + template.separator + completion)
    context = "".join(part + DEMONSTRATION_BREAK for part in parts)
    prompt = template.fill(example.fields) + template.separator
    completion = completion_text(answer_text(example, template), template)
    return Rendered(context, (Segment(prompt, False), Segment(completion, True)), template.stop)


def conversation(example: Example, template: Template) -> list[Turn]:
    """View any example as a conversation.

    Args:
        example: an item.
        template: its wording.

    Returns:
        Its turns, or a user turn with the prompt and an assistant turn with the answer.
    """
    if template.task == "chat":
        return list(example.turns)
    answer = Turn("assistant", answer_text(example, template))
    return [Turn("user", template.fill(example.fields)), answer]


def _render_raw_chat(
    example: Example, template: Template, demonstrations: Sequence[Example], instruction: str
) -> Rendered:
    """Chat without a chat template: each user turn ends in the separator."""

    def pieces(item: Example) -> list[Segment]:
        out = []
        for turn in item.turns:
            if turn.role == "assistant":
                out.append(Segment(completion_text(turn.content, template), True))
            else:
                end = template.separator if turn.role == "user" else DEMONSTRATION_BREAK
                start = DEMONSTRATION_BREAK if out and out[-1].supervised else ""
                out.append(Segment(start + turn.content + end, False))
        return out

    shots = ["".join(piece.text for piece in pieces(shot)) for shot in demonstrations]
    parts = ([instruction] if instruction else []) + shots
    context = "".join(part + DEMONSTRATION_BREAK for part in parts)
    return Rendered(context, _merged(pieces(example)), template.stop)


def _render_chat(
    example: Example,
    template: Template,
    tokenizer: ChatTokenizer,
    demonstrations: Sequence[Example],
    instruction: str,
) -> Rendered:
    """Through the base's own chat template, cut where its prefixes are stable."""

    def write(turns: Sequence[Turn], ask: bool) -> str:
        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
        return _apply(tokenizer, messages, ask)

    opening = [Turn("system", instruction)] if instruction else []
    for shot in demonstrations:
        opening += conversation(shot, template)
    turns = conversation(example, template)
    if turns[0].role == "system" and opening and opening[0].role == "system":
        turns[0] = Turn("system", f"{opening.pop(0).content}\n\n{turns[0].content}")
        opening.insert(0, turns.pop(0))
    everything = _without_control_tokens(opening + turns, tokenizer)
    whole = write(everything, ask=False)
    context = ""
    if opening:
        with suppress(ModelError):  # some templates refuse an opening without a user turn
            context = write(opening, ask=False)
    if not whole.startswith(context):
        context = ""
    segments: list[Segment] = []
    done = len(context)
    for position in range(len(opening), len(everything)):
        if everything[position].role != "assistant":
            continue
        before = write(everything[:position], ask=True)
        after = write(everything[: position + 1], ask=False)
        last = position == len(everything) - 1
        if not after.startswith(before) or not (last or whole.startswith(after)):
            # Some templates rewrite earlier turns; then only the last answer can be learned.
            continue
        segments += [Segment(before[done:], False), Segment(after[len(before) :], True)]
        done = len(after)
    if not segments:
        raise ModelError(
            "The chat template does not show the answer after its own generation prompt",
            fix="Choose another base, or one without a chat template",
        )
    probe = write([*everything[:-1], Turn("assistant", _PROBE)], ask=False)
    return Rendered(context, _merged(segments), probe.rpartition(_PROBE)[2].strip())


def _without_control_tokens(turns: Sequence[Turn], tokenizer: ChatTokenizer) -> list[Turn]:
    """Keep data from opening or closing turns: a token's name in a text is broken up."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    safe = []
    for turn in turns:
        content = turn.content
        for name in map(str, added.values()):
            if len(name) > 1:
                content = content.replace(name, f"{name[0]}{_ZERO_WIDTH_SPACE}{name[1:]}")
        safe.append(Turn(turn.role, content))
    return safe


def _apply(tokenizer: ChatTokenizer, messages: list[dict[str, str]], ask: bool) -> str:
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask)
    except Exception as error:  # a template is foreign code in a sandbox: anything may come out
        if messages and messages[0]["role"] == "system":
            rest = messages[1:]
            if rest:
                first = f"{messages[0]['content']}\n\n{rest[0]['content']}"
                return _apply(tokenizer, [{**rest[0], "content": first}, *rest[1:]], ask)
        raise ModelError(
            f"The base's chat template refuses this conversation: {error}",
            fix="Let user and assistant turns alternate, or choose another base",
        ) from None
    return str(text)


def _merged(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """Join neighbours of the same kind, and end in an answer."""
    out: list[Segment] = []
    for segment in segments:
        if out and out[-1].supervised == segment.supervised:
            out[-1] = Segment(out[-1].text + segment.text, segment.supervised)
        else:
            out.append(segment)
    if not out or not out[-1].supervised:
        raise DataError(
            "A conversation has no assistant turn at its end",
            fix="Drop the row, or let the conversation end with an assistant turn",
        )
    return tuple(out)


def verbalizer_clashes(words: Mapping[str, str]) -> list[tuple[str, str]]:
    """Find labels that would be written the same.

    Args:
        words: label word by label.

    Returns:
        Pairs of labels with equal words.
    """
    seen: dict[str, str] = {}
    clashes = []
    for label, word in words.items():
        if word in seen:
            clashes.append((seen[word], label))
        seen.setdefault(word, label)
    return clashes

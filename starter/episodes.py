"""Episodes: several solved items of one little task, as a few-shot prompt of the studio shows them.

Layout, wording, separator, stop sequence, task description and label names are drawn anew for every
episode. The text is that of `templates.render`, with all answers marked as what the loss sees.
"""

import random
from collections.abc import Sequence

from starter.families import HELD_OUT_LABELS, Family, Task, invented_word
from templates.builtin import TEMPLATES
from templates.example import Example
from templates.render import DEMONSTRATION_BREAK, Segment, describe_task, render
from templates.template import Template

_WORDINGS = ("{text}",) * 4 + (
    "Text: {text}", "Input: {text}", "Sentence: {text}", "Q: {text}", '"{text}"', "- {text}",
    "Review: {text}", "Message: {text}", "Question: {text}",
)  # fmt: skip
_SEPARATORS = (
    "\nLabel:", "\nAnswer:", "\nOutput:", "\nCategory:", "\nClass:", "\nA:", "\nType:", " ->",
    " =>", " =", "\n=>", "\n\nAnswer:", "\n---\n", " :", "\nIt is:",
)  # fmt: skip
_STOPS = ("\n", "\n\n", ".", " END", " STOP", ";", "\n###")
_BREAKS = (DEMONSTRATION_BREAK, DEMONSTRATION_BREAK, "\n", "\n", " ", "; ", " | ")
_INSTRUCTIONS = (
    "Classify the text. Labels: {labels}.",
    "Choose the label that fits: {labels}.",
    "Which label fits? Options: {labels}.",
    "Give each text one of these labels: {labels}.",
    "Possible answers: {labels}.",
    "Say which label fits the text. The labels are {labels}.",
)
_FREE_INSTRUCTIONS = (
    "Write the answer that belongs to the text.",
    "Find the rule and go on.",
    "Do the same with each line.",
    "Give the answer.",
)
_LETTERS, _DIGITS = tuple("ABCDEFGH"), tuple("12345678")
_PRODUCT_LAYOUT_RATIO = 0.7  # share of the episodes in the studio's own default layout
_TRUE_NAMES_RATIO = 0.15


class EpisodeWriter:
    """Writes episodes of many families, one after the other, from one source of chance."""

    def __init__(
        self,
        families: dict[str, tuple[float, Family]],
        label_words: Sequence[str],
        generator: random.Random,
    ) -> None:
        """Prepare to write.

        Args:
            families: weight and family by name.
            label_words: words that can stand for a class.
            generator: all that is drawn, is drawn from it.
        """
        self._families = [family for _, family in families.values()]
        self._weights = [weight for weight, _ in families.values()]
        self._label_words = [word for word in label_words if word not in HELD_OUT_LABELS]
        self._generator = generator

    def write(self, num_chars: int) -> tuple[Segment, ...]:
        """Write one episode.

        Args:
            num_chars: about how long it may get; it has two items at least.

        Returns:
            Its text in pieces; the answers are those that the loss sees.
        """
        generator = self._generator
        (family,) = generator.choices(self._families, self._weights)
        task = family(generator)
        labels = self._label_names(task)
        template, pause = self._layout()
        segments = [Segment(self._instruction(task, template, labels), False)]
        num_items = generator.choice((3, 5, 9, 17, 40))
        written = len(segments[0].text)
        for number in range(num_items):
            if number > 1 and written > num_chars:
                break
            text, answer = self._item(task, labels)
            item = Example(fields={"text": text}, references=(answer,))
            rendered = render(item, template)
            segments += [
                Segment((pause if number else "") + rendered.prompt, False),
                Segment(rendered.completion, True),
            ]
            written += len(segments[-1].text) + len(segments[-2].text)
        return tuple(segment for segment in segments if segment.text)

    def _item(self, task: Task, labels: Sequence[str]) -> tuple[str, str]:
        generator = self._generator
        if task.draw is not None:
            return task.draw(generator)
        which = generator.randrange(len(task.classes))
        return task.classes[which](generator), labels[which]

    def _label_names(self, task: Task) -> list[str]:
        generator, count = self._generator, len(task.classes)
        kind = generator.random()
        if kind < _TRUE_NAMES_RATIO:
            return list(task.names)
        if kind < 0.65 and len(self._label_words) >= count:
            return generator.sample(self._label_words, count)
        if kind < 0.8:
            names: dict[str, None] = {}
            while len(names) < count:
                names[invented_word(generator)] = None
            return list(names)
        if kind < 0.9 or count > len(_DIGITS):
            return [f"class {letter}" for letter in generator.sample(_LETTERS, count)]
        return generator.sample(_LETTERS if kind < 0.95 else _DIGITS, count)

    def _layout(self) -> tuple[Template, str]:
        """The template, and what stands between two items."""
        generator = self._generator
        plain = TEMPLATES["generation"].model_copy(
            update={"wording": "{text}", "instruction": "", "optional_slots": ()}
        )
        if generator.random() < _PRODUCT_LAYOUT_RATIO:
            return plain, DEMONSTRATION_BREAK
        pause = generator.choice(_BREAKS)
        drawn = plain.model_copy(
            update={
                "wording": generator.choice(_WORDINGS),
                "separator": generator.choice(_SEPARATORS),
                "stop": generator.choice(_STOPS),
            }
        )
        return drawn, pause

    def _instruction(self, task: Task, template: Template, labels: Sequence[str]) -> str:
        generator = self._generator
        if generator.random() < 0.4:
            return ""
        if not task.classes:
            return generator.choice(_FREE_INSTRUCTIONS) + DEMONSTRATION_BREAK
        wording = generator.choice((TEMPLATES["classification"].instruction, *_INSTRUCTIONS))
        shown = generator.sample(list(labels), len(labels))
        described = template.model_copy(update={"instruction": wording})
        return describe_task(described, shown) + DEMONSTRATION_BREAK

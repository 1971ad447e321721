"""Copies of training rows with some words deleted and some pairs of words swapped.

Easy data augmentation: Wei and Zou 2019, https://arxiv.org/abs/1901.11196.
"""

import random
import re
from collections.abc import Sequence, Set
from dataclasses import replace

from pydantic import Field

from data_prep.ledger import Ledger
from data_prep.step_spec import AugmenterSpec, Outcome
from templates.example import Example
from templates.files import sha256_of_bytes
from templates.values import Value

_TRIES = 8


class Options(Value):
    """How many copies, and how noisy."""

    copies: int = Field(
        default=1, ge=1, le=8, title="Copies", description="New rows made from each training row."
    )
    deletion_ratio: float = Field(
        default=0.1,
        ge=0.0,
        le=0.5,
        title="Deleted words (share)",
        description="The chance of each word to be left out.",
    )
    num_swaps: int = Field(
        default=1,
        ge=0,
        le=10,
        title="Swapped pairs of words",
        description="How many times two words of a text change places.",
    )


def augment(examples: Sequence[Example], options: Options, seed: int) -> Outcome:
    """Append noisy copies; the answer of a copy is the answer of its original.

    Args:
        examples: the training split.
        options: how many copies, and how noisy.
        seed: with the example itself it decides the noise, so the order of rows does not matter.

    Returns:
        The examples followed by the copies, and the report.
    """
    ledger = Ledger(SPEC.name)
    known = {tuple(example.fields.values()) for example in examples}
    copies = []
    for example in examples:
        generator = random.Random(  # noqa: S311 - noise, not a secret
            int(sha256_of_bytes(f"{seed}\n{example.to_json()}".encode())[:16], 16)
        )
        own: set[tuple[str, ...]] = set()
        for _ in range(options.copies):
            fresh = _noisy_copy(example, options, generator, known, own)
            if fresh is None:
                ledger.counts["too short to vary"] += 1
                continue
            own.add(tuple(fresh.fields.values()))
            ledger.counts["added"] += 1
            ledger.added(example, fresh)
            copies.append(fresh)
    return [*examples, *copies], ledger.report(len(examples), len(examples) + len(copies))


def _noisy_copy(
    example: Example,
    options: Options,
    generator: random.Random,
    known: Set[tuple[str, ...]],
    own: Set[tuple[str, ...]],
) -> Example | None:
    for _ in range(_TRIES):
        fields = {name: _noisy(text, options, generator) for name, text in example.fields.items()}
        texts = tuple(fields.values())
        if texts not in known and texts not in own:
            return replace(example, fields=fields, origin=SPEC.name)
    return None


def _noisy(text: str, options: Options, generator: random.Random) -> str:
    """Delete and swap words; the spacing between them stays where it can."""
    pieces = re.split(r"(\s+)", text.strip())
    words, spaces = pieces[::2], pieces[1::2]
    if len(words) < 2:
        return text
    for _ in range(options.num_swaps):
        first, second = generator.sample(range(len(words)), 2)
        words[first], words[second] = words[second], words[first]
    kept = [at for at in range(len(words)) if generator.random() >= options.deletion_ratio]
    kept = kept or [generator.randrange(len(words))]
    out = words[kept[0]]
    for at in kept[1:]:
        out += spaces[at - 1] + words[at]
    return out


SPEC = AugmenterSpec(
    name="word_noise",
    title="Word noise",
    summary="Adds copies of training rows with words deleted and swapped.",
    options=Options,
    augment=augment,
)

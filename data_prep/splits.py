"""Examples -> train, validation, test: stratified, seeded, and nothing leaks across.

Examples whose input says the same (case, punctuation and spacing aside) form a group, and a group
is never divided. Groups are ordered by a hash of seed and content, so row order plays no part.
"""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from templates.dataset import SPLITS, Split, StepReport
from templates.errors import DataError
from templates.example import Example
from templates.files import sha256_of_bytes
from templates.values import Value

STEP = "split"
_PUNCTUATION = {code: None for code in range(128) if unicodedata.category(chr(code))[0] == "P"}
SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}

Parts = dict[Split, list[Example]]


class SplitOptions(Value):
    """How large the held-out splits are; training gets the rest."""

    validation_ratio: float = Field(
        default=0.15,
        ge=0.01,
        le=0.5,
        title="Validation share",
        description="Share of rows that choose settings and stop training in time.",
    )
    test_ratio: float = Field(
        default=0.15,
        ge=0.01,
        le=0.5,
        title="Test share",
        description="Share of rows that only the final comparison sees.",
    )
    validation_rows: int | None = Field(
        default=None,
        ge=1,
        title="Validation rows",
        description="A fixed number of rows instead of the share.",
    )
    test_rows: int | None = Field(
        default=None,
        ge=1,
        title="Test rows",
        description="A fixed number of rows instead of the share.",
    )

    @model_validator(mode="after")
    def _something_to_train_on(self) -> "SplitOptions":
        if self.validation_ratio + self.test_ratio > 0.9:
            raise PydanticCustomError(
                "no_fit", "validation and test together must leave a tenth for training"
            )
        return self


def input_key(example: Example) -> str:
    """Reduce the input of an example to what it says.

    Args:
        example: any.

    Returns:
        Its texts without the answer, casefolded, without punctuation, spaces collapsed.
    """
    texts = [f"{name}\x1f{text}" for name, text in sorted(example.fields.items())]
    texts += [turn.content for turn in example.turns if turn.role != "assistant"]
    return "\x1e".join(map(normalised, texts))


def normalised(text: str) -> str:
    """Reduce a text to what it says.

    Args:
        text: any text.

    Returns:
        NFKC, casefolded, without punctuation, spaces collapsed; a text of nothing but
        punctuation stays as it is.
    """
    plain = unicodedata.normalize("NFKC", text).casefold()
    if plain.isascii():
        words = plain.translate(_PUNCTUATION)
    else:
        words = "".join(char for char in plain if unicodedata.category(char)[0] != "P")
    return " ".join(words.split()) or text


def split_examples(
    examples: Sequence[Example],
    options: SplitOptions,
    *,
    seed: int,
    fixed: Mapping[int, str] | None = None,
) -> tuple[Parts, StepReport]:
    """Divide the examples.

    Args:
        examples: all cleaned examples.
        options: sizes.
        seed: with the content it decides who goes where.
        fixed: split name by upload row, when a column of the table says it.

    Returns:
        The splits, each in upload order, and the report.

    Raises:
        DataError: a split stays empty, or the split column says something else.
    """
    groups: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        groups[input_key(example)].append(example)
    if fixed is None:
        parts = _stratified(groups, options, seed, len(examples))
    else:
        parts = _as_told(groups, fixed)
    for split in SPLITS:
        parts[split].sort(key=lambda example: example.source_rows)
        if not parts[split]:
            raise DataError(
                f"No row is left for the {split} split",
                where=f"{len(examples)} rows, {len(groups)} different inputs",
                fix="Add rows with different inputs, or change the sizes of the splits",
            )
    kept = sum(map(len, parts.values()))
    rows = {row for part in parts.values() for example in part for row in example.source_rows}
    gone = sorted({row for example in examples for row in example.source_rows} - rows)
    counts: dict[str, int] = {split: len(parts[split]) for split in SPLITS}
    counts["repeated inputs kept together"] = len(examples) - len(groups)
    if fixed is not None:
        counts["dropped: also in a held-out split"] = len(examples) - kept
    report = StepReport(
        step=STEP,
        rows_in=len(examples),
        rows_out=kept,
        rows_changed=0,
        counts=counts,
        rows=tuple(gone),
    )
    return parts, report


def _stratified(
    groups: Mapping[str, list[Example]], options: SplitOptions, seed: int, total: int
) -> Parts:
    strata: dict[str, list[list[Example]]] = defaultdict(list)
    order = sorted(groups, key=lambda key: sha256_of_bytes(f"{seed}\n{key}".encode()))
    for key in order:
        labels = Counter(example.label or "" for example in groups[key])
        most = max(labels.values())
        strata[min(label for label, count in labels.items() if count == most)].append(groups[key])
    shares: dict[Split, float] = {
        "test": options.test_rows / total if options.test_rows else options.test_ratio,
        "validation": (
            options.validation_rows / total if options.validation_rows else options.validation_ratio
        ),
    }
    if sum(shares.values()) > 0.9:
        raise DataError(
            "Validation and test would leave less than a tenth of the rows for training",
            where=f"{total} rows",
            fix="Ask for fewer validation and test rows",
        )
    parts: Parts = {split: [] for split in SPLITS}
    owed: dict[Split, float] = dict.fromkeys(shares, 0.0)
    for label in sorted(strata):
        _share_out(strata[label], shares, owed, parts)
    return parts


def _share_out(
    groups: Sequence[list[Example]],
    shares: Mapping[Split, float],
    owed: dict[Split, float],
    parts: Parts,
) -> None:
    """Give one label's groups away; rounding errors are carried over to the next label."""
    size = sum(map(len, groups))
    exact = {split: size * share + owed[split] for split, share in shares.items()}
    # With three groups a label reaches every split, with two the test, with one training.
    wanted = {
        split: max(1, round(exact[split])) if len(groups) > position + 1 else 0
        for position, split in enumerate(shares)
    }
    given = dict.fromkeys(shares, 0)
    for left, group in zip(range(len(groups) - 1, -1, -1), groups, strict=True):
        target: Split = "train"
        for split in shares:
            need = wanted[split] - given[split]
            # A group that overshoots by more than what is missing goes to training.
            if need > 0 and len(group) <= 2 * need and left > 0:
                target = split
                given[split] += len(group)
                break
        parts[target] += group
    for split in shares:
        owed[split] = exact[split] - given[split]


def _as_told(groups: Mapping[str, list[Example]], fixed: Mapping[int, str]) -> Parts:
    """Follow the split column; an input in two splits stays only in the most held-out one."""
    parts: Parts = {split: [] for split in SPLITS}
    for group in groups.values():
        told = [_split_name(fixed, example) for example in group]
        chosen = max(told, key=SPLITS.index)
        parts[chosen] += [
            example for example, split in zip(group, told, strict=True) if split == chosen
        ]
    return parts


def _split_name(fixed: Mapping[int, str], example: Example) -> Split:
    row = example.source_rows[0]
    name = fixed[row].strip().casefold()
    if name not in SPLIT_NAMES:
        raise DataError(
            f"The split column says {fixed[row]!r}",
            where=f"row {row}",
            fix="Write train, validation or test in it, or map no split column",
        )
    return SPLIT_NAMES[name]

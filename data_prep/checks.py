"""Pre-flight checks: everything wrong with the examples is found together, before any training."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from ftfy import fix_encoding
from ftfy.badness import is_bad
from pydantic import Field

from data_prep.marks import (
    Tokenise,
    free_separator,
    free_stop,
    occurs_in_wording,
    rows_with,
    rows_with_glued_stop,
    rows_with_tokens,
)
from data_prep.splits import input_key
from templates.errors import DataError
from templates.example import Example
from templates.render import answer_text, verbalizer_clashes
from templates.template import Template
from templates.values import Value

MIN_ROWS = 10
GOOD_ROWS = 200
_MIN_ROWS_PER_CLASS = 3
_MAX_LISTED = 10
_HTML = re.compile(
    r"</?(p|br|div|span|a|b|i|u|em|strong|ul|ol|li|table|tr|td|th|h[1-6]|img|font|script|style)"
    r"(\s[^<>]{0,300})?/?>|&(nbsp|amp|lt|gt|quot|apos|#\d{2,5}|#x[0-9a-f]{2,4});",
    re.IGNORECASE,
)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_CHAT_MARK = re.compile(r"<\|[a-z_]{2,30}\|>|\[/?INST\]|<</?SYS>>|</?s>|<(start|end)_of_turn>")


class Finding(Value):
    """One thing that a check found."""

    level: Literal["error", "warning"]
    what: str = Field(description="What was found, a clause.")
    rows: tuple[int, ...] = Field(default=(), description="Upload rows concerned, all of them.")
    fix: str = Field(description="What the person can do, an imperative clause.")

    def sentence(self) -> str:
        """Say it in one line.

        Returns:
            What, which rows, and how to fix it.
        """
        place = f" ({list_rows(self.rows)})" if self.rows else ""
        return f"{self.what}{place}. {self.fix}."


def list_rows(rows: Sequence[int]) -> str:
    """Name the first few rows.

    Args:
        rows: upload rows.

    Returns:
        Such as "rows 3, 8, 12 and 40 more".
    """
    shown = ", ".join(map(str, rows[:_MAX_LISTED]))
    more = f" and {len(rows) - _MAX_LISTED:,} more" if len(rows) > _MAX_LISTED else ""
    return f"row {shown}" if len(rows) == 1 else f"rows {shown}{more}"


def check_examples(
    examples: Sequence[Example], template: Template, *, tokenise: Tokenise | None = None
) -> list[Finding]:
    """Look at cleaned examples before they are split.

    Args:
        examples: all of them.
        template: the wording they will be put in.
        tokenise: text to token ids of the base, without special tokens; None checks text only.

    Returns:
        Errors first, then warnings.
    """
    findings = [
        *_check_size(examples),
        *_check_answers(examples, template),
        *(_check_labels(examples, template) if template.has_labels else ()),
        *_check_marks(examples, template, tokenise),
        *_check_texts(examples),
    ]
    return sorted(findings, key=lambda finding: finding.level)


def refuse_errors(findings: Iterable[Finding]) -> None:
    """Stop if a check found an error; all errors stand in the sentence.

    Args:
        findings: of `check_examples`.

    Raises:
        DataError: at least one is an error.
    """
    errors = [finding for finding in findings if finding.level == "error"]
    if not errors:
        return
    whats = "; ".join(finding.what for finding in errors)
    rows = "; ".join(list_rows(finding.rows) for finding in errors if finding.rows)
    raise DataError(whats, where=rows, fix="; ".join(finding.fix for finding in errors))


def _error(what: str, rows: Iterable[int], fix: str) -> Finding:
    return Finding(level="error", what=what, rows=tuple(rows), fix=fix)


def _warning(what: str, rows: Iterable[int], fix: str) -> Finding:
    return Finding(level="warning", what=what, rows=tuple(rows), fix=fix)


def _check_size(examples: Sequence[Example]) -> Iterator[Finding]:
    if len(examples) < MIN_ROWS:
        yield _error(
            f"Only {len(examples)} row(s) are left after cleaning; at least {MIN_ROWS} are needed",
            (),
            "Add rows, or look in the reports which step dropped them",
        )
    elif len(examples) < GOOD_ROWS:
        yield _warning(
            f"There are only {len(examples)} rows; the comparison may not be able to tell",
            (),
            f"Collect a couple of hundred rows ({GOOD_ROWS} or more) if you can",
        )


def _check_answers(examples: Sequence[Example], template: Template) -> Iterator[Finding]:
    silent = _rows(item for item in examples if not answer_text(item, template).strip())
    if silent:
        yield _error(
            f"{len(silent)} row(s) have no answer to learn",
            silent,
            "Fill the answers in, or add the cleaner 'empty'",
        )


def _check_labels(examples: Sequence[Example], template: Template) -> Iterator[Finding]:
    sizes = Counter(example.label or "" for example in examples)
    if len(sizes) == 1:
        yield _error(
            f"All rows have the one label {next(iter(sizes))!r}, so there is nothing to tell apart",
            (),
            "Add rows of another class, or map another column to the label",
        )
    words = {label: template.words_for(label) for label in sorted(sizes)}
    for first, second in verbalizer_clashes(words):
        yield _error(
            f"The labels {first!r} and {second!r} have the same label word {words[first]!r}",
            (),
            "Give each label its own word",
        )
    alike: dict[str, list[str]] = defaultdict(list)
    for label in sizes:
        alike[" ".join(label.casefold().split())].append(label)
    for labels in alike.values():
        if len(labels) > 1:
            yield _warning(
                f"Labels differ only in case or spacing: {', '.join(map(repr, sorted(labels)))}",
                (),
                "Write them the same if they mean the same",
            )
    unknown = sorted(set(template.verbalizer) - set(sizes))
    if unknown:
        yield _warning(
            f"There are label words for labels that no row has: {', '.join(unknown)}",
            (),
            "Correct the label, or remove its word",
        )
    small = sorted(label for label, size in sizes.items() if size < _MIN_ROWS_PER_CLASS)
    if small:
        yield _warning(
            f"Classes with fewer than {_MIN_ROWS_PER_CLASS} rows: {', '.join(small[:_MAX_LISTED])}"
            + (" …" if len(small) > _MAX_LISTED else ""),
            _rows(example for example in examples if example.label in small),
            "Add rows of these classes, or merge them; they cannot be in every split",
        )
    if len(sizes) > max(10, len(examples) // 3):
        yield _warning(
            f"There are {len(sizes):,} different labels for {len(examples):,} rows",
            (),
            "Check that the label column really holds classes",
        )
    yield from _check_conflicts(examples)


def _check_conflicts(examples: Sequence[Example]) -> Iterator[Finding]:
    groups: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        groups[input_key(example)].append(example)
    torn = [group for group in groups.values() if len({item.label for item in group}) > 1]
    if torn:
        yield _warning(
            f"{len(torn)} text(s) stand in the table with different labels",
            _rows(example for group in torn for example in group),
            "Decide on one label for each of them",
        )


def _check_marks(
    examples: Sequence[Example], template: Template, tokenise: Tokenise | None
) -> Iterator[Finding]:
    marks = (
        ("separator", template.separator, free_separator),
        ("stop sequence", template.stop, free_stop),
    )
    for name, mark, suggest in marks:
        free = f"Choose another {name}, for example "
        rows = rows_with(mark, examples)
        if rows:
            what = f"The {name} {mark!r} occurs in the data"
            yield _error(what, rows, free + repr(suggest(template, examples)))
        if occurs_in_wording(mark, template):
            what = f"The {name} {mark!r} occurs in the wording or a label word of the template"
            yield _error(what, (), free + repr(suggest(template, examples)))
        if tokenise is None:
            continue
        hidden = sorted(set(rows_with_tokens(mark, examples, tokenise)) - set(rows))
        if hidden:
            what = f"The tokens of the {name} {mark!r} occur in the data"
            yield _error(what, hidden, f"{free}one of rarer characters")
    if tokenise is not None:
        glued = rows_with_glued_stop(examples, template, tokenise)
        if glued:
            yield _warning(
                f"The base cuts the stop sequence {template.stop!r} into other tokens "
                "when it follows the answer",
                glued,
                "Choose a stop sequence that begins with a space or a line break",
            )


def _check_texts(examples: Sequence[Example]) -> Iterator[Finding]:
    found: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        texts = example.texts()
        whole = "\n".join(texts)
        if "<" in whole or "&" in whole:
            if _HTML.search(whole):
                found["html"].append(example)
            if _CHAT_MARK.search(whole):
                found["chat"].append(example)
        elif "INST]" in whole and _CHAT_MARK.search(whole):
            found["chat"].append(example)
        if _CONTROL.search(whole):
            found["control"].append(example)
        if not whole.isascii() and any(looks_garbled(text) for text in texts):
            found["garbled"].append(example)
    advice = {
        "garbled": ("text that was decoded wrongly (such as Ã© for é)", "Correct the export"),
        "html": ("HTML tags or entities", "Remove them, or keep them if they belong to the task"),
        "control": ("control or text-direction characters", "Remove them"),
        "chat": (
            "marks that chat models use, such as <|im_end|>",
            "Remove them, unless the task is about them",
        ),
    }
    for kind, (what, fix) in advice.items():
        if found[kind]:
            yield _warning(f"{len(found[kind])} row(s) hold {what}", _rows(found[kind]), fix)


def looks_garbled(text: str) -> bool:
    """Tell whether a text looks like UTF-8 that was decoded as something else.

    Args:
        text: any text.

    Returns:
        Whether ftfy sees a sequence that is unlikely, and knows what it should be.
    """
    return bool(is_bad(text)) and fix_encoding(text) != text


def _rows(examples: Iterable[Example]) -> tuple[int, ...]:
    return tuple(sorted({row for example in examples for row in example.source_rows}))

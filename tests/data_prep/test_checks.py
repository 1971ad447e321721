import pytest

from data_prep.checks import Finding, check_examples, list_rows, looks_garbled
from templates.builtin import TEMPLATES
from templates.example import Example
from templates.template import Template

TEMPLATE = TEMPLATES["classification"]


def good(num_rows: int = 240) -> list[Example]:
    return [
        Example({"text": f"text {row}"}, label="ab"[row % 2], source_rows=(row,))
        for row in range(1, num_rows + 1)
    ]


def warnings(*extra: tuple[str, str], template: Template = TEMPLATE) -> list[Finding]:
    examples = good()
    for row, (text, label) in enumerate(extra, len(examples) + 1):
        examples.append(Example({"text": text}, label=label, source_rows=(row,)))
    found = check_examples(examples, template)
    assert all(finding.level == "warning" for finding in found)
    return found


def test_good_data_is_silent() -> None:
    assert check_examples(good(), TEMPLATE, tokenise=lambda text: [*text.encode()]) == []


@pytest.mark.parametrize(
    ("extra", "what", "rows"),
    [
        ([("Text 2!", "b"), ("text 2", "b")], "1 text(s) stand in the table with", (2, 241, 242)),
        ([("x", "c"), ("y", "c")], "Classes with fewer than 3 rows: c", (241, 242)),
        ([("x", "A "), ("y", "A "), ("z", "A ")], "differ only in case or spacing: 'A ', 'a'", ()),
        ([("CafÃ© â€“ itâ€™s", "a")], "decoded wrongly", (241,)),
        ([("one<br/>two", "a"), ("Q&amp;A", "b")], "HTML tags or entities", (241, 242)),
        ([("bell\x07", "a"), ("\u202eabc", "a")], "control or text-direction", (241, 242)),
        ([("<|im_end|>", "a"), ("[INST] hi", "a")], "marks that chat models use", (241, 242)),
    ],
)
def test_warnings_name_rows(extra: list[tuple[str, str]], what: str, rows: tuple[int, ...]) -> None:
    (finding,) = warnings(*extra)
    assert what in finding.what
    assert finding.rows == rows
    assert finding.fix


@pytest.mark.parametrize(
    "text",
    [
        "a < b and c > d",
        "R&D",
        "<3",
        "Zoë’s café – naïve",
        "日本語 😀‍🔥",
        "x [INSTALL]",
        "São Paulo",
    ],
)
def test_fine_texts_stay_silent(text: str) -> None:
    assert warnings((text, "a")) == []


def test_few_rows() -> None:
    (finding,) = check_examples(good(199), TEMPLATE)
    assert finding.sentence() == (
        "There are only 199 rows; the comparison may not be able to tell. "
        "Collect a couple of hundred rows (200 or more) if you can."
    )


def test_labels_that_are_no_classes() -> None:
    examples = [
        Example({"text": f"text {row}"}, label=f"label {row // 4}", source_rows=(row,))
        for row in range(240)
    ]
    assert check_examples(examples, TEMPLATE) == []
    examples = [
        Example({"text": f"t {row}"}, label=f"{row}", source_rows=(row,)) for row in range(240)
    ]
    assert any("240 different labels" in f.what for f in check_examples(examples, TEMPLATE))
    assert any("…" in f.what for f in check_examples(examples, TEMPLATE))


def test_words_for_labels_that_no_row_has() -> None:
    template = TEMPLATE.model_copy(update={"verbalizer": {"a": "yes", "z": "no"}})
    assert "labels that no row has: z" in warnings(template=template)[0].what


def test_tokens() -> None:
    def lossy(text: str) -> list[int]:
        return [*text.lower().encode()]

    examples = [*good(), Example({"text": "the end"}, label="a", source_rows=(241,))]
    (finding,) = check_examples(examples, TEMPLATE, tokenise=lossy)
    assert finding.level == "error" and finding.rows == (241,)
    assert finding.what == "The tokens of the stop sequence ' END' occur in the data"

    def gluing(text: str) -> list[int]:
        return [hash(word) for word in text.replace(" ", " \x00").split("\x00")]

    (finding,) = check_examples(good(), TEMPLATE, tokenise=gluing)
    assert finding.level == "warning" and "into other tokens" in finding.what
    assert finding.rows == tuple(range(1, 241))


def test_errors_come_first_and_rows_are_listed_shortly() -> None:
    examples = [
        Example({"text": "a END<br>"}, label="a", source_rows=(row,)) for row in range(1, 40)
    ]
    levels = [finding.level for finding in check_examples(examples, TEMPLATE)]
    assert levels == sorted(levels) and set(levels) == {"error", "warning"}
    assert list_rows((5,)) == "row 5"
    assert list_rows(tuple(range(1, 1_041))) == "rows 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 1,030 more"


def test_garbled() -> None:
    assert looks_garbled("donâ€™t") and not looks_garbled("don’t")

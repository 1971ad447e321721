"""What is shown as supervised is what the loss sees, down to the character."""

from pathlib import Path

import pytest

from engine.base_model import load_reader, locate_base
from engine.batches import collate
from engine.encode import encode_example
from engine.language_model import LanguageModel
from engine.planning.cost import ItemLength
from engine.planning.preview import piece_texts, preview, report_lengths, token_lengths
from templates.errors import PlanError
from templates.example import Example, Turn
from templates.render import render
from tests.engine.tiny import TEMPLATE, TEMPLATES, TICKETS, save_tiny, ticket


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, LanguageModel]:
    root = tmp_path_factory.mktemp("preview")
    return {
        chat: load_reader(locate_base(str(save_tiny(root / str(chat), "llama", chat=chat))))
        for chat in (False, True)
    }


def test_the_loss_sees_completion_stop_and_end_and_nothing_else(
    readers: dict[bool, LanguageModel],
) -> None:
    (item,) = preview(readers[False], TICKETS, TEMPLATE, count=1)
    assert item.text == "the invoice is wrong\n\n###\n\n billing END<|endoftext|>"
    assert item.supervised_text == " billing END<|endoftext|>"
    assert [(passage.text, passage.supervised, passage.special) for passage in item.passages] == [
        ("the invoice is wrong\n\n###\n\n", False, False),
        (" billing END", True, False),
        ("<|endoftext|>", True, True),
    ]
    assert sum(passage.num_tokens for passage in item.passages) == item.num_tokens
    assert item.num_supervised == sum(piece.supervised for piece in item.pieces)
    assert item.source_rows == (1,)


def test_preview_and_batch_agree_on_every_token(tmp_path: Path) -> None:
    reader = load_reader(locate_base(str(save_tiny(tmp_path, "gpt2"))))
    on_cpu = LanguageModel(type("Model", (), {"device": "cpu", "config": reader.model.config}),
                           reader.tokenizer)  # fmt: skip
    for item, example in zip(preview(reader, TICKETS, TEMPLATE, 8), TICKETS, strict=True):
        batch = collate([encode_example(reader, example, TEMPLATE)], on_cpu)
        assert [piece.id for piece in item.pieces] == batch.ids[0].tolist()
        seen = [place for place, piece in enumerate(item.pieces) if piece.supervised]
        assert seen == (batch.predicting + 1).tolist()


def test_through_a_chat_template_the_template_s_marks_are_shown(
    readers: dict[bool, LanguageModel],
) -> None:
    (item,) = preview(readers[True], TICKETS, TEMPLATE, count=1)
    assert item.text == "<|user|>the invoice is wrong<|end|><|assistant|>billing<|end|>"
    assert item.supervised_text == "billing<|end|>"
    assert {piece.text for piece in item.pieces if piece.special} == {
        "<|user|>", "<|assistant|>", "<|end|>"
    }  # fmt: skip


def test_each_assistant_turn_is_supervised(readers: dict[bool, LanguageModel]) -> None:
    turns = (Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c"), Turn("assistant", "d"))
    chat = Example(turns=turns, references=("d",))
    for reader in readers.values():
        (item,) = preview(reader, [chat], TEMPLATES["chat"], count=1)
        rendered = render(chat, TEMPLATES["chat"], tokenizer=reader.tokenizer)
        text = "".join(segment.text for segment in rendered.segments)
        assert item.text.removesuffix("<|endoftext|>") == text
        assert len([p for p in item.passages if p.supervised and not p.special]) == 2


@pytest.mark.parametrize(
    "text",
    [
        "Grüße aus 東京 👍🏽!",
        "naïve café",
        " two  spaces ",
        "a\ufffdb",
        "\ufffd",
        "ends in 👍",
        "\u200d",
        "",
    ],
)
def test_joined_pieces_are_the_text(readers: dict[bool, LanguageModel], text: str) -> None:
    reader = readers[False]
    ids = reader.encode(text)
    pieces = piece_texts(reader, ids)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == text


def test_a_character_of_many_tokens_stands_at_its_last_one(
    readers: dict[bool, LanguageModel],
) -> None:
    pieces = piece_texts(readers[False], readers[False].encode("a👍b"))
    assert pieces == ["a", "", "", "", "👍", "b"]


def test_broken_bytes_are_shown_and_not_swallowed(readers: dict[bool, LanguageModel]) -> None:
    reader = readers[False]
    ids = reader.encode("a👍")[:-1] + reader.encode("b")
    assert "".join(piece_texts(reader, ids)) == reader.decode(ids)


def test_asks_for_no_more_than_there_is(readers: dict[bool, LanguageModel]) -> None:
    assert len(preview(readers[False], TICKETS[:2], TEMPLATE)) == 2
    assert len(preview(readers[False], TICKETS, TEMPLATE)) == 3


def test_lengths_are_summed_up(readers: dict[bool, LanguageModel]) -> None:
    report = token_lengths(readers[False], TICKETS, TEMPLATE)
    lengths = [len(encode_example(readers[False], example, TEMPLATE).ids) for example in TICKETS]
    assert report.count == 8 and report.max_tokens == max(lengths) == report.p95_tokens
    assert report.min_tokens == min(lengths)
    assert report.context_tokens == 128 and report.num_over_context == 0
    assert sum(bar.count for bar in report.bins) == 8
    assert 0 < report.supervised_ratio < 1


def test_the_numbers_of_a_length_report() -> None:
    report = report_lengths([ItemLength(size, 5, 5) for size in range(1, 101)], 90)
    assert (report.median_tokens, report.p95_tokens, report.num_over_context) == (50.5, 95, 10)
    assert len(report.bins) <= 12 and sum(bar.count for bar in report.bins) == 100
    assert report.bins[0].from_tokens == 1 and report.bins[-1].to_tokens >= 100
    assert report.supervised_ratio == pytest.approx(500 / 5050)


def test_nothing_to_measure_is_said(readers: dict[bool, LanguageModel]) -> None:
    with pytest.raises(PlanError, match="no example to measure"):
        token_lengths(readers[False], [], TEMPLATE)


def test_an_example_without_an_answer_names_its_row(tmp_path: Path) -> None:
    reader = load_reader(locate_base(str(save_tiny(tmp_path, "llama", chat=True))))
    reader.tokenizer.chat_template = reader.tokenizer.chat_template.replace("<|end|>", "")
    with pytest.raises(PlanError, match=r"no token for the loss to see \(row 12\)"):
        token_lengths(reader, [ticket("where is it", "", 12)], TEMPLATE)

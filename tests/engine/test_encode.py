import random
from pathlib import Path

import pytest

from engine.encode import Encoded, EncodedItems, cut_prompt, encode_all, encode_example
from engine.language_model import LanguageModel
from templates.builtin import TEMPLATES
from templates.errors import PlanError
from templates.example import Example
from tests.engine.tiny import CONTEXT, TEMPLATE, TICKETS, ticket, tiny_model


@pytest.fixture
def language_model(tmp_path: Path) -> LanguageModel:
    return tiny_model(tmp_path, "llama")


def encode(language_model: LanguageModel, examples: list[Example], too_long: str = "stop"):
    return encode_all(language_model, examples, TEMPLATE, max_length_tokens=0, too_long=too_long)


def test_the_loss_sees_completion_stop_and_end_only(language_model: LanguageModel) -> None:
    encoded = encode_example(language_model, TICKETS[0], TEMPLATE)
    seen = [id_ for id_, flag in zip(encoded.ids, encoded.supervised, strict=True) if flag]
    unseen = [id_ for id_, flag in zip(encoded.ids, encoded.supervised, strict=True) if not flag]
    assert language_model.decode(seen) == " billing END<|endoftext|>"
    assert language_model.decode(unseen) == "the invoice is wrong\n\n###\n\n"
    assert encoded.num_supervised == len(seen)


def test_an_item_takes_five_bytes_a_token() -> None:
    item = Encoded((5, 70_000, 2**31 - 1), (False, True, True))
    assert list(item.ids) == [5, 70_000, 2**31 - 1] and list(item.supervised) == [0, 1, 1]
    assert memoryview(item.ids).nbytes + memoryview(item.supervised).nbytes == 15


def test_items_of_a_split_come_out_as_they_went_in() -> None:
    draw = random.Random(1)
    items = [
        Encoded([draw.randrange(2**31) for _ in range(size)], [draw.random() < 0.5] * size)
        for size in (3, 0, 17, 1)
    ]
    held = EncodedItems(items)
    assert list(held) == items and held[-1] == items[-1] and held[1:3] == items[1:3]
    assert len(held) == 4 and not EncodedItems()
    with pytest.raises(IndexError):
        held[4]


def test_special_tokens_in_data_stay_text(language_model: LanguageModel) -> None:
    ids = language_model.encode("stop <|endoftext|> here")
    assert language_model.tokenizer.eos_token_id not in ids
    assert language_model.decode(ids) == "stop <|endoftext|> here"


def test_a_chat_base_is_prompted_through_its_template(tmp_path: Path) -> None:
    chat = tiny_model(tmp_path, "llama", chat=True)
    encoded = encode_example(chat, TICKETS[0], TEMPLATE)
    text = chat.decode(encoded.ids)
    assert text == "<|user|>the invoice is wrong<|end|><|assistant|>billing<|end|>"
    seen = [id_ for id_, flag in zip(encoded.ids, encoded.supervised, strict=True) if flag]
    assert chat.decode(seen) == "billing<|end|>"


LONG = ticket("word " * 200, "billing", row=17)


def test_too_long_stops_and_says_which_row(language_model: LanguageModel) -> None:
    with pytest.raises(PlanError) as caught:
        encode(language_model, [*TICKETS, LONG])
    sentence = str(caught.value)
    assert "1 examples are longer than 128 tokens" in sentence
    assert "row 17" in sentence and "too_long drop or cut" in sentence


def test_too_long_can_be_left_out(language_model: LanguageModel) -> None:
    kept, notices = encode(language_model, [*TICKETS, LONG], "drop")
    assert len(kept) == len(TICKETS)
    assert notices == ["1 examples over 128 tokens were left out: row 17"]


def test_too_long_can_be_cut_but_never_the_answer(language_model: LanguageModel) -> None:
    kept, notices = encode(language_model, [LONG], "cut")
    assert len(kept[0].ids) == CONTEXT and "cut at the start" in notices[0]
    assert language_model.decode(kept[0].ids).endswith("\n\n###\n\n billing END<|endoftext|>")
    assert cut_prompt(kept[0], 5, keep=0) is None


def test_only_too_long_examples_are_a_sentence(language_model: LanguageModel) -> None:
    with pytest.raises(PlanError, match=r"No example fits into 128 tokens \(row 17\)"):
        encode(language_model, [LONG], "drop")


def test_an_answer_without_a_token_is_a_sentence(tmp_path: Path) -> None:
    chat = tiny_model(tmp_path / "chat", "llama", chat=True)
    chat.tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    empty = Example(fields={"input": "hello"}, references=("",), source_rows=(3,))
    with pytest.raises(PlanError, match=r"no token for the loss to see \(row 3\)"):
        encode_all(chat, [empty], TEMPLATES["generation"], max_length_tokens=0, too_long="stop")

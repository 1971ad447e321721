import pytest

from engine.comparing.prompting import (
    Question,
    answers_to,
    build_prompts,
    longest_answer_tokens,
)
from engine.comparing.scoring import expected_answers, score_answers
from engine.encode import encode_example
from templates.builtin import TEMPLATES
from templates.errors import PlanError
from templates.example import Example, Turn
from tests.engine.tiny import CONTEXT, TEMPLATE, TICKETS, ticket, tiny_model

LABELS = ("billing", "returns", "shipping")
QUESTION = Question(TEMPLATE, LABELS, max_new_tokens=8, batch_size=4)


@pytest.fixture(scope="module", params=[False, True], ids=["raw", "chat"])
def language_model(request, tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model"), "llama", chat=request.param)


def test_prompt_and_label_are_the_tokens_of_training(language_model):
    prompts = build_prompts(language_model, TICKETS, QUESTION)
    for number, example in enumerate(TICKETS):
        trained = encode_example(language_model, example, TEMPLATE)
        first = trained.supervised.index(True)
        assert tuple(trained.ids[:first]) == (*prompts.context_ids, *prompts.prompt_ids[number])
        label = prompts.label_ids[LABELS.index(example.label)]
        assert tuple(trained.ids[first : first + len(label)]) == label
    assert not prompts.cut
    assert prompts.answer_tokens(QUESTION) == max(len(ids) for ids in prompts.label_ids)


def test_what_an_arm_shares_stands_in_the_context(language_model):
    bare = build_prompts(language_model, TICKETS, QUESTION)
    prompts = build_prompts(
        language_model, TICKETS, QUESTION, instruction="Choose.", demonstrations=TICKETS[:1]
    )
    text = language_model.decode(prompts.context_ids)
    assert "Choose." in text and "the invoice is wrong" in text
    assert prompts.prompt_ids == bare.prompt_ids
    assert prompts.tokens_per_item > bare.tokens_per_item


def test_a_chat_template_that_hides_the_shared_part_is_read_whole(tmp_path):
    language_model = tiny_model(tmp_path, "llama", chat=True)
    template = TEMPLATES["chat"]
    chats = [
        Example(turns=(Turn("system", rule), Turn("user", "hello"), Turn("assistant", "yes")))
        for rule in ("Be short.", "Be long.")
    ]
    question = Question(template, (), max_new_tokens=4)
    prompts = build_prompts(language_model, chats, question, instruction="Answer.")
    texts = [language_model.decode([*prompts.context_ids, *ids]) for ids in prompts.prompt_ids]
    assert "Answer." in texts[0] and "Be short." in texts[0] and "Be long." in texts[1]


def test_a_long_item_loses_its_start_and_is_counted(language_model):
    long = ticket("kettle " * 200 + "the very end", "billing", 9)
    prompts = build_prompts(language_model, [TICKETS[0], long], QUESTION)
    assert prompts.cut == frozenset({1})
    longest = max(len(ids) for ids in prompts.label_ids)
    assert len(prompts.context_ids) + len(prompts.prompt_ids[1]) + longest == CONTEXT
    assert "the very end" in language_model.decode(prompts.prompt_ids[1])
    assert len(answers_to(language_model, prompts, QUESTION)) == 2


def test_no_room_at_all_is_a_sentence(language_model):
    with pytest.raises(PlanError, match=r"fixed part \(\d+ tokens\).*context of 128.*Shorten"):
        build_prompts(language_model, TICKETS, QUESTION, instruction="the kettle " * 100)


def test_label_arms_answer_labels_and_text_arms_text(language_model):
    answers = answers_to(language_model, build_prompts(language_model, TICKETS, QUESTION), QUESTION)
    assert set(answers) <= set(LABELS)
    example = Example(fields={"input": "kettle"}, references=("a", "b"), source_rows=(1,))
    question = Question(TEMPLATES["generation"], (), max_new_tokens=5)
    prompts = build_prompts(language_model, [example], question)
    assert prompts.label_ids == ()
    (text,) = answers_to(language_model, prompts, question)
    assert isinstance(text, str)
    assert prompts.stop


def test_expected_answers_and_their_score():
    assert expected_answers(TICKETS[0], TEMPLATE) == ("billing",)
    example = Example(fields={"input": "x"}, references=("a", "b"))
    assert expected_answers(example, TEMPLATES["generation"]) == ("a", "b")
    chat = Example(turns=(Turn("user", "hello"), Turn("assistant", "yes")))
    assert expected_answers(chat, TEMPLATES["chat"]) == ("yes",)
    answers = ["billing"] * len(TICKETS)
    assert score_answers("accuracy", answers, TICKETS, QUESTION).value == 100 * 3 / 8


def test_room_for_the_longest_answer(language_model):
    template = TEMPLATES["generation"]
    rows = [Example(fields={"input": "x"}, references=(text,)) for text in ("a", "kettle kettle")]
    room = longest_answer_tokens(language_model, rows, template)
    assert len(language_model.encode("kettle kettle")) < room < 40
    rows.append(Example(fields={"input": "x"}, references=("x" * 500,)))
    assert longest_answer_tokens(language_model, rows, template) == CONTEXT // 2

import pytest

from engine.comparing.arms import classical_arm, constant_arm, tuned_arm, zero_shot_arm
from engine.comparing.prompting import Question
from tests.engine.tiny import TEMPLATE, TICKETS, tiny_model

LABELS = ("billing", "returns", "shipping")
QUESTION = Question(TEMPLATE.model_copy(update={"instruction": "{labels}?"}), LABELS, 4)


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model"), "gpt2")


def test_the_constant_arm():
    arm = constant_arm(QUESTION, TICKETS, TICKETS[:2], TICKETS[2:])
    assert arm.answers == ["billing"] * 6
    assert arm.validation_score == 50
    assert arm.title == "Always 'billing'"


def test_the_zero_shot_arm_shows_the_task_description(language_model):
    arm = zero_shot_arm(language_model, QUESTION, TICKETS[:4], TICKETS)
    assert arm.settings["instruction"] == "billing, returns, shipping?"
    assert len(arm.answers) == 8 and set(arm.answers) <= set(LABELS)
    assert arm.validation_score in (0, 25, 50, 75, 100)


def test_the_tuned_arm_shows_only_what_training_showed(language_model):
    described = zero_shot_arm(language_model, QUESTION, TICKETS[:4], TICKETS)
    arm = tuned_arm(language_model, QUESTION, TICKETS)
    assert arm.tokens_per_item < described.tokens_per_item
    assert arm.validation_score is None and arm.seconds > 0
    before = zero_shot_arm(language_model, QUESTION, TICKETS[:4], TICKETS, describe=False)
    assert before.answers == arm.answers and before.tokens_per_item == arm.tokens_per_item


def test_the_classical_arm():
    arm = classical_arm(QUESTION, TICKETS, TICKETS, TICKETS)
    assert arm.kind == "classical"
    assert arm.answers == [ticket.label for ticket in TICKETS]
    assert arm.settings["strength"] > 0

import pytest
import torch

from engine.answering.choice import Choice, Chooser
from engine.answering.generation import generate
from tests.engine.answering.families import family_model

PROMPTS = [[7, 8, 9, 10], [11, 12], [13], [14, 15, 16]]


def test_greedy_takes_the_likeliest() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, 0.0, 1.0]])
    assert Chooser(Choice()).choose(logits, [0, 1]) == [1, 0]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_probabilities(temperature: float) -> None:
    logits = torch.tensor([[2.0, 0.0, 1.0, -1.0]])
    chooser = Chooser(Choice(temperature=temperature))
    drawn = torch.tensor([chooser.choose(logits, [0])[0] for _ in range(4000)])
    found = torch.bincount(drawn, minlength=4) / 4000
    torch.testing.assert_close(found, (logits[0] / temperature).softmax(-1), atol=0.03, rtol=0)


def test_unlikely_tokens_are_never_drawn() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    chooser = Chooser(Choice(temperature=1.0, top_p=0.6))
    assert {chooser.choose(logits, [0])[0] for _ in range(500)} == {0, 1}
    chooser = Chooser(Choice(temperature=1.0, top_p=0.0001))
    assert chooser.choose(logits, [0]) == [0], "the likeliest always remains"


def drawn(prompts: list[list[int]], seed: int = 0, batch_size: int = 32) -> list[str]:
    return generate(
        family_model("llama"), [5], prompts, stop="", max_new_tokens=8, batch_size=batch_size,
        choice=Choice(temperature=1.5, seed=seed),
    )  # fmt: skip


def test_a_text_depends_on_its_seed_and_row_and_on_no_neighbour() -> None:
    texts = drawn(PROMPTS)
    assert texts == drawn(PROMPTS) == drawn(PROMPTS, batch_size=2)
    assert texts[:2] == drawn(PROMPTS[:2])
    assert texts != drawn(PROMPTS, seed=1)
    same = drawn([[7, 8]] * 4)
    assert len(set(same)) > 1, "rows with the same prompt draw for themselves"

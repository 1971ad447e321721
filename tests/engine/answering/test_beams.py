import pytest
import torch

from engine.answering.answer import Ending
from engine.answering.beams import follow_beams
from engine.answering.choice import Choice
from engine.answering.generation import generate
from engine.answering.packed_reading import PackedReading
from engine.answering.reading import evaluating
from engine.language_model import LanguageModel
from tests.engine.answering.families import family_model

PROMPTS = [[7, 8, 9, 10], [11, 12], [13]]
NEW, BEAMS = 7, 4


@pytest.fixture(params=["llama", "gemma3"])
def model(request: pytest.FixtureRequest) -> LanguageModel:
    return family_model(request.param)


def asked_of_the_library(model: LanguageModel, prompt: list[int], ends: list[int]) -> tuple:
    ids = torch.tensor([prompt])
    told = model.model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, do_sample=False,
        pad_token_id=0, eos_token_id=ends, num_beams=BEAMS, return_dict_in_generate=True,
        output_scores=True,
    )  # fmt: skip
    tokens = told.sequences[0, len(prompt) :].tolist()
    cut = next((at for at, token in enumerate(tokens) if token in ends), len(tokens))
    return tuple(tokens[:cut]), float(told.sequences_scores[0])


@pytest.mark.parametrize("num_ends", [0, 1, 3])
def test_tokens_and_scores_as_in_the_library(model: LanguageModel, num_ends: int) -> None:
    """Tokens that greedy answers contain become ends, so that answers end early."""
    likely = [asked_of_the_library(model, prompt, [0])[0] for prompt in PROMPTS]
    ends = [0, *sorted({tokens[2] for tokens in likely})[:num_ends]]
    model.model.generation_config.eos_token_id = ends
    with evaluating(model):
        reading = PackedReading(model, [], len(PROMPTS) * BEAMS, 20)
        found = follow_beams(reading, PROMPTS, [NEW] * 3, Ending(model, ""), BEAMS)
    for prompt, beam in zip(PROMPTS, found, strict=True):
        tokens, score = asked_of_the_library(model, prompt, ends)
        assert beam.ids == tokens
        assert beam.score == pytest.approx(score, abs=1e-5)


def test_a_stop_text_ends_a_beam(model: LanguageModel) -> None:
    whole = generate(
        model, [], PROMPTS, stop="", max_new_tokens=NEW, choice=Choice(num_beams=BEAMS)
    )
    stop = whole[0][len(whole[0]) // 2 :][:4]
    texts = generate(
        model, [], PROMPTS, stop=stop, max_new_tokens=NEW, choice=Choice(num_beams=BEAMS)
    )
    assert all(stop not in text for text in texts)

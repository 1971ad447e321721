"""Every architecture against the library's own `generate` and plain forward passes."""

import numpy as np
import pytest
import torch

from engine.answering.choice import Choice
from engine.answering.generation import generate
from engine.answering.label_scores import score_labels
from engine.answering.opening import open_reading
from engine.answering.packed_reading import PackedReading
from engine.answering.reading import evaluating
from engine.language_model import LanguageModel
from tests.engine.answering.families import FAMILIES, PADDED, family_model
from tests.engine.answering.test_generation import plain_score

LENGTHS = (3, 19, 7, 12, 1, 19, 5)
CONTEXTS = (0, 10, 75)
NEW = 9


@pytest.fixture(scope="module", params=FAMILIES)
def named_model(request: pytest.FixtureRequest) -> tuple[str, LanguageModel]:
    return request.param, family_model(request.param)


def texts(num_context: int) -> tuple[list[int], list[list[int]]]:
    draw = torch.Generator().manual_seed(num_context)
    ids = torch.randint(5, 300, (200,), generator=draw).tolist()
    starts = np.cumsum([num_context, *LENGTHS])
    return ids[:num_context], [ids[a : a + n] for a, n in zip(starts, LENGTHS, strict=False)]


def greedy(model: LanguageModel, ids: list[int], **options: object) -> str:
    asked = torch.tensor([ids])
    told = model.model.generate(
        asked, attention_mask=torch.ones_like(asked), max_new_tokens=NEW, do_sample=False,
        pad_token_id=0, **options,
    )  # fmt: skip
    return model.decode([token for token in told[0, len(ids) :].tolist() if token]).strip()


def test_the_fast_way_where_it_is_possible(named_model: tuple[str, LanguageModel]) -> None:
    name, model = named_model
    with evaluating(model):
        reading = open_reading(model, [5, 6], 2, 10)
    assert isinstance(reading, PackedReading) == (name not in PADDED)


@pytest.mark.parametrize("num_context", CONTEXTS)
def test_greedy_as_generate(named_model: tuple[str, LanguageModel], num_context: int) -> None:
    _, model = named_model
    context, prompts = texts(num_context)
    expected = [greedy(model, context + prompt) for prompt in prompts]
    answers = generate(model, context, prompts, stop="", max_new_tokens=NEW, batch_size=4)
    assert answers == expected


@pytest.mark.parametrize("num_context", [0, 75])
def test_beams_as_generate(named_model: tuple[str, LanguageModel], num_context: int) -> None:
    _, model = named_model
    context, prompts = texts(num_context)
    expected = [greedy(model, context + prompt, num_beams=3) for prompt in prompts]
    answers = generate(
        model, context, prompts, stop="", max_new_tokens=NEW, batch_size=7,
        choice=Choice(num_beams=3),
    )  # fmt: skip
    assert answers == expected


@pytest.mark.parametrize("num_context", CONTEXTS)
def test_labels_as_plain_passes(named_model: tuple[str, LanguageModel], num_context: int) -> None:
    _, model = named_model
    context, prompts = texts(num_context)
    labels = [[7, 8, 9], [10], [7, 11], [12] * 12]
    scores = score_labels(model, context, prompts, labels, batch_size=3)
    expected = [
        [plain_score(model, context + prompt, label) for label in labels] for prompt in prompts
    ]
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)

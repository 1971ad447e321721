import copy

import numpy as np
import pytest
import torch

from engine.answering.generation import generate, stream
from engine.answering.label_scores import score_labels
from engine.answering.opening import rows_at_once
from engine.answering.packed_reading import PackedReading
from engine.language_model import LanguageModel
from engine.method import attach_method, parse_options, trainable
from engine.methods import get_method
from templates.errors import RunError
from tests.engine.answering.families import sliding_model
from tests.engine.tiny import ARCHITECTURES, CONTEXT, VOCABULARY_SIZE, tiny_model

NUM_VIRTUAL = 5
CONTEXT_TEXT = "the invoice is wrong\n\n###\n\n billing END\n\n"
PROMPTS = ["where is the parcel\n\n###\n\n", "money\n\n###\n\n", "a kettle, a kettle: the kettle!"]
LABELS = [" billing END", " shipping END", " x", " returns END", "!"]


def with_virtual_tokens(language_model: LanguageModel) -> LanguageModel:
    """Grow the input embedding only, as a soft prompt does."""
    model = language_model.model
    table = model.get_input_embeddings().weight.data
    torch.manual_seed(1)
    grown = torch.nn.Embedding(len(table) + NUM_VIRTUAL, table.shape[1])
    grown.weight.data[: len(table)] = table
    model.set_input_embeddings(grown)
    return LanguageModel(model, language_model.tokenizer, num_virtual_tokens=NUM_VIRTUAL)


@pytest.fixture(scope="module", params=[*ARCHITECTURES, "sliding"])
def language_model(request, tmp_path_factory) -> LanguageModel:
    if request.param == "sliding":
        return sliding_model()
    return tiny_model(tmp_path_factory.mktemp("model"), request.param)


def plain_greedy(language_model: LanguageModel, ids: list[int], count: int) -> list[int]:
    """Uncached, unpadded, one token after the other."""
    out: list[int] = []
    with torch.no_grad():
        while len(out) < count:
            logits = language_model.model(torch.tensor([ids + out]), use_cache=False).logits
            token = int(logits[0, -1, :VOCABULARY_SIZE].argmax())
            if token in language_model.end_ids:
                break
            out.append(token)
    return out


def plain_score(language_model: LanguageModel, ids: list[int], label: list[int]) -> float:
    with torch.no_grad():
        logits = language_model.model(torch.tensor([ids + label]), use_cache=False).logits[0]
    logs = logits[:, :VOCABULARY_SIZE].log_softmax(-1)
    return sum(float(logs[len(ids) - 1 + at, token]) for at, token in enumerate(label))


def encoded(language_model: LanguageModel, texts: list[str]) -> list[list[int]]:
    return [language_model.encode(text) for text in texts]


@pytest.mark.parametrize("context_text", ["", CONTEXT_TEXT])
@pytest.mark.parametrize("virtual", [False, True])
@pytest.mark.parametrize("batch_size", [2, 32])
def test_equal_to_plain_forward_passes(language_model, context_text, virtual, batch_size):
    if virtual:
        twin = LanguageModel(copy.deepcopy(language_model.model), language_model.tokenizer)
        language_model = with_virtual_tokens(twin)
    context = language_model.virtual_token_ids + language_model.encode(context_text)
    prompts = encoded(language_model, PROMPTS)
    seen = []
    answers = generate(
        language_model, context, prompts, stop="", max_new_tokens=12, batch_size=batch_size,
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    for prompt, answer in zip(prompts, answers, strict=True):
        tokens = plain_greedy(language_model, context + prompt, 12)
        assert answer == language_model.decode(tokens).strip()
    assert seen[-1] == (3, 3)
    labels = encoded(language_model, LABELS)
    scores = score_labels(language_model, context, prompts, labels, batch_size=batch_size)
    expected = [
        [plain_score(language_model, context + p, label) for label in labels] for p in prompts
    ]
    np.testing.assert_allclose(scores, expected, atol=2e-4)


def test_equal_to_generate_of_transformers(language_model):
    prompts = encoded(language_model, PROMPTS)
    answers = generate(language_model, [], prompts, stop="", max_new_tokens=10)
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = torch.tensor([prompt])
        out = language_model.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=10, do_sample=False,
            pad_token_id=0,
        )  # fmt: skip
        tokens = [token for token in out[0, len(prompt) :].tolist() if token != 0]
        assert answer == language_model.decode(tokens).strip()


def test_many_labels_are_scored_in_groups(language_model, monkeypatch):
    prompts, labels = encoded(language_model, PROMPTS), encoded(language_model, LABELS)
    at_once = score_labels(language_model, [], prompts, labels)
    monkeypatch.setattr("engine.answering.label_scores._MOST_LOGITS", 1)
    np.testing.assert_allclose(
        score_labels(language_model, [], prompts, labels), at_once, atol=1e-4
    )


def test_an_answer_ends_at_the_stop_text(language_model):
    prompts = encoded(language_model, PROMPTS)
    whole = generate(language_model, [], prompts, stop="", max_new_tokens=12)
    # Some text from the middle of an answer, found in the decoded text and not in tokens.
    stop = whole[0][len(whole[0]) // 2 :][:2]
    answers = generate(language_model, [], prompts, stop=stop, max_new_tokens=12)
    assert answers == [text.partition(stop)[0].strip() for text in whole]


def test_the_end_token_ends_an_answer(language_model):
    prompts = encoded(language_model, PROMPTS)
    first = plain_greedy(language_model, prompts[0], 3)
    before = language_model.model.generation_config.eos_token_id
    language_model.model.generation_config.eos_token_id = [first[2], 0]
    try:
        answers = generate(language_model, [], prompts, stop="", max_new_tokens=12)
        cut = first[: first.index(first[2])]
        assert answers[0] == language_model.decode(cut).strip()
    finally:
        language_model.model.generation_config.eos_token_id = before


def test_answers_stop_at_the_end_of_the_context_window(language_model):
    prompt = language_model.encode("x" * (CONTEXT - 5))
    answers = generate(language_model, [], [prompt], stop="", max_new_tokens=50)
    tokens = plain_greedy(language_model, prompt, CONTEXT - len(prompt))
    assert answers[0] == language_model.decode(tokens).strip()


def test_a_prompt_without_room_is_refused(language_model):
    prompts = [[5], [5] * CONTEXT]
    with pytest.raises(RunError, match=r"128 tokens leaves no room.*item 2.*Shorten the text"):
        generate(language_model, [], prompts, stop="", max_new_tokens=1)
    with pytest.raises(RunError, match="answer of 3 in the context of 128"):
        score_labels(language_model, [5] * 120, [[5] * 6], [[1, 2, 3]])


def test_an_empty_prompt_is_refused_unless_the_context_speaks(language_model):
    with pytest.raises(RunError, match=r"empty.*item 1"):
        generate(language_model, [], [[], [5]], stop="", max_new_tokens=1)
    labels = [[7, 8], [9]]
    scores = score_labels(language_model, [5, 6], [[], [5]], labels)
    assert scores[0, 0] == pytest.approx(plain_score(language_model, [5, 6], [7, 8]), abs=1e-4)


def test_the_model_comes_back_in_the_mode_it_was_in(language_model):
    language_model.model.train()
    generate(language_model, [], [[5]], stop="", max_new_tokens=1)
    assert language_model.model.training
    language_model.model.eval()
    score_labels(language_model, [], [[5]], [[6]])
    assert not language_model.model.training


def test_only_needed_logits_are_computed(language_model, monkeypatch):
    computed = []
    forward = language_model.model.forward

    def spy(*args, **kwargs):
        output = forward(*args, **kwargs)
        computed.append(output.logits.shape[:2].numel())
        return output

    monkeypatch.setattr(language_model.model, "forward", spy)
    score_labels(language_model, [5, 6, 7], [[5, 6, 7, 8], [9, 9]], [[1, 2, 3]])
    # The first look at the model, context, prompts, the label but its last token for each row.
    assert computed == [1, 1, 2, 4]


def test_rows_that_end_make_room_for_those_that_wait(language_model, monkeypatch):
    prompts = [[5 + row, 40 + row, 90 + row][: 1 + row % 3] for row in range(11)]
    first = [plain_greedy(language_model, prompt, 8) for prompt in prompts]
    ends = sorted({tokens[3] for tokens in first if len(tokens) > 3})[:2]
    before = language_model.model.generation_config.eos_token_id
    language_model.model.generation_config.eos_token_id = [0, *ends]
    try:
        answers = generate(language_model, [], prompts, stop="", max_new_tokens=8, batch_size=3)
        for prompt, answer in zip(prompts, answers, strict=True):
            tokens = plain_greedy(language_model, prompt, 8)
            assert answer == text_behind(language_model, prompt, tokens)
    finally:
        language_model.model.generation_config.eos_token_id = before


def test_a_row_begins_while_another_is_under_way(language_model, monkeypatch):
    """The first of two ends at the window; a third does not wait until the second ends as well."""
    under_way = []
    add = PackedReading.add

    def watched(self, prompts, adapters):
        under_way.append(self.num_rows)
        return add(self, prompts, adapters)

    monkeypatch.setattr(PackedReading, "add", watched)
    prompts = [[5] * (CONTEXT - 2), [6, 40, 90], [7, 41]]
    generate(language_model, [], prompts, stop="", max_new_tokens=8, batch_size=2)
    assert under_way == [0, 1]


def test_what_all_prompts_share_is_read_once_for_all_batches(language_model):
    context = [*language_model.encode(CONTEXT_TEXT), 7]
    prompts = [[8, 5 + row, 40 + row] for row in range(9)]
    read = []
    hook = language_model.model.register_forward_pre_hook(
        lambda *call: read.append(call[2]["input_ids"].numel()), with_kwargs=True
    )
    generate(language_model, context, prompts, stop="", max_new_tokens=1, batch_size=2)
    # The first look at the model, then the context with the 8, and at last each row's own tokens.
    assert read[:2] == [1, len(context) + 1] and sum(read[2:]) == 9 * 2 and len(read) > 3
    read.clear()
    score_labels(language_model, context, prompts, [[1, 2, 3]], batch_size=2)
    hook.remove()
    assert read[:2] == [1, len(context) + 1] and sum(read[2:]) == 9 * (2 + 2) and len(read) > 3


def text_behind(language_model: LanguageModel, prompt: list[int], tokens: list[int]) -> str:
    before = language_model.decode(prompt[-1:])
    return language_model.decode(prompt[-1:] + tokens)[len(before) :].strip()


def test_pieces_of_many_rows_join_to_their_answers(language_model):
    prompts = encoded(language_model, PROMPTS)
    whole = generate(language_model, [], prompts, stop=" END", max_new_tokens=12)
    joined = [""] * len(prompts)
    for row, text in stream(language_model, [], prompts, stop=" END", max_new_tokens=12):
        joined[row] += text
        assert not torch.is_inference_mode_enabled()
    assert joined == whole


def test_memory_bounds_the_rows_at_once(language_model, monkeypatch):
    prompts = encoded(language_model, PROMPTS)
    whole = generate(language_model, [], prompts, stop="", max_new_tokens=6)
    monkeypatch.setattr("engine.answering.opening._MOST_KEPT_BYTES", 1)
    assert rows_at_once(language_model, 32, 10) == 1
    assert generate(language_model, [], prompts, stop="", max_new_tokens=6) == whole


@pytest.mark.parametrize(
    ("method", "precision"),
    [
        (method, precision)
        for method in ("lora", "prefix", "prompt_tuning")
        for precision in get_method(method).precisions
    ],
)
def test_live_and_merged_methods_answer_alike(tmp_path, method, precision):
    spec = get_method(method)
    base = tiny_model(tmp_path, "llama", precision)
    tuned = attach_method(base, spec, parse_options(spec, {}), seed=1)
    for parameter in trainable(tuned.model).values():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=torch.manual_seed(3))
    context = tuned.virtual_token_ids + tuned.encode(CONTEXT_TEXT)
    prompts, labels = encoded(tuned, PROMPTS), encoded(tuned, LABELS)
    scores = score_labels(tuned, context, prompts, labels)
    with tuned.autocast():
        expected = [[plain_score(tuned, context + p, label) for label in labels] for p in prompts]
    np.testing.assert_allclose(scores, expected, rtol=1e-5 if precision == "fp32" else 0.1)
    if precision != "fp32":
        return
    answers = generate(tuned, context, prompts, stop="", max_new_tokens=8)
    for prompt, answer in zip(prompts, answers, strict=True):
        tokens = plain_greedy(tuned, context + prompt, 8)
        assert answer == text_behind(tuned, prompt, tokens)
    if spec.merge is not None:
        spec.merge(tuned.model)
        np.testing.assert_allclose(
            score_labels(tuned, context, prompts, labels), scores, rtol=1e-4, atol=1e-4
        )

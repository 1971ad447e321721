"""Rows with different adapters, in one pass, compute what each adapter computes alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.adapter_bank import AdapterBank
from engine.adapter_exchange import AdapterExchange
from engine.adapter_import import ImportedAdapter, able_to_hold, read_adapter
from engine.answering.choice import Choice
from engine.answering.generation import generate
from engine.answering.label_scores import score_labels
from engine.answering.opening import open_reading
from engine.answering.padded_reading import PaddedReading
from engine.answering.reading import evaluating
from engine.base_model import locate_base
from engine.language_model import LanguageModel
from engine.layers import modules_of
from engine.method import parse_options, trainable
from engine.methods import get_method
from engine.methods.lora import LoraLinear
from templates.errors import ModelError, PlanError, RunError
from tests.engine.methods.low_rank import IDS, logits_of, made_by_peft, tuned_on
from tests.engine.tiny import ARCHITECTURES, CONTEXT, tiny_model

KINDS: dict[str, dict[str, Any]] = {
    "lora": {"rank": 4},
    "rslora": {"rank": 2, "alpha": 4},
    "dora": {"rank": 3},
    "lora_bitfit": {"rank": 3, "norms": False},
    "lora_plus": {"rank": 4, "top_blocks": 1},
    "pissa": {"rank": 2},
    "random_rank": {"rank": 5, "alpha": 4},
    "adalora": {"rank": 4, "target_rank": 2},
    "ia3": {},
    "prompt_tuning": {"num_tokens": 3},
    "ptuning": {"num_tokens": 4},
    "prefix": {"num_tokens": 5},
}
PROMPTS = ["where is the parcel", "money", "a kettle, a kettle: the kettle!", "the invoice"]
LABELS = [" billing END", " shipping", "!"]


def learned(
    base: LanguageModel, method: str, *, spread: float = 0.3, **options: Any
) -> ImportedAdapter:
    """An adapter whose values lie `spread` from their start; the base is left as it was."""
    exchange = AdapterExchange(base)
    able = able_to_hold(get_method(method), base.precision)
    tuned = tuned_on(base, able.name, spread=spread, **options)
    tensors = {name: value.detach().clone() for name, value in trainable(tuned.model).items()}
    exchange.use(None)
    return ImportedAdapter(method, parse_options(get_method(method), options), tensors, seed=3)


def all_kinds(base: LanguageModel) -> dict[str, ImportedAdapter]:
    spreads = {"ia3": 1.0, "prefix": 0.5, "random_rank": 0.15}
    return {
        kind: learned(base, kind, spread=spreads.get(kind, 0.3), **options)
        for kind, options in KINDS.items()
        if base.precision in able_to_hold(get_method(kind), base.precision).precisions
    }


def first_and_next_logits(
    model: LanguageModel, prompts: list[list[int]], adapters: list[int] | None, token: int
) -> torch.Tensor:
    with evaluating(model):
        reading = open_reading(model, [], len(prompts), 60)
        first = reading.add(prompts, adapters)
        return torch.stack([first, reading.step([token] * len(prompts))])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "nf4"])
def test_every_row_computes_what_its_adapter_computes_alone(
    tmp_path: Path, architecture: str, precision: Any
) -> None:
    base = tiny_model(tmp_path, architecture, precision)
    adapters = all_kinds(base)
    names = [None, *adapters, None]
    prompts = [base.encode(PROMPTS[row % len(PROMPTS)]) for row in range(len(names))]
    exchange = AdapterExchange(base)
    alone = []
    for name, prompt in zip(names, prompts, strict=True):
        tuned = exchange.use(adapters[name] if name else None)
        own = [*tuned.virtual_token_ids, *prompt]
        with evaluating(tuned):
            reading = open_reading(tuned, own[:-1], 1, 60)
            alone.append(torch.stack([reading.add([own[-1:]])[0], reading.step([7])[0]]))
    exchange.use(None)
    bank = AdapterBank(base, adapters)
    numbers = bank.numbers(names, len(names))
    rows = bank.language_model.row_adapters
    assert rows is not None
    own_prompts = [
        [*rows.virtual_ids(number), *prompt]
        for number, prompt in zip(numbers, prompts, strict=True)
    ]
    mixed = first_and_next_logits(bank.language_model, own_prompts, numbers, 7).transpose(0, 1)
    apart = torch.stack(alone)
    if precision == "fp32":
        torch.testing.assert_close(mixed, apart, atol=1e-4, rtol=1e-4)
    error = (mixed - apart).norm(dim=-1).amax(dim=1) / apart.norm(dim=-1).amax(dim=1)
    assert float(error.max()) < 0.06
    bare = first_and_next_logits(bank.language_model, prompts, None, 7).transpose(0, 1)
    differs = (bare - apart).norm(dim=-1).amax(dim=1) / apart.norm(dim=-1).amax(dim=1)
    assert float(differs[[0, -1]].max()) < 0.05 and float(differs[1:-1].min()) > 0.1


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_mixed_answers_and_scores_are_those_of_each_adapter(
    tmp_path: Path, architecture: str
) -> None:
    base = tiny_model(tmp_path, architecture)
    adapters = all_kinds(base)
    names = [None, *adapters] * 2
    prompts = [base.encode(PROMPTS[row % len(PROMPTS)]) for row in range(len(names))]
    labels = [base.encode(label) for label in LABELS]
    context = base.encode("text: ")
    asked = {"stop": "", "max_new_tokens": 10}
    exchange = AdapterExchange(base)
    answers, scores, beams = [], [], []
    for name, prompt in zip(names, prompts, strict=True):
        tuned = exchange.use(adapters[name] if name else None)
        before = [*tuned.virtual_token_ids, *context]
        answers += generate(tuned, before, [prompt], **asked)
        beams += generate(tuned, before, [prompt], choice=Choice(num_beams=2), **asked)
        scores.append(score_labels(tuned, before, [prompt], labels)[0])
    exchange.use(None)
    bank = AdapterBank(base, adapters)
    # Fewer places than rows: rows leave, others take their places and change numbers.
    mixed = bank.answers(prompts, names, context_ids=context, batch_size=5, **asked)
    assert mixed == answers and len(set(answers)) > 7
    assert beams == bank.answers(
        prompts, names, context_ids=context, choice=Choice(num_beams=2), **asked
    )
    ours = bank.label_scores(prompts, names, labels, context_ids=context, batch_size=4)
    np.testing.assert_allclose(ours, np.stack(scores), atol=1e-3)
    bank.close()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("other", ["prompt_tuning", "ptuning", "prefix"])
def test_a_lora_and_a_soft_prompt_work_together(
    tmp_path: Path, architecture: str, other: str
) -> None:
    base = tiny_model(tmp_path, architecture)
    lora, virtual = learned(base, "lora", rank=4), learned(base, other, **KINDS[other])
    prompts = [base.encode(text) for text in PROMPTS]
    asked = {"stop": "", "max_new_tokens": 10}
    exchange = AdapterExchange(base)
    exchange.use(lora)
    both = AdapterExchange(exchange.merge()).use(virtual)
    wanted = [generate(both, both.virtual_token_ids, [prompt], **asked)[0] for prompt in prompts]
    exchange.use(None)
    bank = AdapterBank(base, {"both": (lora, virtual), "lora": lora, "virtual": (virtual,)})
    found = bank.answers(prompts * 2, ["both", "lora"] * 4, **asked)
    assert [found[0], found[6], found[4], found[2]] == [wanted[0], wanted[2], wanted[0], wanted[2]]
    alone = bank.answers(prompts, ["virtual"] * 4, **asked)
    assert wanted != alone and wanted != bank.answers(prompts, ["lora"] * 4, **asked)


def test_adapters_that_cannot_work_together_are_refused(tmp_path: Path) -> None:
    base = tiny_model(tmp_path, "llama")
    lora, prompt = learned(base, "lora", rank=4), learned(base, "prompt_tuning", num_tokens=3)
    for pair, sentence in [
        ((lora, lora), "change the same layer .adapter pair, model.layers.0"),
        ((prompt, prompt), "Two adapters begin with virtual tokens .adapter pair"),
    ]:
        with pytest.raises(PlanError, match=sentence):
            AdapterBank(base, {"pair": pair})
        assert not modules_of(base.model, LoraLinear)


def test_padded_reading_mixes_rows_too(tmp_path: Path) -> None:
    base = tiny_model(tmp_path, "llama")
    adapters = {name: learned(base, name, **KINDS[name]) for name in ("lora", "dora", "ia3")}
    adapters["prompt_tuning"] = learned(base, "prompt_tuning", num_tokens=3)
    bank = AdapterBank(base, adapters)
    prompts = [base.encode(text) for text in PROMPTS]
    numbers = bank.numbers(list(adapters), 4)
    rows = bank.language_model.row_adapters
    assert rows is not None
    prompts[3] = [*rows.virtual_ids(numbers[3]), *prompts[3]]
    packed = first_and_next_logits(bank.language_model, prompts, numbers, 7)
    with evaluating(bank.language_model):
        reading = PaddedReading(bank.language_model, [])
        padded = torch.stack([reading.add(prompts, numbers), reading.step([7] * 4)])
        torch.testing.assert_close(padded, packed, atol=1e-4, rtol=1e-4)
        reading.select([2, 0])
        after = reading.step([8, 9])
        again = open_reading(bank.language_model, [], 2, 60)
        again.add([[*prompts[2], 7], [*prompts[0], 7]], [numbers[2], numbers[0]])
        torch.testing.assert_close(after, again.step([8, 9]), atol=1e-4, rtol=1e-4)


def test_the_base_answers_as_before_in_a_bank_and_after_it(tmp_path: Path) -> None:
    base = tiny_model(tmp_path, "gpt2")
    adapters = all_kinds(base)
    before, state = logits_of(base.model), set(base.model.state_dict())
    bank = AdapterBank(base, adapters)
    assert torch.equal(logits_of(bank.language_model.model), before)
    bank.close()
    assert torch.equal(logits_of(base.model), before)
    assert set(base.model.state_dict()) == state


def test_adapters_of_the_peft_library_from_folders(tmp_path: Path) -> None:
    theirs = logits_of(made_by_peft(tmp_path, "llama"))
    folder = locate_base(str(tmp_path / "base"))
    adapter = read_adapter(tmp_path / "adapter", folder)
    base = tiny_model(tmp_path / "copy", "llama")
    bank = AdapterBank(base, {"theirs": adapter})
    prompts = IDS.tolist()
    ours = first_and_next_logits(bank.language_model, prompts, [1, 0], 7)[0]
    torch.testing.assert_close(ours[0], theirs[0, -1], atol=1e-4, rtol=1e-4)
    assert float((ours[1] - theirs[1, -1]).abs().max()) > 0.01


def test_what_does_not_fit_is_refused_and_leaves_the_base_alone(tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "llama", "llama")
    good = learned(base, "lora", rank=4)
    foreign = learned(tiny_model(tmp_path / "gpt2", "gpt2"), "lora", rank=4)
    longer = ImportedAdapter(
        "lora", good.options, {name: value[:, :-1] for name, value in good.tensors.items()}
    )
    unknown = learned(tiny_model(tmp_path / "more", "gpt2"), "lora", rank=4, targets=("c_attn",))
    broken = ImportedAdapter(
        "lora", good.options, {name: value * torch.nan for name, value in good.tensors.items()}
    )
    whole = learned(base, "full", spread=0.01)
    before = logits_of(base.model)
    for bad, kind, sentence in [
        (foreign, ModelError, "another base .*adapter bad, tensor"),
        (longer, ModelError, "has shape .*adapter bad"),
        (unknown, PlanError, "no linear layer called 'c_attn' .adapter bad"),
        (broken, ModelError, "no numbers .adapter bad"),
        (whole, PlanError, "all rows of a batch would share .adapter bad"),
    ]:
        with pytest.raises(kind, match=sentence):
            AdapterBank(base, {"good": good, "bad": bad})
        assert not modules_of(base.model, LoraLinear)
        assert torch.equal(logits_of(base.model), before)


def test_wrong_requests_are_refused(tmp_path: Path) -> None:
    base = tiny_model(tmp_path, "llama")
    bank = AdapterBank(base, {"one": learned(base, "prompt_tuning", num_tokens=3)})
    asked: dict[str, Any] = {"stop": "", "max_new_tokens": 4}
    with pytest.raises(PlanError, match=r"no adapter called 'two' .item 2.. Choose from one"):
        bank.answers([[5], [6]], ["one", "two"], **asked)
    with pytest.raises(PlanError, match="2 prompts have 1 adapters"):
        bank.label_scores([[5], [6]], ["one"], [[7]])
    full = [5] * (CONTEXT - 2)
    assert len(bank.answers([full], [None], **asked)) == 1
    with pytest.raises(RunError, match="leaves no room"):  # the virtual tokens need room, too
        bank.answers([full], ["one"], **asked)


def test_layers_that_see_some_of_the_tokens_are_refused(tmp_path: Path) -> None:
    base = tiny_model(tmp_path, "llama")
    bank = AdapterBank(base, {"one": learned(base, "lora", rank=4)})
    rows = bank.language_model.row_adapters
    assert rows is not None
    projection = base.model.get_submodule("model.layers.0.mlp.up_proj")
    with rows.routed(torch.tensor([1, 0, 1])), pytest.raises(ModelError, match="some tokens only"):
        projection(torch.zeros(2, 32))

"""One base in memory under many adapters has the bits it had, also after a merge."""

from pathlib import Path
from typing import Any

import pytest
import torch

from engine.adapter_exchange import AdapterExchange
from engine.adapter_import import ImportedAdapter
from engine.base_model import locate_base
from engine.language_model import LanguageModel
from engine.method import MethodSpec, parse_options, trainable
from engine.methods import all_methods, get_method
from engine.runs import learned_adapter, load_run
from templates.errors import ModelError, PlanError
from tests.engine.methods.low_rank import IDS, tuned_on
from tests.engine.publishing.published import finished_run
from tests.engine.tiny import NEEDED, save_tiny, tiny_model

SMALL: dict[str, dict[str, Any]] = NEEDED | {
    "adalora": {"rank": 4, "target_rank": 2},
    "loha": {"rank": 4},
    "topk": {"num_blocks": 0},
}


def bits_of(language_model: LanguageModel) -> dict[str, torch.Tensor]:
    model = language_model.model
    kept = {name: value.detach().clone() for name, value in model.state_dict().items()}
    for path, module in model.named_modules():
        if hasattr(module, "codes"):
            kept[path] = module.dequantised(torch.float32)
    return kept


@torch.no_grad()
def logits_of(language_model: LanguageModel) -> torch.Tensor:
    virtual = torch.tensor(language_model.virtual_token_ids, dtype=torch.long)
    ids = torch.cat([virtual.expand(len(IDS), -1), IDS], dim=1)
    language_model.model.eval()
    with language_model.autocast():
        return language_model.model(ids).logits[:, len(virtual) :].float()


def same_bits(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(
        torch.equal(left[name], right[name]) for name in left
    )


def learned_by(base: LanguageModel, spec: MethodSpec) -> tuple[ImportedAdapter, torch.Tensor]:
    """An adapter made on another copy of the base, and what it computes there."""
    options = SMALL.get(spec.name, {})
    tuned = tuned_on(base, spec.name, spread=0.05, **options)
    tensors = {name: value.detach().clone() for name, value in trainable(tuned.model).items()}
    adapter = ImportedAdapter(spec.name, parse_options(spec, options), tensors, seed=3)
    return adapter, logits_of(tuned)


@pytest.mark.parametrize("spec", all_methods().values(), ids=lambda spec: spec.name)
def test_exchanged_merged_and_unmerged_bit_for_bit(tmp_path: Path, spec: MethodSpec) -> None:
    for architecture in ("llama", "gpt2"):
        precision = spec.precisions[0]
        base = tiny_model(tmp_path / "base", architecture, precision)
        adapter, alone = learned_by(tiny_model(tmp_path / "copy", architecture, precision), spec)
        before, plain = bits_of(base), logits_of(base)
        config = dict(base.model.config.__dict__)
        exchange = AdapterExchange(base)
        tuned = exchange.use(adapter)
        assert torch.equal(logits_of(tuned), alone)
        assert not torch.equal(alone, plain)
        if spec.merge:
            merged = logits_of(exchange.merge())
            torch.testing.assert_close(merged, alone, atol=3e-2, rtol=3e-2)
            assert torch.equal(logits_of(exchange.merge()), merged)  # not folded in twice
            assert torch.equal(logits_of(exchange.unmerge()), alone)
        else:
            with pytest.raises(PlanError, match="nothing that could be merged"):
                exchange.merge()
        assert exchange.use(None) is base
        assert same_bits(bits_of(base), before) and torch.equal(logits_of(base), plain)
        assert dict(base.model.config.__dict__) == config
        assert not trainable(base.model) or not trainable(tuned.model)


@pytest.mark.parametrize("precision", ["bf16", "nf4"])
def test_many_adapters_one_after_the_other(tmp_path: Path, precision: Any) -> None:
    base = tiny_model(tmp_path / "base", "qwen3", precision)
    before = bits_of(base)
    names = ("qlora" if precision == "nf4" else "lora", "prompt_tuning", "ia3")
    made = {
        name: learned_by(tiny_model(tmp_path / name, "qwen3", precision), get_method(name))
        for name in names
    }
    exchange = AdapterExchange(base)
    for name in (*names, *reversed(names)):
        adapter, alone = made[name]
        assert torch.equal(logits_of(exchange.use(adapter)), alone)
        if get_method(name).merge:
            exchange.merge()
    exchange.use(None)
    assert same_bits(bits_of(base), before)


def test_a_misfit_leaves_the_bare_base(tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "base", "llama")
    before = bits_of(base)
    foreign, _ = learned_by(tiny_model(tmp_path / "other", "gpt2"), get_method("lora"))
    exchange = AdapterExchange(base)
    with pytest.raises(ModelError, match="another base"):
        exchange.use(foreign)
    assert same_bits(bits_of(base), before)
    with pytest.raises(PlanError, match="no adapter"):
        exchange.merge()
    with pytest.raises(PlanError, match="Merge one first"):
        exchange.unmerge()


def test_a_run_puts_what_it_learned_on_a_base_in_memory(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "pissa", rank=2)
    folder = locate_base(run.plan.base.id, run.plan.base.revision)
    adapter = learned_adapter(run.plan, run.checkpoints, folder)
    base = tiny_model(tmp_path / "copy", "llama")
    ours = logits_of(AdapterExchange(base).use(adapter))
    assert torch.equal(ours, logits_of(load_run(run.plan, run.checkpoints)))
    other = locate_base(str(save_tiny(tmp_path / "other", "gpt2")))
    pinned = run.plan.base.model_copy(update={"fingerprint": folder.fingerprint})
    plan = run.plan.model_copy(update={"base": pinned})
    assert learned_adapter(plan, run.checkpoints, folder).method == "pissa"
    with pytest.raises(ModelError, match="trained on another base"):
        learned_adapter(plan, run.checkpoints, other)

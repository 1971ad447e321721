"""AdaLoRA: the budget, what is given up for it, and the real `peft`."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import peft
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from engine.adapter_import import open_adapter, read_adapter
from engine.base_model import locate_base
from engine.events import Stepped
from engine.layers import modules_of
from engine.method import parse_options
from engine.methods import get_method
from engine.methods.adalora import AdaLoraLinear, Options, RankAllocator
from engine.optimizers import begin_step
from engine.plan import Schedule
from engine.trainer import Training, train
from templates.errors import PlanError
from tests.engine.methods.low_rank import NAMES, exported, in_peft, logits_of, plain_base
from tests.engine.tiny import ARCHITECTURES, save_tiny
from tests.engine.train_tiny import digest, tiny_training

SPEC = get_method("adalora")
OPTIONS = {"rank": 4, "target_rank": 2, "warmup_share": 0.2, "settled_share": 0.4}


def learned(ranks: tuple[int, ...] = (4, 4)) -> dict[str, nn.Parameter]:
    draw = torch.Generator().manual_seed(1)
    shapes = {"lora_A": lambda r: (r, 6), "lora_B": lambda r: (5, r), "lora_E": lambda r: (r, 1)}
    return {
        f"layers.{layer}.{factor}": nn.Parameter(torch.randn(shape(rank), generator=draw))
        for layer, rank in enumerate(ranks)
        for factor, shape in shapes.items()
    }


def allocator(parameters: dict[str, nn.Parameter], **options: object) -> RankAllocator:
    settings = parse_options(SPEC, OPTIONS | options)
    assert isinstance(settings, Options)
    return RankAllocator(parameters, Schedule(learning_rate=1e-3), options=settings)


def with_gradients(parameters: dict[str, nn.Parameter], **sizes: float) -> None:
    for name, value in parameters.items():
        layer = name.split(".")[1]
        value.grad = torch.full_like(value, sizes.get(f"layer_{layer}", 1.0))


def test_the_budget_falls_as_the_paper_has_it() -> None:
    # Zhang et al. 2023, equation 12, with t_i = 0.1 T and t_f = 0.4 T.
    options = Options()
    assert [options.budget_ratio(done) for done in (0, 0.1)] == [1, 1]
    assert options.budget_ratio(0.35) == pytest.approx(0.5**3)
    assert options.budget_ratio(0.475) == pytest.approx(0.25**3)
    assert [options.budget_ratio(done) for done in (0.6, 1)] == [0, 0]


def test_the_penalty_is_the_gradient_of_overlaps_and_lengths() -> None:
    parameters = learned((4,))
    plain = {name: value.detach().clone() for name, value in parameters.items()}
    optimizer = allocator(parameters, orthogonality=0.5)
    with_gradients(parameters, layer_0=0.0)
    begin_step(optimizer, 0.0, 0.0)  # no step is taken: gradients stay to be looked at
    optimizer.step()
    for name, rows in (
        ("lora_A", plain["layers.0.lora_A"]),
        ("lora_B", plain["layers.0.lora_B"].T),
    ):
        rows = rows.clone().requires_grad_()
        penalty = 0.5 * (rows @ rows.T - torch.eye(4)).square().sum()
        (expected,) = torch.autograd.grad(penalty, rows)
        found = parameters[f"layers.0.{name}"].grad
        assert found is not None
        torch.testing.assert_close(found if name == "lora_A" else found.T, expected)


def test_what_matters_more_keeps_more_of_the_budget() -> None:
    parameters = learned()
    optimizer = allocator(parameters, orthogonality=0)
    for step in range(1, 11):
        with_gradients(parameters, layer_0=1.0 + step % 2, layer_1=0.01 * (1 + step % 2))
        begin_step(optimizer, 1e-4, step / 10)
        optimizer.step()
    kept = [int((parameters[f"layers.{layer}.lora_E"] != 0).sum()) for layer in (0, 1)]
    assert kept == [4, 0], "the budget of 2 a layer goes to the layer that matters"


def singular_values(task: Training) -> list[Tensor]:
    model = task.language_model.model
    return [layer.lora_E.detach().flatten() for _, layer in modules_of(model, AdaLoraLinear)]


def steps_of(task: Training) -> Iterator[int]:
    """Directions that are left after each step."""
    for event in train(task):
        if isinstance(event, Stepped):
            yield sum(int((values != 0).sum()) for values in singular_values(task))


def training(folder: Path, checkpoints: str, architecture: str = "llama") -> Training:
    base = save_tiny(folder / "base", architecture)
    return tiny_training(base, folder / checkpoints, "adalora", options=OPTIONS)


def test_a_run_ends_within_its_budget_and_with_the_same_bits_when_resumed(tmp_path: Path) -> None:
    whole = training(tmp_path, "whole")
    left = list(steps_of(whole))
    num_layers = len(singular_values(whole))
    assert left[1] == 4 * num_layers and left[-1] == 2 * num_layers
    assert left == sorted(left, reverse=True)
    cut = train(training(tmp_path, "cut"))
    for event in cut:
        if isinstance(event, Stepped) and event.step == 7:
            break
    cut.close()  # like a kill: nothing is saved on the way out
    again = training(tmp_path, "cut")
    assert list(steps_of(again))[-1] == 2 * num_layers
    assert digest(again) == digest(whole)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_only_what_is_left_is_published_and_peft_computes_the_same(
    tmp_path: Path, architecture: str
) -> None:
    task = training(tmp_path, "run", architecture)
    list(train(task))
    assert SPEC.export and SPEC.export_method == "lora"
    adapter = SPEC.export(task.language_model, parse_options(SPEC, OPTIONS))
    ranks = {
        name.removesuffix(".lora_A.weight").removeprefix("base_model.model."): len(value)
        for name, value in adapter.tensors.items()
        if name.endswith("lora_A.weight")
    }
    layers = modules_of(task.language_model.model, AdaLoraLinear)
    assert ranks == {path: max(1, int((layer.lora_E != 0).sum())) for path, layer in layers}
    assert len(set(ranks.values())) > 1 and adapter.config["peft_type"] == "LORA"
    exported(tmp_path, task.language_model, "adalora", **OPTIONS)
    theirs = logits_of(in_peft(tmp_path, architecture))
    torch.testing.assert_close(logits_of(task.language_model.model), theirs, rtol=0, atol=1e-4)
    base = logits_of(plain_base(tmp_path, architecture))
    assert (base - theirs).abs().max() > 0.01, "what is left has learned something"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("resized", [False, True])
def test_what_peft_made_computes_the_same_here(
    tmp_path: Path, architecture: str, resized: bool
) -> None:
    folder = save_tiny(tmp_path / "base", architecture)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    names = list(NAMES[architecture])
    config = peft.AdaLoraConfig(
        task_type="CAUSAL_LM", init_r=4, target_r=2, lora_alpha=8, total_step=10,
        target_modules=names, fan_in_fan_out=architecture == "gpt2",
    )  # fmt: skip
    torch.manual_seed(2)
    with warnings.catch_warnings(action="ignore"):  # of the library, to its own users
        theirs = peft.get_peft_model(base, config).eval()
        pattern = {}
        for name, value in theirs.named_parameters():
            if "lora_" in name:
                value.data += 0.2 * torch.randn_like(value)
            if resized and "lora_E" in name:
                kept = [True, False, True, "1" in name.split(".")]
                kept = [False] * 4 if not pattern else kept  # one layer keeps nothing
                value.data *= torch.tensor(kept)[:, None]
                pattern[name.removeprefix("base_model.model.")] = kept
        expected = logits_of(theirs)
        if resized:
            theirs.peft_config["default"].rank_pattern = pattern
        theirs.save_pretrained(tmp_path / "adapter")
    assert read_adapter(tmp_path / "adapter", locate_base(str(folder))).method == "adalora"
    ours = open_adapter(tmp_path / "adapter", locate_base(str(folder)), "fp32").model
    torch.testing.assert_close(logits_of(ours), expected, rtol=0, atol=1e-4)
    ranks = {layer.rank for _, layer in modules_of(ours, AdaLoraLinear)}
    assert ranks == ({2, 3} if resized else {4})


@pytest.mark.parametrize(
    "options",
    [
        {"rank": 4, "target_rank": 5},
        {"warmup_share": 0.5, "settled_share": 0.5},
        {"orthogonality": -1},
        {"rank": 0},
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(PlanError, match="method adalora"):
        parse_options(SPEC, options)

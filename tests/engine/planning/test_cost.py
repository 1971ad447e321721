"""Estimates against arithmetic, against what autograd keeps, and against what the trainer does."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.base_model import BaseFolder, load_base
from engine.batches import collate
from engine.encode import Encoded
from engine.language_model import LanguageModel
from engine.layers import linear_layers
from engine.loss import read_batch
from engine.method import MethodSpec, attach_method, count_parameters, parse_options, trainable
from engine.methods import all_methods, get_method
from engine.plan import BaseChoice, Limits, MethodChoice, Schedule, TrainPlan
from engine.planning.activations import activation_bytes
from engine.planning.architecture import frozen_weight_bytes, look_at
from engine.planning.cost import (
    ItemLength,
    estimate,
    gradient_bytes,
    item_length,
    optimizer_bytes,
    training_flops_per_token,
)
from engine.planning.estimate import CostEstimate, Hardware
from engine.quantise import Int8Linear, NF4Linear, QuantisedLinear
from engine.schedules import num_steps
from engine.trainer import Training
from tests.engine.combinations import in_all_combinations
from tests.engine.tiny import ARCHITECTURES, NEEDED, tiny_folder

GIB, GIGA = 1 << 30, 1_000_000_000
HARDWARE = Hardware(
    device="cpu", name="a test", num_cores=2, memory_total_bytes=8 * GIGA,
    memory_available_bytes=6 * GIGA, runtime_bytes=400_000_000, fp32_flops_per_second=2e11,
    bf16_flops_per_second=4e11, bandwidth_bytes_per_second=4e10,
)  # fmt: skip
LENGTHS = [ItemLength(40 + number % 30, 4, 4) for number in range(50)]


def plan_for(folder: Path, method: str = "lora", **changes: Any) -> TrainPlan:
    spec = get_method(method)
    precision = changes.pop("precision", spec.precisions[0])
    limits = changes.pop("limits", Limits())
    return TrainPlan(
        base=BaseChoice(id=str(folder), precision=precision),
        dataset_id="d",
        dataset_sha256="",
        method=MethodChoice(name=method, options=changes.pop("options", {})),
        schedule=Schedule(learning_rate=1e-3, **changes),
        limits=limits,
    )


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BaseFolder]:
    root = tmp_path_factory.mktemp("bases")
    return {name: tiny_folder(root / name, name) for name in ARCHITECTURES}


@pytest.fixture(scope="module")
def base(bases: dict[str, BaseFolder]) -> BaseFolder:
    return bases["llama"]


def cost_of(
    base: BaseFolder,
    lengths: list[ItemLength] = LENGTHS,
    hardware: Hardware = HARDWARE,
    **changes: Any,
) -> CostEstimate:
    plan = plan_for(base.path, **changes)
    return estimate(plan, base, lengths, hardware, validation_lengths=lengths[:8])


@pytest.mark.parametrize(
    ("what", "computed", "unit", "textbook"),
    [
        ("Llama-2-7B weights", frozen_weight_bytes(7 * GIGA, "bf16"), GIB, 13.03),
        ("Llama-2-7B gradients", gradient_bytes(7 * GIGA, 2), GIB, 13.03),
        ("Llama-2-7B optimizer", optimizer_bytes(7 * GIGA, 2), GIB, 26.06),
        ("0.2 M trainable beside it", 13.03 * GIB + gradient_bytes(200_000, 2)
         + optimizer_bytes(200_000, 2) + (3.16 + 1) * GIB, GIB, 17.19),
        ("Mistral-7B mixed precision", 2 * 7 * GIGA + gradient_bytes(7 * GIGA, 2)
         + optimizer_bytes(7 * GIGA) + 4 * 7 * GIGA, GIGA, 112),
        ("Mistral-7B LoRA", 0.00296 * 16 * 7 * GIGA + frozen_weight_bytes(7 * GIGA, "bf16"),
         GIGA, 14.33),
    ],
)  # fmt: skip
def test_textbook_memory(what: str, computed: float, unit: int, textbook: float) -> None:
    assert computed / unit == pytest.approx(textbook, rel=0.01), what


def test_textbook_share_and_arithmetic() -> None:
    assert 21_549_136 / 7_263_322_192 == pytest.approx(0.002967, rel=0.001)
    assert 21_549_136 * 16 / GIGA + 14 == pytest.approx(14.33, rel=0.01)
    # the total of the first set, hidden states by the course's own formula
    hidden = 2 * 32 * (20 * 32 * 4096 + 3 * 4096**2)
    assert hidden / GIB == pytest.approx(3.16, rel=0.01)
    total = frozen_weight_bytes(7 * GIGA, "bf16") + gradient_bytes(7 * GIGA, 2)
    total += optimizer_bytes(7 * GIGA, 2) + hidden + GIB
    assert total / GIB == pytest.approx(56.28, rel=0.01)
    assert training_flops_per_token(7, 0) == 2 * 7 + 2 * 7
    assert training_flops_per_token(0, 7) == 2 * 7 + 4 * 7


@pytest.mark.parametrize("shape", [(16, 16), (100, 70), (512, 640)])
def test_nf4_bytes_are_what_the_layer_holds(shape: tuple[int, int]) -> None:
    layer = NF4Linear(torch.randn(shape), None)
    assert frozen_weight_bytes(shape[0] * shape[1], "nf4") == layer.num_bytes()


@pytest.mark.parametrize("shape", [(16, 16), (100, 70), (512, 640)])
def test_int8_bytes_are_what_the_layer_holds(shape: tuple[int, int]) -> None:
    layer = Int8Linear(torch.randn(shape), None)
    assert frozen_weight_bytes(shape[0] * shape[1], "int8", shape[0]) == layer.num_bytes()
    assert layer.num_bytes() == shape[0] * (shape[1] + 4)


def test_nf4_takes_about_four_bits() -> None:
    bits = 8 * frozen_weight_bytes(4096 * 11008, "nf4") / (4096 * 11008)
    assert bits == pytest.approx(4.127, abs=0.001)


@in_all_combinations
def test_counts_bytes_and_activations_are_those_of_the_real_model(
    bases: dict[str, BaseFolder], spec: MethodSpec, precision: Any, architecture: str
) -> None:
    small = NEEDED | {"prompt_tuning": {"num_tokens": 5}}
    options = parse_options(spec, small.get(spec.name, {}))
    tuned = attach_method(load_base(bases[architecture], precision), spec, options, seed=0)
    seen = look_at(bases[architecture], spec, options, precision)
    learned = trainable(tuned.model)
    assert seen.num_trainable == count_parameters(learned.values())
    held = sum(
        value.numel() * value.element_size()
        for name, value in tuned.model.named_parameters()
        if name not in learned
    )
    for layer in linear_layers(tuned.model):
        if isinstance(layer.module, QuantisedLinear):
            bias = layer.module.bias
            held += layer.module.num_bytes() - (0 if bias is None else bias.nbytes)
    assert seen.frozen_bytes == held
    assert 0 <= activations_of(tuned) - traced(tuned, spec, options, precision) < 50_000


@pytest.mark.parametrize(
    "targets", [["all-linear"], ["all-linear", "experts"]], ids=["", "experts"]
)
def test_experts_are_counted_as_the_real_model_holds_them(
    tmp_path: Path, targets: list[str]
) -> None:
    base, spec = tiny_folder(tmp_path, "mixtral"), get_method("qlora")
    options = parse_options(spec, {"rank": 4, "targets": targets})
    tuned = attach_method(load_base(base, "nf4"), spec, options, seed=0)
    seen = look_at(base, spec, options, "nf4")
    experts = sum(value.numel() for value in tuned.model.parameters() if value.dim() == 3) - sum(
        value.numel() for value in trainable(tuned.model).values() if value.dim() == 3
    )
    assert seen.expert_weights == experts > 0
    assert seen.frozen_bytes > 2 * experts
    assert seen.num_trainable == count_parameters(trainable(tuned.model).values())
    real, counted = activations_of(tuned), traced(tuned, spec, options, "nf4")
    assert 0.9 < counted / real < 1.1


def test_it_is_said_where_4_bits_hardly_shrink_a_base(tmp_path: Path, base: BaseFolder) -> None:
    of_experts = tiny_folder(tmp_path, "mixtral")
    [sentence] = cost_of(of_experts, method="qlora").warnings
    assert sentence.startswith("The experts, ") and "stay in 16 bits" in sentence
    assert not cost_of(of_experts, method="lora").warnings
    assert not cost_of(base, method="qlora").warnings


def batch_of(tuned: LanguageModel) -> Any:
    draw = random.Random(0)
    items = [
        Encoded(
            tuple(draw.randrange(9, 99) for _ in range(size)), (False,) * (size - 4) + (True,) * 4
        )
        for size in (60, 60, 60, 60)
    ]
    return collate(items, tuned)


def activations_of(tuned: LanguageModel) -> int:
    """Count what autograd keeps of a real forward pass."""
    batch, kept, held = batch_of(tuned), {}, []
    weights = {
        value.untyped_storage().data_ptr()
        for value in [*tuned.model.parameters(), *tuned.model.buffers()]
    }

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        held.append(tensor)
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    tuned.model.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = read_batch(tuned, batch, tuned.model.base_model)
    assert output.last_hidden_state.requires_grad
    return sum(kept.values())


def traced(tuned: LanguageModel, spec: Any, options: Any, precision: Any) -> int:
    return activation_bytes(
        tuned.model.config, spec, options, precision, num_rows=4,
        row_tokens=60 + tuned.num_virtual_tokens, packed=tuned.paths.packs,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("examples", "batch_size", "epochs", "max_steps"),
    [(50, 16, 3, 0), (50, 16, 0.1, 0), (1, 16, 1, 0), (50, 7, 2.5, 0), (50, 16, 3, 4)],
)
def test_steps_are_those_of_the_trainer(
    examples: int, batch_size: int, epochs: float, max_steps: int
) -> None:
    schedule = Schedule(learning_rate=1, batch_size=batch_size, epochs=epochs)
    items = [Encoded((1, 2), (False, True))] * examples
    limits = Limits(max_steps=max_steps)
    training = Training(None, items, items, schedule, limits, 0, Path())  # type: ignore[arg-type]
    assert num_steps(examples, schedule, max_steps) == training.total_steps


def test_an_estimate_adds_up(base: BaseFolder) -> None:
    cost = cost_of(base, batch_size=8, micro_batch_tokens=256, epochs=2)
    assert cost.fits and not cost.warnings
    assert cost.num_steps == 14 and cost.num_examples == 50
    assert cost.longest_tokens == 69
    assert cost.epoch_tokens == sum(item.num_tokens for item in LENGTHS)
    assert cost.epoch_supervised_tokens == 200
    assert cost.adapter_bytes == 4 * cost.num_trainable == cost.memory.learned_bytes
    assert cost.memory.optimizer_bytes == 2 * cost.memory.gradients_bytes
    assert cost.peak_memory_bytes == sum(cost.memory.model_dump().values())
    assert 0 < cost.trainable_ratio < 1
    assert 0 < cost.low_seconds < cost.high_seconds
    assert CostEstimate.model_validate_json(cost.model_dump_json()) == cost
    # 4 N a token and 6 for each learned one; attention and head come on top
    seen = look_at(
        base,
        get_method("lora"),
        parse_options(get_method("lora"), {}),
        "fp32",
    )
    linear = training_flops_per_token(seen.frozen_linear, seen.learned_linear)
    assert 1 < cost.flops / (2 * cost.epoch_tokens * linear) < 3


@pytest.mark.parametrize("method", ["full", "lora", "prompt_tuning"])
def test_the_same_choice_costs_more_when_there_is_more(base: BaseFolder, method: str) -> None:
    little = cost_of(base, method=method, batch_size=4)
    more_rows = cost_of(base, LENGTHS * 2, method=method, batch_size=4)
    wider = cost_of(base, method=method, batch_size=16, micro_batch_tokens=4096)
    assert more_rows.flops > 1.85 * little.flops and more_rows.high_seconds > little.high_seconds
    assert wider.memory.activations_bytes > 3 * little.memory.activations_bytes
    assert wider.memory.weights_bytes == little.memory.weights_bytes


def test_methods_differ_as_they_should(base: BaseFolder) -> None:
    costs = {
        method: cost_of(base, method=method, options=NEEDED.get(method, {}))
        for method in all_methods()
    }
    full, lora = costs["full"].memory, costs["lora"].memory
    assert full.weights_bytes == 0 and full.learned_bytes == 4 * costs["full"].num_parameters
    lomo = costs["lomo"].memory
    assert (lomo.weights_bytes, lomo.learned_bytes) == (0, full.learned_bytes)
    assert (full.gradients_bytes, full.optimizer_bytes) == (
        full.learned_bytes,
        2 * full.learned_bytes,
    )
    assert lomo.gradients_bytes == 4 * 320 * 32, "of the embedding alone"
    assert lomo.optimizer_bytes == 0
    assert lora.weights_bytes == full.learned_bytes
    assert costs["qlora"].memory.weights_bytes < lora.weights_bytes
    assert costs["qlora"].num_trainable == costs["lora"].num_trainable
    assert costs["prompt_tuning"].longest_tokens == costs["lora"].longest_tokens + 20
    assert costs["prompt_tuning"].num_trainable == 20 * 32


@pytest.mark.parametrize(
    ("changes", "memory_bytes", "words"),
    [
        ({"batch_size": 512, "method": "lora"}, 401_000_000,
         ("needs about 0.4 GB", "are free", "Lower the tokens at once from 1,024")),
        ({"batch_size": 1, "method": "lora"}, 400_300_000,
         ("needs about 0.4 GB", "are free", "Turn on recomputes")),
        ({"recomputes": True, "batch_size": 1, "method": "full"}, 400_000_000,
         ("Choose a method that learns fewer values, such as lora",)),
        ({"recomputes": True, "batch_size": 1, "method": "prompt_tuning",
          "options": {"num_tokens": 1}}, 400_000_000,
         ("Choose qlora", "smaller base")),
    ],
)  # fmt: skip
def test_too_little_memory_blocks_and_says_what_to_lower(
    base: BaseFolder, changes: dict[str, Any], memory_bytes: int, words: tuple[str, ...]
) -> None:
    small = HARDWARE.model_copy(update={"memory_available_bytes": memory_bytes})
    cost = cost_of(base, hardware=small, **changes)
    assert not cost.fits and len(cost.blockers) == 1
    assert all(word in cost.blockers[0] for word in words), cost.blockers


@pytest.mark.parametrize(
    ("too_long", "blockers", "warnings", "kept"),
    [
        ("stop", "9 of 50 examples are longer than 64 tokens. Lower the length in prepare", "", 50),
        ("drop", "", "9 of 50 examples are longer than 64 tokens and will be left out", 41),
        ("cut", "", "longer than 64 tokens and will be cut at the start of the prompt", 50),
    ],
)
def test_examples_that_are_too_long(
    base: BaseFolder, too_long: Any, blockers: str, warnings: str, kept: int
) -> None:
    lengths = [ItemLength(40 + number % 30, 4, 4) for number in range(50)]
    lengths = sorted(lengths)[:41] + [ItemLength(70, 4, 4)] * 9
    cost = cost_of(base, lengths, limits=Limits(max_length_tokens=64, too_long=too_long))
    assert blockers in " ".join(cost.blockers) and warnings in " ".join(cost.warnings)
    assert cost.num_examples == kept and cost.longest_tokens <= 64
    assert cost.fits == (too_long != "stop")


def test_frozen_blocks_run_once_an_example(base: BaseFolder) -> None:
    """Of two blocks of the tiny llama the lower one learns nothing."""
    whole = cost_of(base, epochs=8)
    half = cost_of(base, epochs=8, options={"top_blocks": 1})
    once = cost_of(base, epochs=1, options={"top_blocks": 1})
    tokens = sum(item.num_tokens for item in (*LENGTHS, *LENGTHS[:8]))
    assert half.memory.stem_bytes == tokens * 32 * 4 and half.stem_disk_bytes == 0
    assert half.num_trainable * 2 == whole.num_trainable
    assert half.flops < 0.7 * whole.flops and half.high_seconds < whole.high_seconds
    seen = look_at(
        base, get_method("lora"), parse_options(get_method("lora"), {"top_blocks": 1}), "fp32"
    )
    assert seen.num_stem_layers == 1
    forward = 2 * seen.frozen_linear / 2 * half.epoch_tokens
    # Seven of eight epochs, all evaluations but one, and the attention beside the linear layers.
    assert 7 * forward < half.stem_saved_flops < 14 * forward
    for other in (whole, once):
        assert not (other.memory.stem_bytes or other.stem_disk_bytes or other.stem_saved_flops)
    small = HARDWARE.model_copy(update={"memory_available_bytes": half.peak_memory_bytes})
    on_disk = cost_of(base, hardware=small, epochs=8, options={"top_blocks": 1})
    assert on_disk.fits and on_disk.memory.stem_bytes == 0
    assert on_disk.stem_disk_bytes == half.memory.stem_bytes


def test_nothing_left_is_a_blocker(base: BaseFolder) -> None:
    limits = Limits(max_length_tokens=8, too_long="drop")
    assert "none is left" in cost_of(base, limits=limits).blockers[0]


def test_a_busy_machine_only_moves_the_upper_end(base: BaseFolder) -> None:
    busy = cost_of(base, hardware=HARDWARE.model_copy(update={"busy_ratio": 3.0}))
    calm = cost_of(base)
    assert busy.low_seconds == calm.low_seconds
    assert busy.high_seconds == pytest.approx(3 * calm.high_seconds)


def test_a_length_knows_where_the_answers_begin() -> None:
    flags = (False, True, False, True)
    assert item_length(Encoded((5, 6, 7, 8), flags)) == ItemLength(4, 2, 3)

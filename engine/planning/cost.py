"""What a plan costs: parameters, memory by part, arithmetic, time. Nothing is loaded for it.

Parameters are counted on the meta device with the method attached, activations on fake tensors,
batches are the ones the trainer will draw. Time is a range: it depends on what else runs.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

from engine.base_model import BaseFolder
from engine.batches import epoch_batches, micro_batches
from engine.encode import Encoded
from engine.loss import logits_at_once
from engine.method import MethodOptions, parse_options
from engine.methods import get_method
from engine.optimizers import ADAMW, OptimizerSpec
from engine.packing import may_pack
from engine.plan import BITS, Precision, TrainPlan
from engine.planning.activations import activation_bytes
from engine.planning.architecture import Architecture, look_at
from engine.planning.estimate import CostEstimate, Hardware, MemoryParts
from engine.quantise import KINDS
from engine.schedules import num_steps, steps_between_evaluations
from engine.stem import fits_in_memory

_FP32_BYTES = 4
# Measured by benchmarks/estimate_accuracy.py: blocks of changing size leave gaps in the heap.
_HEAP_GAPS_RATIO = 1.7
_NF4_LIBRARY_BYTES = 32 << 20
# A step is at best products, memory traffic and calls, one after the other; measured in the same
# way it took 1.4 to 2.5 times as long.
_TRAFFIC_PER_ACTIVATION_BYTE = 6.0
_CALL_SECONDS_PER_LAYER = 1.5e-3
_DECODED_WEIGHTS_PER_SECOND = 1e9  # 8 or 4 bits to bf16 or fp32 (BENCH 2)
_FAST_RATIO, _SLOW_RATIO = 0.8, 3.2
_EPOCHS_DRAWN = 8  # the widest micro-batch changes little after so many draws
_GIGABYTE = 1e9
_MUCH = 0.5  # share of weights that is never quantised, from which it is said


class ItemLength(NamedTuple):
    """The size of one encoded example, soft prompt left out.

    Attributes:
        num_tokens: all tokens.
        num_supervised: tokens the loss sees.
        num_answer_tokens: from the first supervised token to the end.
    """

    num_tokens: int
    num_supervised: int
    num_answer_tokens: int


def item_length(encoded: Encoded) -> ItemLength:
    """Measure one example.

    Args:
        encoded: with at least one supervised token.

    Returns:
        Its size.
    """
    first = encoded.supervised.index(True)
    return ItemLength(len(encoded.ids), encoded.num_supervised, len(encoded.ids) - first)


def gradient_bytes(num_trainable: int, bytes_per_value: int = _FP32_BYTES) -> int:
    """Compute the memory of gradients.

    Args:
        num_trainable: values that learn.
        bytes_per_value: 4 in this studio.

    Returns:
        Bytes.
    """
    return num_trainable * bytes_per_value


def optimizer_bytes(
    num_trainable: int, bytes_per_value: int = _FP32_BYTES, num_moments: int = ADAMW.num_moments
) -> int:
    """Compute the memory of an optimizer: moments of each value that learns.

    Args:
        num_trainable: values that learn.
        bytes_per_value: 4 in this studio.
        num_moments: two for AdamW.

    Returns:
        Bytes.
    """
    return num_moments * num_trainable * bytes_per_value


def logits_bytes(num_supervised: int, vocabulary_size: int, head_weights_learned: int) -> int:
    """Compute the peak of head, loss and their backward pass, in fp32.

    C x V logits, as much again to add them up, and their gradients in the type of the weights,
    for the C hidden states that go through the head together; a head that learns adds a gradient
    to the one of the batches before.

    Args:
        num_supervised: S.
        vocabulary_size: V.
        head_weights_learned: V x D, or 0 where the head is frozen.

    Returns:
        Bytes.
    """
    chunk = logits_at_once(num_supervised, vocabulary_size) * vocabulary_size
    return _FP32_BYTES * (3 * chunk + head_weights_learned)


def training_flops_per_token(num_frozen: float, num_learned: float) -> float:
    """Compute the arithmetic of linear layers for one token.

    Forward 2 N; backward 2 N for the activations' gradients and 2 N more where weights learn.

    Args:
        num_frozen: frozen weights the token passes.
        num_learned: learned ones.

    Returns:
        Floating point operations.
    """
    return 4 * num_frozen + 6 * num_learned


class _MicroBatch(NamedTuple):
    """What is in memory at once.

    Attributes:
        num_rows: examples.
        num_tokens: of all of them, soft prompts and padding included.
        num_pairs: of tokens in one row, which attention multiplies.
        num_supervised: tokens the loss sees.
    """

    num_rows: int
    num_tokens: int
    num_pairs: int
    num_supervised: int


class _Pass(NamedTuple):
    """How a batch is read.

    Attributes:
        training: learned from, not only scored.
        recomputes: layers are computed twice.
        has_stem: what the frozen lower blocks make of it is known already.
    """

    training: bool
    recomputes: bool = False
    has_stem: bool = False


def estimate(
    plan: TrainPlan,
    base: BaseFolder,
    lengths: Sequence[ItemLength],
    hardware: Hardware,
    *,
    validation_lengths: Sequence[ItemLength] = (),
) -> CostEstimate:
    """Say what a plan will take on a machine.

    Args:
        plan: what to do.
        base: the base it names.
        lengths: of all training examples, before any is left out.
        hardware: from `measure_hardware`.
        validation_lengths: of the validation examples.

    Returns:
        The estimate; its `blockers` say what would make the run fail.
    """
    spec = get_method(plan.method.name)
    options = parse_options(spec, plan.method.options)
    architecture = _architecture(base, spec.name, options, plan.base.precision)
    virtual = spec.num_virtual_tokens(options) if spec.num_virtual_tokens else 0
    kept, blockers, warnings = _within_limit(plan, architecture.context_tokens, lengths, virtual)
    validation, more_blockers, more_warnings = _within_limit(
        plan, architecture.context_tokens, validation_lengths, virtual
    )
    blockers += [f"Validation: {sentence}" for sentence in more_blockers]
    warnings += [f"Validation: {sentence}" for sentence in more_warnings]
    warnings += _experts_in_16_bits(architecture, plan.base.precision)
    if not kept:
        kept = [ItemLength(1, 1, 1)]
    packed = may_pack(architecture.config)
    try:
        drawn, widest, activations = _at_once(plan, base, kept, virtual, packed)
    except Exception:  # whatever a model's own code raises at a mask that it does not expect
        if not packed:
            raise
        packed = False  # as the trainer will find out, too
        drawn, widest, activations = _at_once(plan, base, kept, virtual, packed)
    memory = _memory(
        architecture, spec.optimizer, widest, activations, hardware, plan.base.precision
    )
    steps = num_steps(len(kept), plan.schedule, plan.limits.max_steps)
    per_epoch = math.ceil(len(kept) / plan.schedule.batch_size)
    evaluations = math.ceil(steps / steps_between_evaluations(len(kept), plan.schedule))
    scored = _cut_up(sorted(validation), plan.schedule.micro_batch_tokens, virtual, packed)
    passes = steps / per_epoch
    keeps_stem = bool(architecture.num_stem_layers) and steps > per_epoch
    learning = _Pass(True, plan.schedule.recomputes, keeps_stem)
    scoring = _Pass(False, has_stem=keeps_stem)

    def work(of_batch: Callable[[_MicroBatch, _Pass], float]) -> float:
        return passes * sum(of_batch(batch, learning) for batch in drawn[0]) + evaluations * sum(
            of_batch(batch, scoring) for batch in scored
        )

    density = activations / widest.num_tokens
    flops = work(lambda batch, kind: _flops(architecture, batch, kind))
    seconds = work(
        lambda batch, kind: _seconds(
            architecture, batch, density, hardware, plan.base.precision, kind
        )
    )
    stem_bytes, saved_flops = 0, 0.0
    if keeps_stem:
        once = sum(_stem_flops(architecture, batch) for batch in (*drawn[0], *scored))
        flops += once
        seconds += once / _speed(hardware, plan.base.precision)
        saved_flops = work(lambda batch, _: _stem_flops(architecture, batch)) - once
        num_tokens = sum(item.num_tokens for item in (*kept, *validation))
        stem_bytes = num_tokens * architecture.width * _bytes_per_value(plan.base.precision)
    in_memory = fits_in_memory(stem_bytes, hardware.memory_available_bytes - memory.total_bytes)
    memory = memory.model_copy(update={"stem_bytes": stem_bytes if in_memory else 0})
    updated = steps * spec.optimizer.update_bytes * architecture.num_trainable
    seconds += updated / hardware.bandwidth_bytes_per_second
    result = CostEstimate(
        num_parameters=architecture.num_parameters,
        num_trainable=architecture.num_trainable,
        memory=memory,
        memory_available_bytes=hardware.memory_available_bytes,
        adapter_bytes=_FP32_BYTES * architecture.num_trainable,
        adapter_servers=spec.adapter_servers(options),
        num_examples=len(kept),
        longest_tokens=max(item.num_tokens for item in kept) + virtual,
        epoch_tokens=sum(item.num_tokens + virtual for item in kept),
        epoch_supervised_tokens=sum(item.num_supervised for item in kept),
        num_steps=steps,
        inference_overhead_ratio=_overhead_ratio(architecture, kept, virtual),
        flops=flops,
        stem_disk_bytes=0 if in_memory else stem_bytes,
        stem_saved_flops=saved_flops,
        low_seconds=seconds * _FAST_RATIO,
        high_seconds=seconds * _SLOW_RATIO * hardware.busy_ratio,
        blockers=tuple(blockers),
        warnings=tuple(warnings),
    )
    return result.model_copy(
        update={"blockers": (*result.blockers, *_memory_blockers(result, plan, widest))}
    )


def _experts_in_16_bits(architecture: Architecture, precision: Precision) -> list[str]:
    """Say where 8 or 4 bits do little, because most weights are experts in 3-D."""
    share = architecture.expert_weights / architecture.num_parameters
    if precision not in KINDS or share < _MUCH:
        return []
    return [
        f"The experts, {share:.0%} of all weights, stay in 16 bits: {BITS[precision]} bits hardly "
        "shrink this base"
    ]


@lru_cache(maxsize=64)  # a form is estimated again at every change, and few change this
def _architecture(
    base: BaseFolder, method: str, options: MethodOptions, precision: Precision
) -> Architecture:
    return look_at(base, get_method(method), options, precision)


def _at_once(
    plan: TrainPlan, base: BaseFolder, lengths: Sequence[ItemLength], virtual: int, packed: bool
) -> tuple[list[list[_MicroBatch]], _MicroBatch, int]:
    """Draw some epochs, and count what their widest micro-batch leaves behind.

    Where layers are computed twice, that is one layer and what enters each of them.
    """
    epochs = max(1, min(_EPOCHS_DRAWN, math.ceil(plan.schedule.epochs)))
    drawn = [_epoch(plan, lengths, virtual, epoch, packed) for epoch in range(epochs)]
    widest = max((batch for batches in drawn for batch in batches), key=lambda b: b.num_tokens)
    options = parse_options(get_method(plan.method.name), plan.method.options)
    chosen = base, plan.method.name, options, plan.base.precision
    kept = _traced(*chosen, widest, packed=packed)
    if plan.schedule.recomputes:
        architecture = _architecture(*chosen)
        entering = widest.num_tokens * architecture.width * _bytes_per_value(plan.base.precision)
        kept = min(kept, kept // architecture.num_layers + entering * architecture.num_layers)
    return drawn, widest, kept


@lru_cache(maxsize=1024)
def _traced(
    base: BaseFolder,
    method: str,
    options: MethodOptions,
    precision: Precision,
    batch: _MicroBatch,
    *,
    packed: bool,
) -> int:
    # Rows of one length that multiply as many pairs as the real ones do.
    row_tokens = math.ceil(batch.num_pairs / batch.num_tokens)
    num_rows = max(1, round(batch.num_tokens / row_tokens))
    kept = activation_bytes(
        _architecture(base, method, options, precision).config,
        get_method(method),
        options,
        precision,
        num_rows=num_rows,
        row_tokens=row_tokens,
        packed=packed,
    )
    return round(kept * batch.num_tokens / (num_rows * row_tokens))


def _within_limit(
    plan: TrainPlan, context_tokens: int, lengths: Sequence[ItemLength], virtual: int
) -> tuple[list[ItemLength], list[str], list[str]]:
    """Do to lengths what `encode_all` does to examples, and say so."""
    context = context_tokens - virtual
    limit = min(plan.limits.max_length_tokens or context, context)
    fitting = [item for item in lengths if item.num_tokens <= limit]
    long = [item for item in lengths if item.num_tokens > limit]
    if not long:
        return fitting, [], []
    many = f"{len(long)} of {len(lengths)} examples are longer than {limit} tokens"
    if plan.limits.too_long == "stop":
        fix = "Lower the length in prepare, or plan with too_long drop or cut."
        return [item._replace(num_tokens=limit) for item in long] + fitting, [f"{many}. {fix}"], []
    if plan.limits.too_long == "drop":
        blocked = [] if fitting else [f"{many}, so none is left. Choose a longer context."]
        return fitting, blocked, [f"{many} and will be left out."]
    cut = [item._replace(num_tokens=limit) for item in long if item.num_answer_tokens < limit]
    return fitting + cut, [], [f"{many} and will be cut at the start of the prompt."]


def _epoch(
    plan: TrainPlan, lengths: Sequence[ItemLength], virtual: int, epoch: int, packed: bool
) -> list[_MicroBatch]:
    """Draw the micro-batches of one epoch as the trainer does."""
    sizes = [item.num_tokens for item in lengths]
    batches = epoch_batches(sizes, plan.schedule.batch_size, seed=plan.seed, epoch=epoch)
    micro = []
    for batch in batches:
        items = [lengths[number] for number in sorted(batch, key=sizes.__getitem__)]
        micro += _cut_up(items, plan.schedule.micro_batch_tokens, virtual, packed)
    return micro


def _cut_up(
    items: Sequence[ItemLength], most_tokens: int, virtual: int, packed: bool
) -> list[_MicroBatch]:
    sizes = [item.num_tokens + virtual for item in items]
    made = []
    for part in micro_batches(sizes, most_tokens, packed=packed):
        own = [sizes[number] for number in part]
        read = own if packed else [max(own)] * len(own)
        pairs = sum(size**2 for size in read)
        supervised = sum(items[number].num_supervised for number in part)
        made.append(_MicroBatch(len(own), sum(read), pairs, supervised))
    return made


def _memory(
    architecture: Architecture,
    optimizer: OptimizerSpec,
    widest: _MicroBatch,
    activations: int,
    hardware: Hardware,
    precision: Precision,
) -> MemoryParts:
    learned = architecture.num_trainable
    gaps = _HEAP_GAPS_RATIO if hardware.device == "cpu" else 1.0
    head_learned = architecture.head_weights if architecture.head_learns else 0
    logits = logits_bytes(widest.num_supervised, architecture.vocabulary_size, head_learned)
    return MemoryParts(
        weights_bytes=architecture.frozen_bytes,
        learned_bytes=_FP32_BYTES * learned,
        gradients_bytes=gradient_bytes(
            learned if optimizer.keeps_gradients else architecture.largest_learned
        ),
        optimizer_bytes=optimizer_bytes(learned, num_moments=optimizer.num_moments),
        activations_bytes=round(activations * gaps),
        logits_bytes=logits,
        runtime_bytes=hardware.runtime_bytes + (_NF4_LIBRARY_BYTES if precision == "nf4" else 0),
    )


def _flops(architecture: Architecture, batch: _MicroBatch, kind: _Pass) -> float:
    """Add up linear layers, attention (4 T^2 A a layer and row, 2.5 times that back) and head.

    The blocks below everything that learns have no backward pass.
    """
    below = _stem_flops(architecture, batch)
    above = 1 - architecture.num_stem_layers / architecture.num_layers
    frozen = architecture.frozen_linear - architecture.stem_linear
    learned = architecture.learned_linear
    attention = 4.0 * architecture.num_layers * architecture.attention_width * batch.num_pairs
    attention *= above
    head = 2.0 * architecture.head_weights * batch.num_supervised
    forward = 2.0 * (frozen + learned) * batch.num_tokens + attention
    run_below = 0.0 if kind.has_stem else below
    if not kind.training:
        return run_below + forward + head
    linear = training_flops_per_token(frozen, learned) * batch.num_tokens
    again = forward + run_below if kind.recomputes else 0.0
    head *= 3 if architecture.head_learns else 2
    return run_below + linear + 3.5 * attention + again + head


def _stem_flops(architecture: Architecture, batch: _MicroBatch) -> float:
    """Count the forward pass of the blocks below everything that learns."""
    share = architecture.num_stem_layers / architecture.num_layers
    attention = 4.0 * architecture.num_layers * architecture.attention_width * batch.num_pairs
    return 2.0 * architecture.stem_linear * batch.num_tokens + share * attention


def _bytes_per_value(precision: Precision) -> int:
    """Of hidden states."""
    return _FP32_BYTES if precision == "fp32" else 2


def _speed(hardware: Hardware, precision: Precision) -> float:
    if precision == "fp32":
        return hardware.fp32_flops_per_second
    return hardware.bf16_flops_per_second


def _overhead_ratio(
    architecture: Architecture, lengths: Sequence[ItemLength], virtual: int
) -> float:
    """Compare with the base alone: longer prompts, and products that the method adds.

    A prompt of T tokens passes N weights each; with P virtual tokens and M added weights the work
    is (T + P) (N + M) instead of T N. Attention, which also grows with P, is left out.
    """
    prompt = statistics.median(item.num_tokens - item.num_answer_tokens for item in lengths)
    base = architecture.frozen_linear + architecture.learned_linear - architecture.added_linear
    longer = 1 + virtual / max(prompt, 1)
    return longer * (1 + architecture.added_linear / (base + architecture.head_weights)) - 1


def _seconds(
    architecture: Architecture,
    batch: _MicroBatch,
    activation_bytes_per_token: float,
    hardware: Hardware,
    precision: Precision,
    kind: _Pass,
) -> float:
    """Estimate one micro-batch: products, memory traffic and calls, one after the other."""
    share = (1.3 if kind.recomputes else 1.0) if kind.training else 0.3
    moved = _TRAFFIC_PER_ACTIVATION_BYTE * activation_bytes_per_token
    traffic = moved * batch.num_tokens / hardware.bandwidth_bytes_per_second
    layers = architecture.num_layers - kind.has_stem * architecture.num_stem_layers
    calls = layers * _CALL_SECONDS_PER_LAYER
    decodings = 1 + kind.training + kind.recomputes
    decoding = decodings * architecture.quantised_linear / _DECODED_WEIGHTS_PER_SECOND
    products = _flops(architecture, batch, kind) / _speed(hardware, precision)
    return products + share * (traffic + calls) + decoding


def _memory_blockers(result: CostEstimate, plan: TrainPlan, widest: _MicroBatch) -> list[str]:
    if result.peak_memory_bytes <= result.memory_available_bytes:
        return []
    parts = result.memory
    needs = (
        f"The run needs about {result.peak_memory_bytes / _GIGABYTE:.1f} GB of memory, "
        f"{result.memory_available_bytes / _GIGABYTE:.1f} GB are free."
    )
    by_batch = parts.activations_bytes + parts.logits_bytes
    by_learning = parts.learned_bytes + parts.gradients_bytes + parts.optimizer_bytes
    if by_batch >= max(by_learning, parts.weights_bytes):
        if widest.num_rows > 1:
            tokens = f"{plan.schedule.micro_batch_tokens:,}"
            return [f"{needs} Lower the tokens at once from {tokens}, which changes no result."]
        if not plan.schedule.recomputes:
            return [f"{needs} Turn on recomputes, which takes longer and changes no result."]
    if by_learning >= parts.weights_bytes:
        return [f"{needs} Choose a method that learns fewer values, such as lora."]
    return [f"{needs} Choose qlora, which holds the base in 4 bits, or a smaller base."]

"""Where each millisecond of a step goes: torch's profiler, its many operators put in few parts."""

import math
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

HEAD, LINEAR, ATTENTION = "output head", "linear layers", "products of attention"
SOFTMAX, OPTIMIZER = "softmax and loss", "clipping and optimizer"
COPIES, ELEMENTWISE, BETWEEN = "copies and look-ups", "element by element", "between operators"
PRODUCTS = (HEAD, LINEAR, ATTENTION)
# Which shapes of its inputs an operator multiplies, the first one not transposed.
_MULTIPLIED = {
    "aten::mm": (0, 1), "aten::addmm": (1, 2), "aten::addmm_": (1, 2), "aten::bmm": (0, 1),
    "aten::baddbmm": (1, 2), "aten::baddbmm_": (1, 2), "mkldnn::_linear_pointwise": (0, 1),
    "aten::mkldnn_linear": (0, 1),
}  # fmt: skip
_FUSED_ATTENTION = "scaled_dot_product"
_SOFTMAX_WORDS = ("softmax", "logsumexp", "nll_loss", "cross_entropy")
_OPTIMIZER_WORDS = ("adam", "norm", "_foreach")
_LAYER_NORM_WORDS = ("layer_norm", "rms_norm")
_COPY_WORDS = (
    "copy", "cat", "index", "gather", "scatter", "embedding", "zero_", "fill_", "clone", "repeat",
)  # fmt: skip


_VIEWS = {
    f"aten::{name}"
    for name in (
        "alias", "as_strided", "chunk", "detach", "empty", "empty_like", "empty_strided", "expand",
        "narrow", "permute", "reshape", "resize_", "select", "slice", "split", "squeeze", "t",
        "transpose", "unbind", "unsqueeze", "view", "_reshape_alias", "_unsafe_view",
    )
}  # fmt: skip


class Account:
    """Watches some steps."""

    def __init__(self, vocabulary_size: int) -> None:
        """Begin with nothing.

        Args:
            vocabulary_size: V, by which products of the head are told from others.
        """
        self._vocabulary_size = vocabulary_size
        self._begun = 0.0

    def start(self) -> None:
        """Begin to watch."""
        self._profile = profile(
            activities=[ProfilerActivity.CPU], record_shapes=True, acc_events=True
        )
        self._profile.start()
        self._begun = time.perf_counter()

    def stop(self) -> dict[str, Any]:
        """Add up what was seen.

        Returns:
            seconds of the whole, and for each part seconds, calls, flops, and estimated bytes
            read and written.
        """
        seconds = time.perf_counter() - self._begun
        self._profile.stop()
        parts: dict[str, dict[str, float]] = defaultdict(
            lambda: {"seconds": 0.0, "calls": 0, "flops": 0.0, "bytes": 0.0}
        )
        for event in self._profile.events():
            shapes = [shape for shape in event.input_shapes if shape]
            part = parts[part_of(event.name, shapes, self._vocabulary_size)]
            part["seconds"] += event.self_cpu_time_total * 1e-6
            if event.self_cpu_time_total > 1:  # views take less than a microsecond
                part["calls"] += 1
                part["bytes"] += _bytes(event.name, shapes)
            # To spread a bias over its rows addmm calls itself: that is one product.
            if event.cpu_parent is None or event.cpu_parent.name not in _MULTIPLIED:
                part["flops"] += product_flops(event.name, event.input_shapes)
        parts[BETWEEN]["seconds"] += max(0.0, seconds - sum(p["seconds"] for p in parts.values()))
        return {"seconds": seconds, "parts": dict(parts)}


def part_of(operator: str, shapes: Sequence[Sequence[int]], vocabulary_size: int) -> str:
    """Say which part of a step an operator belongs to.

    Args:
        operator: its name in the profile.
        shapes: of its tensors.
        vocabulary_size: V.

    Returns:
        The part.
    """
    if operator in _MULTIPLIED:
        if any(vocabulary_size in shape for shape in shapes):
            return HEAD
        return ATTENTION if "bmm" in operator else LINEAR
    if _FUSED_ATTENTION in operator:
        return ATTENTION
    if not operator.startswith("aten::"):
        return BETWEEN
    rules = (
        (_SOFTMAX_WORDS, SOFTMAX), (_LAYER_NORM_WORDS, ELEMENTWISE), (_OPTIMIZER_WORDS, OPTIMIZER),
        (_COPY_WORDS, COPIES),
    )  # fmt: skip
    return next((part for words, part in rules if _has(operator, words)), ELEMENTWISE)


def product_flops(operator: str, shapes: Sequence[Sequence[int]]) -> float:
    """Count what one call of a product computes; fused attention as if nothing were masked.

    Args:
        operator: its name in the profile.
        shapes: of all its inputs; empty where an input is no tensor.

    Returns:
        Floating-point operations.
    """
    if _FUSED_ATTENTION in operator and len(shapes) > 2:
        is_backward = "backward" in operator
        keys = shapes[2 if is_backward else 1][-2]
        return (5.0 if is_backward else 2.0) * 2.0 * math.prod(shapes[0]) * keys
    if operator not in _MULTIPLIED:
        return 0.0
    left, right = (list(shapes[place]) for place in _MULTIPLIED[operator])
    depth = left[-1]
    columns = math.prod(right) // (depth * (left[0] if len(right) == 3 else 1))
    return 2.0 * math.prod(left) * columns


def _bytes(operator: str, shapes: Sequence[Sequence[int]]) -> float:
    """Guess: every input is read, and something as large as the largest is written."""
    if operator in _VIEWS:
        return 0.0
    sizes = [math.prod(shape) for shape in shapes]
    if operator == "aten::embedding":  # of the table only what is looked up is read
        table, ids = shapes
        sizes = [math.prod(ids) * table[-1]]
    return torch.float32.itemsize * float(sum(sizes) + max(sizes, default=0))


def _has(operator: str, words: Sequence[str]) -> bool:
    return any(word in operator for word in words)

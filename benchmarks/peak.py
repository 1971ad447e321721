"""What the machine could do at best: matrix products and copies, timed between the contestants.

A contestant like the others, in the product's environment and with its settings.
"""

import time
from typing import Any

import torch

from benchmarks.seat import Seat, take_turns
from engine.planning.hardware import prepare_process

_SIZES = (512, 1024, 2048)
_SECONDS = 0.25
_COPIED_BYTES = 256 << 20


def measure_peak() -> dict[str, Any]:
    """Time square products of both types, and a copy of what no cache holds.

    Returns:
        GFLOP/s of the best size, and GB/s read plus written.
    """
    source = torch.ones(_COPIED_BYTES // 4)
    target = torch.empty_like(source)
    return {
        "fp32_gflops": max(_product_gflops(size, torch.float32) for size in _SIZES),
        "bf16_gflops": max(_product_gflops(size, torch.bfloat16) for size in _SIZES),
        "copy_gigabytes": 2 * _COPIED_BYTES / 1e9 / _seconds(lambda: target.copy_(source)),
    }


def _product_gflops(size: int, dtype: torch.dtype) -> float:
    left, right = (torch.randn(size, size).to(dtype) for _ in range(2))
    return 2 * size**3 / 1e9 / _seconds(lambda: torch.mm(left, right))


def _seconds(work: Any) -> float:
    """The quickest of as many repetitions as the time allows: a peak, not a mean."""
    work()
    best, begun = float("inf"), time.perf_counter()
    while time.perf_counter() - begun < _SECONDS:
        before = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - before)
    return best


if __name__ == "__main__":
    settings = prepare_process()
    take_turns(
        Seat(),
        measure_peak,
        threads=torch.get_num_threads(),
        keeps_memory=settings.keeps_memory,
        matmul_precision=settings.matmul_precision,
    )

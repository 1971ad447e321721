"""What this machine can do, measured in a moment, and how a training process should be set up."""

import ctypes
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import psutil
import torch
from torch import Tensor

from engine.planning.estimate import Hardware
from templates.memory import memory_bytes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGEST_TRUE_FP32_ERROR = 1e-6  # fp32 rounding gives 2e-7 to 4e-7, bf16 3e-3
_LEAST_RUNTIME_BYTES = 480 << 20  # torch, transformers, one model family in use; measured
_CUDA_CONTEXT_BYTES = 1 << 30
# Both caches keep up to 1024 compiled products, one a shape, and batches keep bringing new shapes:
# a 4 M model's process grew from 0.6 to 1.1 GB in 40 steps. Read at the first product.
_CACHE_VARIABLES = ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY")
_CACHED_PRODUCTS = "32"
_SIZES = (128, 256, 512)
_MOST_BUSY_RATIO = 20.0
_BANDWIDTH_BYTES = 64 << 20


@dataclass(frozen=True)
class ProcessSettings:
    """What `prepare_process` found it may do.

    Attributes:
        keeps_memory: freed memory stays with the process instead of being faulted in again.
        matmul_precision: torch's name for how fp32 products are computed; exact either way.
    """

    keeps_memory: bool
    matmul_precision: str


def prepare_process() -> ProcessSettings:
    """Set up this process for training; call once, before anything is computed.

    Freed memory is kept, oneDNN's caches are bounded, and fp32 products go to the library that is
    faster on this processor, where it is truly fp32. No setting depends on a timing, so a resumed
    run gets the same ones and the same bits.

    Returns:
        What was set.
    """
    keeps_memory = _keep_freed_memory()
    for name in _CACHE_VARIABLES:
        os.environ.setdefault(name, _CACHED_PRODUCTS)
    torch.set_float32_matmul_precision(exact_matmul_precision())
    return ProcessSettings(keeps_memory, torch.get_float32_matmul_precision())


def exact_matmul_precision() -> str:
    """Choose how fp32 products are computed: by the faster library, where it is truly fp32.

    "highest" is MKL, "medium" hands them to oneDNN: on an AMD CPU (Zen 5) twice as fast, on an
    Intel one (Xeon with AVX-512) a fifth slower in training. "medium" also permits bf16 arithmetic,
    which some CPUs then use: those keep "highest".

    Returns:
        "medium" or "highest"; torch's current setting is left as it was.
    """
    if torch.cpu.get_capabilities().get("cpu_name", "").startswith("Intel"):
        return "highest"
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        worst = max(
            _relative_error(rows, width) for rows, width in ((8, 64), (33, 257), (256, 512))
        )
    finally:
        torch.set_float32_matmul_precision(before)
    return "medium" if worst < _LARGEST_TRUE_FP32_ERROR else "highest"


def measure_hardware(device: str = "cpu", *, quick: bool = True) -> Hardware:
    """Measure a device with the settings training uses.

    On a CPU one thread is timed by the processor time it gets, and counts for each thread, so that
    other programs running now change the answer little. How far the threads together stay behind
    by the clock is `busy_ratio`: they wait for each other, so one neighbour can cost much.

    Args:
        device: "cpu" or "cuda".
        quick: about half a second; else several times as many repetitions.

    Returns:
        What was found; speeds are medians.
    """
    target = torch.device(device)
    on_cpu = target.type == "cpu"
    resident_bytes = int(psutil.Process().memory_info().rss)
    budget_seconds = 0.06 if quick else 1.0
    precision, num_threads = torch.get_float32_matmul_precision(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        torch.set_float32_matmul_precision(exact_matmul_precision())
        fp32 = _flops_per_second(target, torch.float32, budget_seconds)
        bf16 = _flops_per_second(target, torch.bfloat16, budget_seconds)
        bandwidth = _bandwidth_bytes_per_second(target, budget_seconds)
        torch.set_num_threads(num_threads)
        busy_ratio = _busy_ratio(fp32 * num_threads, budget_seconds) if on_cpu else 1.0
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.set_num_threads(num_threads)
    available, total = memory_bytes() if on_cpu else torch.cuda.mem_get_info(target)
    return Hardware(
        device="cpu" if on_cpu else "cuda",
        name=_processor_name() if on_cpu else torch.cuda.get_device_name(target),
        num_cores=_cores(),
        memory_total_bytes=total,
        memory_available_bytes=available,
        runtime_bytes=max(_LEAST_RUNTIME_BYTES, resident_bytes) if on_cpu else _CUDA_CONTEXT_BYTES,
        fp32_flops_per_second=fp32 * num_threads if on_cpu else fp32,
        bf16_flops_per_second=bf16 * num_threads if on_cpu else bf16,
        bandwidth_bytes_per_second=bandwidth,
        busy_ratio=busy_ratio,
    )


def _keep_freed_memory() -> bool:
    """Tell glibc to reuse large blocks: faulting them in anew is 6 times slower here (BENCH 3)."""
    if platform.libc_ver()[0] != "glibc":
        return False
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return False
    accepted = libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
    return bool(accepted and libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))


def _relative_error(rows: int, width: int) -> float:
    """Compare an fp32 product with the fp64 one; always the same numbers."""
    draw = torch.Generator().manual_seed(0)
    left = torch.randn(rows, width, generator=draw)
    right = torch.randn(width, width, generator=draw)
    exact = left.double() @ right.double()
    return float((left @ right - exact).norm() / exact.norm())


def _flops_per_second(device: torch.device, dtype: torch.dtype, budget_seconds: float) -> float:
    """Time square products, as large as the budget allows: slow types stay at small ones."""
    best = 0.0
    for size in _SIZES:
        left = torch.ones(size, size, dtype=dtype, device=device)
        right = torch.ones(size, size, dtype=dtype, device=device)
        seconds = _median_seconds(partial(torch.matmul, left, right), device, budget_seconds / 3)
        best = max(best, 2 * size**3 / seconds)
        if 8 * seconds > budget_seconds / 6:  # the next size takes eight times as long
            break
    return best


def _busy_ratio(flops_per_second: float, budget_seconds: float) -> float:
    """Time products on all threads by the clock, against what they reach undisturbed."""
    size, count = _SIZES[1], 0
    left, right = torch.ones(size, size), torch.ones(size, size)
    torch.matmul(left, right)
    begin = time.perf_counter()
    while count < 3 or time.perf_counter() - begin < 2 * budget_seconds:
        torch.matmul(left, right)
        count += 1
    seconds = (time.perf_counter() - begin) / count
    return min(_MOST_BUSY_RATIO, max(1.0, seconds * flops_per_second / (2 * size**3)))


def _bandwidth_bytes_per_second(device: torch.device, budget_seconds: float) -> float:
    source = torch.ones(_BANDWIDTH_BYTES // 4, device=device)
    target = torch.empty_like(source)
    seconds = _median_seconds(partial(target.copy_, source), device, budget_seconds)
    return 2 * _BANDWIDTH_BYTES / seconds


def _median_seconds(
    work: Callable[[], Tensor], device: torch.device, budget_seconds: float
) -> float:
    """Repeat work until the budget is spent, at least three times; before that, once untimed."""
    on_cuda = device.type == "cuda"
    clock = time.perf_counter if on_cuda else time.thread_time
    times: list[float] = []
    work()
    begin = clock()
    while len(times) < 3 or clock() - begin < budget_seconds:
        before = clock()
        work()
        if on_cuda:
            torch.cuda.synchronize(device)
        times.append(clock() - before)
    return statistics.median(times)


def _processor_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = (line.partition(":")[2].strip() for line in lines if "model name" in line)
            return next(names, "") or platform.machine()
    except OSError:
        return platform.processor() or platform.machine()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

"""Measuring the machine, and settings that speed training up without changing its results."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from engine.planning import hardware
from engine.planning.estimate import Hardware

# Trains a few layers' worth of products twice, in blocks of changing size, and prints the bits.
_BITS = """
import hashlib, os, torch
from engine.planning.hardware import prepare_process
settings = prepare_process()
assert prepare_process() == settings
assert int(os.environ["LRU_CACHE_CAPACITY"]) < 100  # else memory grows with every new shape
torch.manual_seed(0)
weight = torch.randn(96, 96, requires_grad=True)
for rows in (7, 64, 33, 200):
    loss = (torch.randn(rows, 96) @ weight).tanh().square().mean()
    loss.backward()
    with torch.no_grad():
        weight -= weight.grad
print(settings.matmul_precision, hashlib.sha256(weight.detach().numpy().tobytes()).hexdigest())
"""


@pytest.fixture
def matmul_precision():
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


def test_measures_in_a_moment_and_leaves_the_process_as_it_was() -> None:
    before = torch.get_float32_matmul_precision(), torch.get_num_threads()
    machine = hardware.measure_hardware()
    assert (torch.get_float32_matmul_precision(), torch.get_num_threads()) == before
    assert machine.device == "cpu" and machine.name and machine.num_cores >= 1
    assert 0 < machine.memory_available_bytes <= machine.memory_total_bytes
    assert machine.runtime_bytes >= 480 << 20
    assert machine.fp32_flops_per_second > 1e8 and machine.bf16_flops_per_second > 1e7
    assert machine.bandwidth_bytes_per_second > 1e8 and machine.busy_ratio >= 1
    assert Hardware.model_validate_json(machine.model_dump_json()) == machine


def test_fp32_products_stay_fp32(matmul_precision: None) -> None:
    settings = hardware.prepare_process()
    assert settings.matmul_precision in ("medium", "highest")
    assert hardware._relative_error(256, 512) < 1e-6


def test_a_cpu_that_would_use_bf16_keeps_the_highest_precision(
    matmul_precision: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": "AMD EPYC"})
    monkeypatch.setattr(hardware, "_relative_error", lambda rows, width: 3e-7)
    assert hardware.prepare_process().matmul_precision == "medium"
    monkeypatch.setattr(hardware, "_relative_error", lambda rows, width: 3e-3)
    assert hardware.prepare_process().matmul_precision == "highest"


def test_an_intel_cpu_keeps_the_library_that_is_faster_there(
    matmul_precision: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": "Intel Xeon"})
    monkeypatch.setattr(hardware, "_relative_error", lambda rows, width: 3e-7)
    assert hardware.prepare_process().matmul_precision == "highest"


def test_a_system_without_glibc_keeps_its_allocator(
    matmul_precision: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware.platform, "libc_ver", lambda: ("", ""))
    assert not hardware.prepare_process().keeps_memory


def test_two_prepared_processes_compute_the_same_bits() -> None:
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", _BITS],
            cwd=Path(__file__).parents[3], stdout=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    first, second = (run.communicate()[0] for run in runs)
    assert all(run.returncode == 0 for run in runs)
    assert first == second != ""


def test_the_draw_of_others_is_not_disturbed() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    hardware.exact_matmul_precision()
    assert torch.equal(torch.rand(1), expected)

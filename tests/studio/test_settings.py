"""What is read from the environment for the page."""

import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from studio.settings import child_environment, model_roots


def test_model_roots_are_absolute_and_named_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("STUDIO_MODEL_ROOTS", raising=False)
    assert model_roots() == ()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(
        "STUDIO_MODEL_ROOTS", f"~/models::{tmp_path}/models: /data :here:~no-such-user/x"
    )
    assert model_roots() == (
        tmp_path / "models", Path("/data"), tmp_path / "here", tmp_path / "~no-such-user/x",
    )  # fmt: skip


def test_threads_of_a_child_wait_as_long_as_was_measured_unless_a_person_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    assert child_environment(offline=True)["GOMP_SPINCOUNT"] == "10000"
    monkeypatch.setenv("GOMP_SPINCOUNT", "3")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=1")
    environment = child_environment(offline=True)
    assert environment["GOMP_SPINCOUNT"] == "3" and environment["OMP_NUM_THREADS"] == "2"
    assert environment["GLIBC_TUNABLES"] == "glibc.malloc.check=1"


def test_large_memory_of_a_child_comes_in_large_pages_where_the_system_has_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    assert child_environment(offline=True)["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
    switch = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not switch.exists() or "[never]" in switch.read_text():
        pytest.skip("this system gives no large pages")
    library, version = platform.libc_ver()
    if library != "glibc" or tuple(map(int, version.split("."))) < (2, 35):
        pytest.skip("this C library cannot be told")
    code = "block = bytearray(64 << 20); print(open('/proc/self/smaps_rollup').read())"
    told = subprocess.run(
        [sys.executable, "-c", code],
        env=child_environment(offline=True),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = re.search(r"AnonHugePages: +(\d+) kB", told)
    assert found and int(found[1]) >= 32 << 10

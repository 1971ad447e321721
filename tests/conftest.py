"""Settings for every test: no network, one thread (tiny tensors wait longer than they compute)."""

import gc
import os

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ.setdefault("OMP_NUM_THREADS", "1")
gc.disable()  # while libraries are loaded, of which nothing is garbage


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files of slow tests: of two processes none is left alone with them."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path.stem != "test_journeys", item.path not in slow))


def pytest_collection_finish() -> None:
    gc.enable()

"""Cells: measured once for the same weights and the same rows."""

from pathlib import Path
from typing import Any

from starter.measuring.bench import Cells, weights_fingerprint


def counting(counts: list[str], name: str) -> Any:
    def work() -> dict[str, float]:
        counts.append(name)
        return {"value": len(counts) / 2}

    return work


def test_finished_cells_are_not_measured_again(tmp_path: Path) -> None:
    done: list[str] = []
    path = tmp_path / "out" / "part.jsonl"
    Cells(path, "f1").measure("a", "rows", counting(done, "first"))
    Cells(path, "f1").measure("a", "rows", counting(done, "again"))
    assert done == ["first"]
    Cells(path, "f2").measure("a", "rows", counting(done, "another model"))
    Cells(path, "f1", quick=True).measure("a", "rows", counting(done, "a trial"))
    Cells(path, "f1").measure("a", "other rows", counting(done, "other rows"))
    assert done == ["first", "another model", "a trial", "other rows"]
    assert [cell["value"] for cell in Cells(path, "f1").values.values()] == [2.0]  # the newest
    assert [cell["value"] for cell in Cells(path, "f2").values.values()] == [1.0]


def test_a_line_cut_off_by_a_crash_is_measured_again(tmp_path: Path) -> None:
    done: list[str] = []
    path = tmp_path / "part.jsonl"
    for name in ("a", "b"):
        Cells(path, "f").measure(name, "", counting(done, name))
    path.write_text(path.read_text()[:-20])
    for name in ("a", "b"):
        Cells(path, "f").measure(name, "", counting(done, name))
    assert done == ["a", "b", "b"]
    assert set(Cells(path, "f").values) == {"a", "b"}


def test_other_weights_have_another_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"one")
    one = weights_fingerprint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"two")
    assert weights_fingerprint(tmp_path) != one

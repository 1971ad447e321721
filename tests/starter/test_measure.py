"""The command line: only this model's figures, and words that it does not know."""

import json
from pathlib import Path

import pytest

from starter import measure
from starter.measuring.bench import Cells
from starter.measuring.texts import measure_texts
from tests.starter.measuring.little_tables import MODEL, bench_on


def test_the_summary_reads_only_this_model(tmp_path: Path) -> None:
    bench = bench_on(tmp_path)
    measure_texts(bench)
    Cells(bench.out / "speed.jsonl", "another", quick=True).measure("load", "", lambda: {"x": 1.0})
    folders = ["--model", str(MODEL), "--out", str(bench.out)]
    assert measure.main([*folders, "--summary", "--quick"]) == 0
    measured = json.loads((bench.out / "measured.json").read_text(encoding="utf-8"))
    assert set(measured) == {"model", "quick", "texts", "targets"}
    assert measure.main([*folders, "--summary"]) == 0  # trials do not count for the full tables
    measured = json.loads((bench.out / "measured.json").read_text(encoding="utf-8"))
    assert set(measured) == {"model", "quick", "targets"}


def test_wrong_words_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("STUDIO_DATA", raising=False)
    with pytest.raises(SystemExit):
        measure.read_options([])
    assert "set STUDIO_DATA" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        measure.read_options(["--data", "x", "--only", "prose,poems"])
    assert "there is no part poems" in capsys.readouterr().err
    assert measure.main(["--data", "x", "--model", str(tmp_path), "--only", "texts"]) == 2

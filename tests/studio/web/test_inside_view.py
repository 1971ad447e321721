"""Pictures of a model's inside: what they say, that texts stay texts, and the file they make."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from studio.verbs import app
from studio.web.inside_view import errors_view, layers_view, prompt_view
from studio.web.picture_file import write_pictures
from tests.engine.tiny import save_tiny

NAUGHTY = "<script>alert(1)</script>"


def change(path: str, ratio: float) -> dict[str, Any]:
    return {
        "path": path, "change_ratio": ratio, "effective_rank": 2.5,
        "singular_values": [3.0, 1.0, 0.0],
    }  # fmt: skip


def test_the_layer_that_moved_most_comes_first() -> None:
    layers = [change(f"layers.{number}", number / 100) for number in range(1, 31)]
    shown = str(layers_view([*layers, change(NAUGHTY, 0.9)]))
    assert shown.index("90.0 % in 2.5 directions") < shown.index("30.0 % in")
    assert "7 more moved less." in shown and "layers.7<" not in shown
    assert NAUGHTY not in shown and "&lt;script&gt;" in shown
    assert shown.count("<polyline") == 4, "the spectra of the first four"
    assert str(layers_view([])) == "" == str(prompt_view([]))


def test_a_layer_that_did_not_move_has_no_spectrum() -> None:
    still = change("a", 0.0) | {"singular_values": [0.0, 0.0]}
    assert "<polyline" not in str(layers_view([still]))


def test_a_prompt_is_shown_by_its_neighbours() -> None:
    near = [{"token": NAUGHTY, "cosine": 0.25}, {"token": " refund", "cosine": 0.2}]
    shown = str(prompt_view([{"place": 0, "length_ratio": 1.5, "nearest": near}]))
    assert "“ refund” 0.20" in shown and "1.50" in shown and NAUGHTY not in shown


def test_a_file_stands_alone(tmp_path: Path) -> None:
    found = {"layers": [{"path": NAUGHTY, "errors": {"NF4": 0.1}}] * 2}
    parts = [errors_view(found["layers"])]
    write_pictures(tmp_path / "x.html", NAUGHTY, parts, found)
    page = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and "<svg" in page and "--ts-1:" in page
    assert NAUGHTY not in page and "src=" not in page and "http" not in page
    write_pictures(tmp_path / "x.json", "t", parts, found)
    assert json.loads((tmp_path / "x.json").read_text()) == found


def test_the_verb_compares_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_HOME", str(tmp_path / "home"))
    base = save_tiny(tmp_path / "base", "gpt2")
    to = tmp_path / "bits.html"
    shown = CliRunner().invoke(app, ["quantised", str(base), "--to", str(to)])
    assert shown.exit_code == 0, shown.stderr
    assert "in per cent" in shown.stdout and "<svg" in to.read_text(encoding="utf-8")
    found = json.loads(CliRunner().invoke(app, ["quantised", str(base), "--json"]).stdout)
    assert len(found["layers"]) == 8 and len(found["layers"][0]["errors"]) == 6
    refused = CliRunner().invoke(app, ["quantised", str(base), "--text", ""])
    assert refused.exit_code == 1 and "no tokens" in refused.stderr

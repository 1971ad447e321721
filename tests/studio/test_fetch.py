"""Bases from a Hub: fetched by a job, then used by workers that never reach the network."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from studio.home import Home
from tests.engine.tiny import save_tiny
from tests.studio.hub import COMMIT, TOKEN, serve_hub
from tests.studio.tables import write_table


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """A process of its own, because the Hub's library reads the environment once."""
    return subprocess.run(
        [sys.executable, "app.py", *map(str, arguments)], cwd=Path(__file__).parents[2],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_a_base_is_fetched_and_trained_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = save_tiny(tmp_path / "tiny", "llama")
    monkeypatch.setenv("STUDIO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with serve_hub({"org/tiny": base, "org/private": base}) as (address, asked):
        monkeypatch.setenv("HF_ENDPOINT", address)
        private = run("fetch", "org/private", "--json")
        assert private.returncode == 0, private.stderr
        assert json.loads(private.stdout)["revision"] == COMMIT
        monkeypatch.delenv("HF_TOKEN")
        refused = run("fetch", "org/private-too")
        assert refused.returncode == 1 and "HF_TOKEN" in refused.stderr
        assert run("upload", write_table(tmp_path / "table.csv")).returncode == 0
        prepared = run("prepare", "--base", "org/tiny")
        assert prepared.returncode == 0, prepared.stderr
        assert any(path.endswith("tokenizer.json") for path in asked)
        planned = run("plan", "--base", "org/tiny", "-o", "epochs=1", "-o", "rank=4")
        assert planned.returncode == 0, planned.stderr
    # The Hub is gone now; what was fetched is enough.
    trained = run("train")
    assert trained.returncode == 0, trained.stderr
    for path in (tmp_path / "home").rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes(), path
    job = Home(tmp_path / "home").find_job("train")
    base_choice = job.request("train")["plan"]["base"]
    assert (base_choice["id"], base_choice["revision"]) == ("org/tiny", COMMIT)

"""A table of a Hub data set, by the verb: a job fetches it, then it is read like any file."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from studio.home import Home
from tests.data_set_hub import COMMIT, TOKEN, DataSet, serve_data_sets

LINES = b'{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}\n'


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """A process of its own, because the Hub's library reads the environment once."""
    return subprocess.run(
        [sys.executable, "app.py", "upload", *map(str, arguments)], cwd=Path(__file__).parents[2],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_a_private_data_set_becomes_an_upload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUDIO_HOME", str(tmp_path))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    files = {"en/train.jsonl": LINES, "en/test.jsonl": LINES * 3, "run.py": b"boom()"}
    with serve_data_sets(one=DataSet(files, private=True)) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        done = run("--hub", "org/one", "--split", "test", "--name", "Mine", "--json")
        assert done.returncode == 0, done.stderr
        upload = json.loads(done.stdout)
        assert (upload["name"], upload["num_rows"]) == ("Mine.jsonl", 6)
        missing = run("--hub", "org/one", "--split", "nothing")
        assert missing.returncode == 1 and "en, train" in missing.stderr
        monkeypatch.delenv("HF_TOKEN")
        refused = run("--hub", "org/one")
        assert refused.returncode == 1 and "token" in refused.stderr
        assert not any("run.py" in path for path in hub.paths)
    job = Home(tmp_path).find_job("download")
    assert job.request("download")["data_set"] == "org/one"
    records = [path.read_text() for path in tmp_path.rglob("downloaded.json")]
    assert [json.loads(record)["revision"] for record in records] == [COMMIT]
    assert not list(tmp_path.glob("jobs/*/table"))
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("arguments", [(), ("a.csv", "--hub", "org/one")], ids=["none", "both"])
def test_one_source_is_wanted(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUDIO_HOME", str(tmp_path))
    done = run(*arguments)
    assert done.returncode == 1 and "--hub" in done.stderr

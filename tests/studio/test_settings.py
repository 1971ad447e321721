"""What is read from the environment for the page."""

from pathlib import Path

import pytest

from studio.settings import model_roots


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

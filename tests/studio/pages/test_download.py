"""Files on their way to the browser."""

import os
from pathlib import Path

import pytest

from studio.pages.download import offer, offer_file
from templates.errors import StudioError


def test_a_file_is_offered_without_a_second_copy(tmp_path: Path) -> None:
    source = tmp_path / "model.safetensors"
    source.write_bytes(b"weights")
    first, second = (offer_file(tmp_path / "downloads", source) for _ in range(2))
    assert first.name == "model.safetensors" and first.read_bytes() == b"weights"
    assert first.parent != second.parent
    assert first.stat().st_ino == source.stat().st_ino


def test_another_disk_gets_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refused)
    source = tmp_path / "a"
    source.write_bytes(b"weights")
    path = offer_file(tmp_path / "downloads", source)
    assert path.read_bytes() == b"weights" and path.stat().st_ino != source.stat().st_ino


def test_a_file_that_is_gone_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(StudioError, match="download"):
        offer_file(tmp_path / "downloads", tmp_path / "gone")


def test_text_is_offered_as_a_file(tmp_path: Path) -> None:
    assert offer(tmp_path, "a.csv", "1").read_text() == "1"

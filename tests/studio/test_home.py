import os
from pathlib import Path

import pytest

from studio.home import Home
from studio.settings import studio_home
from templates.errors import RunError


def make(home: Home, kind: str, name: str, at: int) -> Path:
    path = home.place(kind) / name
    path.mkdir()
    os.utime(path, (at, at))
    return path


def test_the_home_is_told_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_HOME", "~/elsewhere")
    assert studio_home() == Path.home() / "elsewhere"
    monkeypatch.delenv("STUDIO_HOME")
    assert studio_home() == Path.home() / ".studio"


def test_finds_by_id_by_beginning_and_the_latest(tmp_path: Path) -> None:
    home = Home(tmp_path)
    # The name tells when it was made; a folder's own time changes with every look.
    old, new = make(home, "train", "train-1", 2), make(home, "train", "train-2", 1)
    make(home, "compare", "compare-3", 3)
    assert home.find("train", "train-1") == old
    assert home.find("train", "latest") == new == home.find("train", "train-2")
    assert home.find_job("latest").id == "compare-3" and home.find_job("train").id == "train-2"
    assert home.all("train") == [old, new]


@pytest.mark.parametrize("reference", ["train-", "train-x", "../jobs/train-b", "/etc", "", "*"])
def test_anything_else_is_refused_with_the_known_ids(tmp_path: Path, reference: str) -> None:
    home = Home(tmp_path)
    make(home, "train", "train-a1", 1)
    make(home, "train", "train-a2", 2)
    with pytest.raises(RunError, match=r"Give one of these ids: train-a1, train-a2"):
        home.find("train", reference)


def test_new_ids_are_of_their_kind_and_do_not_exist(tmp_path: Path) -> None:
    path = Home(tmp_path).new("upload")
    assert path.name.startswith("up-") and not path.exists() and path.parent.is_dir()


def test_the_latest_is_what_a_verb_named_last(tmp_path: Path) -> None:
    home = Home(tmp_path)
    old = make(home, "dataset", "ds-old", 1)
    make(home, "dataset", "ds-new", 2)
    home.mark_latest("dataset", "ds-old")
    assert home.find("dataset", "latest") == old
    home.mark_latest("dataset", "ds-gone")
    assert home.find("dataset", "latest").name == "ds-new"

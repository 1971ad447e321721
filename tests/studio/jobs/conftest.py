from collections.abc import Iterator
from pathlib import Path

import pytest

from studio.home import Home
from tests.studio.jobs.running import copy_home, end_workers, prepare_home, with_workers_at_once


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    home = prepare_home(tmp_path_factory.mktemp("prepared"))
    yield home
    end_workers(home)


@pytest.fixture
def home(prepared: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    copy = with_workers_at_once(copy_home(prepared, tmp_path))
    monkeypatch.setenv("STUDIO_HOME", str(copy.root))
    yield copy
    end_workers(copy)

"""The data reader as a child: it streams, is stopped, and takes its flaws with it."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from studio.data_service import DataService
from templates.errors import DataError, RunError
from templates.memory import memory_bytes
from tests.faults import fault


@pytest.fixture(scope="module")
def reader() -> Iterator[DataService]:
    with DataService() as service:
        yield service


def table(folder: Path, num_rows: int) -> Path:
    path = folder / "table.csv"
    path.write_text("text,label\n" + 'a text of some words,"yes, or no"\n' * num_rows)
    return path


def test_a_table_is_previewed_and_read_in_steps(reader: DataService, tmp_path: Path) -> None:
    path = table(tmp_path, 30_000)
    asked = {"path": path, "name": "my.csv"}
    assert reader.call("preview", asked)["columns"] == ["text", "label"]
    answer = reader.stream("read", {**asked, "folder": tmp_path / "uploads" / "up-1"})
    parts = list(answer)
    assert len(parts) > 4 and all(0 <= part["done_ratio"] <= 1 for part in parts)
    assert "rows read" in parts[2]["words"]
    assert (answer.result["id"], answer.result["num_rows"]) == ("up-1", 30_000)
    folder = {"folder": tmp_path / "uploads" / "up-1"}
    assert reader.call("rows", {**folder, "offset": 29_999})["rows"][0]["number"] == 30_000
    recipe = reader.call("propose", folder)["recipe"]
    found = reader.call("clean", {**folder, "recipe": recipe, "max_rows": 100})
    assert found["num_examples"] == 1, "all are alike"


def test_an_error_keeps_its_kind(reader: DataService, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('a,b\n"1,2\n')
    asked = {"path": tmp_path / "a.csv", "name": "a.csv", "folder": tmp_path / "up"}
    with pytest.raises(DataError, match="opened in line 2"):
        reader.call("read", asked)
    with pytest.raises(RunError, match="data reader has no operation 'fly'"):
        reader.call("fly")


def test_what_nobody_waits_for_is_stopped_and_leaves_nothing(
    reader: DataService, tmp_path: Path
) -> None:
    pid = reader.call("ping")["pid"]
    folder = tmp_path / "uploads" / "up-1"
    asked = {"path": table(tmp_path, 300_000), "name": "a.csv", "folder": folder}
    answer = reader.stream("read", asked)
    while "rows read" not in next(answer)["words"]:
        pass
    answer.close()
    assert list(folder.parent.iterdir()) == []
    assert reader.call("ping")["pid"] == pid


@pytest.mark.slow
def test_the_child_is_light_limited_and_offline() -> None:
    started = time.monotonic()
    with DataService() as service:
        pid = service.call("ping")["pid"]
        assert time.monotonic() - started < 5
        child = psutil.Process(pid)
        assert child.rlimit(psutil.RLIMIT_DATA)[0] == int(0.5 * memory_bytes()[1])
        assert child.environ()["HF_HUB_OFFLINE"] == "1"
        assert not [place for place in child.memory_maps() if "torch" in place.path]
    assert not psutil.pid_exists(pid)


@fault(24, "A table needs more memory than the data reader may use", "A sentence; the next is read")
@pytest.mark.slow
def test_a_table_that_does_not_fit_into_memory_is_a_sentence(tmp_path: Path) -> None:
    # 400 MB: three times what the child holds when it starts, and less than this file's text.
    (tmp_path / "a.json").write_text('[{"a": "' + "é😀" * 40_000_000 + '"}]')
    asked = {"path": tmp_path / "a.json", "name": "a.json", "folder": tmp_path / "up"}
    with DataService(memory_ratio=4e8 / memory_bytes()[1]) as service:
        with pytest.raises(RunError, match=r"data reader (has used up|ended).*fewer rows"):
            service.call("read", asked)
        assert not (tmp_path / "up").exists()
        (tmp_path / "b.csv").write_text("a,b\n1,2\n")
        asked = {"path": tmp_path / "b.csv", "name": "b.csv", "folder": tmp_path / "up"}
        assert service.call("read", asked)["num_rows"] == 1


@fault(24, "SIGKILL of the data reader while it reads", "A sentence; the next question starts it")
@pytest.mark.slow
def test_a_child_killed_at_work_is_a_sentence(reader: DataService, tmp_path: Path) -> None:
    asked = {"path": table(tmp_path, 300_000), "name": "a.csv", "folder": tmp_path / "up"}
    answer = reader.stream("read", asked)
    next(answer)
    pid = reader.pid
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(RunError, match=r"data reader ended in the middle.*fewer rows"):
        list(answer)
    assert reader.call("ping")["pid"] != pid and not (tmp_path / "up").exists()


def test_the_log_of_the_child_before_is_kept_until_it_is_large(tmp_path: Path) -> None:
    log = tmp_path / "data.log"
    with DataService(log=log) as service:
        for before, after in ((b"why it ended\n", b"why it ended\n"), (b"x" * (2 << 20), b"")):
            log.write_bytes(before)
            service.call("ping")
            assert log.read_bytes().startswith(after) and log.stat().st_size < 1 << 20
            service.release()

import json
import os
import socket
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine.events import Evaluated, Event, Saved, Started, Stepped
from studio.jobs import trackers
from studio.jobs.trackers import METRICS, Trackers, open_trackers
from templates.errors import PlanError, RunError

HEADER = (
    "step,loss,learning_rate,gradient_norm,num_tokens,seconds,"
    "validation_loss,validation_token_accuracy_ratio\n"
)
BOTH = ("tensorboard", "trackio")


def started(first_step: int) -> Started:
    return Started(9, first_step, 5, 50)


def stepped(step: int, loss: float = 1.5) -> Stepped:
    return Stepped(step, loss, 0.001, 2.0, 1234567, 0.02)


def evaluated(step: int, loss: float = 0.5) -> Evaluated:
    return Evaluated(step, loss, 0.75, True, 0.1)


# The second attempt goes on behind the checkpoint of step 2 and takes step 3 again.
FIRST: tuple[Event, ...] = (
    started(1), stepped(1), stepped(2), evaluated(2), Saved(2, "step-2", True), stepped(3, 9.0),
)  # fmt: skip
SECOND: tuple[Event, ...] = (started(3), stepped(3, 1.25), stepped(4), evaluated(4, 0.25))
LOSSES = [(1, 1.5), (2, 1.5), (3, 1.25), (4, 1.5)]
VALIDATION = [(2, 0.5), (4, 0.25)]


def track(folder: Path, *attempts: tuple[Event, ...], names: tuple[str, ...] = ()) -> Trackers:
    job = folder / "jobs" / "train-1"
    job.mkdir(parents=True, exist_ok=True)
    for events in attempts:
        opened = open_trackers(job, folder, names, run_id=job.name)
        for event in events:
            opened.write(event)
        opened.close()
    return opened


def metrics(folder: Path) -> str:
    return (folder / "jobs" / "train-1" / METRICS).read_text(encoding="ascii")


def test_an_evaluation_stands_on_the_row_of_its_step(tmp_path: Path) -> None:
    track(tmp_path, FIRST)
    assert metrics(tmp_path) == HEADER + (
        "1,1.5,0.001,2,1234567,0.02,,\n"
        "2,1.5,0.001,2,1234567,0.02,0.5,0.75\n"
        "3,9,0.001,2,1234567,0.02,,\n"
    )


def test_a_resumed_run_has_one_row_a_step(tmp_path: Path) -> None:
    track(tmp_path, FIRST)
    with (tmp_path / "jobs" / "train-1" / METRICS).open("a") as file:
        file.write("2,7,0.001,2,1234567,0.02,0.5,0.7")  # torn: the last digit and the line end
    track(tmp_path, SECOND)
    rows = [line.split(",") for line in metrics(tmp_path).splitlines()[1:]]
    assert [(int(row[0]), float(row[1])) for row in rows] == LOSSES
    assert [(int(row[0]), float(row[6])) for row in rows if row[6]] == VALIDATION


def test_what_a_resumed_run_needs_is_on_disk_at_a_save(tmp_path: Path) -> None:
    opened = open_trackers(tmp_path, tmp_path, (), run_id="train-1")
    for event in (started(1), stepped(1), stepped(2)):
        opened.write(event)
    path = tmp_path / METRICS
    assert len(path.read_text().splitlines()) < 3  # waits for an evaluation, or a second
    opened.write(Saved(2, "step-2", True))
    assert len(path.read_text().splitlines()) == 3
    opened.close()


def test_rows_come_to_the_disk_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "_SECONDS_BETWEEN_FLUSHES", 0.0)
    opened = open_trackers(tmp_path, tmp_path, (), run_id="train-1")
    for event in (started(1), stepped(1), stepped(2)):
        opened.write(event)
    assert (tmp_path / METRICS).read_text().splitlines()[-1].startswith("1,")
    opened.close()


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    found = EventAccumulator(str(folder / "jobs" / "train-1" / "tensorboard"))
    found.Reload()
    return [(scalar.step, scalar.value) for scalar in found.Scalars(tag)]


def test_tensorboard_reads_one_story(tmp_path: Path) -> None:
    opened = track(tmp_path, FIRST, names=("tensorboard",))
    assert scalars(tmp_path, "train/loss") == [(1, 1.5), (2, 1.5), (3, 9.0)]
    track(tmp_path, SECOND, names=("tensorboard",))
    assert scalars(tmp_path, "train/loss") == LOSSES
    assert scalars(tmp_path, "validation/loss") == VALIDATION
    assert scalars(tmp_path, "validation/token_accuracy_ratio") == [(2, 0.75), (4, 0.75)]
    assert scalars(tmp_path, "train/num_tokens") == [(step, 1234567.0) for step in range(1, 5)]
    assert opened.notices() == ()


def test_trackio_keeps_one_story_at_home_and_calls_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("TRACKIO_SPACE_ID", "somebody/space")
    monkeypatch.setenv("HF_TOKEN", "hf_not_a_token")
    opened = track(tmp_path, FIRST, SECOND, names=("trackio",))
    assert opened.notices() == ()
    (database,) = (tmp_path / "trackio").glob("*.db")
    assert database.name == "tuning-studio.db"
    with closing(sqlite3.connect(database)) as connection:
        query = "SELECT run_id, run_name, step, metrics FROM metrics ORDER BY id"
        rows = connection.execute(query).fetchall()
    assert {row[:2] for row in rows} == {("train-1", "train-1")}
    found = [(step, json.loads(content)) for _, _, step, content in rows]
    for tag, expected in (("train/loss", LOSSES), ("validation/loss", VALIDATION)):
        assert [(step, numbers[tag]) for step, numbers in found if tag in numbers] == expected


def test_trackio_itself_finds_the_run(tmp_path: Path) -> None:
    track(tmp_path, FIRST, SECOND, names=("trackio",))
    storage = sys.modules["trackio.sqlite_storage"].SQLiteStorage
    assert storage.get_runs("tuning-studio") == ["train-1"]
    logs = storage.get_logs("tuning-studio", "train-1", run_id="train-1")
    assert [(log["step"], log["train/loss"]) for log in logs if "train/loss" in log] == LOSSES


@pytest.mark.parametrize(
    ("package", "name"), [("tensorboard", "TensorBoard"), ("trackio", "trackio")]
)
def test_a_missing_package_is_told_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, name: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    expected = rf"{name} is not installed\. Install it with: .*requirements-trackers\.txt"
    with pytest.raises(RunError, match=expected):
        open_trackers(tmp_path, tmp_path, [package], run_id="train-1")


def test_an_unknown_tracker_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"no tracker called 'wandb'\. Choose tensorboard"):
        open_trackers(tmp_path, tmp_path, ["wandb"], run_id="train-1")


def test_trackers_that_fail_are_switched_off_and_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_trackers(tmp_path, tmp_path, BOTH, run_id="train-1")
    for event in FIRST[:3]:
        opened.write(event)

    def broken(*_: Any, **__: Any) -> None:
        raise ValueError("a library's own trouble")

    storage = sys.modules["trackio.sqlite_storage"].SQLiteStorage
    library = sys.modules["torch.utils.tensorboard"]
    monkeypatch.setattr(storage, "bulk_log", broken)
    monkeypatch.setattr(library.SummaryWriter, "add_scalar", broken)
    for event in FIRST[3:]:
        opened.write(event)
    assert opened.notices() == (
        "TensorBoard gets no more of this run: a library's own trouble",
        "trackio gets no more of this run: a library's own trouble",
    )
    opened.close()
    assert len((tmp_path / METRICS).read_text().splitlines()) == 4  # this one went on


def test_a_full_disk_ends_the_csv_with_a_whole_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_trackers(tmp_path, tmp_path, (), run_id="train-1")
    for event in (*FIRST[:2], Saved(1, "step-1", True)):
        opened.write(event)
    room = [5]

    def nearly_full(descriptor: int, content: bytes) -> int:
        if not room:
            raise OSError(28, "No space left on device")
        return write(descriptor, content[: room.pop()])

    write = os.write
    monkeypatch.setattr(os, "write", nearly_full)
    opened.write(stepped(2, 1.23456))
    opened.close()
    assert opened.notices() == (
        "metrics.csv gets no more of this run: The disk is full: metrics.csv could not be written",
    )
    assert (tmp_path / METRICS).read_text() == HEADER + "1,1.5,0.001,2,1234567,0.02,,\n"


def test_closing_what_never_started_is_quiet(tmp_path: Path) -> None:
    opened = open_trackers(tmp_path, tmp_path, BOTH, run_id="train-1")
    opened.close()
    opened.close()
    assert opened.notices() == ()

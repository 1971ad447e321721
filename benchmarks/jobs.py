"""What a job costs beside its work: writing events, reading them, and looking at many runs.

Times are of this machine's disk with its cache warm. The hour is simulated: a clock that jumps.

    python benchmarks/jobs.py [--runs 1000] [--rounds 20]
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1]))
from studio.settings import prepare_environment

prepare_environment()

from data_prep.answers import confusion, count_answers, read_answers
from data_prep.curves import read_curves
from engine.comparing.comparison import Prediction, write_predictions
from engine.events import (
    Evaluated,
    Event,
    Finished,
    Launched,
    Sample,
    Sampled,
    Saved,
    Started,
    Stepped,
)
from engine.jobs import Job, create_job
from engine.liveness import this_process
from engine.plan import read_plan
from studio.home import Home
from studio.jobs.progress import read_progress
from studio.jobs.queue import Queue
from studio.jobs.requests import TrainRequest
from studio.jobs.run_curves import RunCurves
from studio.jobs.trackers import METRICS, open_trackers

MEGABYTE = 1e6
STEPS_PER_SECOND = 50
STEPS_AN_HOUR = 3600 * STEPS_PER_SECOND
STEPS_BETWEEN_EVALUATIONS = 500
NUM_ANSWERS = 100_000
ARMS = ("constant", "untuned", "zero_shot", "few_shot", "tuned", "classical")


@dataclass(frozen=True)
class Figure:
    """One measured number; `target` is what it should stay under."""

    name: str
    unit: str
    target: float
    values: list[float]


@dataclass(frozen=True)
class Setting:
    """Where and how often to measure."""

    folder: Path
    num_runs: int
    num_rounds: int


def training_events(num_steps: int) -> Iterator[Event]:
    """What a trainer reports, with numbers of the usual number of digits."""
    yield Started(num_steps, 1, 123_456, 7_654_321)
    for step in range(1, num_steps + 1):
        loss = 2.345678 / (1 + step / 1000)
        yield Stepped(step, loss, 1e-3 / (1 + step), 1.234567 + loss, 1000 + step % 999, 0.0198765)
        if step % STEPS_BETWEEN_EVALUATIONS == 0:
            yield Evaluated(step, loss, 0.7654321, True, 0.345678)
            yield Saved(step, f"step-{step}", True)
            sample = Sample("a word of the prompt " * 10, "shipping", "billing", (step,))
            yield Sampled(step, (sample,) * 3, 0.123456)
    yield Finished(num_steps, num_steps, 0.123456, "all steps taken", 3600.123, 1_234_567_890)


def write_run(job: Job, num_steps: int, *, seconds_per_step: float) -> Path:
    """Let an attempt write a whole run under a clock that jumps; give its event file."""
    clock = SimpleNamespace(now=1000.0)
    time_module = SimpleNamespace(monotonic=lambda: clock.now, time=lambda: 1.7e9 + clock.now)
    attempt = job.start_attempt()
    process = this_process()
    with mock.patch("engine.attempts.time", time_module):
        attempt.write(Launched(process.pid, process.started, process.boot_id, 0))
        for event in training_events(num_steps):
            clock.now += seconds_per_step if isinstance(event, Stepped) else 0.0
            attempt.write(event)
    attempt.close()
    return attempt.path


def cost_of_an_event(setting: Setting) -> Iterator[Figure]:
    """Microseconds of one Stepped: kept in the events, left out of them, and with the CSV."""
    job = create_job(setting.folder / "cost", "train", {})
    attempt = job.start_attempt()
    trackers = open_trackers(job.folder, setting.folder, (), run_id=job.id)
    events = list(training_events(3000))
    written, tracked = [], []
    for event in events:
        start = time.perf_counter()
        attempt.write(event)
        middle = time.perf_counter()
        trackers.write(event)
        end = time.perf_counter()
        if isinstance(event, Stepped):
            written.append((middle - start) * 1e6)
            tracked.append((end - start) * 1e6)
    attempt.close()
    trackers.close()
    assert len((job.folder / METRICS).read_text().splitlines()) == 3001
    yield Figure("Attempt.write of a step", "us", 100.0, written[:2000])
    yield Figure("  and metrics.csv", "us", 100.0, tracked[:2000])
    yield Figure("  step left out", "us", 100.0, written[2100:])
    yield Figure("  step left out, and csv", "us", 100.0, tracked[2100:])


def an_hour(setting: Setting) -> Iterator[Figure]:
    """Size of the events of an hour, and the time to read its curves."""
    job = create_job(setting.folder / "hour", "train", {})
    path = write_run(job, STEPS_AN_HOUR, seconds_per_step=1 / STEPS_PER_SECOND)
    yield Figure("events of an hour", "MB", 10.0, [path.stat().st_size / MEGABYTE])
    attempts = job.attempt_events()
    seconds = timed(lambda: read_curves(attempts), setting.num_rounds + 1)
    yield Figure("  first read_curves", "ms", 100.0, [seconds[0] * 1e3])
    yield Figure("  read_curves", "ms", 50.0, [value * 1e3 for value in seconds[1:]])
    queue, curves = Queue(Home(setting.folder)), RunCurves()
    progress = timed(lambda: read_progress(queue, job), setting.num_rounds)
    yield Figure("  read_progress", "ms", 3.0, [value * 1e3 for value in progress])
    again = timed(lambda: curves.of(job), setting.num_rounds + 1)[1:]
    yield Figure("  RunCurves.of, unchanged", "ms", 1.0, [value * 1e3 for value in again])
    status = timed(job.status, setting.num_rounds)
    yield Figure("  status", "ms", 1.0, [value * 1e3 for value in status])


def ten_megabytes(setting: Setting) -> Iterator[Figure]:
    """Time to read the curves of a file as large as one may become: every step is kept."""
    job = create_job(setting.folder / "large", "train", {})
    path = write_run(job, 50_500, seconds_per_step=1.0)
    size = path.stat().st_size / MEGABYTE
    attempts = job.attempt_events()
    seconds = timed(lambda: read_curves(attempts), setting.num_rounds)
    name = f"read_curves of {size:.1f} MB"
    yield Figure(name, "ms", 50.0, [value * 1e3 for value in seconds])


def many_runs(setting: Setting) -> Iterator[Figure]:
    """Time to read the state of all runs, as a page with a list does."""
    place = setting.folder / "jobs"
    place.mkdir()
    first = create_job(place / "train-0", "train", {})
    write_run(first, 1000, seconds_per_step=0.02)
    for number in range(1, setting.num_runs):
        shutil.copytree(first.folder, place / f"train-{number}")
    jobs = [Job(folder) for folder in place.iterdir()]
    states = {job.status().state for job in jobs}
    assert states == {"finished"}, states
    seconds = timed(lambda: [job.status() for job in jobs], 5)
    yield Figure(f"status of {setting.num_runs} runs", "s", 1.0, seconds)


def many_answers(setting: Setting) -> Iterator[Figure]:
    """Time to ask a comparison of very many test rows; they are read anew for each question."""
    path = setting.folder / "predictions.jsonl"
    labels = [f"label {number}" for number in range(30)]
    write_predictions(
        path,
        (
            Prediction(
                item=item,
                source_rows=(item + 1,),
                fields={"text": f"parcel {item} has not arrived " * 8},
                expected=(labels[item % 30],),
                outputs={arm: labels[item * place % 30] for place, arm in enumerate(ARMS)},
                scores={
                    arm: float(item * place % 30 == item % 30) for place, arm in enumerate(ARMS)
                },
            )
            for item in range(NUM_ANSWERS)
        ),
    )
    size = path.stat().st_size / MEGABYTE
    yield Figure(f"answers to {NUM_ANSWERS:,} rows", "MB", 100.0, [size])
    for name, ask in (
        ("count_answers", lambda: count_answers(path)),
        ("read_answers, searched", lambda: read_answers(path, search="PARCEL 7", offset=1000)),
        ("confusion", lambda: confusion(path, "tuned")),
    ):
        yield Figure(f"  {name}", "s", 1.0, timed(ask, 5))


def timed(act: Callable[[], object], num_rounds: int) -> list[float]:
    """Seconds of each round."""
    found = []
    for _ in range(num_rounds):
        start = time.perf_counter()
        act()
        found.append(time.perf_counter() - start)
    return found


def start_of_a_run(setting: Setting) -> Iterator[Figure]:
    """From submitting a run on the starter to its first event, and to its first step."""
    home = Home(setting.folder)
    table = Path(__file__).parents[1] / "data_prep" / "samples" / "tickets.csv"
    environment = {**os.environ, "STUDIO_HOME": str(home.root)}
    for verb in (["upload", str(table)], ["prepare"], ["plan"]):
        command = [sys.executable, "app.py", *verb]
        subprocess.run(
            command, cwd=table.parents[2], env=environment, check=True, capture_output=True
        )
    queue, plan = Queue(home), read_plan(home.find("plan", "latest"))
    first_event, first_step = [], []
    for _ in range(5):
        begin = time.perf_counter()
        job = queue.submit(TrainRequest(plan=plan))
        queue.advance()
        assert job.status().state == "running"
        first_event.append(time.perf_counter() - begin)
        while not job.status().step:
            time.sleep(0.002)
        first_step.append(time.perf_counter() - begin)
        queue.stop(job, force=True)
        while job.status().state == "running":
            time.sleep(0.01)
    yield Figure("submit to first event", "s", 2.0, first_event)
    yield Figure("submit to first step", "s", 4.0, first_step)


MEASUREMENTS: tuple[Callable[[Setting], Iterator[Figure]], ...] = (
    cost_of_an_event,
    an_hour,
    ten_megabytes,
    many_runs,
    many_answers,
    start_of_a_run,
)


def main() -> None:
    """Measure one after the other; print medians beside their targets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    medians = {}
    for measure in MEASUREMENTS:
        with tempfile.TemporaryDirectory() as folder:
            for figure in measure(Setting(Path(folder), options.runs, options.rounds)):
                median = statistics.median(figure.values)
                spread = f"{min(figure.values):.3g} to {max(figure.values):.3g}"
                target = f"target < {figure.target:g}"
                print(f"{figure.name:28s} {median:8.3g} {figure.unit:2s}  {target:13s} ({spread})")
                medians[f"{measure.__name__}: {figure.name.strip()}"] = median
    print(json.dumps({"median": medians}))


if __name__ == "__main__":
    main()

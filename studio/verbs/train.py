"""train: run a plan, or go on with a run that was interrupted."""

import signal
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from engine.events import Evaluated, Event, Failed, Finished, Started, Stepped
from engine.jobs import Attempt, Job, create_job
from engine.plan import TrainPlan, read_plan
from studio.home import Home
from studio.screen import Tick, out_of_memory, progress, say, say_json
from studio.verbs.upload import Json
from templates.errors import PlanError, RunError, StudioError
from templates.values import parse


def train(
    plan: Annotated[
        str, typer.Argument(help='Id of a plan, a YAML or JSON file, or "latest".')
    ] = "latest",
    resume: Annotated[
        str | None, typer.Option(help='Go on with this run: its id, or "latest".')
    ] = None,
    json: Json = False,
) -> str:
    """Train a plan. Ctrl-C saves and stops; --resume goes on, to the same bits."""
    from engine.runs import check_plan  # noqa: PLC0415

    home = Home()
    if resume is None:
        path = Path(plan) if Path(plan).is_file() else home.find("plan", plan)
        value = read_plan(path)
        check_plan(value, home.find("dataset", value.dataset_id))
        job = create_job(home.new("train"), "train", {"plan": value.model_dump(mode="json")})
    else:
        job = Job(home.find("train", resume))
        value = planned(job)
    home.mark_latest("train", job.id)
    say_quietly = not json
    if say_quietly:
        say(f"Run {job.id}")
    last = run(home, job, value, show=say_quietly)
    if isinstance(last, Failed):
        raise RunError(last.what, where=job.id, fix=last.fix)
    if json:
        say_json({"run": job.id, "state": job.state(), "last": last.__dict__})
    elif isinstance(last, Finished):
        say(
            f"{last.reason.capitalize()}: {last.step} steps in {last.seconds:.0f} s, peak memory "
            f"{last.peak_memory_bytes / 2**20:.0f} MiB, best validation loss "
            f"{last.best_loss:.4f} at step {last.best_step}."
        )
        say(f"Next: python app.py compare {job.id}")
    else:
        say(f"Stopped and saved. Go on with: python app.py train --resume {job.id}")
    if not isinstance(last, Finished):
        raise typer.Exit(130)
    return job.id


def planned(job: Job) -> TrainPlan:
    """Read the plan of a train job.

    Args:
        job: its folder.

    Returns:
        The plan.
    """
    return parse(TrainPlan, job.request("train")["plan"], where=job.id, error=PlanError)


def run(home: Home, job: Job, plan: TrainPlan, *, show: bool) -> Event:
    """Train in this process, writing every event to the job's folder.

    Args:
        home: where the dataset is.
        job: where to write.
        plan: what to do.
        show: whether to show a bar.

    Returns:
        The last event: Finished, Stopped or Failed.

    Raises:
        StudioError: the run could not begin or go on; also written as Failed.
    """
    from engine.planning.hardware import prepare_process  # noqa: PLC0415

    prepare_process()
    with job.lock():
        return _attempt(home, job, plan, show)


def _attempt(home: Home, job: Job, plan: TrainPlan, show: bool) -> Event:
    from engine.runs import assemble  # noqa: PLC0415
    from engine.trainer import train as training_events  # noqa: PLC0415

    attempt = job.start_attempt()
    stop = _StopRequest()
    last: Event = Failed("The run never began", "Run it again")
    try:
        with progress("Training") as tick, stop:
            bar = _Bar(tick if show else None)
            task = assemble(plan, home.find("dataset", plan.dataset_id), job.checkpoints)
            for last in training_events(task, should_stop=stop.asked):
                attempt.write(last)
                bar.show(last)
    except StudioError as error:
        _write_failure(attempt, error.what, error.fix)
        raise
    except Exception as error:
        foreseen = out_of_memory(error)
        what = foreseen.what if foreseen else f"An unforeseen {type(error).__name__}"
        _write_failure(attempt, what, foreseen.fix if foreseen else "Report it")
        raise
    return last


class _StopRequest:
    """Turns Ctrl-C and SIGTERM into a wish that the trainer fulfils after its step."""

    def __init__(self) -> None:
        self._asked = False
        self._before: dict[int, Any] = {}

    def asked(self) -> bool:
        return self._asked

    def __enter__(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._ask)

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True


class _Bar:
    """Puts events on a progress bar; silent where there is none."""

    def __init__(self, tick: Tick | None) -> None:
        self._tick, self._total_steps, self._validation = tick, 1, ""

    def show(self, event: Event) -> None:
        if self._tick is None:
            return
        if isinstance(event, Started):
            self._total_steps = event.total_steps
            for notice in event.notices:
                say(f"Note: {notice}")
        elif isinstance(event, Evaluated):
            self._validation = f"  validation {event.loss:.3f}"
        elif isinstance(event, Stepped):
            words = f"step {event.step}/{self._total_steps}  loss {event.loss:.3f}"
            self._tick(event.step / self._total_steps, words + self._validation)


def _write_failure(attempt: Attempt, what: str, fix: str) -> None:
    try:
        attempt.write(Failed(what, fix))
    except StudioError:
        return  # the disk that refused the checkpoint may refuse the event too

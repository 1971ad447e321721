"""What the train page reads and does, without the page: starting, stopping, going on."""

import time
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock

from engine.jobs import Job
from engine.plan import TrainPlan, read_plan
from studio.home import Home
from studio.jobs.progress import RunProgress, read_progress
from studio.jobs.requests import TrainRequest, read_request
from studio.jobs.run_curves import RunCurves
from studio.jobs.run_story import RunStories, Story
from studio.jobs.training import request_to_train
from studio.journey import plan_of, plan_path
from studio.pages.train_runs import Run, run_to_show, runs_of
from studio.projects import Project
from studio.records import kept_estimate
from studio.server import Server
from templates.dataset import Dataset, read_manifest
from templates.errors import PlanError, RunError, StudioError

_SECOND_WISH_SECONDS = 3.0


@dataclass(frozen=True)
class Sight:
    """What there is to see of a project's training.

    Attributes:
        project: as it is now.
        plan: that would be trained; None where there is none.
        runs: the newest last.
        run: the one that the page is about; None where there is none.
    """

    project: Project
    plan: TrainPlan | None
    runs: tuple[Run, ...]
    run: Run | None

    @property
    def is_trained(self) -> bool:
        """Whether some run is of the plan."""
        return any(run.plan == self.plan for run in self.runs)

    @property
    def is_at_work(self) -> bool:
        """Whether some run waits or runs."""
        return any(run.is_at_work for run in self.runs)


class Desk:
    """One for all tabs."""

    def __init__(self, server: Server) -> None:
        """Begin.

        Args:
            server: home, line and engine.
        """
        self.server = server
        self.curves = RunCurves()
        self.stories = RunStories()
        self._lock = Lock()
        self._stopping: dict[str, tuple[int, float]] = {}  # run -> attempt that was asked, when

    def look(self, project: Project, chosen: str = "") -> Sight:
        """Read where a project's training stands.

        Args:
            project: as it is now.
            chosen: id of the run that the person picked, if any.

        Returns:
            What there is to see.
        """
        runs = tuple(runs_of(self.server.home, self.server.queue, project))
        plan = _plan_of(self.server.home, project)
        return Sight(project, plan, runs, run_to_show(runs, project, chosen))

    def progress(self, run: Run) -> RunProgress:
        """Read how a run goes.

        Args:
            run: which.

        Returns:
            Its progress; where the folder went away just now, the state that was seen.
        """
        try:
            return read_progress(self.server.queue, run.job)
        except (RunError, OSError):
            return RunProgress(run.state)

    def story(self, run: Run) -> Story:
        """Read what a run went through.

        Args:
            run: which.

        Returns:
            Its story.
        """
        return self.stories.of(run.job)

    def dataset(self, plan: TrainPlan) -> Dataset | None:
        """Read the manifest of a plan's data.

        Args:
            plan: names it.

        Returns:
            The manifest; None where it is gone.
        """
        try:
            return _manifest(self.server.home.place("dataset") / plan.dataset_id)
        except StudioError:
            return None

    def best_losses(self, runs: tuple[Run, ...]) -> dict[str, float]:
        """Find the lowest validation loss of each run.

        Args:
            runs: any.

        Returns:
            Run id -> loss, of those that were checked at all.
        """
        best = {}
        for run in runs:
            loss = run.status.best_loss
            if loss is None and run.status.attempt:
                evaluations = self.curves.of(run.job, is_over=not run.is_at_work).evaluations
                loss = min(evaluations.loss, default=None)
            if loss is not None:
                best[run.id] = loss
        return best

    def estimated_bytes(self, run: Run) -> int:
        """Look up what a run's memory was estimated at.

        Args:
            run: which.

        Returns:
            Bytes; 0 where nobody did.
        """
        if kept := _estimated_bytes(run.job.folder):
            return kept
        estimate = kept_estimate(self.server.home, run.plan)
        return estimate.peak_memory_bytes if estimate else 0

    def start(self, project: Project) -> str:
        """Put the project's plan into the line; asking twice gives the same run.

        Args:
            project: has a plan.

        Returns:
            Id of the run.

        Raises:
            StudioError: there is no plan, its data is gone or changed, or the disk refuses.
        """
        plan = plan_of(self.server.home, project)
        if plan is None:
            raise PlanError("There is no plan yet", fix="Choose a method on the Plan step")
        return self._submit(project, plan, f"train {project.id} {project.plan}")

    def start_again(self, project: Project, run: Run) -> str:
        """Train the plan of a run once more, as a new run.

        Args:
            project: has the run.
            run: whose plan it is.

        Returns:
            Id of the new run; of the one that is at work on this plan, where there is one.

        Raises:
            StudioError: the data is gone or changed, or the disk refuses.
        """
        sight = self.look(project)
        at_work = (other.id for other in sight.runs if other.is_at_work and other.plan == run.plan)
        for name in at_work:
            return name
        key = f"again {project.id} {run.plan.digest} {len(project.runs)}"
        return self._submit(project, run.plan, key)

    def go_on(self, run: Run) -> None:
        """Go on with a run from what it saved, or try it again.

        Args:
            run: one that was stopped, interrupted or failed.

        Raises:
            RunError: it waits, runs, or is done.
        """
        self.server.engine.release()
        self.server.queue.resume(run.job)

    def stop(self, run: Run) -> None:
        """Take a run out of the line or ask it to stop; asked again, end it at once.

        A second click within a few seconds is no second wish.

        Args:
            run: one that waits or runs.
        """
        now = time.monotonic()
        with self._lock:
            attempt, asked_at = self._stopping.get(run.id, (0, now))
            is_asked = run.state == "running" and attempt == run.status.attempt
            if not is_asked:
                self._stopping[run.id] = run.status.attempt, now
        if not is_asked or now - asked_at > _SECOND_WISH_SECONDS:
            self.server.queue.stop(run.job, force=is_asked)

    def is_stopping(self, run: Run) -> bool:
        """Say whether a running run was asked to stop, on any tab of this server.

        Args:
            run: which.

        Returns:
            True until it has ended.
        """
        with self._lock:
            if run.state != "running":
                self._stopping.pop(run.id, None)
            return self._stopping.get(run.id, (0, 0.0))[0] == run.status.attempt

    def _submit(self, project: Project, plan: TrainPlan, key: str) -> str:
        request = request_to_train(self.server.home, plan)
        self.server.engine.release()
        job = self.server.queue.submit(request, key=key)
        self.server.projects.edit(
            project.id,
            lambda now: {
                "runs": now.runs if job.id in now.runs else (*now.runs, job.id),
                "run": job.id,
            },
        )
        self.server.home.mark_latest("train", job.id)
        return job.id


def _plan_of(home: Home, project: Project) -> TrainPlan | None:
    """As `plan_of`, but the file is parsed once, not every second in every tab."""
    with suppress(StudioError, OSError):
        path = plan_path(home, project)
        stat = path.stat()
        return _plan(path, stat.st_mtime_ns, stat.st_size) if project.plan else None
    return None


@lru_cache(maxsize=64)
def _plan(path: Path, changed_at: int, size_bytes: int) -> TrainPlan:
    """Read a plan; what it was when it was read is part of what is remembered."""
    return read_plan(path)


@lru_cache(maxsize=64)
def _manifest(folder: Path) -> Dataset:
    """Read a manifest; a dataset is named after its content."""
    return read_manifest(folder)


@lru_cache(maxsize=256)
def _estimated_bytes(folder: Path) -> int:
    """Read what a run's memory was estimated at; a request is written once."""
    request = read_request(Job(folder))
    return request.estimated_peak_bytes if isinstance(request, TrainRequest) else 0

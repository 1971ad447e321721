"""One job in a process of its own: `python -m studio.jobs.worker JOB`, or forked.

It takes the job, says who it is, waits for its device, does the work, and has the last word:
Finished, Delivered, Stopped or Failed. Then it lets the queue go on.
"""

import argparse
import contextlib
import faulthandler
import fcntl
import gc
import importlib
import json
import os
import re
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn, Protocol, cast

from engine.events import Delivered, Event, Failed, Launched, Stopped
from engine.jobs import Job
from engine.liveness import is_out_of_memory, memory_kills, memory_ran_out, this_process
from studio.home import Home
from studio.jobs.context import Context
from studio.jobs.launcher import HELLO, LOG
from studio.jobs.queue import Queue
from studio.jobs.requests import Request, TrainRequest, lane_of, read_request
from studio.jobs.stopping import StopRequest, StopWork
from studio.records import require_finished
from templates.errors import StudioError

_WAIT_SECONDS = 0.1
_PREFERRED_VICTIM = b"500"  # where memory runs out, the system ends a worker before the page


class Work(Protocol):
    """What each file of `studio/work` offers."""

    def run(self, request: Request, context: Context) -> tuple[str, ...] | None:
        """Do the work.

        Args:
            request: what is asked for.
            context: where to work and whom to tell.

        Returns:
            What lies in the job's folder now; None where the last event is already written.
        """


def work_on(
    home: Home,
    job: Job,
    stop: StopRequest,
    *,
    until_step: int = 0,
    token: str = "",
    hello: Callable[[], None] = lambda: None,
) -> None:
    """Make one attempt at a job, in this process.

    Args:
        home: the folder behind all steps.
        job: what to do.
        stop: hears signals.
        until_step: pause training there; 0: go on to the end.
        token: for the Hub.
        hello: called once the attempt can be seen.

    Raises:
        RunError: another process works on the job.
    """
    with job.lock():
        attempt = job.start_attempt()
        launched = _launched(job, until_step)
        attempt.write(launched)
        hello()
        context = Context(home, job, attempt, stop, until_step, token)
        last: Event | None
        try:
            last = _outcome(context)
        except StopWork:
            last = Stopped(_saved_step(job))
        except StudioError as error:
            # Libraries turn a raised stop into errors of their own, and we those into sentences.
            failed = Failed(error.what, error.fix, error.where)
            last = Stopped(_saved_step(job)) if stop.raised() else failed
        except Exception as error:
            traceback.print_exc()  # into the log
            stopped = stop.asked() and not is_out_of_memory(error)
            last = Stopped(_saved_step(job)) if stopped else _unforeseen(error, job, launched)
        if last is not None and not attempt.has_ended:  # a signal may come behind the last word
            attempt.write(last)
        attempt.close()


def _outcome(context: Context) -> Event | None:
    """Do the work; gives the last event, or None where the work has written it."""
    started = time.monotonic()
    request = read_request(context.job)
    run_id = getattr(request, "run_id", "")
    if run_id:  # before anything slow is loaded
        require_finished(Job(context.home.find("train", run_id)))
    context.progress(0.0, "loading the libraries")
    work = _library(context.job.kind)
    with context.stop.droppable(), _lane(context, lane_of(request)):
        outputs = work.run(request, context)
    if outputs is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Delivered(outputs, time.monotonic() - started, peak)


def _library(kind: str) -> Work:
    """Load what a kind of job needs: it stays, and searching it for garbage takes a tenth more."""
    gc.disable()
    try:
        return cast(Work, importlib.import_module(f"studio.work.{kind}"))
    finally:
        gc.enable()


@contextmanager
def _lane(context: Context, name: str) -> Iterator[None]:
    """Hold the device, after whoever holds it now."""
    with context.home.lock(name).open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                context.progress(0.0, f"waiting for {name}")
                time.sleep(_WAIT_SECONDS)
        yield


def _launched(job: Job, until_step: int) -> Launched:
    process = this_process()
    estimated = available = 0
    with contextlib.suppress(StudioError):  # said again, and written down, when the work begins
        request = read_request(job)
        if isinstance(request, TrainRequest):
            estimated, available = request.estimated_peak_bytes, request.memory_available_bytes
    return Launched(
        pid=process.pid,
        process_started=process.started,
        boot_id=process.boot_id,
        memory_kills=memory_kills(),
        estimated_peak_bytes=estimated,
        memory_available_bytes=available,
        until_step=until_step,
    )


def _saved_step(job: Job) -> int:
    steps = [re.match(r"step-(\d+)", path.name) for path in job.checkpoints.glob("step-*")]
    return max((int(found[1]) for found in steps if found), default=0)


def _unforeseen(error: Exception, job: Job, launched: Launched) -> Failed:
    if is_out_of_memory(error):
        return memory_ran_out(launched)
    return Failed(
        f"The studio made a mistake that it did not foresee ({type(error).__name__})",
        f"Report it with the file {job.folder / LOG}",
    )


def run(job_id: str, hello_pipe: int, orders: Callable[[], str]) -> NoReturn:
    """Be the worker of a job: work on it, let the queue go on, and end this process.

    Args:
        job_id: of a job in the studio's folder.
        hello_pipe: file descriptor that is told once the attempt can be seen; -1: nobody asks.
        orders: reads one line of JSON, the arguments of `work_on`; "" where there are none.
    """
    faulthandler.enable()
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "wb") as file:
        file.write(_PREFERRED_VICTIM)
    home = Home()
    job = home.job(job_id)

    def hello() -> None:
        if hello_pipe >= 0:
            with contextlib.suppress(OSError):  # who asked may be gone
                os.write(hello_pipe, HELLO)
            os.close(hello_pipe)

    with StopRequest() as stop:
        try:
            given = orders()
            if not given:  # who started this was killed; the job still waits in line
                sys.exit("There were no orders")
            work_on(home, job, stop, hello=hello, **json.loads(given))
            Queue(home).advance()
        except StudioError as error:
            sys.exit(str(error))
    sys.stderr.flush()
    os._exit(0)  # threads of a download that was stopped would be waited for


def main() -> None:
    """Work on the job that the argument names; standard input gives the orders."""
    parser = argparse.ArgumentParser(description="Work on one job.")
    parser.add_argument("job")
    parser.add_argument("--hello", type=int, default=-1)
    arguments = parser.parse_args()
    run(arguments.job, arguments.hello, sys.stdin.readline)


if __name__ == "__main__":
    main()

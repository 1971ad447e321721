"""Soft prompts of finished runs that a new run may start from. Free of torch.

A method asks for them by an option called `source`: the id of a run, or "" for all that fit. Their
tensors are copied into the new job's folder when it is made, so that it needs no other run
afterwards; `engine/methods/spot.py` says which of them is taken.
"""

from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError, safe_open

from engine.checkpoints import LEARNED, best_checkpoint
from engine.jobs import Job
from engine.plan import TrainPlan
from templates.errors import PlanError, StudioError
from templates.values import parse

MOST_SOURCES = 16  # each costs a pass over validation examples
NOTHING_TO_START_FROM = "There is no learned prompt to start from"
_BEGINNING, _ENDING = "source-", ".safetensors"
_TRAIN_FIRST = "Train a prompt tuning run first, on another task with the same base"


def source_files(plan: TrainPlan, jobs: Iterable[Job]) -> dict[str, Path]:
    """Find the tensors that a new job of a plan is to bring along.

    Args:
        plan: what will be trained.
        jobs: all train jobs of the home.

    Returns:
        Name in the new job's folder -> where the file is now. Of a named run that one file; else
        those of the newest runs that learned as many virtual tokens on the same base, from other
        data. Nothing for a method that starts from no other run.

    Raises:
        PlanError: the named run does not fit, with the reason; or no run fits.
    """
    wanted = plan.method.options.get("source")
    if wanted is None:
        return {}
    jobs = sorted(jobs, key=lambda job: job.id, reverse=True)
    if wanted:
        job = next((job for job in jobs if job.id == wanted), None)
        if job is None:
            raise PlanError(
                f"There is no run {wanted!r}", where="source", fix="Give the id of a finished run"
            )
        return {_name(job): _file_of(job, plan)}
    found: dict[str, Path] = {}
    for job in jobs:
        try:
            if _planned(job).dataset_sha256 != plan.dataset_sha256:
                found[_name(job)] = _file_of(job, plan)
        except StudioError:
            continue  # of another kind, base or length, or not finished: not meant
        if len(found) == MOST_SOURCES:
            break
    if not found:
        tokens = plan.method.options.get("num_tokens")
        raise PlanError(
            NOTHING_TO_START_FROM, where="source", fix=f"{_TRAIN_FIRST} and {tokens} prompt tokens"
        )
    return found


def copied_sources(folder: Path) -> dict[str, Path]:
    """Find what was copied when a job was made.

    Args:
        folder: the job's.

    Returns:
        Id of a run -> its tensors.
    """
    files = sorted(folder.glob(f"{_BEGINNING}*{_ENDING}"))
    return {file.name.removeprefix(_BEGINNING).removesuffix(_ENDING): file for file in files}


def _name(job: Job) -> str:
    return f"{_BEGINNING}{job.id}{_ENDING}"


def _planned(job: Job) -> TrainPlan:
    return parse(TrainPlan, job.request("train")["plan"], where=job.id, error=PlanError)


def _file_of(job: Job, plan: TrainPlan) -> Path:
    """Find a run's prompt, if a plan can start from it."""
    theirs = _planned(job)
    pinned = theirs.base.fingerprint and plan.base.fingerprint
    is_same = theirs.base.id == plan.base.id and theirs.base.revision == plan.base.revision
    if pinned:
        is_same = theirs.base.fingerprint == plan.base.fingerprint
    if not is_same:
        raise PlanError(
            f"Run {job.id} learned its prompt on another base, {theirs.base.id}",
            where="source",
            fix=f"Choose a run on {plan.base.id}, or that base",
        )
    state = job.status().state
    if state != "finished":
        raise PlanError(
            f"Run {job.id} is {state}, and its prompt may still change",
            where="source",
            fix="Let it finish first, or choose another run",
        )
    file = best_checkpoint(job.checkpoints).folder / LEARNED
    shape = _prompt_shape(file)
    if len(shape) != 2:
        raise PlanError(
            f"Run {job.id} learned no prompt by itself: its method is {theirs.method.name}",
            where="source",
            fix="Choose a run of prompt tuning or of prompt transfer",
        )
    tokens = plan.method.options.get("num_tokens")
    if shape[0] != tokens:
        raise PlanError(
            f"Run {job.id} learned {shape[0]} prompt tokens, and this plan has {tokens}",
            where="source",
            fix=f"Plan with num_tokens={shape[0]}, or choose another run",
        )
    return file


def _prompt_shape(file: Path) -> tuple[int, ...]:
    """Read the shape of a checkpoint's prompt, (P, D); () where something else was learned."""
    try:
        with safe_open(file, framework="numpy") as tensors:
            names = list(tensors.keys())
            is_prompt = len(names) == 1 and names[0].endswith(".prompt")
            return tuple(tensors.get_slice(names[0]).get_shape()) if is_prompt else ()
    except (OSError, SafetensorError):
        return ()

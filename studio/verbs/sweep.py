"""sweep: several methods, learning rates and seeds at once, and one table of what came of them."""

import itertools
import time
from collections.abc import Callable
from typing import Annotated, Any

import typer

from engine.jobs import Job
from studio.doing import fetched
from studio.home import Home
from studio.jobs.halving import Halving, planned_ratio
from studio.jobs.queue import Queue
from studio.jobs.requests import TrainRequest
from studio.jobs.sweep import Label, Sweep, check_size, read_sweep
from studio.jobs.sweep_table import HONEST, SweepTable, sweep_table
from studio.jobs.sweeping import (
    beyond_halving,
    follow_sweep,
    members,
    resume_sweep,
    start_sweep,
    stop_sweep,
)
from studio.records import keep_estimate
from studio.screen import Tick, progress, say, say_json, say_table
from studio.verbs.plan import sort_options
from studio.verbs.train import Detach
from studio.verbs.upload import Json
from templates.dataset import read_dataset
from templates.errors import PlanError, RunError

_STOP_SECONDS = 12.0


def sweep(
    dataset: Annotated[str, typer.Argument(help='Id of a dataset, or "latest".')] = "latest",
    method: Annotated[list[str] | None, typer.Option(help="Repeatable; lora if none.")] = None,
    learning_rate: Annotated[
        list[float] | None, typer.Option(help="Repeatable; the method's own if none.")
    ] = None,
    seed: Annotated[list[int] | None, typer.Option(min=0, help="Repeatable; 0 if none.")] = None,
    base: Annotated[
        str, typer.Option(help='"starter", a model folder, or a Hub id such as org/name.')
    ] = "starter",
    revision: Annotated[str, typer.Option(help="Hub branch, tag or commit.")] = "",
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option", "-o",
            help="NAME=VALUE for every member that has such a setting; repeatable.",
        ),
    ] = None,
    halving: Annotated[
        bool, typer.Option(help="Stop the worse members on the way (arXiv 1502.07943).")
    ] = False,
    eta: Annotated[int, typer.Option(min=2, max=16, help="Keep one in so many.")] = 2,
    rungs: Annotated[int, typer.Option(min=1, max=8, help="Times to choose.")] = 2,
    name: Annotated[str, typer.Option(help="What to call it.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Train what may not fit.")] = False,
    show: Annotated[str, typer.Option(help='Only show this sweep: its id, or "latest".')] = "",
    stop: Annotated[str, typer.Option(help="Stop all members of this sweep; they save.")] = "",
    resume: Annotated[str, typer.Option(help="Go on with this sweep.")] = "",
    detach: Detach = False,
    json: Json = False,
) -> str:  # fmt: skip
    """Train every combination and compare them on validation rows. Ctrl-C saves and stops all."""
    home = Home()
    queue = Queue(home)
    asked_for = show or stop or resume
    if asked_for:
        found = read_sweep(home.find("sweep", asked_for))
    else:
        plans = _plans(
            home, dataset, fetched(home, base, revision), revision, method or ["lora"],
            learning_rate or [None], seed or [0], option or [], force,
        )  # fmt: skip
        found = start_sweep(
            queue, home, plans, Halving(eta=eta, num_rungs=rungs) if halving else None, name=name
        )
        home.mark_latest("sweep", found.id)
        _warn(found)
    if stop:
        _stop(queue, home, found)
        queue.advance()
        table = sweep_table(queue, home, found)
        _show(found, table, json)
        if not table.is_over:
            _say_stopped(found, table, to_errors=json)
        return found.id
    if show:
        queue.advance()
        table = sweep_table(queue, home, found)
        _show(found, table, json, go_on=table.is_stuck)
        return found.id
    if resume:
        resume_sweep(queue, home, found)
    if detach:
        queue.advance()
        _show(found, sweep_table(queue, home, found), json)
        return found.id
    if not json:
        say(f"Sweep {found.id}: {len(found.members)} members")
    with progress("Sweep") as tick:
        stopped = follow_sweep(queue, home, found, show=_bar(tick, home, found))
    table = sweep_table(queue, home, found)
    if stopped and not table.is_over:
        _say_stopped(found, table, to_errors=True)
    _show(found, table, json)
    _end(found, table, stopped)
    home.mark_latest("train", table.winner)
    return found.id


def _plans(
    home: Home,
    dataset: str,
    base: str,
    revision: str,
    methods: list[str],
    learning_rates: list[float] | list[None],
    seeds: list[int],
    items: list[str],
    force: bool,
) -> list[tuple[Label, TrainRequest]]:
    """Plan every combination; what comes to the same plan is trained once."""
    from engine.methods import get_method  # noqa: PLC0415
    from engine.planning.hardware import measure_hardware, prepare_process  # noqa: PLC0415
    from engine.planning.make_plan import make_plan  # noqa: PLC0415

    wanted = list(dict.fromkeys(itertools.product(methods, learning_rates, seeds)))
    check_size(len(wanted))
    fields = {method: get_method(method).options.model_fields for method in methods}
    folder = home.find("dataset", dataset)
    manifest = read_dataset(folder)
    prepare_process()  # speeds are measured with the settings that training uses
    hardware = measure_hardware()
    plans: dict[str, tuple[Label, TrainRequest]] = {}
    estimates = []
    with progress("Planning") as tick:
        for number, (method, rate, seed) in enumerate(wanted):
            tick(number / len(wanted), method)
            options, schedule, limits = sort_options(
                _meant_for(method, items, fields), fields[method]
            )
            changes: dict[str, Any] = (
                schedule if rate is None else {**schedule, "learning_rate": rate}
            )
            plan, estimate = make_plan(
                manifest, folder, base, method, options=options, schedule_changes=changes,
                limits_changes=limits, revision=revision, seed=seed, hardware=hardware,
            )  # fmt: skip
            label: Label = {
                "method": method, "learning_rate": plan.schedule.learning_rate, "seed": seed,
            }  # fmt: skip
            if estimate.blockers and not force:
                raise PlanError(
                    estimate.blockers[0].removesuffix("."),
                    where=_words(label),
                    fix="Change or leave out this member, or train it all the same with --force",
                )
            estimates.append((plan, estimate))
            request = TrainRequest(
                plan=plan,
                estimated_peak_bytes=estimate.peak_memory_bytes,
                memory_available_bytes=estimate.memory_available_bytes,
            )
            plans.setdefault(plan.digest, (label, request))
    for plan, estimate in estimates:
        keep_estimate(home, plan, estimate)
    return list(plans.values())


def _meant_for(method: str, items: list[str], fields: dict[str, Any]) -> list[str]:
    """Leave out settings that only other methods have."""
    only_others = {name for known in fields.values() for name in known} - set(fields[method])
    return [item for item in items if item.partition("=")[0] not in only_others]


def _stop(queue: Queue, home: Home, found: Sweep) -> None:
    stop_sweep(queue, home, found)
    deadline = time.monotonic() + _STOP_SECONDS
    while time.monotonic() < deadline and any(
        job.status().state == "running" for job in members(home, found)
    ):
        time.sleep(0.1)


def _bar(tick: Tick, home: Home, found: Sweep) -> Callable[[Job | None], None]:
    """Put the member that runs on a bar over the steps of all."""
    labels = {member.job: _words(member.label) for member in found.members}
    steps = {job.id: job.status().step for job in members(home, found)}
    all_steps = sum(member.total_steps for member in found.members)
    expected = all_steps * planned_ratio(len(found.members), found.halving)

    def show(job: Job | None) -> None:
        words = "waiting for its turn"
        if job is not None:
            status = job.status()
            steps[job.id] = max(steps[job.id], status.step)
            words = f"{labels[job.id]}  {status.words}"
        tick(min(1.0, sum(steps.values()) / expected), words)

    return show


def _warn(found: Sweep) -> None:
    """Name the members that halving cannot end early."""
    beyond = beyond_halving(found)
    if beyond:
        names = "; ".join(_words(member.label) for member in beyond)
        typer.echo(
            f"Note: {len(beyond)} of {len(found.members)} members are evaluated at their last "
            f"step only, so halving cannot end them early ({names}).",
            err=True,
        )


def _show(found: Sweep, table: SweepTable, json: bool, *, go_on: bool = False) -> None:
    if json:
        rows = [vars(row) for row in table.rows]
        say_json(
            {
                "sweep": found.id,
                "winner": table.winner or None,
                "best_so_far": table.best_so_far or None,
                "is_over": table.is_over,
                "note": HONEST if table.winner else "",
                "members": rows,
            }
        )
        return
    labels = [row.label for row in table.rows]
    names = list(dict.fromkeys(name for label in labels for name in label))
    differ = [name for name in names if len({label.get(name) for label in labels}) > 1]
    same = {name: labels[0][name] for name in names if name not in differ}
    cells = [
        (
            str(number),
            str(row.rank or "–"),
            *(_cell(row.label.get(name, "")) for name in differ),
            row.state,
            f"{row.step}/{row.total_steps}",
            "–" if row.best_loss is None else f"{row.best_loss:.4f}",
            f"{row.seconds:.0f}",
        )
        for number, row in enumerate(table.rows, 1)
    ]
    headings = ("#", "rank", *(name.replace("_", " ") for name in differ), "state", "steps",
                "loss", "seconds")  # fmt: skip
    title = f"{found.name or found.id}{', ' * bool(same)}{_words(same)}; loss on validation rows"
    say_table(title, headings, cells)
    for number, row in enumerate(table.rows, 1):  # a narrow table would fold the ids
        say(f"{number}: {row.job}")
    for row in table.rows:
        if row.state in ("failed", "interrupted") and row.what:
            say(f"{_words(row.label)} ({row.job}): {row.what}.")
    if go_on:
        say(f"Go on with: {_resume_command(found)}")
    best = next((row for row in table.rows if row.job == table.best_so_far), None)
    if best:
        num_finished = sum(row.state == "finished" for row in table.rows)
        so_far = f"Best so far ({num_finished} of {len(table.rows)} finished)"
        title = "Winner" if table.is_over else so_far
        say(f"{title}: {_words(best.label)}, validation loss {best.best_loss:.4f}.")
    if table.winner:
        say(HONEST)
        say(f"Next: python app.py compare {table.winner}")
    elif not table.is_over and not table.is_stuck:
        say(f"Next: python app.py sweep --show {found.id}")


def _say_stopped(found: Sweep, table: SweepTable, *, to_errors: bool) -> None:
    is_saved = all(row.state != "running" for row in table.rows)
    what = "Stopped and saved" if is_saved else "Stopping; the member that runs saves first"
    sentence = f"{what}. Go on with: {_resume_command(found)}"
    if to_errors:
        typer.echo(sentence, err=True)
    else:
        say(sentence)


def _resume_command(found: Sweep) -> str:
    return f"python app.py sweep --resume {found.id}"


def _end(found: Sweep, table: SweepTable, stopped: bool) -> None:
    """Make anything but a winner an exit code and a sentence."""
    if stopped and not table.is_over:
        raise typer.Exit(130)
    lost = [row for row in table.rows if row.state == "interrupted"]
    if lost:
        raise RunError(
            f"{len(lost)} of {len(table.rows)} members were interrupted, and the others cannot "
            "be judged without them",
            where=lost[0].job,
            fix=f"Go on with: {_resume_command(found)}",
        )
    if not table.is_over:  # somebody stopped it from elsewhere
        _say_stopped(found, table, to_errors=True)
        raise typer.Exit(130)
    if not table.winner:
        raise RunError(
            "No member of the sweep reached its end",
            where=found.id,
            fix="Read why above; a lower learning rate or a smaller batch often helps",
        )


def _words(label: Label) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {_cell(value)}" for name, value in label.items())


def _cell(value: str | int | float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)

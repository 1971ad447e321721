"""A run that starts from another run's prompt: found, copied, and free of it from then on."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.checkpoints import LEARNED, best_checkpoint
from engine.events import Evaluated, Finished, Started
from engine.jobs import Job
from engine.plan import MethodChoice, TrainPlan, read_plan
from engine.prompt_sources import copied_sources, source_files
from engine.runs import assemble
from studio.home import Home
from studio.jobs.queue import Queue
from studio.jobs.requests import TrainRequest
from templates.errors import PlanError
from tests.studio.jobs.running import plan_for_table, prepare_home, working_here
from tests.studio.tables import write_table

TOKENS = 5


def submitted(home: Home, plan: TrainPlan, **settings: int) -> Job:
    """A job of a plan, done in this process."""
    with working_here():
        queue = Queue(home)
        job = queue.submit(TrainRequest(plan=plan), **settings)
        queue.advance()
    return job


def with_method(plan: TrainPlan, name: str, **options: object) -> TrainPlan:
    chosen = MethodChoice(name=name, options={"num_tokens": TOKENS} | options)
    schedule = plan.schedule.model_copy(update={"learning_rate": 3e-2})
    return plan.model_copy(update={"method": chosen, "schedule": schedule})


def notices_of(job: Job) -> str:
    return " ".join(
        notice for event in job.events() if isinstance(event, Started) for notice in event.notices
    )


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, Job, TrainPlan]:
    """A home with a finished prompt tuning run, and a plan for other data."""
    folder = tmp_path_factory.mktemp("transfer")
    home = prepare_home(folder)
    source = submitted(home, with_method(read_plan(home.find("plan", "latest")), "prompt_tuning"))
    assert source.status().state == "finished"
    plan_for_table(home, write_table(folder / "other.csv", 16), folder / "base")
    return home, source, read_plan(home.find("plan", "latest"))


def test_it_starts_at_the_sources_vectors_learns_and_outlives_the_source(
    prepared: tuple[Home, Job, TrainPlan], tmp_path: Path
) -> None:
    home, source, plan = prepared
    home = Home(shutil.copytree(home.root, tmp_path / "home"))
    source = home.job(source.id)
    spot = with_method(plan, "spot", source="")
    whole = submitted(home, spot)
    assert whole.status().state == "finished", whole.status()
    assert f"Starts from the prompt of run {source.id}: validation loss" in notices_of(whole)
    learned = load_file(best_checkpoint(source.checkpoints).folder / LEARNED)
    [(run, copied)] = copied_sources(whole.folder).items()
    assert run == source.id
    training = assemble(
        spot, home.find("dataset", plan.dataset_id), tmp_path / "none", {run: copied}
    )
    start = training.language_model.model.get_input_embeddings().prompt
    assert torch.equal(start, *learned.values())
    losses = [event.loss for event in whole.events() if isinstance(event, Evaluated)]
    first = float(notices_of(whole).partition("validation loss ")[2].split()[0])
    assert min(losses) < first
    paused = submitted(home, spot, until_step=3)
    waiting = Queue(home).submit(TrainRequest(plan=spot))
    shutil.rmtree(source.folder)
    with working_here():
        queue = Queue(home)
        queue.resume(paused)
        for _ in ("waiting", "paused"):
            queue.advance()
    for job in (paused, waiting):
        assert job.status().state == "finished", job.status()
        assert isinstance(job.events()[-1], Finished)
        ends = [best_checkpoint(one.checkpoints).folder / LEARNED for one in (whole, job)]
        assert ends[0].read_bytes() == ends[1].read_bytes()
    # What it learned is a source like any other; the first run is gone.
    assert {f"source-{job.id}.safetensors" for job in (whole, paused, waiting)} == set(
        source_files(spot.model_copy(update={"dataset_sha256": "other"}), home.jobs())
    )


def test_a_named_source_that_does_not_fit_is_refused_with_the_reason(
    prepared: tuple[Home, Job, TrainPlan], tmp_path: Path
) -> None:
    home, source, plan = prepared
    jobs = list(home.jobs())

    def refused(changed: TrainPlan) -> str:
        with pytest.raises(PlanError) as raised:
            source_files(changed, jobs)
        return str(raised.value)

    named = with_method(plan, "spot", source=source.id)
    assert list(source_files(named, jobs)) == [f"source-{source.id}.safetensors"]
    assert "no run 'train-none'" in refused(with_method(plan, "spot", source="train-none"))
    short = with_method(plan, "spot", source=source.id, num_tokens=4)
    assert "learned 5 prompt tokens, and this plan has 4" in refused(short)
    assert "num_tokens=5" in refused(short)
    other_base = {"id": "other", "fingerprint": "f" * 64}
    elsewhere = named.model_copy(update={"base": named.base.model_copy(update=other_base)})
    assert "on another base" in refused(elsewhere)
    lora = submitted(home, plan)
    jobs.append(lora)
    assert "learned no prompt by itself" in refused(with_method(plan, "spot", source=lora.id))
    stopped = submitted(home, with_method(plan, "prompt_tuning"), until_step=1)
    jobs.append(stopped)
    assert "is stopped" in refused(with_method(plan, "spot", source=stopped.id))


def test_nothing_to_start_from_is_said_before_there_is_a_job(
    prepared: tuple[Home, Job, TrainPlan],
) -> None:
    home, source, plan = prepared
    before = len(home.jobs())
    for changed in (
        with_method(plan, "spot", source="", num_tokens=7),
        # A run on the same data is no other task.
        with_method(plan, "spot", source="").model_copy(
            update={"dataset_sha256": source.request("train")["plan"]["dataset_sha256"]}
        ),
    ):
        with pytest.raises(PlanError, match="no learned prompt to start from") as raised:
            Queue(home).submit(TrainRequest(plan=changed))
        assert "Train a prompt tuning run first" in raised.value.fix
    assert len(home.jobs()) == before


def test_a_damaged_copy_is_a_sentence(
    prepared: tuple[Home, Job, TrainPlan], tmp_path: Path
) -> None:
    home, source, plan = prepared
    queue = Queue(home)
    job = queue.submit(TrainRequest(plan=with_method(plan, "spot", source=source.id)))
    [copied] = copied_sources(job.folder).values()
    save_file({"model.embed_tokens.prompt": torch.zeros(4, 32)}, copied)
    with working_here():
        Queue(home).advance()
    assert job.status().state == "failed" and "should be one prompt" in job.status().what
    copied.write_bytes(b"\xff" * 32)
    with working_here():
        queue = Queue(home)
        queue.retry(job)
        queue.advance()
    assert job.status().state == "failed" and "cannot be read" in job.status().what

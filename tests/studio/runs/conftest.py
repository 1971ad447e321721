"""One home with a finished run and a paused one, really trained; each test gets a copy."""

import shutil
from pathlib import Path

import pytest

from engine.events import Launched
from engine.jobs import Job
from engine.liveness import memory_kills, this_process
from engine.plan import BaseChoice, MethodChoice, Schedule, TrainPlan
from studio.home import Home
from studio.jobs.queue import Queue
from studio.jobs.requests import TrainRequest
from studio.jobs.stopping import StopRequest
from studio.jobs.worker import work_on
from templates.dataset import MANIFEST, SPLITS, Dataset, SplitFile
from templates.files import sha256_of_bytes
from tests.engine.tiny import TEMPLATE, TICKETS, save_tiny, ticket

# So fast that the best weights are not the last ones.
SCHEDULE = Schedule(
    learning_rate=0.05, epochs=5, batch_size=3, evaluations_per_epoch=1,
    patience=100, shape="constant",
)  # fmt: skip
PAUSE_STEP = 11  # an evaluation was two steps before


def write_dataset(folder: Path) -> Dataset:
    """The tickets in other words for each split."""
    folder.mkdir(parents=True)
    files = {}
    for number, split in enumerate(SPLITS):
        tickets = [
            ticket(f"{split}: {item.fields['text']}", item.label, 10 * number + row)
            for row, item in enumerate(TICKETS, 1)
        ]
        content = "".join(item.to_json() + "\n" for item in tickets)
        (folder / f"{split}.jsonl").write_text(content, encoding="utf-8")
        files[split] = SplitFile(rows=len(tickets), sha256=sha256_of_bytes(content.encode()))
    dataset = Dataset(
        id=folder.name, name="tickets", template=TEMPLATE, splits=files,
        labels=("billing", "returns", "shipping"), columns={"text": "text"},
        upload_id="up-1", upload_sha256="0" * 64, recipe_sha256="0" * 64,
    )  # fmt: skip
    (folder / MANIFEST).write_text(dataset.model_dump_json(), encoding="utf-8")
    return dataset


def train(home: Home, plan: TrainPlan, *, until_step: int = 0) -> Job:
    queue = Queue(home)
    job = queue.submit(TrainRequest(plan=plan))
    queue.stop(job)  # out of the line: this very process does the work
    go_on(home, job, until_step=until_step)
    return job


def go_on(home: Home, job: Job, *, until_step: int = 0) -> None:
    with StopRequest() as stop:
        work_on(home, job, stop, until_step=until_step)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, str, str]:
    folder = tmp_path_factory.mktemp("trained")
    home = Home(folder / "home")
    dataset = write_dataset(home.place("dataset") / "ds-tickets")
    plan = TrainPlan(
        base=BaseChoice(id=str(save_tiny(folder / "base", "llama"))),
        dataset_id=dataset.id,
        dataset_sha256=dataset.sha256,
        method=MethodChoice(name="lora", options={"rank": 4, "dropout": 0.3}),
        schedule=SCHEDULE,
    )
    finished = train(home, plan)
    paused = train(home, plan.model_copy(update={"seed": 1}), until_step=PAUSE_STEP)
    assert (finished.status().state, paused.status().state) == ("finished", "stopped")
    return home, finished.id, paused.id


@pytest.fixture
def home(trained: tuple[Home, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    copy = tmp_path / "home"
    shutil.copytree(trained[0].root, copy)
    monkeypatch.setenv("STUDIO_HOME", str(copy))
    return Home(copy)


@pytest.fixture
def finished(home: Home, trained: tuple[Home, str, str]) -> Job:
    return Job(home.place("train") / trained[1])


@pytest.fixture
def paused(home: Home, trained: tuple[Home, str, str]) -> Job:
    return Job(home.place("train") / trained[2])


def running(job: Job) -> None:
    """Let a job say that this very process works on it."""
    process = this_process()
    attempt = job.start_attempt()
    attempt.write(Launched(process.pid, process.started, process.boot_id, memory_kills()))
    attempt.close()


def spoil(checkpoint: Path, name: str = "learned.safetensors") -> None:
    """Flip one bit, as an ageing disk does."""
    content = bytearray((checkpoint / name).read_bytes())
    content[-1] ^= 1
    (checkpoint / name).write_bytes(content)

"""A project whose run is trained, on tickets that would do harm if a page let them."""

from pathlib import Path

from data_prep.prepare import RECIPE
from data_prep.recipe import PrepRecipe
from engine.jobs import Job
from engine.plan import BaseChoice, MethodChoice, TrainPlan
from studio.home import Home
from studio.jobs.queue import Queue
from studio.jobs.requests import CompareRequest
from studio.projects import Project, Projects
from templates.dataset import MANIFEST, SPLITS, Dataset, SplitFile
from templates.files import sha256_of_bytes
from tests.engine.tiny import TEMPLATE, TICKETS, save_tiny, ticket
from tests.studio.runs.conftest import SCHEDULE, go_on, train

NAUGHTY = "<img src=x onerror=alert(1)>"
TIMES = 5  # enough rows for two pages


def write_dataset(folder: Path) -> Dataset:
    """The tickets in other words for each split; more than a page of them in the test split."""
    folder.mkdir(parents=True)
    files, row = {}, 0
    for split in SPLITS:
        tickets = []
        for number in range(TIMES if split == "test" else 1):
            for item in TICKETS:
                row += 1
                text = f"{NAUGHTY} {item.fields['text']} {split[0]}{number}"
                tickets.append(ticket(text, item.label or "", row))
        content = "".join(item.to_json() + "\n" for item in tickets)
        (folder / f"{split}.jsonl").write_text(content, encoding="utf-8")
        files[split] = SplitFile(rows=len(tickets), sha256=sha256_of_bytes(content.encode()))
    recipe = PrepRecipe.model_validate(
        {"template": TEMPLATE, "mapping": {"fields": {"text": "text"}}}
    )
    (folder / RECIPE).write_text(recipe.to_json(), encoding="utf-8")
    dataset = Dataset(
        id=folder.name, name="tickets", template=TEMPLATE, splits=files,
        labels=("billing", "returns", "shipping"), columns={"text": "text", "label": "team"},
        upload_id="up-1", upload_sha256="0" * 64, recipe_sha256="0" * 64,
    )  # fmt: skip
    (folder / MANIFEST).write_text(dataset.model_dump_json(), encoding="utf-8")
    return dataset


def trained_project(folder: Path) -> tuple[Home, Project]:
    """A home with a finished run and a project that has it."""
    home = Home(folder / "home")
    dataset = write_dataset(home.place("dataset") / "ds-tickets")
    plan = TrainPlan(
        base=BaseChoice(id=str(save_tiny(folder / "base", "llama"))),
        dataset_id=dataset.id,
        dataset_sha256=dataset.sha256,
        method=MethodChoice(name="lora", options={"rank": 4}),
        schedule=SCHEDULE.model_copy(update={"epochs": 2}),
    )
    run = train(home, plan)
    projects = Projects(home)
    project = projects.new(f"Tickets {NAUGHTY}")
    changes = {"dataset": dataset.id, "runs": (run.id,), "run": run.id}
    return home, projects.change(project.id, **changes)


def compared(home: Home, run_id: str) -> Job:
    """Compare a run, in this very process."""
    queue = Queue(home)
    job = queue.submit(CompareRequest(run_id=run_id))
    queue.stop(job)  # out of the line: this very process does the work
    go_on(home, job)
    assert job.status().state == "finished"
    return job

"""A tiny run, really trained, as the folders that trying takes."""

from pathlib import Path
from typing import Any

from engine.jobs import create_job
from engine.methods import get_method
from engine.plan import BaseChoice, MethodChoice, TrainPlan
from engine.runs import assemble
from engine.trainer import train
from templates.builtin import TEMPLATES
from templates.dataset import MANIFEST, SPLITS, Dataset, SplitFile
from templates.example import Example, Turn
from templates.files import canonical_json, sha256_of_bytes
from tests.engine.tiny import NEEDED, TICKETS, save_tiny

OPTIONS = NEEDED | {
    "lora": {"rank": 4},
    "qlora": {"rank": 4},
    "prompt_tuning": {"num_tokens": 5},
}
LABELS = ("billing", "returns", "shipping")


def examples_for(task: str) -> list[Example]:
    if task == "classification":
        return TICKETS
    if task == "chat":
        return [
            Example(
                turns=(Turn("user", ticket.fields["text"]), Turn("assistant", f"{ticket.label}!")),
                source_rows=ticket.source_rows,
            )
            for ticket in TICKETS
        ]
    return [
        Example(
            fields={"input": ticket.fields["text"]},
            references=(f"héllo {ticket.label}, 好的",),
            source_rows=ticket.source_rows,
        )
        for ticket in TICKETS
    ]


def dataset_for(folder: Path, task: str) -> Dataset:
    folder.mkdir(parents=True)
    text = "".join(example.to_json() + "\n" for example in examples_for(task))
    for split in SPLITS:
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
    file = SplitFile(rows=len(TICKETS), sha256=sha256_of_bytes(text.encode()))
    dataset = Dataset(
        id=folder.name, name=task, template=TEMPLATES[task],
        labels=LABELS if task == "classification" else (), splits=dict.fromkeys(SPLITS, file),
        columns={}, upload_id="up-1", upload_sha256="0", recipe_sha256="1",
    )  # fmt: skip
    content = canonical_json(dataset.model_dump(mode="json"))
    (folder / MANIFEST).write_text(content, encoding="utf-8")
    return dataset


def tiny_plan(base: Path, dataset: Dataset, method: str, precision: str | None = None) -> TrainPlan:
    spec = get_method(method)
    faster = {"learning_rate": 2e-2, "epochs": 8, "batch_size": 4}
    return TrainPlan(
        base=BaseChoice(id=str(base), precision=precision or spec.precisions[0]),
        dataset_id=dataset.id,
        dataset_sha256=dataset.sha256,
        method=MethodChoice(name=method, options=OPTIONS.get(method, {})),
        schedule=spec.schedule.model_copy(update=faster),
    )


def trained_run(
    folder: Path,
    task: str,
    method: str = "lora",
    *,
    architecture: str = "llama",
    chat: bool = False,
) -> dict[str, Any]:
    """Train `folder/train-1` on `folder/base` and `folder/ds-1`; the arguments to try it with."""
    base = save_tiny(folder / "base", architecture, chat=chat)
    dataset = dataset_for(folder / "ds-1", task)
    plan = tiny_plan(base, dataset, method)
    job = create_job(folder / "train-1", "train", {"plan": plan.model_dump(mode="json")})
    attempt = job.start_attempt()
    for event in train(assemble(plan, folder / "ds-1", job.checkpoints)):
        attempt.write(event)
    attempt.close()
    return {
        "run_folder": job.folder,
        "dataset_folder": folder / "ds-1",
        "device_lock": folder / "locks" / "cpu.lock",
    }


def with_chat_template(folder: Path, template: str) -> Path:
    """A tiny base whose chat template is foreign code."""
    save_tiny(folder, "llama", chat=True)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder

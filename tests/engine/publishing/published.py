"""A finished run on a tiny base, written by hand: its weights are perturbed, not trained."""

from pathlib import Path

import torch

from engine.checkpoint_tensors import save_checkpoint
from engine.checkpoints import TrainerState
from engine.comparing.comparison import Arm, Comparison, Interval, Pairing, Score, Verdict
from engine.method import trainable
from engine.methods import get_method
from engine.plan import BaseChoice, MethodChoice, TrainPlan
from engine.publishing.publication import RECORD, RunRecord
from engine.publishing.publish import FinishedRun, publish
from engine.runs import open_planned_base, tuned_model
from templates.dataset import MANIFEST, SPLITS, Dataset, SplitFile
from templates.files import canonical_json, sha256_of_bytes
from templates.template import Template
from tests.engine.tiny import NEEDED, TEMPLATE, TICKETS, save_tiny

LABELS = ("billing", "returns", "shipping")
OPTIONS = NEEDED | {
    "lora": {"rank": 4},
    "loftq": {"rank": 4},
    "qlora": {"rank": 4},
    "prompt_tuning": {"num_tokens": 5},
    "ptuning": {"num_tokens": 5},
    "prefix": {"num_tokens": 5},
    "spot": {"num_tokens": 5},
}


def small_dataset(folder: Path, template: Template = TEMPLATE, name: str = "tickets") -> Dataset:
    folder.mkdir(parents=True, exist_ok=True)
    splits = {}
    text = "".join(ticket.to_json() + "\n" for ticket in TICKETS)
    for split in SPLITS:
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
        splits[split] = SplitFile(rows=len(TICKETS), sha256=sha256_of_bytes(text.encode()))
    dataset = Dataset(
        id="tickets-1", name=name, template=template, labels=LABELS, splits=splits,
        columns={"text": "text"}, upload_id="upload-1", upload_sha256="0", recipe_sha256="1",
    )  # fmt: skip
    content = canonical_json(dataset.model_dump(mode="json"))
    (folder / MANIFEST).write_text(content, encoding="utf-8")
    return dataset


def finished_run(
    folder: Path,
    method: str,
    architecture: str = "llama",
    precision: str | None = None,
    *,
    chat: bool = False,
    compared: bool = False,
    name: str = "tickets",
    spread: float = 0.05,
    **options: object,
) -> FinishedRun:
    """A run in `folder/run-1` on the base `folder/base` and the data `folder/data`.

    `spread` is how far its weights lie from their start.
    """
    base = save_tiny(folder / "base", architecture, chat=chat)
    dataset = small_dataset(folder / "data", name=name)
    plan = TrainPlan(
        base=BaseChoice(id=str(base), precision=precision or get_method(method).precisions[0]),
        dataset_id=dataset.id,
        dataset_sha256=dataset.sha256,
        method=MethodChoice(name=method, options=OPTIONS.get(method, {}) | options),
        schedule=get_method(method).schedule,
    )
    tuned = tuned_model(plan, open_planned_base(plan))
    draw = torch.Generator().manual_seed(1)
    learned = {
        key: value.detach() + spread * torch.randn(value.shape, generator=draw)
        for key, value in trainable(tuned.model).items()
    }
    checkpoints = folder / "run-1" / "checkpoints"
    saved = save_checkpoint(checkpoints, TrainerState(step=1), learned, {})
    comparison = small_comparison(plan, saved.weights_sha256) if compared else None
    return FinishedRun(plan, checkpoints, folder / "data", comparison)


def small_record(folder: Path, method: str = "lora", **changes: object) -> RunRecord:
    """The record of a published run, with changes."""
    publish(finished_run(folder, method), folder / "out")
    return record_in(folder / "out").model_copy(update=changes)


def record_in(folder: Path) -> RunRecord:
    return RunRecord.model_validate_json((folder / RECORD).read_text(encoding="utf-8"))


def small_comparison(plan: TrainPlan, weights_sha256: str = "") -> Comparison:
    def scores(accuracy: float) -> tuple[Score, ...]:
        around = Interval(low=accuracy - 5, high=accuracy + 5)
        f1 = Score(metric="macro_f1", title="macro-F1", value=accuracy - 1, interval=around)
        return (
            Score(metric="accuracy", title="accuracy", value=accuracy, interval=around),
            f1,
        )

    tuned = Arm(
        name="tuned", title="Tuned", kind="tuned", scores=scores(81.25), seconds_per_item=0.01
    )
    prompt = Arm(
        name="zero_shot", title="Zero-shot | prompt", kind="prompt", scores=scores(50)[:1],
        seconds_per_item=0.01,
    )  # fmt: skip
    verdict = Verdict(
        outcome="better", difference=31.25, interval=Interval(low=20, high=42), p_value=0.0001,
        test="exact McNemar", num_rows=160,
    )  # fmt: skip
    pairing = Pairing(
        candidate="tuned", reference="zero_shot", metric="accuracy", primary=True, verdict=verdict
    )
    return Comparison(
        dataset_id=plan.dataset_id, dataset_sha256=plan.dataset_sha256, base_id=plan.base.id,
        run_id="run-1", weights_sha256=weights_sha256, task="classification",
        metric="accuracy", num_rows=160, arms=(prompt, tuned), pairings=(pairing,),
        test_looks=2, seed=0, seconds=1.0,
    )  # fmt: skip

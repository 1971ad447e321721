"""compare: the tuned model against prompting, on the rows nobody trained on."""

from typing import TYPE_CHECKING, Annotated

import typer

from engine.comparing.comparison import Comparison, sentence, write_comparison, write_predictions
from engine.jobs import Job, create_job
from studio.home import Home
from studio.screen import progress, say, say_json, say_table
from studio.verbs.train import planned
from studio.verbs.upload import Json
from templates.dataset import read_dataset, read_split, record_test_look
from templates.errors import RunError

if TYPE_CHECKING:
    from engine.checkpoints import Checkpoint

COMPARISON = "comparison.json"
PREDICTIONS = "predictions.jsonl"


def compare(
    run: Annotated[str, typer.Argument(help='Id of a train run, or "latest".')] = "latest",
    seed: Annotated[int, typer.Option(min=0, help="Fixes the demonstrations that are tried.")] = 0,
    max_new_tokens: Annotated[
        int, typer.Option(min=0, help="Longest answer; 0: a little more than in training.")
    ] = 0,
    json: Json = False,
) -> str:
    """Compare a tuned model with prompting, and say whether it is better."""
    from engine.base_model import load_base  # noqa: PLC0415
    from engine.comparing.compare import CompareRequest  # noqa: PLC0415
    from engine.comparing.compare import compare as run_comparison  # noqa: PLC0415
    from engine.planning.hardware import prepare_process  # noqa: PLC0415
    from engine.runs import load_run, open_planned_base  # noqa: PLC0415

    prepare_process()
    home = Home()
    train_job = Job(home.find("train", run))
    plan = planned(train_job)
    folder = home.find("dataset", plan.dataset_id)
    dataset = read_dataset(folder)
    checkpoint = finished_checkpoint(train_job)  # an unfinished run costs no look
    request = CompareRequest(
        base_id=plan.base.id,
        run_id=train_job.id,
        weights_sha256=checkpoint.weights_sha256,
        seed=seed,
        max_new_tokens=max_new_tokens,
    )
    job = create_job(home.new("compare"), "compare", request.model_dump(mode="json"))
    test = read_split(folder, "test")
    looks = record_test_look(
        home.root / "test_looks" / f"{dataset.upload_sha256}.jsonl",
        {row for example in test for row in example.source_rows},
        job.id,
    )
    with progress("Comparing") as tick:
        comparison, predictions = run_comparison(
            request,
            base=load_base(open_planned_base(plan), plan.base.precision),
            tuned=lambda: load_run(plan, train_job.checkpoints),
            dataset=dataset,
            train=read_split(folder, "train"),
            validation=read_split(folder, "validation"),
            test=test,
            test_looks=looks,
            progress=lambda stage, done, total: tick(done / max(1, total), stage),
        )
    write_predictions(job.folder / PREDICTIONS, predictions)
    write_comparison(job.folder / COMPARISON, comparison)
    home.mark_latest("compare", job.id)
    if json:
        say_json({"id": job.id, "comparison": comparison.model_dump(mode="json")})
        return job.id
    show_comparison(comparison)
    say(f"All answers: {job.folder / PREDICTIONS}")
    say(f"Kept as {job.id}. Next: python app.py publish {train_job.id} --to my-model")
    return job.id


def finished_checkpoint(job: Job) -> "Checkpoint":
    """Open the weights of a run that is done; others may still change.

    Args:
        job: a train job.

    Returns:
        Its best checkpoint.

    Raises:
        RunError: the run has not finished.
    """
    from engine.checkpoints import best_checkpoint  # noqa: PLC0415

    if job.state() != "finished":
        raise RunError(
            f"The run is {job.state()}, and its weights may still change",
            where=job.id,
            fix=f"Finish it first: python app.py train --resume {job.id}",
        )
    return best_checkpoint(job.checkpoints)


def show_comparison(comparison: Comparison) -> None:
    """Print arms, metrics with intervals, and the verdict.

    Args:
        comparison: what was measured.
    """
    metrics = [score.title for score in comparison.arms[0].scores]
    rows = []
    for arm in comparison.arms:
        # The deciding metric with its interval; the others bare, to fit a narrow screen.
        cells = [
            f"{score.value:.1f} ({score.interval.low:.1f}–{score.interval.high:.1f})"
            if score.metric == comparison.metric
            else f"{score.value:.1f}"
            for score in arm.scores
        ]
        speed = f"{1000 * arm.seconds_per_item:.1f}"
        rows.append((arm.title, *cells, f"{arm.prompt_tokens_per_item:.0f}", speed))
    headings = ("arm", *metrics, "prompt tokens", "ms a row")
    say_table("Comparison on the test rows (95 % intervals)", headings, rows)
    for notice in comparison.notices:
        say(f"Note: {notice}")
    say(sentence(comparison))
    looks = comparison.test_looks
    say(f"These test rows have now been looked at {looks} time{'s' if looks != 1 else ''}.")

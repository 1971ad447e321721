"""compare: the tuned model against prompting, on the rows nobody trained on."""

from typing import Annotated

import typer

from engine.comparing.comparison import Comparison, read_comparison, sentence
from engine.jobs import Job
from studio.doing import do
from studio.home import Home
from studio.jobs.requests import CompareRequest
from studio.records import COMPARISON, PREDICTIONS, require_finished
from studio.screen import say, say_json, say_table
from studio.verbs.upload import Json


def compare(
    run: Annotated[str, typer.Argument(help='Id of a train run, or "latest".')] = "latest",
    seed: Annotated[int, typer.Option(min=0, help="Fixes the demonstrations that are tried.")] = 0,
    max_new_tokens: Annotated[
        int, typer.Option(min=0, help="Longest answer; 0: a little more than in training.")
    ] = 0,
    json: Json = False,
) -> str:
    """Compare a tuned model with prompting, and say whether it is better."""
    home = Home()
    train_job = Job(home.find("train", run))
    require_finished(train_job)
    request = CompareRequest(run_id=train_job.id, seed=seed, max_new_tokens=max_new_tokens)
    job = do(home, request)
    home.mark_latest("compare", job.id)
    comparison = read_comparison(job.folder / COMPARISON)
    if json:
        say_json({"id": job.id, "comparison": comparison.model_dump(mode="json")})
        return job.id
    show_comparison(comparison)
    say(f"All answers: {job.folder / PREDICTIONS}")
    say(f"Kept as {job.id}. Next: python app.py publish {train_job.id} --to my-model")
    return job.id


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

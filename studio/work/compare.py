"""A tuned model against prompting, on the rows nobody trained on."""

from engine.base_model import load_base
from engine.comparing import compare as comparing
from engine.comparing.comparison import write_comparison, write_predictions
from engine.planning.hardware import prepare_process
from engine.runs import load_run, open_planned_base
from studio.jobs.context import Context
from studio.jobs.requests import CompareRequest
from studio.records import COMPARISON, PREDICTIONS, test_looks_path
from studio.work.tuned_run import open_tuned_run
from templates.dataset import read_dataset, read_split, record_test_look


def run(request: CompareRequest, context: Context) -> tuple[str, ...]:
    """Measure every arm; the look at the test rows is written down before anyone sees a score.

    Args:
        request: which run.
        context: where to work.

    Returns:
        The comparison and every answer.
    """
    prepare_process()
    home, folder = context.home, context.job.folder
    finished = open_tuned_run(home, request.run_id)
    plan = finished.plan
    dataset = read_dataset(finished.dataset_folder)
    context.progress(0.0, "loading the base")
    base = load_base(open_planned_base(plan), plan.base.precision)
    test = read_split(finished.dataset_folder, "test")
    looks = record_test_look(
        test_looks_path(home, dataset),
        {row for example in test for row in example.source_rows},
        context.job.id,
    )
    comparison, predictions = comparing.compare(
        comparing.CompareRequest(
            base_id=plan.base.id,
            run_id=finished.job.id,
            weights_sha256=finished.checkpoint.weights_sha256,
            seed=request.seed,
            max_new_tokens=request.max_new_tokens,
        ),
        base=base,
        tuned=lambda: load_run(plan, finished.job.checkpoints),
        dataset=dataset,
        train=read_split(finished.dataset_folder, "train"),
        validation=read_split(finished.dataset_folder, "validation"),
        test=test,
        test_looks=looks,
        progress=lambda stage, done, total: context.progress(done / max(1, total), stage),
    )
    write_predictions(folder / PREDICTIONS, predictions)
    write_comparison(folder / COMPARISON, comparison)
    return (COMPARISON, PREDICTIONS)

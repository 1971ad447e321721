"""A tuned model answers the rows of a new table."""

import itertools
from collections.abc import Collection

from data_prep.mapping import examples_for_prediction
from data_prep.prepare import rewrite_new_rows
from data_prep.table_file import read_table
from engine.answering.choice import Choice
from engine.comparing.prompting import (
    Question,
    answers_to,
    build_prompts,
    longest_answer_tokens,
)
from engine.planning.hardware import prepare_process
from engine.runs import load_run
from studio.answer_files import as_csv, as_jsonl
from studio.jobs.context import Context
from studio.jobs.requests import TABLE, PredictRequest
from studio.records import PREDICTED, Predicted
from studio.work.tuned_run import open_tuned_run
from templates.dataset import read_dataset, read_split
from templates.files import write_atomically

ANSWERS = "answers"


def run(request: PredictRequest, context: Context) -> tuple[str, ...]:
    """Answer every row of the table in the job's folder.

    Args:
        request: which run, which table.
        context: where to work.

    Returns:
        The answers, and how many there are.
    """
    prepare_process()
    context.progress(0.0, "loading the model")
    tuned = open_tuned_run(context.home, request.run_id)
    dataset = read_dataset(tuned.dataset_folder)
    rows = list(read_table(context.job.folder / TABLE, name=request.table_name).rows())
    examples = rewrite_new_rows(
        tuned.dataset_folder, examples_for_prediction(rows, dataset.template, dataset.columns)
    )
    model = load_run(tuned.plan, tuned.job.checkpoints)
    train_rows = read_split(tuned.dataset_folder, "train")
    question = Question(
        template=dataset.template,
        labels=dataset.labels if dataset.template.has_labels else (),
        max_new_tokens=request.max_new_tokens
        or longest_answer_tokens(model, train_rows, dataset.template),
        choice=Choice(temperature=request.temperature, seed=request.seed, num_beams=request.beams),
    )
    prompts = build_prompts(model, examples, question)
    answers = answers_to(
        model,
        prompts,
        question,
        progress=lambda done, total: context.progress(done / total, "answering"),
    )
    number, prediction = (_free_name(name, rows[0].cells) for name in ("row", "prediction"))
    results = [
        {number: row.number, **row.cells, prediction: answer}
        for row, answer in zip(rows, answers, strict=True)
    ]
    file = f"{ANSWERS}.{request.form}"
    content = as_csv(results) if request.form == "csv" else as_jsonl(results)
    write_atomically(context.job.folder / file, content)
    predicted = Predicted(rows=len(results), cut=len(prompts.cut), file=file)
    write_atomically(context.job.folder / PREDICTED, predicted.model_dump_json())
    return (file, PREDICTED)


def _free_name(name: str, taken: Collection[str]) -> str:
    """Name a new column without covering one of the person's."""
    names = (name if number == 1 else f"{name} ({number})" for number in itertools.count(1))
    return next(found for found in names if found not in taken)

"""The product as a contestant: its own trainer and its own answering, through public functions.

    python -m benchmarks.ours NAME CASE

All that touches the product stands in the first four functions.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from benchmarks.account import Account
from benchmarks.held_out import held_out_loss
from benchmarks.records import MODELS_FOLDER
from benchmarks.seat import Pace, Seat, case_from_arguments, take_turns
from benchmarks.workload import (
    ALPHA,
    LABELS,
    LEARNING_RATES,
    NUM_NEW_TOKENS,
    NUM_VIRTUAL_TOKENS,
    RANK,
    Case,
    Row,
)
from engine.answering.generation import generate
from engine.answering.label_scores import score_labels
from engine.base_model import load_base, locate_base
from engine.encode import Encoded, EncodedItems
from engine.events import Failed, Stepped
from engine.language_model import LanguageModel
from engine.method import attach_method, parse_options
from engine.methods import get_method
from engine.plan import Limits, Schedule
from engine.planning.hardware import prepare_process
from engine.trainer import Training, train

_MANY_EPOCHS = 1000


def open_base(case: Case) -> LanguageModel:
    """Load the case's model."""
    return load_base(locate_base(str(MODELS_FOLDER / case.model)), case.precision)


def open_training(case: Case, checkpoints: Path) -> Training:
    """Prepare what the studio's worker prepares, with a constant learning rate."""
    spec = get_method(case.method)
    lora = {"rank": RANK, "alpha": ALPHA, "targets": case.shape.lora_targets}
    options: dict[str, dict[str, Any]] = {
        "lora": lora, "qlora": lora, "full": {}, "prompt_tuning": {"num_tokens": NUM_VIRTUAL_TOKENS}
    }  # fmt: skip
    tuned = attach_method(open_base(case), spec, parse_options(spec, options[case.method]), seed=0)
    schedule = Schedule(
        learning_rate=LEARNING_RATES[case.method],
        epochs=1 if case.data_tokens else _MANY_EPOCHS,
        batch_size=case.batch_size,
        shape="constant",
        warmup_ratio=0.0,
        evaluations_per_epoch=1,
        patience=_MANY_EPOCHS,
    )
    items = EncodedItems(_encoded(row) for row in case.training_rows())
    return Training(tuned, items, items[:1], schedule, Limits(), 0, checkpoints)


def answers(language_model: LanguageModel, prompts: list[list[int]]) -> list[str]:
    """Answer greedily; no text ends an answer."""
    return generate(language_model, [], prompts, stop="", max_new_tokens=NUM_NEW_TOKENS)


def label_scores(
    language_model: LanguageModel, shots: list[int], prompts: list[list[int]]
) -> np.ndarray:
    """Give the log-probability of every label behind shots and prompt: (N, L)."""
    labels = [[label] for label in LABELS]
    return score_labels(language_model, shots, prompts, labels)


def _encoded(row: Row) -> Encoded:
    return Encoded(row.ids, [place >= row.num_prompt for place in range(len(row.ids))])


def compete_in_training(case: Case, seat: Seat, facts: dict[str, Any]) -> None:
    """Train turn by turn; evaluations and checkpoints in between are not counted."""
    with TemporaryDirectory() as checkpoints:
        training = open_training(case, Path(checkpoints))
        tuned, rows = training.language_model, case.held_out_rows()

        def held_out() -> float:
            with tuned.autocast():
                return held_out_loss(tuned.model, rows, tuned.virtual_token_ids)

        pace = Pace(seat, case, held_out, Account(case.shape.vocabulary_size))
        events = train(training)
        next(events)  # Started: everything is in memory
        pace.begin(**facts)
        for event in events:
            if isinstance(event, Stepped):
                pace.after_step(event.num_tokens - case.num_virtual * case.batch_size)
            elif isinstance(event, Failed):
                raise SystemExit(event.what)
            else:
                pace.leave_out()
    raise SystemExit("The rows came to an end before the turns did")


def read_once(case: Case, seat: Seat, facts: dict[str, Any]) -> None:
    """Train one epoch over data of a given size, as one turn: reading the rows is counted."""

    def work() -> dict[str, Any]:
        with TemporaryDirectory() as checkpoints:
            num_tokens = num_steps = 0
            for event in train(open_training(case, Path(checkpoints))):
                if isinstance(event, Stepped):
                    num_tokens += event.num_tokens
                    num_steps += 1
        return {"tokens": num_tokens, "steps": num_steps}

    take_turns(seat, work, warms_up=False, **facts)


def compete_in_answering(case: Case, seat: Seat, facts: dict[str, Any]) -> None:
    """Answer or score all prompts at every turn."""
    language_model, prompts = open_base(case), case.prompts()
    shots = case.shots()

    def generating() -> dict[str, Any]:
        texts = answers(language_model, prompts)
        return {"tokens": sum(len(text.split()) for text in texts), "answers": texts}

    def scoring() -> dict[str, Any]:
        scores = label_scores(language_model, shots, prompts)
        return {"inputs": len(prompts), "scores": np.asarray(scores).tolist()}

    work = generating if case.task == "generate" else scoring
    take_turns(seat, work, accountant=Account(case.shape.vocabulary_size), **facts)


def main() -> None:
    """Sit down and take part."""
    _, case = case_from_arguments()
    seat = Seat()
    settings = prepare_process()
    facts = {
        "threads": torch.get_num_threads(),
        "keeps_memory": settings.keeps_memory,
        "matmul_precision": settings.matmul_precision,
    }
    if case.task != "train":
        compete_in_answering(case, seat, facts)
    elif case.data_tokens:
        read_once(case, seat, facts)
    else:
        compete_in_training(case, seat, facts)


if __name__ == "__main__":
    main()

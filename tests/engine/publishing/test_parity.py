from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.encode import Encoded
from engine.plan import Limits
from engine.publishing.parity import (
    Witness,
    check_rounded,
    check_same,
    largest_difference,
    witness,
)
from templates.errors import RunError
from tests.engine.tiny import TEMPLATE, TICKETS, tiny_model

MEASURED = Witness([Encoded((1, 2), (False, True))], torch.tensor([[10.0, -20.0]]))


def moved(by: float) -> Witness:
    return replace(MEASURED, logits=MEASURED.logits + by)


def test_asks_a_few_real_examples(tmp_path: Path) -> None:
    model = tiny_model(tmp_path, "llama")
    found = witness(model, TICKETS * 20, TEMPLATE, Limits())
    assert len(found.items) == 8
    num_supervised = sum(item.num_supervised for item in found.items)
    assert found.logits.shape == (num_supervised, model.vocabulary_size)
    assert largest_difference(found, found) == 0


def test_what_should_change_nothing_is_held_to_it() -> None:
    assert check_same(MEASURED, moved(1e-3)) == pytest.approx(1e-3, rel=1e-2)
    with pytest.raises(RunError, match=r"logits differ by 0\.01, rounding explains 0\.002"):
        check_same(MEASURED, moved(1e-2))


def test_rounding_is_allowed_a_little_or_a_part_of_what_training_did() -> None:
    assert check_rounded(MEASURED, moved(1.0), effect=0.1) == 1.0
    assert check_rounded(MEASURED, moved(3.0), effect=13.0) == 3.0
    with pytest.raises(RunError, match="does not compute what was measured"):
        check_rounded(MEASURED, moved(3.0), effect=3.0)


def test_what_is_no_number_is_no_parity() -> None:
    with pytest.raises(RunError, match="logits differ by nan"):
        check_same(MEASURED, moved(float("nan")))
    with pytest.raises(RunError, match="logits differ by nan"):
        check_rounded(MEASURED, moved(float("nan")), effect=1.0)


def test_a_tokenizer_that_reads_differently() -> None:
    other = replace(MEASURED, items=[Encoded((1, 3), (False, True))])
    with pytest.raises(RunError, match="tokenizer reads the examples differently"):
        check_same(MEASURED, other)

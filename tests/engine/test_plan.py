from typing import get_args

import pytest
from pydantic import ValidationError

from engine.plan import BITS, Precision, Schedule


def test_precisions_go_from_many_bits_to_few() -> None:
    assert tuple(BITS) == get_args(Precision)
    assert list(BITS.values()) == sorted(BITS.values(), reverse=True)


def test_plans_that_counted_examples_at_once_are_still_read() -> None:
    old = {"learning_rate": 1e-3, "batch_size": 8, "micro_batch_size": 4}
    assert Schedule.model_validate(old) == Schedule(learning_rate=1e-3, batch_size=8)
    with pytest.raises(ValidationError, match="micro_batch_size"):
        Schedule.model_validate({**old, "micro_batch_tokens": 512})

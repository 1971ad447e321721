"""What a run's charts show, asked of its event files where they lie: no copy, no import.

A file holds one JSON object a line. A line torn by a kill or a full disk is no object and is
dropped. Each attempt has a file of its own, and a later attempt takes some steps again, those
after the checkpoint it restored: the earlier ones are dropped, so that a curve has one value for a
step.

A long curve is cut into stretches of equally many steps. Each becomes one point with the mean loss
and, so that a spike stays visible, its smallest and largest.
"""

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.database import read_files

_SCHEMA = """
    CREATE TEMP TABLE events (
        attempt INTEGER, event VARCHAR, step BIGINT, first_step BIGINT, loss DOUBLE,
        learning_rate DOUBLE, gradient_norm DOUBLE, num_tokens BIGINT, seconds DOUBLE,
        token_accuracy_ratio DOUBLE, is_best BOOLEAN
    );
    CREATE TEMP MACRO placed(kind, max_points) AS TABLE
        WITH own AS (
            SELECT rowid AS row, * FROM events WHERE event = kind AND loss IS NOT NULL
        ), bounds AS (
            SELECT count(*) AS num_rows, min(step) AS first, max(step) AS last FROM own
        )
        SELECT own.*, CASE
            WHEN num_rows <= max_points THEN row
            WHEN step = first THEN -1
            WHEN step = last THEN max_points
            ELSE (step - first - 1) * (max_points - 2) // (last - first - 1)
        END AS place
        FROM own, bounds;
"""
_READ = """
    INSERT INTO events
    SELECT $attempt, * FROM read_json(
        $path, format = 'newline_delimited', ignore_errors = true, columns = {
            event: 'VARCHAR', step: 'BIGINT', first_step: 'BIGINT', loss: 'DOUBLE',
            learning_rate: 'DOUBLE', gradient_norm: 'DOUBLE', num_tokens: 'BIGINT',
            seconds: 'DOUBLE', token_accuracy_ratio: 'DOUBLE', is_best: 'BOOLEAN'
        }
    )
"""
_DROP_TAKEN_AGAIN = """
    DELETE FROM events WHERE attempt < $attempt AND step >= (
        SELECT first_step FROM events WHERE attempt = $attempt AND event = 'Started'
        ORDER BY rowid LIMIT 1
    )
"""
_STEPS = """
    SELECT max(step), avg(loss), min(loss), max(loss), avg(learning_rate), max(gradient_norm),
        coalesce(sum(num_tokens) / nullif(sum(seconds), 0), 0)
    FROM placed('Stepped', $max_points) GROUP BY place ORDER BY place
"""
_EVALUATIONS = """
    SELECT step, loss, token_accuracy_ratio, is_best FROM placed('Evaluated', $max_points)
    QUALIFY row_number() OVER (PARTITION BY place ORDER BY loss, step) = 1 ORDER BY place
"""
_SAVED = "SELECT step FROM events WHERE event = 'Saved' ORDER BY rowid"


@dataclass(frozen=True)
class StepCurve:
    """One value a point in each column.

    Attributes:
        step: the last of the point's steps.
        loss: their mean.
        loss_min: the smallest.
        loss_max: the largest.
        learning_rate: their mean.
        gradient_norm: the largest.
        tokens_per_second: over the point's steps; 0 where they took no time.
    """

    step: tuple[int, ...] = ()
    loss: tuple[float, ...] = ()
    loss_min: tuple[float, ...] = ()
    loss_max: tuple[float, ...] = ()
    learning_rate: tuple[float, ...] = ()
    gradient_norm: tuple[float, ...] = ()
    tokens_per_second: tuple[float, ...] = ()


@dataclass(frozen=True)
class EvaluationCurve:
    """Scores of the validation split; of too many, the lowest loss of each stretch."""

    step: tuple[int, ...] = ()
    loss: tuple[float, ...] = ()
    token_accuracy_ratio: tuple[float, ...] = ()
    is_best: tuple[bool, ...] = ()


@dataclass(frozen=True)
class Curves:
    """What the charts of one run show."""

    steps: StepCurve = StepCurve()
    evaluations: EvaluationCurve = EvaluationCurve()
    saved_steps: tuple[int, ...] = ()


def read_curves(attempts: Mapping[int, Path], *, max_points: int = 500) -> Curves:
    """Read a run's curves, over all its attempts.

    Args:
        attempts: attempt number -> its event file, which may be empty or missing.
        max_points: at most so many points a curve, the first and the last event among them; 3 or
            more.

    Returns:
        The curves; empty where nothing is written yet.

    Raises:
        RunError: a file went away or may not be read.
    """
    assert max_points > 2, "a first point, a last, and one between"
    with read_files("the run's events") as connection:
        connection.execute(_SCHEMA)
        for attempt, path in sorted(attempts.items()):
            if path.is_file():
                connection.execute(_READ, {"attempt": attempt, "path": glob.escape(str(path))})
                connection.execute(_DROP_TAKEN_AGAIN, {"attempt": attempt})
        limit = {"max_points": max_points}
        steps = connection.execute(_STEPS, limit).fetchall()
        evaluations = connection.execute(_EVALUATIONS, limit).fetchall()
        saved = connection.execute(_SAVED).fetchall()
    return Curves(
        StepCurve(*_columns(steps)),
        EvaluationCurve(*_columns(evaluations)),
        tuple(step for (step,) in saved),
    )


def _columns(rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return list(zip(*rows, strict=True))

"""How many steps, and the learning rate at each: linear warm-up, then cosine, linear or flat."""

import math

from engine.plan import Schedule


def learning_rate_at(step: int, total_steps: int, schedule: Schedule) -> float:
    """Compute the learning rate of one step.

    Args:
        step: 1-based.
        total_steps: of the whole run.
        schedule: peak, shape and warm-up share.

    Returns:
        The rate; it reaches the peak at the end of warm-up and falls towards zero.
    """
    warmup = math.ceil(total_steps * schedule.warmup_ratio)
    if step <= warmup:
        return schedule.learning_rate * step / warmup
    progress = (step - 1 - warmup) / max(1, total_steps - warmup)
    if schedule.shape == "cosine":
        return schedule.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
    if schedule.shape == "linear":
        return schedule.learning_rate * (1 - progress)
    return schedule.learning_rate


def num_steps(num_examples: int, schedule: Schedule, max_steps: int) -> int:
    """Count the optimizer steps of a run that patience does not end.

    Args:
        num_examples: training examples.
        schedule: batch size and epochs.
        max_steps: 0 for no limit.

    Returns:
        Steps.
    """
    steps = max(1, round(schedule.epochs * math.ceil(num_examples / schedule.batch_size)))
    return min(steps, max_steps or steps)


def steps_between_evaluations(num_examples: int, schedule: Schedule) -> int:
    """Count the optimizer steps from one validation pass to the next; the last step has one too.

    Args:
        num_examples: training examples.
        schedule: batch size and evaluations per epoch.

    Returns:
        Steps, at least 1.
    """
    per_epoch = math.ceil(num_examples / schedule.batch_size)
    return max(1, per_epoch // schedule.evaluations_per_epoch)

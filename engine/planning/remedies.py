"""What would make a plan fit: changes that were estimated again, and do fit."""

import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from engine.method import parse_options
from engine.methods import all_methods, get_method
from engine.plan import BITS, TrainPlan
from engine.planning.advice import Remedy
from engine.planning.choices import EstimateRequest
from engine.planning.estimate import CostEstimate, Hardware
from engine.planning.ground import Ground, remembered_ground
from engine.planning.make_plan import plan_on
from templates.errors import StudioError

_KEPT_RATIOS = (0.99, 0.95, 0.9, 0.75, 0.5)  # shares of the examples that a shorter limit keeps
_MOST_BASES = 3
_SLACK_RATIO = 0.8


class _Change(NamedTuple):
    """A remedy before anyone knows whether it helps.

    Attributes:
        words: a sentence without its stop.
        changes: of the request.
        least_ratio: the share of its activations that the plan keeps at least.
    """

    words: str
    changes: dict[str, Any]
    least_ratio: float = 0.0


def remedies(
    ground: Ground,
    request: EstimateRequest,
    plan: TrainPlan,
    cost: CostEstimate,
    hardware: Hardware,
) -> tuple[Remedy, ...]:
    """Find changes after which a plan fits, those that change the result least first.

    Args:
        ground: data and base.
        request: the choices that do not fit.
        plan: made of them.
        cost: what it would take.
        hardware: what to plan for.

    Returns:
        At most one of each kind: fewer tokens at once, layers computed twice, shorter examples, a
        smaller precision; then other methods, and a smaller base of those in the request.
    """
    if _no_run_fits(cost):
        return ()
    found = list(own_remedies(ground, request, plan, cost, hardware))
    for change in _other_methods(request):
        found += _that_fits(ground, request, [change], hardware)
    return (*found, *_smaller_base(request, cost, hardware))


def own_remedies(
    ground: Ground,
    request: EstimateRequest,
    plan: TrainPlan,
    cost: CostEstimate,
    hardware: Hardware,
) -> Iterator[Remedy]:
    """Find changes that keep method and base.

    Args:
        ground: data and base.
        request: the choices that do not fit.
        plan: made of them.
        cost: what it would take.
        hardware: what to plan for.

    Yields:
        What fits.
    """
    if _no_run_fits(cost):
        return
    alike = _fewer_at_once(request, plan), _computing_twice(request, plan)
    for changes in (*alike, _shorter(ground, request, plan)):
        hopeful = [change for change in changes if not _is_hopeless(cost, change)]
        if hopeful and _fits(ground, request, hopeful[-1], hardware):  # else no larger one does
            yield from _that_fits(ground, request, hopeful, hardware, smaller_batch=False)
    yield from _that_fits(ground, request, _precisions(request), hardware)


def _that_fits(
    ground: Ground,
    request: EstimateRequest,
    changes: Iterable[_Change],
    hardware: Hardware,
    *,
    smaller_batch: bool = True,
) -> list[Remedy]:
    """Take the first that fits, if need be with one example at once."""
    for change in changes:
        tried = [change, _one_at_once(request, change)] if smaller_batch else [change]
        for candidate in tried:
            if _fits(ground, request, candidate, hardware):
                return [Remedy(words=f"{candidate.words}.", changes=candidate.changes)]
    return []


def _no_run_fits(cost: CostEstimate) -> bool:
    return cost.memory.runtime_bytes > cost.memory_available_bytes


def _is_hopeless(cost: CostEstimate, change: _Change) -> bool:
    """Save an estimate, which takes up to a second, where its outcome is beyond doubt."""
    by_batch = cost.memory.activations_bytes + cost.memory.logits_bytes
    least_bytes = cost.peak_memory_bytes - (1 - change.least_ratio) * by_batch
    return least_bytes > cost.memory_available_bytes


def _fits(ground: Ground, request: EstimateRequest, change: _Change, hardware: Hardware) -> bool:
    # Validated anew: it is what the page will send.
    changed = EstimateRequest.model_validate({**dict(request), **change.changes})
    try:
        return plan_on(ground, changed, hardware)[1].fits
    except StudioError:  # such as a rank above the width of another base
        return False


def _one_at_once(request: EstimateRequest, change: _Change) -> _Change:
    """Let the plan itself choose what is in memory at once, one example if need be."""
    schedule = change.changes.get("schedule", request.schedule)
    own = {name: value for name, value in schedule.items() if name != "micro_batch_tokens"}
    return _Change(
        f"{change.words}, with as many tokens in memory at once as fit",
        {**change.changes, "schedule": own},
    )


def _fewer_at_once(request: EstimateRequest, plan: TrainPlan) -> Iterator[_Change]:
    """Only where somebody chose a number: else the plan took what fits by itself."""
    now = plan.schedule.micro_batch_tokens
    if "micro_batch_tokens" not in request.schedule:
        return
    size = 1 << (now.bit_length() - 1)
    while size > 1:
        size = size // 2
        yield _Change(
            f"Put {size:,} token{'s' if size > 1 else ''} into memory at once instead of {now:,}; "
            "this takes a little longer and changes no result",
            {"schedule": {**request.schedule, "micro_batch_tokens": size}},
        )


def _computing_twice(request: EstimateRequest, plan: TrainPlan) -> Iterator[_Change]:
    if not plan.schedule.recomputes:
        yield _Change(
            "Compute each layer twice and keep less in between (recomputes); this takes about a "
            "third longer and changes no result",
            {"schedule": {**request.schedule, "recomputes": True}},
        )


def _shorter(ground: Ground, request: EstimateRequest, plan: TrainPlan) -> Iterator[_Change]:
    spec, limits = get_method(plan.method.name), plan.limits
    options = parse_options(spec, plan.method.options)
    virtual = spec.num_virtual_tokens(options) if spec.num_virtual_tokens else 0
    context = ground.context_tokens - virtual
    now = min(limits.max_length_tokens or context, context)
    tokens = sorted(item.num_tokens for item in ground.train)
    kept = [tokens[math.ceil(ratio * len(tokens)) - 1] for ratio in _KEPT_RATIOS]
    shorter = [size for size in dict.fromkeys(kept) if size < min(now, tokens[-1])]
    if limits.too_long == "stop" and tokens[-1] > now:
        shorter.insert(0, now)
    for size in shorter:
        lost = sum(length > size for length in tokens)
        yield _Change(
            f"Leave out the {lost:,} of {len(tokens):,} training examples that are longer than "
            f"{size:,} tokens",
            {"limits": {**request.limits, "max_length_tokens": size, "too_long": "drop"}},
            _SLACK_RATIO * (size / tokens[-1]) ** 2,  # no part grows faster
        )


def _precisions(request: EstimateRequest) -> Iterator[_Change]:
    spec = get_method(request.method)
    now = BITS[request.precision or spec.precisions[0]]
    for precision, bits in BITS.items():
        if bits < now and precision in spec.precisions:
            yield _Change(f"Hold the base in {bits} bits ({precision})", {"precision": precision})


def _other_methods(request: EstimateRequest) -> Iterator[_Change]:
    title = get_method(request.method).title
    schedule = {name: value for name, value in request.schedule.items() if name != "learning_rate"}
    for spec in sorted(all_methods().values(), key=lambda spec: spec.quality_place):
        if spec.name != request.method:
            yield _Change(
                f"Train with {spec.title} instead of {title}",
                {"method": spec.name, "options": {}, "precision": None, "schedule": schedule},
            )


def _smaller_base(
    request: EstimateRequest, cost: CostEstimate, hardware: Hardware
) -> Iterator[Remedy]:
    """Try the largest of the smaller ones first: it knows most."""
    smaller = [
        base
        for base in request.other_bases
        if base.num_parameters < cost.num_parameters and base.reference != request.base
    ]
    smaller.sort(key=lambda base: -base.num_parameters)
    for base in smaller[:_MOST_BASES]:
        change = _Change(
            f"Take the smaller base {base.title} ({base.num_parameters / 1e6:,.0f} million "
            "parameters)",
            {"base": base.reference, "revision": base.revision},
        )
        try:
            ground = remembered_ground(request.dataset_folder, base.reference, base.revision)
        except StudioError:  # it was deleted since, or its tokenizer cannot be read
            continue
        found = _that_fits(ground, request, [change], hardware)
        if found:
            yield found[0]
            return

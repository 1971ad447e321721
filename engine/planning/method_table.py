"""All methods side by side, for the chosen data and base."""

from itertools import islice

from engine.method import MethodSpec, parse_options
from engine.methods import all_methods
from engine.planning.advice import MethodRow
from engine.planning.choices import EstimateRequest, MethodsRequest
from engine.planning.estimate import CostEstimate, Hardware
from engine.planning.ground import Ground
from engine.planning.make_plan import plan_on
from engine.planning.remedies import own_remedies
from templates.errors import StudioError


def method_rows(ground: Ground, request: MethodsRequest, hardware: Hardware) -> list[MethodRow]:
    """Estimate every method with its own options, and put the one to begin with first.

    The order: methods that fit before those that do not. Among them, methods for which there are
    rows enough and a base large enough (`least_rows`, `least_parameters`) before the others. Among
    those, the usual quality of their answers (`quality_place`), and then the smaller memory. The
    first row is recommended if it fits.

    Args:
        ground: data and base.
        request: what holds for every method.
        hardware: what to plan for.

    Returns:
        One row a method; a method that cannot be planned has figures of 0 and says why.
    """
    specs = all_methods()
    rows = [_row(ground, request, spec, hardware) for spec in specs.values()]

    def place(row: MethodRow) -> tuple[bool, bool, int, int]:
        spec = specs[row.name]
        shortage = _shortage(spec, ground, row)
        return not row.fits, bool(shortage), spec.quality_place, row.peak_memory_bytes

    rows.sort(key=place)
    if rows[0].fits:
        reason = _reason(rows, specs, ground)
        rows[0] = rows[0].model_copy(update={"recommended_because": reason})
    return rows


def overhead_words(spec: MethodSpec, cost: CostEstimate, num_virtual_tokens: int) -> str:
    """Say what a method costs whenever the model answers.

    Args:
        spec: the method.
        cost: has the ratio.
        num_virtual_tokens: P.

    Returns:
        A phrase, such as "none once merged, 2.1 % more work before".
    """
    more = f"{100 * cost.inference_overhead_ratio:.1f} % more work"
    if num_virtual_tokens:
        return f"+{num_virtual_tokens} tokens in every prompt, {more}"
    if not cost.inference_overhead_ratio:
        return "none"
    return f"none once merged, {more} before" if spec.merge else more


def _row(
    ground: Ground, request: MethodsRequest, spec: MethodSpec, hardware: Hardware
) -> MethodRow:
    precision = request.precision if request.precision in spec.precisions else None
    chosen = EstimateRequest.model_validate(
        {**dict(request), "method": spec.name, "precision": precision}
    )
    try:
        plan, cost = plan_on(ground, chosen, hardware)
        found = own_remedies(ground, chosen, plan, cost, hardware)
        remedies = () if cost.fits else tuple(islice(found, 1))
    except StudioError as error:
        return _impossible(spec, str(error))
    virtual = spec.num_virtual_tokens(parse_options(spec, {})) if spec.num_virtual_tokens else 0
    return MethodRow(
        name=spec.name,
        title=spec.title,
        family=spec.family,
        num_trainable=cost.num_trainable,
        trainable_ratio=cost.trainable_ratio,
        peak_memory_bytes=cost.peak_memory_bytes,
        low_seconds=cost.low_seconds,
        high_seconds=cost.high_seconds,
        adapter_bytes=cost.adapter_bytes,
        inference_overhead_ratio=cost.inference_overhead_ratio,
        overhead_words=overhead_words(spec, cost, virtual),
        fits=cost.fits,
        blockers=cost.blockers,
        warnings=cost.warnings,
        remedies=remedies,
    )


def _impossible(spec: MethodSpec, sentence: str) -> MethodRow:
    return MethodRow(
        name=spec.name,
        title=spec.title,
        family=spec.family,
        num_trainable=0,
        trainable_ratio=0.0,
        peak_memory_bytes=0,
        low_seconds=0.0,
        high_seconds=0.0,
        adapter_bytes=0,
        inference_overhead_ratio=0.0,
        overhead_words="",
        fits=False,
        blockers=(sentence,),
        warnings=(),
        remedies=(),
    )


def _shortage(spec: MethodSpec, ground: Ground, row: MethodRow) -> str:
    """Say what a method would need to do well here; "" where nothing is missing."""
    num_rows = len(ground.train)
    if num_rows < spec.least_rows:
        return f"is better with {spec.least_rows:,} rows or more"
    num_parameters = row.num_trainable / row.trainable_ratio if row.num_trainable else 0
    if num_parameters < spec.least_parameters:
        return f"is better with a base of {spec.least_parameters / 1e9:.0f} billion parameters"
    return ""


def _reason(rows: list[MethodRow], specs: dict[str, MethodSpec], ground: Ground) -> str:
    first, others = rows[0], rows[1:]
    spec = specs[first.name]
    does_not_fit = [
        other.title
        for other in others
        if not other.fits
        and specs[other.name].quality_place < spec.quality_place
        and not _shortage(specs[other.name], ground, other)
    ]
    passed = ""
    if does_not_fit:
        verb = "does" if len(does_not_fit) == 1 else "do"
        passed = f" {' and '.join(does_not_fit)} would come first, but {verb} not fit."
    shortage = _shortage(spec, ground, first)
    if shortage:
        return f"It is the best that fits, though it {shortage}.{passed}"
    return (
        f"It fits into memory, suits {len(ground.train):,} training rows, and usually answers best "
        f"of the methods that do.{passed}"
    )

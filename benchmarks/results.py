"""Records as what they mean: who was how fast in which case, and whether losses agree."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.records import Record
from benchmarks.turns import OURS, PEAK
from benchmarks.workload import Case

FIRST_LOSS_RATIO = 0.005
# Others draw other rows for the same number of steps, so they do not learn exactly as much; but
# who learns nothing, or twice as much, does something else.
LAST_LOSS_NATS, LAST_LOSS_OF_DROP = 0.001, 0.5
_QUIET_CORES = 0.15


@dataclass(frozen=True)
class Result:
    """What one contestant did in one case.

    Attributes:
        case: the case.
        name: who.
        told: what it answered.
        reference: what the one it is compared with answered in the same heat.
        peak: medians of the machine's own peaks in the same heat.
    """

    case: Case
    name: str
    told: dict[str, Any]
    reference: dict[str, Any]
    peak: dict[str, float]

    @property
    def error(self) -> str:
        """Why there are no numbers; "" where there are."""
        if not self.told["turns"]:
            return str(self.told.get("error", "no turn"))
        return "" if self.reference["turns"] else "ours could not"

    @property
    def rates(self) -> list[float]:
        """Tokens, or scored inputs, a second, turn by turn."""
        return _rates(self.told)

    @property
    def rate(self) -> float:
        """The median of `rates`."""
        return statistics.median(self.rates)

    @property
    def peak_bytes(self) -> int:
        """The most memory that the process ever held."""
        return int(max(turn["peak_bytes"] for turn in self.told["turns"]))

    @property
    def times_slower(self) -> float:
        """How many times as fast as this one the reference is."""
        return statistics.median(_rates(self.reference)) / self.rate

    @property
    def times_slower_by_processor(self) -> float:
        """The same by processor time, which neighbours disturb less."""
        return _processor_rate(self.reference) / _processor_rate(self.told)

    @property
    def memory_ratio(self) -> float:
        """The reference's peak memory over this one's."""
        reference = max(turn["peak_bytes"] for turn in self.reference["turns"])
        return float(reference) / self.peak_bytes

    @property
    def losses_agree(self) -> bool:
        """Whether losses before and after the first steps are those of the reference."""
        own, others = self.told.get("warm", {}), self.reference.get("warm", {})
        if "first_loss" not in own or "first_loss" not in others:
            return True
        drop = others["first_loss"] - others["last_loss"]
        allowed = LAST_LOSS_NATS + LAST_LOSS_OF_DROP * abs(drop)
        first = abs(own["first_loss"] - others["first_loss"]) / others["first_loss"]
        last = abs(own["last_loss"] - others["last_loss"])
        return bool(first <= FIRST_LOSS_RATIO and last <= allowed)

    @property
    def foreign_cores(self) -> float:
        """The cores that other programs used meanwhile: median over turns."""
        return float(statistics.median(turn["foreign_cores"] for turn in self.told["turns"]))

    @property
    def is_quiet(self) -> bool:
        """Whether the machine did hardly anything else."""
        return self.foreign_cores <= _QUIET_CORES

    @property
    def peak_gflops(self) -> float:
        """The machine's matrix peak in its faster type."""
        return max(self.peak["fp32_gflops"], self.peak["bf16_gflops"])

    @property
    def own_peak_gflops(self) -> float:
        """The machine's matrix peak in the type that this case computes in."""
        return self.peak["fp32_gflops" if self.case.precision == "fp32" else "bf16_gflops"]

    @property
    def share_of_peak(self) -> float:
        """Useful work of training over what the machine's matrix peak could do."""
        return self.rate * self.case.useful_flops_per_token() / (self.peak_gflops * 1e9)


def results_of(records: Sequence[Record]) -> list[Result]:
    """Choose the newest of each contestant in each case; many turns are better than few.

    Args:
        records: of one machine, oldest first.

    Returns:
        The results, cases in the order in which they were first measured.
    """
    newest: dict[tuple[str, str], Result] = {}
    for record in records:
        told = record.contestants
        if PEAK not in told or not told[PEAK]["turns"]:
            continue
        names = [name for name in told if name != PEAK]
        reference = told[OURS] if OURS in told else told[names[0]]
        peak = {
            unit: statistics.median(turn[unit] for turn in told[PEAK]["turns"])
            for unit in ("fp32_gflops", "bf16_gflops", "copy_gigabytes")
        }
        for name in names:
            result = Result(record.opened, name, told[name], reference, peak)
            key = json.dumps(result.case.point), name
            if key not in newest or result.case.num_turns >= newest[key].case.num_turns:
                newest[key] = result
    return list(newest.values())


def fastest_peer(results: Sequence[Result], case: Case) -> Result | None:
    """Find who is compared with ours in a case.

    Args:
        results: of one machine.
        case: any of its points.

    Returns:
        The fastest, also where it learns something else: that is said beside it. None where
        nobody could.
    """
    peers = [
        result
        for result in results
        if result.case.point == case.point and result.name != OURS and not result.error
    ]
    return min(peers, key=lambda result: result.times_slower, default=None)


def _unit(told: dict[str, Any]) -> str:
    return "inputs" if "inputs" in told["turns"][0] else "tokens"


def _rates(told: dict[str, Any]) -> list[float]:
    unit = _unit(told)
    return [turn[unit] / turn["seconds"] for turn in told["turns"]]


def _processor_rate(told: dict[str, Any]) -> float:
    unit = _unit(told)
    rates = [float(turn[unit] / turn["processor_seconds"]) for turn in told["turns"]]
    return statistics.median(rates)

"""What would make a plan fit is estimated again: applied, every remedy does fit."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from engine.planning.advice import Remedy
from engine.planning.choices import EstimateRequest, OtherBase
from engine.planning.estimate import Hardware
from engine.planning.ground import Ground, remembered_ground
from engine.planning.make_plan import plan_on
from engine.planning.remedies import remedies
from engine.service import estimate
from templates.errors import PlanError
from tests.engine.planning.test_cost import HARDWARE
from tests.engine.planning.test_make_plan import save_dataset
from tests.engine.tiny import save_tiny, ticket

# Most are short; two are long.
ROWS = [ticket("pay " * (3 + number % 5), "billing", number + 1) for number in range(38)]
ROWS += [ticket("late parcel " * 8, "shipping", number) for number in (39, 40)]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("remedies")
    return save_dataset(root / "data", train=ROWS), save_tiny(root / "base", "llama")


@pytest.fixture(scope="module")
def ground(places: tuple[Path, Path]) -> Ground:
    return remembered_ground(places[0], str(places[1]))


def found(
    ground: Ground, places: tuple[Path, Path], hardware: Hardware, **choices: Any
) -> tuple[EstimateRequest, tuple[Remedy, ...]]:
    request = EstimateRequest(dataset_folder=places[0], base=str(places[1]), **choices)
    plan, cost = plan_on(ground, request, hardware)
    assert not cost.fits
    return request, remedies(ground, request, plan, cost, hardware)


def peak(ground: Ground, places: tuple[Path, Path], **choices: Any) -> int:
    request = EstimateRequest(dataset_folder=places[0], base=str(places[1]), **choices)
    return plan_on(ground, request, HARDWARE)[1].peak_memory_bytes


def with_free(bytes_: float) -> Hardware:
    return HARDWARE.model_copy(update={"memory_available_bytes": int(bytes_)})


def test_every_remedy_fits_when_it_is_applied(places: tuple[Path, Path], ground: Ground) -> None:
    # Room for 128 tokens at once, not for the sixteen rows that somebody insists on.
    need = peak(ground, places, method="full", schedule={"micro_batch_tokens": 128})
    chosen = {"epochs": "2", "micro_batch_tokens": 4096}
    assert need < peak(ground, places, method="full", schedule=chosen)
    hardware = with_free(need)
    request, proposed = found(ground, places, hardware, method="full", schedule=chosen)
    assert proposed
    for remedy in proposed:
        changed = EstimateRequest.model_validate({**dict(request), **remedy.changes})
        assert plan_on(ground, changed, hardware)[1].fits, remedy
        assert remedy.words.endswith(".") and remedy.words[0].isupper()
    batch = proposed[0]
    assert batch.words.startswith("Put 128 tokens into memory at once instead of 4,096")
    assert batch.changes == {"schedule": {"epochs": "2", "micro_batch_tokens": 128}}


def test_a_plan_puts_as_much_into_memory_as_fits_by_itself(
    places: tuple[Path, Path], ground: Ground
) -> None:
    need = peak(ground, places, method="full", schedule={"micro_batch_tokens": 128})
    request = EstimateRequest(dataset_folder=places[0], base=str(places[1]), method="full")
    plan, cost = plan_on(ground, request, with_free(need))
    assert cost.fits and plan.schedule.micro_batch_tokens == 128
    assert plan_on(ground, request, HARDWARE)[0].schedule.micro_batch_tokens == 1024


def test_computing_twice_is_proposed_where_one_example_is_too_much(
    places: tuple[Path, Path], ground: Ground
) -> None:
    schedule = {"recomputes": True}
    need = peak(ground, places, schedule={"micro_batch_tokens": 1, **schedule})
    hardware = with_free(need)
    _, proposed = found(ground, places, hardware)
    assert proposed[0].changes == {"schedule": schedule}
    assert proposed[0].words.startswith("Compute each layer twice and keep less")


def test_a_shorter_limit_says_how_many_rows_are_lost(
    places: tuple[Path, Path], ground: Ground
) -> None:
    schedule = {"micro_batch_tokens": 1, "recomputes": True}
    hardware = with_free(peak(ground, places, schedule=schedule) - 1)
    request, proposed = found(ground, places, hardware, schedule=schedule)
    shorter = next(remedy for remedy in proposed if "limits" in remedy.changes)
    assert shorter.words.startswith("Leave out the 2 of 40 training examples that are longer than")
    limit = shorter.changes["limits"]["max_length_tokens"]
    assert sum(item.num_tokens > limit for item in ground.train) == 2
    changed = EstimateRequest.model_validate({**dict(request), **shorter.changes})
    assert plan_on(ground, changed, hardware)[1].num_examples == 38
    assert not any("tokens into memory" in remedy.words for remedy in proposed)


def test_too_long_examples_may_be_left_out_instead_of_stopping(
    places: tuple[Path, Path], ground: Ground
) -> None:
    limits = {"max_length_tokens": 60, "too_long": "stop"}
    _, proposed = found(ground, places, HARDWARE, limits=limits)
    assert proposed[0].changes == {"limits": {"max_length_tokens": 60, "too_long": "drop"}}
    assert "longer than 60 tokens" in proposed[0].words


def test_another_method_and_precision_are_proposed(
    places: tuple[Path, Path], ground: Ground
) -> None:
    choices = {"method": "full", "schedule": {"micro_batch_tokens": 1, "learning_rate": 1e-5}}
    hardware = with_free(peak(ground, places, **choices) - 1)
    _, proposed = found(ground, places, hardware, **choices)
    methods = [remedy.changes["method"] for remedy in proposed if "method" in remedy.changes]
    assert "full" not in methods and "lora" in methods
    lora = next(remedy for remedy in proposed if remedy.changes.get("method") == "lora")
    assert lora.words == "Train with LoRA instead of Full fine-tuning."
    # The learning rate was meant for the other method.
    assert lora.changes["schedule"] == {"micro_batch_tokens": 1} and lora.changes["options"] == {}
    held = next(remedy for remedy in proposed if "precision" in remedy.changes)
    assert held.changes == {"precision": "bf16"} and "16 bits" in held.words


def test_a_smaller_base_is_proposed_and_one_that_is_gone_is_not(
    places: tuple[Path, Path], ground: Ground, tmp_path: Path
) -> None:
    short = save_dataset(tmp_path / "data", train=ROWS[:20])
    starter = remembered_ground(short, "starter")
    request = EstimateRequest(
        dataset_folder=short, base="starter", method="full",
        other_bases=(
            OtherBase(reference=str(places[1]), title="tiny", num_parameters=30_000),
            OtherBase(reference=str(tmp_path / "gone"), title="gone", num_parameters=40_000),
            OtherBase(reference="starter", title="itself", num_parameters=4_000_000),
            OtherBase(reference="o/large", title="larger", num_parameters=10**9),
        ),
    )  # fmt: skip
    hardware = with_free(HARDWARE.runtime_bytes + 12e6)
    plan, cost = plan_on(starter, request, hardware)
    proposed = remedies(starter, request, plan, cost, hardware)
    bases = [remedy for remedy in proposed if "base" in remedy.changes]
    assert [remedy.changes["base"] for remedy in bases] == [str(places[1])]
    assert "smaller base tiny" in bases[0].words


def test_nothing_is_proposed_where_nothing_helps(places: tuple[Path, Path], ground: Ground) -> None:
    assert found(ground, places, with_free(1000), method="full")[1] == ()


def test_the_operation_says_what_would_help(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = EstimateRequest(dataset_folder=places[0], base=str(places[1]))
    monkeypatch.setattr("engine.service._hardware_now", lambda: HARDWARE)
    assert estimate(request)["remedies"] == []
    limits = {"max_length_tokens": 60, "too_long": "stop"}
    answer = estimate(request.model_copy(update={"limits": limits}))
    assert answer["remedies"][0]["changes"]["limits"]["too_long"] == "drop"
    with pytest.raises(PlanError, match="rank"):
        estimate(request.model_copy(update={"options": {"rank": 0}, "base": "not/there"}))


def test_what_was_remembered_is_not_used_for_other_weights(tmp_path: Path) -> None:
    data = save_dataset(tmp_path / "data")
    base = save_tiny(tmp_path / "base", "llama")
    first = remembered_ground(data, str(base))
    assert remembered_ground(data, str(base)) is first
    shutil.rmtree(base)
    save_tiny(base, "gpt2")
    second = remembered_ground(data, str(base))
    assert second is not first and second.base.fingerprint != first.base.fingerprint

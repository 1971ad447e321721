"""From choices to a kept plan: plan files from elsewhere, and choices that come and go."""

from pathlib import Path

import pytest

from engine.bases import BaseCard
from engine.plan import BaseChoice, MethodChoice, Schedule, TrainPlan, read_plan, write_plan
from engine.planning.estimate import CostEstimate, MemoryParts
from studio.home import Home
from studio.planning import (
    changed_choices,
    choices_of,
    keep_plan,
    plan_request,
    read_foreign_plan,
)
from studio.projects import PlanChoices, Projects
from studio.records import kept_estimate
from templates.errors import PlanError

PLAN = TrainPlan(
    base=BaseChoice(id="starter", precision="bf16"),
    dataset_id="ds-1",
    dataset_sha256="0" * 64,
    method=MethodChoice(name="lora", options={"rank": 4, "targets": ["q_proj"]}),
    schedule=Schedule(learning_rate=0.01),
    seed=7,
)


def cost(**changes: object) -> CostEstimate:
    parts = MemoryParts(
        weights_bytes=1, learned_bytes=1, gradients_bytes=1, optimizer_bytes=1,
        activations_bytes=1, logits_bytes=1, runtime_bytes=1,
    )  # fmt: skip
    content = {
        "num_parameters": 100, "num_trainable": 10, "memory": parts, "memory_available_bytes": 9,
        "adapter_bytes": 40, "num_examples": 5, "longest_tokens": 9, "epoch_tokens": 45,
        "epoch_supervised_tokens": 9, "num_steps": 3, "flops": 1.0, "low_seconds": 1.0,
        "high_seconds": 2.0,
    }  # fmt: skip
    return CostEstimate.model_validate({**content, **changes})


def test_a_kept_plan_is_found_with_its_estimate(tmp_path: Path) -> None:
    home = Home(tmp_path)
    name = keep_plan(home, PLAN, cost())
    assert read_plan(home.find("plan", "latest")) == PLAN
    assert home.find("plan", "latest").stem == name
    kept = kept_estimate(home, PLAN)
    assert kept is not None and kept.num_steps == 3


def test_a_plan_that_does_not_fit_is_kept_only_by_force(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with pytest.raises(PlanError, match="Too little memory"):
        keep_plan(home, PLAN, cost(blockers=("Too little memory.",)))
    assert home.all("plan") == []
    assert keep_plan(home, PLAN, cost(blockers=("Too little memory.",)), force=True)


@pytest.mark.parametrize("as_json", [False, True])
def test_a_plan_file_gives_its_choices_back(tmp_path: Path, as_json: bool) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(write_plan(PLAN, as_json=as_json), encoding="utf-8")
    choices = choices_of(read_foreign_plan(path), PlanChoices(shows_all=True, hourly_price=2))
    assert choices.options == {"rank": 4, "targets": ["q_proj"]}
    assert choices.schedule["learning_rate"] == 0.01
    assert (choices.precision, choices.seed) == ("bf16", 7)
    assert choices.shows_all and choices.hourly_price == 2


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "\n".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff\xfe\x00", "neither YAML nor JSON"),
        (b"{" * 5000, "neither YAML nor JSON"),
        (b"[1, 2]", "not a list of settings"),
        (b"seed: 1", "base is missing"),
        (BOMB.encode(), "refers to parts of itself"),
        (b"x" * 70_000, "too large"),
    ],
    ids=["bytes", "deep", "a list", "half", "bomb", "large"],
)
def test_what_is_no_plan_file_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "plan.yaml"
    path.write_bytes(content)
    with pytest.raises(PlanError, match=words):
        read_foreign_plan(path)


@pytest.mark.parametrize("value", [{"a": 1}, [[1]], "x" * 2001])
def test_an_option_that_nests_is_refused(value: object) -> None:
    plan = PLAN.model_copy(update={"method": MethodChoice(name="lora", options={"rank": value})})
    with pytest.raises(PlanError, match="rank holds something"):
        choices_of(plan, PlanChoices())


def test_settings_of_a_method_come_back_with_it() -> None:
    before = PlanChoices(options={"rank": 4}, schedule={"epochs": 2}, limits={"max_steps": 9})
    other = changed_choices(before, {"method": "full"})
    assert (other.options, other.schedule) == ({}, {})
    assert other.limits == {"max_steps": 9}
    again = changed_choices(other, {"method": "lora"})
    assert (again.options, again.schedule) == ({"rank": 4}, {"epochs": 2})


def test_a_change_that_is_no_choice_is_refused() -> None:
    with pytest.raises(PlanError, match="there is no setting called"):
        changed_choices(PlanChoices(), {"shell": "rm"})


def test_only_bases_that_are_here_are_proposed(tmp_path: Path) -> None:
    home = Home(tmp_path)
    project = Projects(home).new("tickets")
    here = BaseCard(
        reference="a/b", title="b", source="on this machine", num_parameters=5, is_downloaded=True
    )
    cards = [
        here,
        here.model_copy(update={"reference": "a/c", "problem": "It is damaged."}),
        here.model_copy(update={"reference": "a/d", "is_downloaded": False}),
    ]
    request = plan_request(home, project, cards)
    assert [base.reference for base in request.other_bases] == ["a/b"]


def test_what_a_plan_is_made_of_leaves_out_how_the_page_is_looked_at(tmp_path: Path) -> None:
    projects = Projects(Home(tmp_path))
    project = projects.new("tickets")
    looked = projects.change(project.id, choices={"shows_all": True, "hourly_price": 3})
    assert looked.to_plan == project.to_plan
    assert projects.change(project.id, choices={"seed": 3}).to_plan != project.to_plan

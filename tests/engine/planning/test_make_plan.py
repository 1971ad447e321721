"""Choices become a plan that can run, or a sentence with what, where and how to fix it."""

from pathlib import Path
from typing import Any

import pytest

from engine.base_model import load_reader, locate_base
from engine.events import Started
from engine.methods import get_method
from engine.plan import MethodChoice, read_plan, write_plan
from engine.planning.make_plan import _schedule, make_plan
from engine.runs import assemble
from engine.trainer import train
from templates.dataset import Dataset, SplitFile, read_dataset
from templates.errors import ModelError, PlanError
from templates.example import Example
from templates.files import sha256_of_file
from tests.engine.planning.test_cost import HARDWARE
from tests.engine.tiny import TEMPLATE, TICKETS, save_tiny, ticket


def save_dataset(folder: Path, **splits: list[Example]) -> Path:
    folder.mkdir()
    files = {}
    for split in ("train", "validation", "test"):
        examples = splits.get(split, TICKETS)
        path = folder / f"{split}.jsonl"
        path.write_text("".join(example.to_json() + "\n" for example in examples))
        files[split] = SplitFile(rows=len(examples), sha256=sha256_of_file(path))
    dataset = Dataset(
        id="d1", name="tickets", template=TEMPLATE, splits=files, columns={}, upload_id="u1",
        upload_sha256="", recipe_sha256="",
    )  # fmt: skip
    (folder / "dataset.json").write_text(dataset.model_dump_json())
    return folder


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("planning")
    return save_dataset(root / "data"), save_tiny(root / "base", "llama")


def plan(places: tuple[Path, Path], method: str = "lora", **choices: Any) -> Any:
    data, base = places
    reference = choices.pop("base", str(base))
    return make_plan(read_dataset(data), data, reference, method, hardware=HARDWARE, **choices)


def test_a_plan_pins_what_it_depends_on_and_can_run(
    places: tuple[Path, Path], tmp_path: Path
) -> None:
    made, cost = plan(places, schedule_changes={"epochs": "1", "batch_size": "4"})
    data, base = places
    assert made.base.id == str(base.resolve())
    assert made.base.fingerprint == locate_base(str(base)).fingerprint
    assert made.base.precision == "fp32"
    assert made.dataset_sha256 == read_dataset(data).sha256
    assert made.schedule.learning_rate == 2.1e-3  # LoRA's at the least width, 384; this has 32
    assert made.schedule.batch_size == 4
    assert made.method.options["targets"] == ["all-linear"]
    assert cost.fits and cost.num_examples == 8 and cost.num_steps == 2
    (tmp_path / "plan.yaml").write_text(write_plan(made))
    assert read_plan(tmp_path / "plan.yaml") == made
    training = assemble(made, data, tmp_path / "checkpoints")
    assert training.total_steps == cost.num_steps
    assert max(len(item.ids) for item in training.train) == cost.longest_tokens
    assert sum(item.num_supervised for item in training.train) == cost.epoch_supervised_tokens


@pytest.mark.parametrize("method", ["full", "lora", "qlora", "prompt_tuning"])
def test_every_method_has_a_plan(places: tuple[Path, Path], method: str) -> None:
    made, cost = plan(places, method)
    assert made.base.precision == ("nf4" if method == "qlora" else "fp32")
    assert cost.num_trainable > 0


@pytest.mark.parametrize("method", ["lora", "qlora", "loftq"])
def test_a_run_says_what_stands_in_for_a_paged_optimizer(
    places: tuple[Path, Path], tmp_path: Path, method: str
) -> None:
    made, _ = plan(places, method)
    said = [
        event.notices
        for event in train(assemble(made, places[0], tmp_path))
        if isinstance(event, Started)
    ]
    assert ["plain AdamW is used" in " ".join(notices) for notices in said] == [method != "lora"]


def test_a_relative_folder_is_pinned(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(places[1].parent)
    assert plan(places, base="base")[0].base.id == str(places[1].resolve())


def test_text_from_a_command_line_is_understood(places: tuple[Path, Path]) -> None:
    options = {
        "rank": "4", "alpha": "8", "dropout": "0.1", "targets": "q_proj, v_proj",
        "rank_pattern": "q_proj=2, v_proj=3", "alpha_pattern": "", "portable": False,
    }  # fmt: skip
    made, _ = plan(
        places,
        options=options,
        schedule_changes={"learning_rate": "2e-4", "micro_batch_tokens": "2"},
        limits_changes={"max_steps": "3", "too_long": "cut"},
        seed="7",
    )
    assert made.method.options == {
        "rank": 4, "alpha": 8.0, "dropout": 0.1, "targets": ["q_proj", "v_proj"], "top_blocks": 0,
        "rank_pattern": "q_proj=2, v_proj=3", "alpha_pattern": "", "portable": False,
    }  # fmt: skip
    assert made.schedule.learning_rate == 2e-4 and made.schedule.micro_batch_tokens == 2
    assert made.limits.max_steps == 3 and made.seed == 7


@pytest.mark.parametrize(
    ("choices", "what", "where", "fix"),
    [
        ({"schedule_changes": {"learning_rate": 0}},
         "learning_rate: input should be greater than 0, but it is 0", "schedule",
         "Correct learning_rate"),
        ({"schedule_changes": {"learning_rate": -1}}, "greater than 0, but it is -1",
         "schedule", "Correct learning_rate"),
        ({"schedule_changes": {"learning_rate": float("nan")}}, "finite number", "schedule",
         "Correct learning_rate"),
        ({"schedule_changes": {"learning_rate": "nan"}}, "finite number", "schedule",
         "Correct learning_rate"),
        ({"schedule_changes": {"learning_rate": "fast"}}, "valid number", "schedule",
         "Correct learning_rate"),
        ({"schedule_changes": {"learning_rate": None}}, "learning_rate is missing its value",
         "schedule", "Give learning_rate a value"),
        ({"schedule_changes": {"learning_rate": " "}}, "learning_rate is missing its value",
         "schedule", "leave it out to keep the default"),
        ({"schedule_changes": {"learning_rate": 1e9}}, "less than or equal to 10", "schedule",
         "Correct learning_rate"),
        ({"schedule_changes": {"epochs": 0}}, "epochs: input should be greater than 0",
         "schedule", "Correct epochs"),
        ({"schedule_changes": {"batch_size": "2.5"}}, "batch_size", "schedule",
         "Correct batch_size"),
        ({"schedule_changes": {"shape": "round"}}, "shape", "schedule", "Correct shape"),
        ({"schedule_changes": {"speed": 1}}, "there is no setting called 'speed'", "schedule",
         "the settings are: learning_rate, epochs"),
        ({"limits_changes": {"max_steps": -1}}, "max_steps", "limits", "Correct max_steps"),
        ({"limits_changes": {"too_long": "shout"}}, "too_long", "limits", "Correct too_long"),
        ({"seed": -1}, "seed", "plan", "Correct seed"),
        ({"method": "magic"}, "There is no method called 'magic'", "method", "Choose from "),
        ({"options": {"rank": 0}}, "rank: input should be greater than or equal to 1",
         "method lora", "Correct rank"),
        ({"options": {"rank": "big"}}, "rank: input should be a valid integer", "method lora",
         "Correct rank"),
        ({"options": {"rank": 33}}, "Rank 33 is above the width", "option rank",
         "Choose a rank of at most"),
        ({"options": {"colour": 1}}, "there is no setting called 'colour'", "method lora",
         "the settings are: rank, alpha"),
        ({"options": {"targets": "nose"}}, "no linear layer called 'nose'", "option targets",
         "Choose from"),
        ({"options": {"targets": ","}}, "No layer chosen", "option targets", "Choose from"),
        ({"precision": "nf4"}, "LoRA does not train on nf4 weights", "base precision",
         "Choose fp32 or bf16"),
        ({"method": "qlora", "precision": "fp32"}, "QLoRA does not train on fp32 weights",
         "base precision", "Choose nf4"),
    ],
)  # fmt: skip
def test_a_wrong_choice_says_what_where_and_how_to_fix_it(
    places: tuple[Path, Path], choices: dict[str, Any], what: str, where: str, fix: str
) -> None:
    with pytest.raises(PlanError) as caught:
        plan(places, **choices)
    assert what in caught.value.what
    assert caught.value.where == where
    assert fix in caught.value.fix


CANNOT_SERVE = [
    ("prefix", "bloom", "keep their attention to themselves"),
    ("ia3", "mixtral", "No linear layer of this base gives the FFN's last layer"),
]


@pytest.mark.parametrize(("method", "architecture", "words"), CANNOT_SERVE)
def test_a_base_that_a_method_cannot_serve_is_refused_before_it_is_loaded(
    places: tuple[Path, Path], tmp_path: Path, method: str, architecture: str, words: str
) -> None:
    base = save_tiny(tmp_path / "base", architecture)
    made, _ = plan(places, "lora", base=str(base))
    for weights in base.glob("*.safetensors"):
        weights.write_bytes(b"")  # whoever loads the base gets another error
    with pytest.raises(PlanError, match=words):
        plan(places, method, base=str(base))
    named = made.base.model_copy(update={"fingerprint": ""})
    by_hand = made.model_copy(update={"base": named, "method": MethodChoice(name=method)})
    with pytest.raises(PlanError, match=words):
        assemble(by_hand, places[0], tmp_path / "checkpoints")


def test_a_precision_that_a_method_cannot_have_is_refused_before_the_base_is_loaded(
    places: tuple[Path, Path], tmp_path: Path
) -> None:
    base = save_tiny(tmp_path / "base", "llama")
    made, _ = plan(places, "lora", base=str(base))
    for weights in base.glob("*.safetensors"):
        weights.write_bytes(b"")
    named = made.base.model_copy(update={"fingerprint": "", "precision": "nf4"})
    with pytest.raises(PlanError, match="LoRA does not train on nf4 weights"):
        assemble(made.model_copy(update={"base": named}), places[0], tmp_path / "checkpoints")


def test_an_unknown_base_is_refused(places: tuple[Path, Path]) -> None:
    with pytest.raises(ModelError, match="There is no base model 'nowhere'"):
        plan(places, base="nowhere")


def test_a_damaged_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "base", "llama")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="The base cannot be opened"):
        load_reader(locate_base(str(folder)))


@pytest.mark.parametrize("split", ["train", "validation"])
def test_an_empty_split_is_refused(places: tuple[Path, Path], tmp_path: Path, split: str) -> None:
    data = save_dataset(tmp_path / "data", **{split: []})
    with pytest.raises(PlanError, match="rows to learn from and rows to validate on"):
        plan((data, places[1]))


def test_a_prompt_longer_than_the_context_blocks_the_plan(
    places: tuple[Path, Path], tmp_path: Path
) -> None:
    long = ticket("parcel " * 200, "shipping", 41)
    data = save_dataset(tmp_path / "data", train=[*TICKETS, long], validation=[long, *TICKETS])
    cost = plan((data, places[1]), limits_changes={"too_long": "stop"})[1]
    assert not cost.fits
    assert "1 of 9 examples are longer than 128 tokens" in cost.blockers[0]
    assert cost.blockers[1].startswith("Validation: 1 of 9")
    cost = plan((data, places[1]), limits_changes={"too_long": "drop"})[1]
    assert cost.fits and cost.num_examples == 8 and len(cost.warnings) == 2


@pytest.mark.parametrize(
    ("method", "width", "rate"),
    [
        ("lora", 64, 2.1e-3),
        ("lora", 384, 2.1e-3),
        ("lora", 4096, 2e-4),
        ("full", 768, 1.6e-4),
        ("prompt_tuning", 768, 0.045),
        ("ptuning", 768, 1e-3),
    ],
)
def test_the_default_learning_rate_follows_the_width(method: str, width: int, rate: float) -> None:
    assert _schedule(get_method(method), {}, width).learning_rate == pytest.approx(rate)
    assert _schedule(get_method(method), {"learning_rate": "0.5"}, width).learning_rate == 0.5

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from engine.base_model import load_base, locate_base
from starter.corpus import CorpusError
from starter.pretrain import make_starter, publish
from starter.recipe import Recipe, read_recipe
from tests.starter.tiny_data import write_tiny_data

SCHEDULE = {
    "learning_rate": 0.02, "shape": "constant", "batch_size": 2,
    "evaluations_per_epoch": 4, "patience": 1000, "epochs": 1,
}  # fmt: skip
MIX = {"tinystories": 0.6, "questions": 0.1, "episodes": 0.3}


def tiny_recipe(num_steps: int = 210) -> Recipe:
    stage = {"row_tokens": 48, "most_episode_chars": 200, "mix": MIX, "schedule": SCHEDULE}
    return Recipe.model_validate(
        {
            "seed": 1,
            "tokenizer": {"num_entries": 400, "sample_chars": 60_000},
            "model": {
                "hidden_size": 48, "intermediate_size": 48, "num_hidden_layers": 3,
                "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
                "max_position_embeddings": 96,
            },
            "muon": {"adamw_rate_ratio": 0.2, "circuit_rate_ratio": 0.5},
            "stages": [
                {"name": "reading", "num_tokens": num_steps * 2 * 48, **stage},
                {"name": "annealing", "num_tokens": 40 * 96, **stage, "row_tokens": 96},
            ],
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_data(tmp_path_factory.mktemp("data"))


def weights_after(work: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(work / "reading" / "checkpoints" / f"step-{step:08d}" / "learned.safetensors")


def test_two_hundred_steps_repeat_to_the_bit_also_when_they_were_interrupted(
    data: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe()
    assert make_starter(recipe, data, tmp_path / "a", pause_at_step=200) is None
    for step in (60, 200):
        assert make_starter(recipe, data, tmp_path / "b", pause_at_step=step) is None
    first, second = (weights_after(tmp_path / name, 200) for name in "ab")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)

    made = make_starter(recipe, data, tmp_path / "a")  # goes on to the end of both stages
    assert made == tmp_path / "a" / "annealing" / "model"
    log = (tmp_path / "a" / "reading" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in log]
    losses = [event["loss"] for event in events if event["event"] == "Evaluated"]
    assert losses[-1] < losses[0] - 0.5
    assert [event["event"] for event in events].count("Finished") == 1

    publish(made, tmp_path / "out")
    published = load_base(locate_base(str(tmp_path / "out")), "bf16")
    exact = load_base(locate_base(str(made)), "fp32")
    for name, value in published.model.state_dict().items():
        assert torch.equal(value, exact.model.state_dict()[name].bfloat16()), name
    assert published.tokenizer.get_vocab() == exact.tokenizer.get_vocab()


def test_a_work_folder_of_another_recipe_is_refused(data: Path, tmp_path: Path) -> None:
    make_starter(tiny_recipe(), data, tmp_path / "work", pause_at_step=1)
    with pytest.raises(CorpusError, match="another recipe"):
        make_starter(tiny_recipe(250), data, tmp_path / "work", pause_at_step=1)


def test_data_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"lacks text/tinystories"):
        make_starter(tiny_recipe(), tmp_path, tmp_path / "work")


def test_the_committed_recipe_reads() -> None:
    recipe = read_recipe()
    for stage in recipe.stages:
        assert abs(sum(stage.mix.values()) - 1) < 1e-9
        assert stage.row_tokens <= recipe.model.max_position_embeddings

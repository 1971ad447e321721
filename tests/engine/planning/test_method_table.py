"""All methods side by side: figures equal to a single estimate, and an order with a reason."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from engine.methods import all_methods, get_method
from engine.planning import ground as grounds
from engine.planning import method_table
from engine.planning.choices import EstimateRequest, MethodsRequest
from engine.planning.cost import ItemLength
from engine.planning.estimate import CostEstimate, Hardware, MemoryParts
from engine.planning.ground import Ground, remembered_ground
from engine.planning.make_plan import make_plan, plan_on
from engine.planning.method_table import method_rows, overhead_words
from engine.service import compare_methods
from templates.dataset import read_dataset
from templates.errors import DataError
from tests.engine.planning.test_cost import HARDWARE
from tests.engine.planning.test_make_plan import save_dataset
from tests.engine.tiny import save_tiny, ticket, tiny_config, tiny_tokenizer


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("table")
    return save_dataset(root / "data"), save_tiny(root / "base", "llama")


@pytest.fixture(scope="module")
def ground(places: tuple[Path, Path]) -> Ground:
    return remembered_ground(places[0], str(places[1]))


def request(places: tuple[Path, Path], **changes: Any) -> MethodsRequest:
    return MethodsRequest(dataset_folder=places[0], base=str(places[1]), **changes)


def with_free(bytes_: float) -> Hardware:
    return HARDWARE.model_copy(update={"memory_available_bytes": int(bytes_)})


def test_each_row_is_what_a_plan_alone_would_say(places: tuple[Path, Path], ground: Ground) -> None:
    rows = method_rows(ground, request(places, schedule={"epochs": "2"}), HARDWARE)
    assert {row.name for row in rows} == all_methods().keys()
    for row in rows:
        _, cost = make_plan(
            read_dataset(places[0]), places[0], str(places[1]), row.name,
            schedule_changes={"epochs": "2"}, hardware=HARDWARE,
        )  # fmt: skip
        assert row.num_trainable == cost.num_trainable
        assert row.peak_memory_bytes == cost.peak_memory_bytes
        assert (row.low_seconds, row.high_seconds) == (cost.low_seconds, cost.high_seconds)
        assert row.adapter_bytes == cost.adapter_bytes and row.fits == cost.fits


def test_inference_overhead_is_that_of_the_architecture(
    places: tuple[Path, Path], ground: Ground
) -> None:
    rows = {row.name: row for row in method_rows(ground, request(places), HARDWARE)}
    # A layer of the tiny llama: q and o 32x32, k and v 32x16, gate, up and down 32x48; two of them,
    # and a head of 320x32. Rank 8 adds 8 (in + out) to each.
    base = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48) + 320 * 32
    added = 2 * 8 * (2 * 64 + 2 * 48 + 3 * 80)
    assert rows["lora"].inference_overhead_ratio == pytest.approx(added / base)
    assert (
        rows["lora"].overhead_words
        == f"none once merged, {100 * added / base:.1f} % more work before"
    )
    assert rows["full"].inference_overhead_ratio == 0 and rows["full"].overhead_words == "none"
    prompts = sorted(item.num_tokens - item.num_answer_tokens for item in ground.train)
    median = (prompts[3] + prompts[4]) / 2  # eight rows
    assert rows["prompt_tuning"].inference_overhead_ratio == pytest.approx(20 / median)
    assert rows["prompt_tuning"].overhead_words.startswith("+20 tokens in every prompt, ")


def test_a_method_that_cannot_be_merged_says_what_it_costs(ground: Ground) -> None:
    parts = MemoryParts.model_validate(dict.fromkeys(MemoryParts.model_fields, 0))
    _, cost = plan_on(ground, EstimateRequest(dataset_folder=Path("x")), HARDWARE)
    cost = cost.model_copy(update={"inference_overhead_ratio": 0.25, "memory": parts})
    assert isinstance(cost, CostEstimate)
    assert overhead_words(get_method("prompt_tuning"), cost, 0) == "25.0 % more work"


def test_lora_comes_first_where_everything_fits(places: tuple[Path, Path], ground: Ground) -> None:
    rows = method_rows(ground, request(places), HARDWARE)
    # Eight rows are too few for full tuning, and the base too small for prompt tuning.
    expected = ["lora", "qlora", "full", "lomo", "prompt_tuning"]
    assert [row.name for row in rows if row.name in expected] == expected
    assert rows[0].name == "lora"
    assert "8 training rows" in rows[0].recommended_because
    assert not any(row.recommended_because for row in rows[1:])


def test_many_rows_bring_full_tuning_forward(places: tuple[Path, Path], ground: Ground) -> None:
    many = Ground(**{**vars(ground), "train": ground.train * 125})
    assert [row.name for row in method_rows(many, request(places), HARDWARE)][:3] == [
        "lora", "full", "qlora",
    ]  # fmt: skip


def test_what_does_not_fit_goes_to_the_end_with_what_would_help(places: tuple[Path, Path]) -> None:
    starter = remembered_ground(places[0], "starter")
    long = Ground(**{**vars(starter), "train": (ItemLength(200, 4, 4),) * 64})
    chosen = request(places).model_copy(update={"schedule": {"micro_batch_tokens": 4096}})
    peaks = {row.name: row.peak_memory_bytes for row in method_rows(long, chosen, HARDWARE)}
    assert peaks["qlora"] < peaks["lora"]
    rows = method_rows(long, chosen, with_free(peaks["lora"] - 1))
    assert rows[0].name == "qlora" and rows[0].fits
    assert rows[0].recommended_because.endswith("LoRA would come first, but does not fit.")
    lora = next(row for row in rows if row.name == "lora")
    assert not lora.fits and lora.blockers and lora.peak_memory_bytes == peaks["lora"]
    assert lora.remedies[0].changes == {"schedule": {"micro_batch_tokens": 2048}}
    assert all(row.fits >= later.fits for row, later in pairwise(rows))
    nothing = method_rows(long, chosen, with_free(1000))
    assert not any(row.fits or row.recommended_because or row.remedies for row in nothing)


def test_a_method_that_cannot_be_planned_keeps_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The three alone, so that the best that fits is one with a shortage.
    three = {name: get_method(name) for name in ("full", "lora", "qlora")}
    monkeypatch.setattr(method_table, "all_methods", lambda: three)
    config = tiny_config("llama")
    config.hidden_size = config.intermediate_size = 4  # narrower than LoRA's usual rank
    config.num_attention_heads = config.num_key_value_heads = 2
    config.head_dim = 2
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "narrow")
    tiny_tokenizer().save_pretrained(tmp_path / "narrow")
    data = save_dataset(tmp_path / "data")
    ground = remembered_ground(data, str(tmp_path / "narrow"))
    rows = method_rows(ground, MethodsRequest(dataset_folder=data), HARDWARE)
    by_name = {row.name: row for row in rows}
    assert len(rows) == 3 and rows[0].name == "full" and rows[0].fits
    assert "is better with 1,000 rows or more" in rows[0].recommended_because
    for name in ("lora", "qlora"):
        assert not by_name[name].fits and by_name[name].num_trainable == 0
        assert "Rank 8 is above the width 4" in by_name[name].blockers[0]


def test_a_precision_that_a_method_lacks_is_its_first(
    places: tuple[Path, Path], ground: Ground
) -> None:
    rows = {
        row.name: row for row in method_rows(ground, request(places, precision="nf4"), HARDWARE)
    }
    plain = {row.name: row for row in method_rows(ground, request(places), HARDWARE)}
    assert rows["lora"].peak_memory_bytes == plain["lora"].peak_memory_bytes
    assert rows["prompt_tuning"].peak_memory_bytes != plain["prompt_tuning"].peak_memory_bytes


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    laid: list[Path] = []
    lay = grounds.lay_ground

    def count(dataset: Any, folder: Path, base: Any) -> Ground:
        laid.append(folder)
        return lay(dataset, folder, base)

    monkeypatch.setattr(grounds, "lay_ground", count)
    grounds._remembered.cache_clear()
    yield laid
    grounds._remembered.cache_clear()


def test_rows_are_tokenised_once_for_all_methods(
    tmp_path: Path, places: tuple[Path, Path], counted: list[Path]
) -> None:
    data = save_dataset(tmp_path / "data")
    again = MethodsRequest(dataset_folder=data, base=str(places[1]))
    first = compare_methods(again)
    assert compare_methods(again)["rows"][0]["num_trainable"] == first["rows"][0]["num_trainable"]
    assert counted == [data]
    other = save_dataset(tmp_path / "other", train=[ticket("new text here", "billing")] * 3)
    other.rename(tmp_path / "gone")
    with pytest.raises(DataError):
        compare_methods(MethodsRequest(dataset_folder=other, base=str(places[1])))
    (tmp_path / "gone").rename(tmp_path / "data2")
    compare_methods(MethodsRequest(dataset_folder=tmp_path / "data2", base=str(places[1])))
    assert len(counted) == 2

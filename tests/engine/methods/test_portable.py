"""Who can serve an adapter unmerged: said from the options, held against what is published."""

from pathlib import Path
from typing import Any

import pytest

from engine.method import LLAMA_CPP, LORAX, PEFT, VLLM, PeftAdapter, attach_method, parse_options
from engine.methods import all_methods, get_method
from engine.publishing.snippet import snippets
from templates.errors import PlanError
from tests.engine.publishing.published import small_record
from tests.engine.tiny import tiny_model

ALL = (VLLM, LORAX, LLAMA_CPP)
SETTINGS: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
    ("lora", {}, ALL),
    ("lora", {"rank": 12, "targets": ["q_proj", "down_proj"]}, ALL),
    ("qlora", {"rank": 4}, ALL),
    ("lora_plus", {}, ALL),
    ("pissa", {"rank": 4}, ALL),
    ("rslora", {"rank": 8}, (VLLM, LORAX)),
    ("lora", {"top_blocks": 1}, (VLLM, LLAMA_CPP)),
    ("lora", {"targets": ["layers.0.self_attn.q_proj"]}, (VLLM, LLAMA_CPP)),
    ("lora", {"rank_pattern": "q_proj=4"}, (LLAMA_CPP,)),
    ("lora", {"alpha_pattern": "q_proj=4"}, ()),
    ("dora", {}, ()),
    ("random_rank", {}, ()),
]


def served_by(adapter: PeftAdapter) -> tuple[str, ...]:
    """What the servers' own readers make of a config and its tensors."""
    config, names = adapter.config, list(adapter.tensors)
    plain = all(name.endswith((".lora_A.weight", ".lora_B.weight")) for name in names)
    plain = plain and config["bias"] == "none" and not config.get("modules_to_save")
    one_alpha, one_rank = not config.get("alpha_pattern"), not config.get("rank_pattern")
    by_name = not config.get("layers_to_transform") and not any(
        "." in name for name in config["target_modules"]
    )
    found = {
        VLLM: plain and one_alpha and one_rank and config["r"] <= 512,
        LORAX: plain and one_alpha and one_rank and by_name,
        LLAMA_CPP: plain and one_alpha and not config["use_rslora"],
    }
    return tuple(name for name, is_served in found.items() if is_served)


@pytest.mark.parametrize(("method", "options", "expected"), SETTINGS)
def test_what_is_said_of_options_holds_for_what_is_published(
    tmp_path: Path, method: str, options: dict[str, Any], expected: tuple[str, ...]
) -> None:
    spec = get_method(method)
    chosen = parse_options(spec, options)
    assert spec.adapter_servers(chosen) == (PEFT, *expected)
    base = tiny_model(tmp_path, "llama", spec.precisions[0])
    tuned = attach_method(base, spec, chosen, seed=0)
    assert spec.export and served_by(spec.export(tuned, chosen)) == expected


def test_a_rank_that_vllm_has_no_room_for() -> None:
    for method, rank, served in [
        ("lora", 512, True), ("lora", 513, False), ("pissa", 256, True), ("pissa", 257, False),
    ]:  # fmt: skip
        spec = get_method(method)
        found = spec.adapter_servers(parse_options(spec, {"rank": rank}))
        assert (VLLM in found) is served, (method, rank)
        assert {LORAX, LLAMA_CPP} <= set(found)


@pytest.mark.parametrize(("method", "options", "expected"), SETTINGS)
def test_portable_is_kept_or_refused_with_the_names(
    method: str, options: dict[str, Any], expected: tuple[str, ...]
) -> None:
    spec = get_method(method)
    if expected == ALL:
        assert parse_options(spec, options | {"portable": True}).model_dump()["portable"]
        return
    with pytest.raises(PlanError, match="portable") as raised:
        parse_options(spec, options | {"portable": True})
    assert all((name in raised.value.what) != (name in expected) for name in ALL)


@pytest.mark.parametrize("method", ["lora", "pissa", "dora", "ia3", "prompt_tuning"])
def test_what_is_published_and_the_code_to_copy_say_the_same(tmp_path: Path, method: str) -> None:
    record = small_record(tmp_path, method)
    chosen = parse_options(get_method(method), record.plan.method.options)
    assert record.adapter_servers == get_method(method).adapter_servers(chosen)
    assert (VLLM in snippets(record)) == (VLLM in record.adapter_servers)
    if method == "pissa":  # what is published undoes its start with as many ranks again
        assert record.adapter_rank == 2 * chosen.model_dump()["rank"]


def test_other_methods_are_served_by_peft_where_they_publish_an_adapter() -> None:
    for spec in all_methods().values():
        found = spec.adapter_servers(parse_options(spec, {}))
        assert bool(found) == (spec.export is not None)
        assert found[:1] in ((), (PEFT,))
        if "target_rank" in spec.options.model_fields:  # AdaLoRA: a rank and alpha for each layer
            assert found == (PEFT,)

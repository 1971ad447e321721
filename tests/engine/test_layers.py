import pytest

from engine.layers import ALL_LINEAR, blocks_of, choose_layers, in_top_blocks, linear_layers
from engine.method import attach_method, parse_options
from engine.methods import get_method
from templates.errors import PlanError
from tests.engine.architectures import PACKED, PADDED, random_model


@pytest.mark.parametrize("model_type", [*PACKED, *PADDED])
def test_the_blocks_hold_all_linear_layers(model_type: str) -> None:
    model = random_model(model_type).model
    path, blocks = blocks_of(model)
    assert len(blocks) == model.config.num_hidden_layers
    layers = list(linear_layers(model))
    assert all(layer.path.startswith(f"{path}.") for layer in layers)
    assert in_top_blocks(model, layers, len(blocks)) == layers
    top = in_top_blocks(model, layers, 1)
    assert {layer.path.removeprefix(f"{path}.").split(".")[0] for layer in top} == {
        str(len(blocks) - 1)
    }


def test_a_layer_of_one_output_is_tuned_only_where_it_is_named() -> None:
    model = random_model("qwen2_moe").model
    every = {layer.path for layer in linear_layers(model)}
    chosen = {layer.path for layer in choose_layers(model, (ALL_LINEAR,))}
    gates = {f"model.layers.{block}.mlp.shared_expert_gate" for block in (0, 1)}
    assert every - chosen == gates
    assert {layer.path for layer in choose_layers(model, ("shared_expert_gate",))} == gates
    assert len(choose_layers(model, (ALL_LINEAR, "shared_expert_gate"))) == len(every)


@pytest.mark.parametrize("method", ["lora", "dora", "adalora", "loha", "lokr", "ia3", "bitfit"])
@pytest.mark.parametrize("is_tied", [True, False])
def test_the_output_head_is_refused_with_the_reason(method: str, is_tied: bool) -> None:
    model = random_model("llama", tie_word_embeddings=is_tied).model
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == is_tied
    spec = get_method(method)
    before = [path for path, _ in model.named_modules()]
    options = parse_options(spec, {"targets": ["lm_head"]})
    with pytest.raises(PlanError, match="output head, lm_head,") as problem:
        spec.attach(model, options)
    words = "shares its weight with the embedding" if is_tied else "only layers of blocks"
    assert words in problem.value.what and problem.value.where == "option targets"
    assert "Leave 'lm_head' out" in problem.value.fix
    assert [path for path, _ in model.named_modules()] == before


def test_only_the_top_blocks_learn_and_the_adapter_says_so() -> None:
    spec = get_method("lora")
    options = parse_options(spec, {"rank": 2, "top_blocks": 2, "targets": ["q_proj"]})
    tuned = attach_method(random_model("gemma3_text"), spec, options, seed=0)
    assert spec.export is not None
    adapter = spec.export(tuned, options)
    assert adapter.config["layers_to_transform"] == [4, 5]
    assert {name.split(".")[4] for name in adapter.tensors} == {"4", "5"}


@pytest.mark.parametrize(
    ("num_blocks", "words"), [(3, "has 2 blocks, not 3"), (1, "None of the chosen layers lies in")]
)
def test_blocks_that_are_not_there_are_refused(num_blocks: int, words: str) -> None:
    model = random_model("llama").model
    lower = [layer for layer in linear_layers(model) if ".layers.0." in layer.path]
    with pytest.raises(PlanError, match=words) as problem:
        in_top_blocks(model, lower, num_blocks)
    assert problem.value.where == "option top_blocks" and problem.value.fix

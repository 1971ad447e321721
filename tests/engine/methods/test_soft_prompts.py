"""P-tuning and prefix tuning: what they compute, packed and not, here and in the real `peft`."""

import copy
import warnings
from dataclasses import replace
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, BloomConfig, Gemma3TextConfig

from engine.adapter_import import open_adapter, read_adapter
from engine.base_model import locate_base
from engine.language_model import FastPaths, LanguageModel
from engine.loss import supervised_logits
from engine.method import attach_method, parse_options, trainable
from engine.methods import get_method
from engine.methods.prefix import PrefixEmbedding
from engine.publishing.adapter_folder import write_adapter
from engine.publishing.publication import PublishedBase
from engine.trainer import train
from templates.errors import ModelError, PlanError
from tests.engine.architectures import random_model
from tests.engine.methods.test_contract import batch_for, train_steps
from tests.engine.tiny import ARCHITECTURES, save_tiny, tiny_model
from tests.engine.train_tiny import SCHEDULE, tiny_training

IDS = torch.arange(5, 29).view(2, 12)
NUM_TOKENS = 5
in_all_architectures = pytest.mark.parametrize("architecture", ARCHITECTURES)
CONFIGS = {
    "prompt": lambda **shape: peft.PromptTuningConfig(**shape),
    "mlp": lambda **shape: peft.PromptEncoderConfig(encoder_hidden_size=24, **shape),
    "lstm": lambda **shape: peft.PromptEncoderConfig(
        encoder_hidden_size=24, encoder_reparameterization_type="LSTM", **shape
    ),
    "prefix": lambda **shape: peft.PrefixTuningConfig(**shape),
    "prefix through a network": lambda **shape: peft.PrefixTuningConfig(
        prefix_projection=True, encoder_hidden_size=24, **shape
    ),
}


def tuned_model(folder: Path, architecture: str, method: str, **options: object) -> LanguageModel:
    spec = get_method(method)
    settings = parse_options(spec, {"num_tokens": NUM_TOKENS} | options)
    return attach_method(tiny_model(folder / "base", architecture), spec, settings, seed=3)


def made_by_peft(base: Path, kind: str) -> peft.PeftModel:
    torch.manual_seed(4)
    with warnings.catch_warnings(action="ignore"):  # of the library, to its own users
        config = CONFIGS[kind](task_type="CAUSAL_LM", num_virtual_tokens=NUM_TOKENS)
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        return peft.get_peft_model(model, config).eval()


@torch.no_grad()
def logits_behind(tuned: LanguageModel) -> torch.Tensor:
    """Logits at IDS, behind the soft prompt."""
    virtual = torch.tensor([tuned.virtual_token_ids]).expand(len(IDS), -1)
    logits = tuned.model.eval()(torch.cat([virtual, IDS], 1)).logits
    return logits[:, tuned.num_virtual_tokens :].float()


@in_all_architectures
def test_a_prompt_begins_as_tokens_that_the_base_knows(tmp_path: Path, architecture: str) -> None:
    known = tiny_model(tmp_path / "plain", architecture).model.get_input_embeddings().weight
    found = {}
    for start in ("vocabulary", "text"):
        options = {"num_tokens": 40, "start": start, "text": "my parcel"}
        tuned = tuned_model(tmp_path, architecture, "prompt_tuning", **options)
        (prompt,) = trainable(tuned.model).values()
        same = (prompt[:, None] == known[None]).all(-1)  # (P, V)
        assert bool(same.any(1).all()), "every vector is one of the vocabulary's, bit for bit"
        found[start] = same.float().argmax(1).tolist()
    assert found["text"] == (tuned.encode("my parcel") * 40)[:40]
    assert len(set(found["vocabulary"])) > 20, "drawn, and from all of it"
    assert max(found["vocabulary"]) > len(known) // 2


@in_all_architectures
def test_a_random_prompt_is_drawn_as_wide_as_the_vocabulary_lies(
    tmp_path: Path, architecture: str
) -> None:
    tuned = tuned_model(tmp_path, architecture, "prompt_tuning", num_tokens=200, start="random")
    prompt = next(iter(trainable(tuned.model).values())).detach()
    known = tuned.model.get_input_embeddings().weight.detach()
    # 6,400 values: their spread strays by 1 in 113 from that which they were drawn with.
    assert float(prompt.std()) == pytest.approx(float(known.std()), rel=0.04)
    assert float(prompt.mean()) == pytest.approx(0, abs=0.05 * float(known.std()))
    assert not bool((prompt[:, None] == known[None]).all(-1).any()), "no row of the vocabulary"


@in_all_architectures
def test_a_prefix_begins_as_the_tokens_that_it_was_read_from(
    tmp_path: Path, architecture: str
) -> None:
    tuned = tuned_model(tmp_path, architecture, "prefix", start="text", text="my parcel")
    words = (tuned.encode("my parcel") * NUM_TOKENS)[:NUM_TOKENS]
    base = tiny_model(tmp_path / "plain", architecture).model.eval()
    with torch.no_grad():
        read = base(torch.cat([torch.tensor([words] * 2), IDS], 1)).logits[:, NUM_TOKENS:]
    torch.testing.assert_close(logits_behind(tuned), read, rtol=0, atol=1e-4)


@pytest.mark.parametrize("network", [False, True])
@in_all_architectures
def test_packed_rows_see_the_prefix_that_padded_rows_see(
    tmp_path: Path, architecture: str, network: bool
) -> None:
    tuned = tuned_model(tmp_path, architecture, "prefix", reparametrised=network)
    train_steps(tuned, get_method("prefix"), 3)
    assert tuned.paths.packs
    found = {}
    for name, paths in {"packed": tuned.paths, "padded": FastPaths()}.items():
        tuned.model.zero_grad()
        reading = replace(tuned, paths=paths)
        logits = supervised_logits(reading, batch_for(reading))[0]
        logits.square().sum().backward()
        gradients = [value.grad.clone() for value in trainable(tuned.model).values()]
        found[name] = [logits.detach(), *gradients]
    for packed, padded in zip(*found.values(), strict=True):
        torch.testing.assert_close(packed, padded, rtol=1e-3, atol=1e-3)
    assert all(bool(gradient.abs().sum() > 0) for gradient in found["packed"][1:])


def test_layers_that_are_computed_twice_read_the_prefix_twice(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base", "llama")
    found = []
    for recomputes in (False, True):
        task = tiny_training(
            base, tmp_path / str(recomputes), "prefix",
            options={"num_tokens": NUM_TOKENS, "reparametrised": True},
            schedule=SCHEDULE.model_copy(update={"recomputes": recomputes, "epochs": 1}),
        )  # fmt: skip
        list(train(task))
        found.append(list(trainable(task.language_model.model).values()))
    for kept, computed_again in zip(*found, strict=True):
        torch.testing.assert_close(kept, computed_again, rtol=1e-4, atol=1e-5)


def test_only_what_lies_behind_the_prefix_reads_it(tmp_path: Path) -> None:
    tuned = tuned_model(tmp_path, "llama", "prefix")
    start = logits_behind(tuned)
    embedding = tuned.model.get_input_embeddings()
    assert isinstance(embedding, PrefixEmbedding)
    embedding.prefix.data[0] += 1
    assert not torch.allclose(logits_behind(tuned), start, atol=1e-3)
    get_method("prefix").detach(tuned.model)
    base = tiny_model(tmp_path / "plain", "llama").model.eval()
    with torch.no_grad():
        assert torch.equal(tuned.model.eval()(IDS).logits, base(IDS).logits)


@in_all_architectures
@pytest.mark.parametrize("kind", CONFIGS)
def test_what_peft_made_computes_the_same_here(
    tmp_path: Path, kind: str, architecture: str
) -> None:
    folder = save_tiny(tmp_path / "base", architecture)
    theirs = made_by_peft(folder, kind)
    with torch.no_grad():
        expected = theirs(input_ids=IDS).logits[:, -IDS.shape[1] :].float()
    theirs.save_pretrained(tmp_path / "adapter")
    ours = open_adapter(tmp_path / "adapter", locate_base(str(folder)), "fp32")
    assert ours.num_virtual_tokens == NUM_TOKENS
    torch.testing.assert_close(logits_behind(ours), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("method", "options"),
    [("ptuning", {}), ("ptuning", {"encoder": "lstm"}), ("prefix", {"reparametrised": True})],
)
def test_the_network_is_gone_when_it_has_done_its_work(
    tmp_path: Path, method: str, options: dict[str, object]
) -> None:
    spec = get_method(method)
    tuned = tuned_model(tmp_path, "llama", method, **options)
    train_steps(tuned, spec, 3)
    assert spec.export
    settings = parse_options(spec, {"num_tokens": NUM_TOKENS} | options)
    adapter = spec.export(tuned, settings)
    width = 2 * 2 * 2 * 8 if method == "prefix" else 32
    assert {name: tuple(value.shape) for name, value in adapter.tensors.items()} == {
        "prompt_embeddings": (NUM_TOKENS, width)
    }
    learned = sum(value.numel() for value in trainable(tuned.model).values())
    assert learned > 10 * adapter.tensors["prompt_embeddings"].numel()


def test_a_base_whose_embedding_is_narrower_than_its_blocks(tmp_path: Path) -> None:
    """As in the OPT of 350 M parameters."""
    base, spec = random_model("opt", word_embed_proj_dim=16), get_method("prompt_tuning")
    theirs = copy.deepcopy(base.model)
    options = parse_options(spec, {"num_tokens": NUM_TOKENS, "start": "random"})
    tuned = attach_method(base, spec, options, seed=1)
    assert spec.export
    named = PublishedBase(id="base", revision="", fingerprint="", licence="")
    write_adapter(tmp_path, spec.export(tuned, options), named)
    ids = torch.arange(5, 17)[None]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        expected = peft.PeftModel.from_pretrained(theirs, tmp_path).eval()(input_ids=ids).logits
        virtual = torch.tensor([tuned.virtual_token_ids])
        ours = tuned.model(torch.cat([virtual, ids], 1)).logits
    torch.testing.assert_close(ours[:, NUM_TOKENS:], expected[:, -12:], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (Gemma3TextConfig(num_hidden_layers=6, sliding_window=8), "forget what lies behind"),
        (BloomConfig(n_layer=2), "keep their attention to themselves"),
    ],
    ids=["a window", "an attention of its own"],
)
def test_layers_that_can_have_no_prefix_are_refused(config: AutoConfig, words: str) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    spec, before = get_method("prefix"), model.get_input_embeddings()
    with pytest.raises(PlanError, match=words):
        spec.attach(model, parse_options(spec, {}))
    assert model.get_input_embeddings() is before


@pytest.mark.parametrize("damage", ["shape", "more", "nan"])
def test_a_soft_prompt_that_does_not_fit_is_refused(tmp_path: Path, damage: str) -> None:
    folder = save_tiny(tmp_path / "base", "llama")
    made_by_peft(folder, "prompt").save_pretrained(tmp_path / "adapter")
    file = tmp_path / "adapter/adapter_model.safetensors"
    prompt = load_file(file)["prompt_embeddings"]
    damaged = {
        "shape": {"prompt_embeddings": prompt[:, 1:].contiguous()},
        "more": {"prompt_embeddings": prompt, "other": prompt.clone()},
        "nan": {"prompt_embeddings": prompt * float("nan")},
    }[damage]
    save_file(damaged, file)
    with pytest.raises(ModelError, match=r"one tensor of shape|no numbers"):
        read_adapter(tmp_path / "adapter", locate_base(str(folder)))

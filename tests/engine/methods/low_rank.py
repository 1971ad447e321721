"""LoRA and its variants on tiny bases, perturbed as if they had learned, and the real `peft`."""

import warnings
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from engine.language_model import LanguageModel
from engine.method import attach_method, parse_options, trainable
from engine.methods import get_method
from engine.publishing.adapter_folder import write_adapter
from engine.publishing.publication import PublishedBase
from tests.engine.tiny import save_tiny, tiny_model

IDS = torch.arange(5, 29).view(2, 12)
NAMES = {
    "llama": ("q_proj", "down_proj"),
    "qwen3": ("q_proj", "down_proj"),
    "gpt2": ("c_attn", "c_proj"),
    "phi3": ("qkv_proj", "gate_up_proj"),
    "gpt_neox": ("query_key_value", "dense_4h_to_h"),
    "mixtral": ("q_proj", "o_proj"),
    "qwen2_moe": ("q_proj", "down_proj"),
    "qwen3_moe": ("q_proj", "o_proj"),
}


def tuned_on(
    base: LanguageModel, method: str, *, spread: float = 0.1, **options: Any
) -> LanguageModel:
    """A base with a method on it, whose values lie `spread` from their start."""
    spec = get_method(method)
    tuned = attach_method(base, spec, parse_options(spec, options), seed=3)
    draw = torch.Generator().manual_seed(1)
    for value in trainable(tuned.model).values():
        value.data += spread * torch.randn(value.shape, generator=draw)
    tuned.model.eval()
    return tuned


def tuned_model(
    folder: Path, architecture: str, method: str, precision: str = "fp32", **options: Any
) -> LanguageModel:
    return tuned_on(tiny_model(folder / "base", architecture, precision), method, **options)


@torch.no_grad()
def logits_of(model: torch.nn.Module) -> torch.Tensor:
    return model.eval()(IDS).logits.float()


def exported(folder: Path, tuned: LanguageModel, method: str, **options: Any) -> Path:
    """The adapter folder that a method writes."""
    spec = get_method(method)
    assert spec.export
    (folder / "adapter").mkdir()
    adapter = spec.export(tuned, parse_options(spec, options))
    base = PublishedBase(id="base", revision="", fingerprint="0", licence="mit")
    write_adapter(folder / "adapter", adapter, base)
    return folder / "adapter"


def plain_base(folder: Path, architecture: str) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(
        save_tiny(folder / "base", architecture), dtype=torch.float32
    )


def in_peft(folder: Path, architecture: str) -> torch.nn.Module:
    """The adapter folder as the library opens it: a tensor that it misses fails the test."""
    base = plain_base(folder, architecture)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # peft 0.21.2 asks transformers 5.23 by a name on its way out, and cannot merge a bias where
        # there was none; it must not warn of more.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        warnings.filterwarnings("ignore", "`lora_bias=True` was passed but")
        return PeftModel.from_pretrained(base, folder / "adapter")


def made_by_peft(folder: Path, architecture: str, **settings: Any) -> torch.nn.Module:
    """A model that the library tuned, saved to `folder/adapter`."""
    settings = {"r": 4, "lora_alpha": 8, "target_modules": list(NAMES[architecture])} | settings
    config = LoraConfig(
        task_type="CAUSAL_LM", fan_in_fan_out=architecture == "gpt2", **settings
    )  # fmt: skip
    torch.manual_seed(2)
    with warnings.catch_warnings(action="ignore"):  # of the library, to its own users
        model = get_peft_model(plain_base(folder, architecture), config)
    for name, value in model.named_parameters():
        if value.requires_grad:
            value.data += (0.3 if "lora_B" in name else 0.1) * torch.randn_like(value)
    model.save_pretrained(folder / "adapter")
    return model

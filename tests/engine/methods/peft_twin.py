"""Ours and the real `peft` on the same base: adapters carried over, logits compared."""

import warnings
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from engine.adapter_import import open_adapter, read_adapter
from engine.base_model import locate_base
from engine.language_model import LanguageModel
from engine.method import attach_method, parse_options, trainable
from engine.methods import get_method
from engine.publishing.adapter_folder import write_adapter
from engine.publishing.publication import PublishedBase
from tests.engine.tiny import tiny_model

IDS = torch.tensor([[5, 9, 14, 3, 77, 120, 200, 31], [8, 8, 250, 19, 2, 41, 60, 7]])


def spread_out(
    folder: Path, method: str, architecture: str, *, spread: float = 0.3, **options: object
) -> LanguageModel:
    """A tiny model with a method on it whose learned values lie far from their start."""
    spec = get_method(method)
    tuned = attach_method(
        tiny_model(folder / "base", architecture), spec, parse_options(spec, options), seed=3
    )
    draw = torch.Generator().manual_seed(5)
    for value in trainable(tuned.model).values():
        value.data += spread * torch.randn(value.shape, generator=draw)
    tuned.model.eval()
    return tuned


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model(IDS).logits.float()


def opened_by_peft(folder: Path, tuned: LanguageModel, method: str, **options: object) -> PeftModel:
    """Write what we export, and let the real `peft` open it on a fresh base."""
    spec = get_method(method)
    assert spec.export is not None
    (folder / "adapter").mkdir()
    adapter = spec.export(tuned, parse_options(spec, options))
    named = PublishedBase(id="base", revision="", fingerprint="", licence="")
    write_adapter(folder / "adapter", adapter, named)
    base = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    with warnings.catch_warnings():
        # peft 0.21.2 asks transformers 5.23 by a name on its way out; it must not warn of more.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        return PeftModel.from_pretrained(base, folder / "adapter").eval()


def loaded_from_peft(folder: Path, peft_model: PeftModel, method: str = "") -> LanguageModel:
    """Let ours open what the real `peft` saves, and recognise the method where one is named."""
    # It reads the base's config while it saves, so the name has to lead there.
    peft_model.active_peft_config.base_model_name_or_path = str(folder / "base")
    peft_model.save_pretrained(folder / "theirs")
    base = locate_base(str(folder / "base"))
    assert not method or read_adapter(folder / "theirs", base).method == method
    return open_adapter(folder / "theirs", base, "fp32")

"""From a name to a model in memory: the starter, a folder, or a Hub id, through one door."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from engine.activation_functions import fuse_activation_functions
from engine.language_model import LanguageModel
from engine.layers import linear_layers, put_module
from engine.model_folder import (
    MODEL_FILES,
    STARTER,
    STARTER_FOLDER,
    check_model_folder,
    fingerprint,
    is_hub_id,
    licence_of,
)
from engine.packing import choose_fast_paths
from engine.plan import Precision
from engine.quantise import KINDS, quantise_linear
from templates.errors import ModelError
from templates.hub_address import check_hub_address


@dataclass(frozen=True)
class BaseFolder:
    """A base model on this machine."""

    id: str
    path: Path
    revision: str
    fingerprint: str
    licence: str


def locate_base(reference: str, revision: str = "", *, token: str = "") -> BaseFolder:
    """Find a base and look at it before any library opens it.

    Args:
        reference: "starter", a folder, or a Hub id such as "org/name".
        revision: Hub branch, tag or commit; empty for the newest.
        token: for models that the Hub gives to its members only; never stored.

    Returns:
        The checked local folder.

    Raises:
        ModelError: it is nowhere to be found, or not safe to open.
    """
    folder = STARTER_FOLDER if reference == STARTER else Path(reference)
    with contextlib.suppress(RuntimeError):  # ~somebody who has no home here
        folder = folder.expanduser()
    pinned = ""
    if not reference or not folder.is_dir():
        if not is_hub_id(reference):
            raise ModelError(
                f"There is no base model {reference!r}",
                fix=f'Give "{STARTER}", a model folder, or a Hub id such as org/name',
            )
        folder = _download(reference, revision, token)
        pinned = folder.name
    check_model_folder(folder, reference)
    return BaseFolder(reference, folder, pinned, fingerprint(folder), licence_of(folder))


def load_base(folder: BaseFolder, precision: Precision) -> LanguageModel:
    """Open a base: all weights frozen, evaluation mode.

    Args:
        folder: from `locate_base`.
        precision: how to hold the frozen weights.

    Returns:
        The model with its tokenizer.

    Raises:
        ModelError: the library cannot read the folder, or the tokenizer does not fit.
    """
    _config(folder)
    # transformers keeps norms and embeddings in this type too; fewer bits are for linear layers.
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    with _readable(folder):
        model = _open(folder.path, dtype)
    tokenizer = _load_tokenizer(folder, int(model.config.vocab_size))
    model.requires_grad_(False)
    model.eval()
    fuse_activation_functions(model)
    # A slice of the last columns is not contiguous, and the product would copy V x D per row.
    model.get_output_embeddings().register_forward_pre_hook(
        lambda head, inputs: (inputs[0].contiguous(),)
    )
    if precision in KINDS:
        for layer in list(linear_layers(model)):
            put_module(model, layer.path, quantise_linear(layer.module, precision))
        for parameter in model.parameters():  # else one small tensor keeps the whole file mapped
            parameter.data = parameter.data.clone()
    language_model = LanguageModel(model, tokenizer, precision)
    return replace(language_model, paths=choose_fast_paths(language_model))


def read_again(model: Any) -> Any:
    """Open the files that a quantised base came from once more, with nothing quantised.

    Args:
        model: of a `LanguageModel` that `load_base` made, with or without a method.

    Returns:
        The base with the weights that were quantised, in bf16, and no method.

    Raises:
        ModelError: the files are gone.
    """
    path = Path(model.name_or_path)
    if not path.is_dir():
        raise ModelError(
            "The files of the base are gone",
            where=path.name,
            fix="Put the folder back to where it was",
        )
    return _open(path, torch.bfloat16)


def load_skeleton(folder: BaseFolder) -> Any:
    """Build the architecture without weights, on the meta device.

    Args:
        folder: from `locate_base`.

    Returns:
        A transformers causal language model that holds shapes only.
    """
    model = _skeleton(_config(folder))
    model.requires_grad_(False)
    return model


def stock_shapes(config: Any) -> dict[str, torch.Size]:
    """Say which tensors a model folder with this config holds.

    Args:
        config: a transformers config.

    Returns:
        Shapes by name; a tied tensor has both its names.
    """
    return {name: value.shape for name, value in _skeleton(config).state_dict().items()}


def load_reader(folder: BaseFolder) -> LanguageModel:
    """Open everything of a base but its weights: enough to tokenise, count and preview.

    Args:
        folder: from `locate_base`.

    Returns:
        A language model whose weights are shapes only.
    """
    skeleton = load_skeleton(folder)
    return LanguageModel(skeleton, _load_tokenizer(folder, int(skeleton.config.vocab_size)))


def _open(path: Path, dtype: torch.dtype) -> Any:
    return AutoModelForCausalLM.from_pretrained(
        path, dtype=dtype, use_safetensors=True, trust_remote_code=False, local_files_only=True
    )


def _skeleton(config: Any) -> Any:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=False)


def _load_tokenizer(folder: BaseFolder, num_rows: int) -> Any:
    with _readable(folder):
        tokenizer = AutoTokenizer.from_pretrained(
            folder.path, trust_remote_code=False, local_files_only=True
        )
    if len(tokenizer) > num_rows:
        raise ModelError(
            f"The tokenizer has {len(tokenizer)} tokens, the model only {num_rows}",
            where=folder.id,
            fix="Put the tokenizer that belongs to this model into the folder",
        )
    return tokenizer


@contextlib.contextmanager
def _readable(folder: BaseFolder) -> Iterator[None]:
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    except Exception as error:  # the folder is foreign: a damaged one fails in many ways
        raise ModelError(
            f"The base cannot be opened: {_first_line(error)}",
            where=folder.id,
            fix="Download it again, or choose another base",
        ) from None


def _config(folder: BaseFolder) -> Any:
    try:
        config = AutoConfig.from_pretrained(
            folder.path, trust_remote_code=False, local_files_only=True
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"The base's config cannot be read: {_first_line(error)}",
            where=folder.id,
            fix="Choose a base whose architecture is part of transformers",
        ) from None
    if type(config) not in AutoModelForCausalLM._model_mapping:
        raise ModelError(
            f"{config.model_type!r} is not a model that continues text",
            where=folder.id,
            fix="Choose a causal language model such as Llama, GPT-2 or Qwen",
        )
    if config.get_text_config() is not config:
        raise ModelError(
            f"{config.model_type!r} reads more than text, which cannot be tuned here",
            where=folder.id,
            fix="Choose a base of the same family that reads text alone",
        )
    return config


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]


def _download(reference: str, revision: str, token: str) -> Path:
    if token:
        check_hub_address(constants.ENDPOINT, ModelError)
    try:
        return Path(
            snapshot_download(
                reference,
                revision=revision or None,
                allow_patterns=list(MODEL_FILES),
                token=token or False,
            )
        )
    except GatedRepoError:
        raise ModelError(
            "The base asks for a licence to be accepted first",
            where=reference,
            fix="Accept it on the model's page, and give your token (HF_TOKEN on a command line)",
        ) from None
    except RepositoryNotFoundError:
        raise ModelError(
            "The Hub has no public model of this name",
            where=reference,
            fix="Check the spelling of org/name; for a private one, give your token (HF_TOKEN on a "
            "command line)",
        ) from None
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise ModelError(
            f"The base is not on this machine and the Hub cannot be reached "
            f"({type(error).__name__})",
            where=reference,
            fix="Connect to the network, or give a local model folder",
        ) from None

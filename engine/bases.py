"""Which base models a person can choose from, told from configs and headers. Free of torch.

Every reference that a plan takes comes from these cards; nobody types a path.
"""

import json
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import httpx2
from huggingface_hub import constants, get_session, hf_raise_for_status
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils._headers import build_hf_headers
from pydantic import BaseModel, Field, ValidationError

from engine.model_folder import (
    MODEL_FILES,
    STARTER,
    STARTER_FOLDER,
    check_model_folder,
    is_hub_id,
    licence_of,
)
from templates.errors import ModelError, PlanError
from templates.hub_address import check_hub_address
from templates.values import Value

Source = Literal[
    "ships with the studio",
    "on this machine",
    "local folder",
    "recommended",
    "found on the Hub",
]
_DEEPEST = 3
_MOST_FOLDERS, _MOST_CARDS = 2000, 200
_LARGEST_TEXT_BYTES = 8 << 20  # tokenizer_config.json and weight indexes of large models: 1 MB
_LARGEST_HEADER_BYTES = 32 << 20
_LARGEST_NUMBER = 1 << 62
_HUB_SECONDS = 10.0
_LARGEST_ANSWER_BYTES = 8 << 20
_TYPE_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2}
_REMOTE_CODE = "It wants to run its own code, which the studio never does."
_PICKLE = "Its weights are not in .safetensors files; other formats can run code when opened."
_OTHER_KIND = "It is not a model that continues text."
_QUANTISED = "Its weights are quantised already; take the model that it was made from."


class BaseCard(Value):
    """One base model, as the page shows it; None and "" where nobody knows."""

    reference: str = Field(description="What a plan takes.")
    title: str
    source: Source
    num_parameters: int | None = None
    download_bytes: int | None = None
    context_tokens: int | None = Field(default=None, description="How much text it reads at once.")
    architecture: str = ""
    licence: str = Field(default="", description="SPDX id or the Hub's own name for it.")
    is_gated: bool | None = Field(
        default=None, description="Whether the licence must be accepted on the Hub first."
    )
    is_downloaded: bool = False
    revision: str = Field(default="", description="Hub commit; empty: local, or the newest.")
    has_chat_template: bool | None = None
    note: str = Field(default="", description="Whom it suits, in one sentence.")
    problem: str = Field(default="", description="Why it cannot be used; empty: it can.")


def _recommended(
    reference: str,
    num_parameters: int,
    download_bytes: int,
    context_tokens: int,
    architecture: str,
    licence: str,
    note: str,
    *,
    is_gated: bool = False,
    has_chat_template: bool = False,
) -> BaseCard:
    return BaseCard(
        reference=reference,
        title=reference,
        source="recommended",
        num_parameters=num_parameters,
        download_bytes=download_bytes,
        context_tokens=context_tokens,
        architecture=architecture,
        licence=licence,
        is_gated=is_gated,
        has_chat_template=has_chat_template,
        note=note,
    )


# Parameters are counted from the published configs; downloads are weights and tokenizer, rounded.
RECOMMENDED = (
    _recommended(
        "openai-community/gpt2", 124_439_808, 551_000_000, 1024, "GPT2LMHeadModel", "mit",
        "The classic small model: widely studied, English, and quick on any computer.",
    ),
    _recommended(
        "HuggingFaceTB/SmolLM2-135M", 134_515_008, 272_000_000, 8192, "LlamaForCausalLM",
        "apache-2.0", "The smallest good choice for English texts on a computer without a GPU.",
    ),
    _recommended(
        "EleutherAI/pythia-160m", 162_322_944, 377_000_000, 2048, "GPTNeoXForCausalLM",
        "apache-2.0", "For research: its training data and every step of its training are public.",
    ),
    _recommended(
        "google/gemma-3-270m", 268_098_176, 574_000_000, 32_768, "Gemma3ForCausalLM", "gemma",
        "Made to be tuned for one narrow task, in many languages.",
        is_gated=True,
    ),
    _recommended(
        "HuggingFaceTB/SmolLM2-360M", 361_821_120, 727_000_000, 8192, "LlamaForCausalLM",
        "apache-2.0", "A step up in English quality that still trains on a processor.",
    ),
    _recommended(
        "EleutherAI/pythia-410m", 405_334_016, 914_000_000, 2048, "GPTNeoXForCausalLM",
        "apache-2.0", "For research, where pythia-160m is too small.",
    ),
    _recommended(
        "Qwen/Qwen2.5-0.5B", 494_032_768, 1_000_000_000, 32_768, "Qwen2ForCausalLM", "apache-2.0",
        "For several languages, program code and long texts at a small size.",
        has_chat_template=True,
    ),
    _recommended(
        "Qwen/Qwen3-0.6B-Base", 596_049_920, 1_210_000_000, 32_768, "Qwen3ForCausalLM",
        "apache-2.0", "The strongest of the small ones in many languages; a GPU helps.",
        has_chat_template=True,
    ),
    _recommended(
        "TinyLlama/TinyLlama-1.1B-Chat-v1.0", 1_100_048_384, 2_200_000_000, 2048,
        "LlamaForCausalLM", "apache-2.0", "For conversations: it has learned to chat already.",
        has_chat_template=True,
    ),
    _recommended(
        "meta-llama/Llama-3.2-1B", 1_235_814_400, 2_480_000_000, 131_072, "LlamaForCausalLM",
        "llama3.2", "For very long texts and wide support by other programs; wants a GPU.",
        is_gated=True,
    ),
    _recommended(
        "HuggingFaceTB/SmolLM2-1.7B", 1_711_376_384, 3_430_000_000, 8192, "LlamaForCausalLM",
        "apache-2.0", "The best open English model of this list, for a machine with a GPU.",
    ),
)  # fmt: skip


def installed_bases(
    model_roots: Iterable[Path] = (), *, cache_folder: Path | None = None
) -> list[BaseCard]:
    """List what is on this machine; configs and headers are read, no weight is.

    Args:
        model_roots: folders below which model folders lie, at most three levels down.
        cache_folder: of huggingface_hub; default: the one that it uses.

    Returns:
        The starter, then downloaded models, then model folders; what cannot be used has a problem.
    """
    cards = [_card_of(STARTER_FOLDER, STARTER, "Starter", "ships with the studio", _STARTER_NOTE)]
    cards += _cached(cache_folder or Path(constants.HF_HUB_CACHE))
    for root in model_roots:
        cards += _below(root)
    return cards[:_MOST_CARDS]


def offered_bases(installed: Iterable[BaseCard]) -> list[BaseCard]:
    """Add what is recommended and not here yet.

    Args:
        installed: from `installed_bases`.

    Returns:
        The cards of the picker.
    """
    here = list(installed)
    usable = {card.reference for card in here if not card.problem}
    return [*here, *(card for card in RECOMMENDED if card.reference not in usable)]


def find_base(reference: str, cards: Iterable[BaseCard]) -> BaseCard:
    """Look a choice up among the cards that were offered.

    Args:
        reference: what the page sent.
        cards: what it had offered.

    Returns:
        The card.

    Raises:
        PlanError: it was not offered, or it cannot be used.
    """
    found = [card for card in cards if card.reference == reference]
    if not found:
        raise PlanError(
            "This base is not in the list", where="base", fix="Choose one from the list"
        )
    card = next((card for card in found if not card.problem), found[0])
    if card.problem:
        raise PlanError(card.problem.removesuffix("."), where=card.title, fix="Choose another base")
    return card


def search_hub(
    query: str, *, token: str = "", endpoint: str | None = None, limit: int = 20
) -> list[BaseCard]:
    """Ask the Hub for models that continue text, the most downloaded first.

    Args:
        query: words of the name.
        token: for private and gated models; goes into one header and nowhere else.
        endpoint: the Hub's address; default: that of huggingface_hub.
        limit: the most models to list.

    Returns:
        Cards; what the studio cannot use has a problem.

    Raises:
        PlanError: the Hub cannot be reached, its answer cannot be read, or a token would travel in
            the clear.
    """
    parameters: dict[str, Any] = {
        "search": query.strip()[:200],
        "pipeline_tag": "text-generation",
        "sort": "downloads",
        "limit": max(1, min(limit, 100)),
        "expand": ["gated", "safetensors", "cardData", "downloads", "tags", "config", "sha"],
    }
    if token:
        check_hub_address(endpoint or constants.ENDPOINT, PlanError)
    # HfApi.list_models can neither give up after a time nor refuse a huge answer.
    try:
        answer = _ask(f"{endpoint or constants.ENDPOINT}/api/models", parameters, token)
        found = [_hub_card(item) for item in json.loads(answer)]
    except HfHubHTTPError as error:
        refused = error.response is not None and error.response.status_code in (401, 403)
        raise PlanError(
            "The Hub does not accept the token" if refused else "The Hub did not answer the search",
            where="search",
            fix="Check the token, or choose a base on this machine"
            if refused
            else "Try again later, or choose a base on this machine",
        ) from None
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError):
        raise PlanError(
            "The Hub cannot be reached",
            where="search",
            fix="Connect to the network, or choose a base on this machine",
        ) from None
    except (ValueError, TypeError, RecursionError):
        raise PlanError(
            "The Hub's answer cannot be read",
            where="search",
            fix="Try again later, or choose a base on this machine",
        ) from None
    return [card for card in found if card is not None][:limit]


_STARTER_NOTE = "To learn with: tiny, English only, trained in minutes, and always here."


def _ask(address: str, parameters: Mapping[str, Any], token: str) -> bytes:
    """Read an answer that is neither endless nor endlessly slow."""
    headers = build_hf_headers(token=token or False)
    latest = time.monotonic() + _HUB_SECONDS
    content = b""
    with get_session().stream(
        "GET", address, params=parameters, headers=headers, timeout=_HUB_SECONDS
    ) as response:
        hf_raise_for_status(response)
        for part in response.iter_bytes():
            content += part
            if time.monotonic() > latest:
                raise TimeoutError
            if len(content) > _LARGEST_ANSWER_BYTES:
                raise ValueError
    return content


class _Sizes(BaseModel):
    """How many parameters of which type."""

    parameters: dict[str, int] = {}
    total: int | None = None


class _Found(BaseModel):
    """What is used of one item of the Hub's answer."""

    id: str
    sha: str = ""
    gated: bool | str | None = None
    downloads: int | None = None
    tags: list[str] = []
    safetensors: _Sizes | None = None
    cardData: dict[str, Any] | None = None
    config: dict[str, Any] | None = None


def _hub_card(item: object) -> BaseCard | None:
    try:
        found = _Found.model_validate(item)
    except ValidationError:
        return None
    if not is_hub_id(found.id):
        return None
    config, weights = found.config or {}, found.safetensors or _Sizes()
    tokenizer = config.get("tokenizer_config")
    licence = (found.cardData or {}).get("license")
    bytes_ = sum(_TYPE_BYTES.get(kind, 1) * count for kind, count in weights.parameters.items())
    if "custom_code" in found.tags or "auto_map" in config:
        problem = _REMOTE_CODE
    elif found.safetensors is None and "safetensors" not in found.tags:
        problem = _PICKLE
    else:
        problem = _kind_problem(config)
    return BaseCard(
        reference=found.id,
        title=found.id,
        source="found on the Hub",
        num_parameters=weights.total,
        download_bytes=bytes_ or None,
        architecture=_architecture(config),
        licence=licence[:100] if isinstance(licence, str) else "",
        is_gated=None if found.gated is None else bool(found.gated),
        revision=found.sha,
        has_chat_template="chat_template" in tokenizer if isinstance(tokenizer, dict) else None,
        note="" if found.downloads is None else f"{found.downloads:,} downloads in a month.",
        problem=problem,
    )


def _cached(cache_folder: Path) -> Iterator[BaseCard]:
    """Look at one snapshot of each downloaded model: that of `main`, or else the newest."""
    for repository in _entries(cache_folder):
        kind, _, name = repository.name.partition("--")
        if kind != "models" or not repository.is_dir():
            continue
        snapshots = [path for path in _entries(repository / "snapshots") if path.is_dir()]
        if not snapshots:
            continue
        main = _small_text(repository / "refs" / "main").strip()
        newest = max(snapshots, key=lambda path: (path.name == main, _changed_at(path)))
        reference = name.replace("--", "/")
        card = _card_of(
            newest, reference, reference, "on this machine", trusted=cache_folder, pinned=True
        )
        if not is_hub_id(reference) and not card.problem:
            problem = "It has an old short name; fetch it by its whole name, org/name."
            card = card.model_copy(update={"problem": problem})
        yield card


def _below(root: Path) -> Iterator[BaseCard]:
    """Walk a configured root; links that lead out of it are passed over."""
    try:
        trusted = root.resolve(strict=True)
    except (OSError, RuntimeError):
        return
    waiting, num_seen = [(root, 0)], 0
    while waiting and num_seen < _MOST_FOLDERS:
        folder, depth = waiting.pop(0)
        num_seen += 1
        if _is_file_within(folder / "config.json", trusted):
            title = folder.name if folder != root else root.resolve().name
            yield _card_of(folder, str(folder.absolute()), title, "local folder", trusted=trusted)
        elif depth < _DEEPEST:
            waiting += [
                (entry, depth + 1)
                for entry in _entries(folder)
                if not entry.name.startswith(".") and _is_folder_within(entry, trusted)
            ]


def _card_of(
    folder: Path,
    reference: str,
    title: str,
    source: Source,
    note: str = "",
    *,
    trusted: Path | None = None,
    pinned: bool = False,
) -> BaseCard:
    card = BaseCard(
        reference=reference,
        title=title,
        source=source,
        is_downloaded=True,
        revision=folder.name if pinned else "",
        note=note,
    )
    try:
        return card.model_copy(update=_read(folder, title, (trusted or folder).resolve()))
    except ModelError as error:
        return card.model_copy(update={"problem": f"{error.what}."})
    except (OSError, ValueError, TypeError, RecursionError):
        return card.model_copy(update={"problem": "Its files cannot be read."})


def _read(folder: Path, title: str, trusted: Path) -> dict[str, Any]:
    """Read what a card says, after looking at what kind of files these are."""
    files = {path.name: path for pattern in MODEL_FILES for path in folder.glob(pattern)}
    for name, path in files.items():
        if not _is_file_within(path, trusted):
            raise ModelError(
                f"{name} is missing, not a plain file, or lies elsewhere", where=title, fix=""
            )
        is_text = (
            name.endswith("config.json") or name.endswith(".index.json") or name == "README.md"
        )
        if is_text and path.stat().st_size > _LARGEST_TEXT_BYTES:
            raise ModelError(f"{name} is too large to be one", where=title, fix="")
    config = check_model_folder(folder, title)
    counts = [
        _count_parameters(path) for name, path in files.items() if name.endswith(".safetensors")
    ]
    tokenizer = _json(files.get("tokenizer_config.json"))
    licence = licence_of(folder)
    return {
        "num_parameters": sum(counts),
        "download_bytes": sum(path.stat().st_size for path in files.values()),
        "context_tokens": _context_tokens(config),
        "architecture": _architecture(config),
        "licence": "" if licence == "unknown" else licence[:100],
        "has_chat_template": "chat_template" in tokenizer
        or not files.keys().isdisjoint(("chat_template.jinja", "chat_template.json")),
        "problem": _kind_problem(config),
    }


def _count_parameters(path: Path) -> int:
    """Add up the shapes in a safetensors header, and check that all bytes are there."""
    damaged = ModelError(f"{path.name} is damaged or not whole", fix="")
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _LARGEST_HEADER_BYTES:
            raise damaged
        try:
            header = json.loads(file.read(length))
            tensors = [value for name, value in header.items() if name != "__metadata__"]
            end = max((int(tensor["data_offsets"][1]) for tensor in tensors), default=0)
            count = sum(_product(tensor["shape"]) for tensor in tensors)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
            raise damaged from None
    if path.stat().st_size != 8 + length + end:
        raise damaged
    return count


def _product(shape: list[int]) -> int:
    product = 1
    for size in shape:
        if not isinstance(size, int) or not 0 <= size < _LARGEST_NUMBER:
            raise ValueError
        product *= size
    if product > _LARGEST_NUMBER:
        raise ValueError
    return product


def _kind_problem(config: Mapping[str, Any]) -> str:
    if config.get("is_encoder_decoder"):
        return _OTHER_KIND
    names = config.get("architectures")
    causal = ("ForCausalLM", "LMHeadModel")
    if isinstance(names, list) and names and not str(names[0]).endswith(causal):
        return _OTHER_KIND
    return _QUANTISED if config.get("quantization_config") else ""


def _architecture(config: Mapping[str, Any]) -> str:
    names = config.get("architectures")
    first = names[0] if isinstance(names, list) and names else config.get("model_type")
    return first[:100] if isinstance(first, str) else ""


def _context_tokens(config: Mapping[str, Any]) -> int | None:
    for name in ("max_position_embeddings", "n_positions"):
        value = config.get(name)
        if isinstance(value, int) and 0 < value < _LARGEST_NUMBER:
            return value
    return None


def _json(path: Path | None) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8")) if path else {}
    return content if isinstance(content, dict) else {}


def _small_text(path: Path) -> str:
    try:
        if not path.is_file():  # opening a pipe would wait
            return ""
        with path.open(encoding="utf-8") as file:
            return file.read(200)
    except (OSError, ValueError):
        return ""


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())[:_MOST_FOLDERS]
    except OSError:
        return []


def _changed_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _is_file_within(path: Path, trusted: Path) -> bool:
    try:
        real = path.resolve(strict=True)
        return stat.S_ISREG(real.stat().st_mode) and real.is_relative_to(trusted)
    except (OSError, RuntimeError, ValueError):
        return False


def _is_folder_within(path: Path, trusted: Path) -> bool:
    try:
        real = path.resolve(strict=True)
        return real.is_dir() and real.is_relative_to(trusted)
    except (OSError, RuntimeError, ValueError):
        return False

"""Is this folder a base model we may open? Looked at as files, before any library opens them."""

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from templates.errors import ModelError
from templates.files import sha256_of_bytes, sha256_of_file

STARTER = "starter"
STARTER_FOLDER = Path(__file__).parents[1] / "starter" / "model"
_HUB_ID = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")
_LARGE_BYTES = 16 << 20  # takes longer to hash than a file system's clock takes to tick
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
# Keys by which a config.json asks a loader to fetch or run code (CVE-2026-4372 was the second row).
_CODE_KEYS = (
    "auto_map", "custom_code", "kernels",
    "_attn_implementation", "_attn_implementation_internal",
)  # fmt: skip
MODEL_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "README.md")


def is_hub_id(reference: str) -> bool:
    """Tell a Hub id from a path.

    Args:
        reference: what somebody calls a model.

    Returns:
        Whether it has the form org/name.
    """
    return bool(_HUB_ID.fullmatch(reference)) and ".." not in reference


def check_model_folder(folder: Path, name: str) -> dict[str, Any]:
    """Refuse what is unsafe or incomplete.

    Args:
        folder: the local model folder.
        name: what to call the model in sentences.

    Returns:
        The parsed config.json.

    Raises:
        ModelError: no config or weights, pickle weights, remote code, or an index that points
            outside the folder.
    """
    config = _read_json(folder / "config.json", name)
    asking = keys_asking_for_code(config)
    tokenizer_file = folder / "tokenizer_config.json"
    tokenizer = _read_json(tokenizer_file, name) if tokenizer_file.is_file() else {}
    if asking or "auto_map" in tokenizer:
        raise ModelError(
            "The model wants to run its own code, which the studio never does",
            where=f"{name}, config key {(asking or ['auto_map'])[0]}",
            fix="Choose a base whose architecture is part of transformers",
        )
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickles = [path for path in folder.iterdir() if path.suffix in PICKLE_SUFFIXES]
        if pickles:
            raise ModelError(
                "The weights are in pickle format, which can run code when opened",
                where=f"{name}, {pickles[0].name}",
                fix="Choose a revision that has .safetensors files",
            )
        raise ModelError(
            "The folder holds no .safetensors weights",
            where=name,
            fix="Choose a complete model folder, or download the base again",
        )
    _check_index(folder, name)
    if not any((folder / file).is_file() for file in ("tokenizer.json", "tokenizer.model")):
        raise ModelError(
            "The folder holds no tokenizer",
            where=name,
            fix="Copy tokenizer.json next to the weights, or choose another base",
        )
    return config


def fingerprint(folder: Path) -> str:
    """Hash the files that decide what the model computes.

    Args:
        folder: the local model folder.

    Returns:
        One hash over names and contents of config, tokenizer and weights.
    """
    paths = sorted({path for pattern in MODEL_FILES for path in folder.glob(pattern)})
    lines = [f"{path.name} {_hash(path)}" for path in paths if path.name != "README.md"]
    return sha256_of_bytes("\n".join(lines).encode())


def _hash(path: Path) -> str:
    state = path.stat()
    if state.st_size < _LARGE_BYTES:
        return sha256_of_file(path)
    return _hash_once(path, state.st_ino, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=256)  # a page asks again at every change of a form
def _hash_once(path: Path, inode: int, size_bytes: int, changed_ns: int) -> str:
    return sha256_of_file(path)


def licence_of(folder: Path) -> str:
    """Read the licence from the model card's front matter.

    Args:
        folder: the local model folder.

    Returns:
        The licence id, or "unknown".
    """
    card = folder / "README.md"
    if card.is_file():
        for line in card.read_text(encoding="utf-8", errors="replace").splitlines()[:60]:
            key, _, value = line.partition(":")
            if key.strip() == "license" and value.strip():
                return value.strip().strip("\"'")
    return "unknown"


def _read_json(path: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            return content
    except (OSError, ValueError, RecursionError):
        pass
    raise ModelError(
        f"The folder has no readable {path.name}",
        where=name,
        fix="Choose a complete Hugging Face model folder",
    )


def keys_asking_for_code(config: dict[str, Any]) -> list[str]:
    """Find settings by which a loader would be asked to fetch or run code.

    Args:
        config: from a JSON file.

    Returns:
        Their names, also from parts of the config.
    """
    found = [key for key in _CODE_KEYS if config.get(key)]
    for part in config.values():
        if isinstance(part, dict):
            found += keys_asking_for_code(part)
    return found


def _check_index(folder: Path, name: str) -> None:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return
    for file in set(_read_json(index, name).get("weight_map", {}).values()):
        if Path(file).name != file or not (folder / file).is_file():
            raise ModelError(
                f"The weights index names {file!r}, which is not in the folder",
                where=name,
                fix="Download the base again",
            )

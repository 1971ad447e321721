"""Prose: bits per byte on held-out texts, for model, first version and a 5-gram."""

import gzip
import math
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from engine.base_model import load_base, locate_base
from engine.language_model import LanguageModel
from starter.corpus import load_prose
from starter.measuring.bench import Bench, Values, weights_fingerprint
from starter.ngram import TokenNgram, train_ngram
from templates.files import sha256_of_bytes

PROSE_BYTES = 400_000  # of each held-out source in documents drawn once; WikiText-2: its start
NGRAM_TOKENS = 10_000_000
WINDOWS_AT_ONCE = 4


def measure_prose(bench: Bench) -> None:
    """Measure bits per byte on held-out prose, for model, first version and 5-gram.

    Args:
        bench: what to measure, and where to.
    """
    cells = bench.cells("prose")
    training, held_out = load_prose(bench.data)
    most_bytes = 20_000 if bench.quick else PROSE_BYTES
    texts = {name: _sample(documents, name, most_bytes) for name, documents in held_out.items()}
    texts["wikitext2"] = _wikitext(bench.data, most_bytes)
    digests = {
        source: sha256_of_bytes("".join(documents).encode())[:12]
        for source, documents in texts.items()
    }
    own = bench.language_model
    for source, documents in texts.items():
        cells.measure(f"model/{source}", digests[source], partial(prose_values, own, documents))
    if bench.first is not None:
        first = load_base(locate_base(str(bench.first)), own.precision)
        weights = weights_fingerprint(bench.first)[:12]
        for source, documents in texts.items():
            digest = f"{digests[source]}/{weights}"
            cells.measure(f"first/{source}", digest, partial(prose_values, first, documents))
    counted: list[TokenNgram] = []  # trained when the first missing cell asks

    def ngram_values(documents: Sequence[str]) -> Values:
        if not counted:
            counted.append(_train_on(bench, training))
        ids = _stream(own, documents)
        return _bits(counted[0].nats(ids), len(ids), documents)

    for source, documents in texts.items():
        cells.measure(f"ngram/{source}", digests[source], partial(ngram_values, documents))


@torch.inference_mode()
def prose_values(language_model: LanguageModel, documents: Sequence[str]) -> Values:
    """Score a text in windows that do not overlap, each behind one end-of-text token.

    Args:
        language_model: the model.
        documents: joined by blank lines.

    Returns:
        bits_per_byte, nats_per_token, tokens, bytes, context_tokens.
    """
    ids = _stream(language_model, documents)
    end = int(language_model.tokenizer.eos_token_id)
    size = language_model.context_tokens - 1
    windows = [[end, *ids[start : start + size].tolist()] for start in range(0, len(ids), size)]
    nats = 0.0
    for start in range(0, len(windows), WINDOWS_AT_ONCE):
        group = windows[start : start + WINDOWS_AT_ONCE]
        # The last window is shorter, and goes alone.
        for rows in (group,) if len(group[0]) == len(group[-1]) else (group[:-1], group[-1:]):
            if rows:
                block = torch.tensor(rows)
                logits = language_model.model(block[:, :-1], use_cache=False).logits.float()
                nats += F.cross_entropy(
                    logits.flatten(0, 1), block[:, 1:].flatten(), reduction="sum"
                ).item()
    return {
        **_bits(nats, len(ids), documents),
        "context_tokens": language_model.context_tokens,
    }


def _bits(nats: float, num_tokens: int, documents: Sequence[str]) -> Values:
    num_bytes = sum(len(_closed(document).encode()) for document in documents)
    return {
        "bits_per_byte": nats / math.log(2) / num_bytes,
        "nats_per_token": nats / num_tokens,
        "tokens": num_tokens,
        "bytes": num_bytes,
    }


def _closed(document: str) -> str:
    return document.rstrip("\n") + "\n\n"


def _stream(language_model: LanguageModel, documents: Iterable[str]) -> np.ndarray:
    ids = [number for text in documents for number in language_model.encode(_closed(text))]
    return np.array(ids, dtype=np.int64)


def _sample(documents: Sequence[str], name: str, most_bytes: int) -> list[str]:
    """Whole documents in a fixed random order; the first one always."""
    order = list(documents)
    random.Random(f"prose/{name}").shuffle(order)  # noqa: S311 - no secret
    sizes = np.cumsum([len(_closed(document).encode()) for document in order])
    return order[: max(1, int((sizes <= most_bytes).sum()))]


def _wikitext(data: Path, most_bytes: int) -> list[str]:
    """The beginning of WikiText-2's test part, as it is, in whole lines."""
    path = data / "text" / "wikitext2_eval.txt.gz"
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        _, text = re.split(r"^<<<DOC .+?>>>\n", stream.read(), flags=re.M)[:2]
    lines = text.splitlines(keepends=True)
    sizes = np.cumsum([len(line.encode()) for line in lines])
    return ["".join(lines[: int((sizes <= most_bytes).sum())])]


def _train_on(bench: Bench, training: Mapping[str, Sequence[str]]) -> TokenNgram:
    """Count in training documents of all sources, in random order, up to NGRAM_TOKENS."""
    documents = [document for source in training.values() for document in source]
    random.Random("prose/ngram").shuffle(documents)  # noqa: S311 - no secret
    most_tokens = 100_000 if bench.quick else NGRAM_TOKENS
    ids: list[np.ndarray] = []
    num_tokens = 0
    for start in range(0, len(documents), 100):
        ids.append(_stream(bench.language_model, documents[start : start + 100]))
        num_tokens += len(ids[-1])
        if num_tokens >= most_tokens:
            break
    stream = np.concatenate(ids)[:most_tokens]
    return train_ngram(stream, bench.language_model.vocabulary_size)

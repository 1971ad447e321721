"""The frozen stem: blocks below everything that learns run once an example, and never again.

What they hand to the first block above is kept for every epoch and evaluation, in memory or in a
file without a name, which is gone with the process. Whether that is right is tried out on the
loaded model, never assumed. Each example is computed in the same batch at every start, so a
resumed run reads the same bits.
"""

import contextlib
import mmap
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from engine.batches import Batch, collate, micro_batches
from engine.encode import Encoded
from engine.language_model import LanguageModel
from engine.layers import blocks_of
from engine.loss import read_batch
from templates.memory import memory_bytes

_SHARE_OF_FREE_MEMORY = 0.25  # the rest is for the steps
_SHARE_OF_FREE_DISK = 0.5
_SAME_RATIO = {"fp32": 1e-5, "bf16": 0.02, "int8": 0.02, "nf4": 0.02}  # of the root mean square
_PROOF_LENGTHS = (3, 5, 9)


class Stem:
    """What the lowest blocks made of examples, and how to hand it on in their place."""

    def __init__(
        self, blocks: Sequence[nn.Module], hidden: Tensor, *, num_beside: int | None
    ) -> None:
        """Begin with nothing kept.

        Args:
            blocks: the lowest ones, in order.
            hidden: (N, D), room for the tokens of all examples.
            num_beside: what blocks return beside their hidden states, in a tuple; None: no tuple.
        """
        self._blocks = tuple(blocks)
        self._hidden = hidden
        self._num_beside = num_beside
        self._places: dict[bytes, slice] = {}
        self._num_kept = 0

    def keep(self, batch: Batch, made: Tensor) -> None:
        """Keep what the blocks made of a batch.

        Args:
            batch: from `collate`.
            made: (B, T, D).
        """
        start = self._num_kept
        names, rows = _names(batch.ids, batch.lengths), _rows(made, batch.lengths)
        for name, states in zip(names, rows, strict=True):
            place = slice(start, start + len(states))
            self._hidden[place] = states
            self._places[name] = place
            start = self._num_kept = place.stop

    @contextlib.contextmanager
    def standing_in(self, ids: Tensor, lengths: Sequence[int]) -> Iterator[None]:
        """Let the blocks hand on what was kept, while rows are read that all are known.

        Args:
            ids: (B, T) token ids; of packed rows (1, T).
            lengths: tokens of each row.

        Yields:
            Nothing.
        """
        names = _names(ids, lengths)
        if not all(name in self._places for name in names):
            yield
            return
        kept = [self._hidden[self._places[name]].to(ids.device) for name in names]
        packed = len(ids) == 1
        hidden = torch.cat(kept)[None] if packed else nn.utils.rnn.pad_sequence(kept, True)
        beside = self._num_beside
        made = hidden if beside is None else (hidden, *[None] * beside)
        for block in self._blocks:
            block.forward = lambda *_, **__: made
        try:
            yield
        finally:
            for block in self._blocks:
                del block.forward


def keep_stem(
    language_model: LanguageModel,
    items: Iterable[Encoded],
    *,
    most_tokens: int,
    folder: Path,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[LanguageModel, str]:
    """Run the blocks below everything that learns over all examples, and keep what they make.

    Args:
        language_model: with a method attached.
        items: all examples that will be read.
        most_tokens: in memory at once.
        folder: where a file may take up room, if memory is short.
        should_stop: asked between batches; True gives the stem up.

    Returns:
        The language model to train with, and a sentence that says what was done. The same model
        and "" where something in the lowest block or below learns; the same model and why where
        the rest was not proven, or what it makes does not fit.
    """
    was_training = language_model.model.training
    try:
        proven = _prove(language_model)
        if proven is None:
            return language_model, ""
        unique = {bytes(item.ids): item for item in items}  # by the memory of the ids
        ordered = [unique[name] for name in sorted(unique, key=lambda name: (len(name), name))]
        size = sum(len(item.ids) for item in ordered) * proven.width * proven.dtype.itemsize
        room, place = _room(size, folder)
        hidden = room.view(proven.dtype).view(-1, proven.width)  # (N, D)
        stem = Stem(proven.blocks, hidden, num_beside=proven.num_beside)
        lengths = [len(item.ids) for item in ordered]
        for part in micro_batches(lengths, most_tokens, packed=language_model.paths.packs):
            if should_stop():
                return language_model, ""
            batch = collate([ordered[number] for number in part], language_model)
            stem.keep(batch, _made(language_model, batch, proven.blocks[-1]))
    except Exception as error:  # a model's own code may raise anything: it is trained as it is
        return language_model, f"The frozen blocks run for every step: {error}"
    finally:
        language_model.model.train(was_training)
    return replace(language_model, stem=stem), (
        f"The lowest {len(proven.blocks)} of {len(blocks_of(language_model.model)[1])} blocks ran "
        f"once for every example, as nothing there learns; what they made is kept {place} "
        f"({size / 1e6:,.1f} MB)"
    )


def fits_in_memory(num_bytes: int, available_bytes: int) -> bool:
    """Say whether a stem is kept in memory; else it goes to disk.

    Args:
        num_bytes: of the stem.
        available_bytes: of free memory.

    Returns:
        True where it takes a small share.
    """
    return num_bytes <= _SHARE_OF_FREE_MEMORY * available_bytes


class _Proven(NamedTuple):
    """The blocks of a stem and the form of what they make."""

    blocks: list[nn.Module]
    width: int
    dtype: torch.dtype
    num_beside: int | None


class _ReachedError(Exception):
    """What the last block of a stem made is there; nothing above has to run."""


def _prove(language_model: LanguageModel) -> _Proven | None:
    """Find the blocks below what learns, and try out on tiny rows that they can be left out.

    They must make the same of a row in training, with any seed, as they do without dropout; and
    the model must end with the same hidden states when only what they made is handed on.
    """
    model = language_model.model.eval()
    batch = collate([_row(language_model, length) for length in _PROOF_LENGTHS], language_model)
    blocks = blocks_of(model)[1]
    outputs: list[Any] = []
    hooks = [block.register_forward_hook(lambda *call: outputs.append(call[2])) for block in blocks]
    try:
        expected = read_batch(language_model, batch, model.base_model).last_hidden_state
    finally:
        for hook in hooks:
            hook.remove()
    learning = [place for place, made in enumerate(outputs) if _hidden_of(made).requires_grad]
    num_blocks = min(learning, default=len(outputs))
    if not num_blocks:
        return None
    made = outputs[num_blocks - 1]
    hidden = _hidden_of(made).detach()
    num_beside = len(made) - 1 if isinstance(made, tuple) else None
    found = _Proven(blocks[:num_blocks], hidden.shape[-1], hidden.dtype, num_beside)
    model.train()
    pairs = [(_made(language_model, batch, found.blocks[-1], seed), hidden) for seed in (0, 1)]
    model.eval()
    room = hidden.new_empty(batch.num_tokens, found.width)
    stem = Stem(found.blocks, room, num_beside=num_beside)
    stem.keep(batch, hidden)
    # Others in between, so that nothing is left inside the blocks that could help from the side.
    _made(language_model, collate([_row(language_model, 11)], language_model), found.blocks[-1])
    kept = replace(language_model, stem=stem)
    pairs.append((read_batch(kept, batch, model.base_model).last_hidden_state, expected))
    for left, right in pairs:
        rows, others = (
            torch.cat(_rows(part.detach().float(), batch.lengths)) for part in (left, right)
        )
        worst = _SAME_RATIO[language_model.precision] * others.square().mean().sqrt()
        if not (rows - others).square().mean().sqrt() <= worst:  # also where it is no number
            raise ValueError("this base was not proven to give the same results without them")
    return found


@torch.no_grad()
def _made(
    language_model: LanguageModel, batch: Batch, last_block: nn.Module, seed: int = 0
) -> Tensor:
    """Run a batch up to a block: (B, T, D)."""
    made: list[Tensor] = []

    def reached(_: nn.Module, __: Any, output: Any) -> None:
        made.append(_hidden_of(output))
        raise _ReachedError

    torch.manual_seed(seed)
    hook = last_block.register_forward_hook(reached)
    try:
        with contextlib.suppress(_ReachedError):
            read_batch(language_model, batch, language_model.model.base_model)
    finally:
        hook.remove()
    return made[0]


def _hidden_of(output: Any) -> Tensor:
    hidden: Tensor = output[0] if isinstance(output, tuple) else output
    return hidden


def _rows(batched: Tensor, lengths: Sequence[int]) -> list[Tensor]:
    """Cut (B, T, ...) into its rows, whether they lie behind each other or are padded."""
    if len(batched) == 1:
        return list(batched[0].split(list(lengths)))
    return [row[:length] for row, length in zip(batched, lengths, strict=True)]


def _names(ids: Tensor, lengths: Sequence[int]) -> list[bytes]:
    """Name each row after its tokens: what the stem makes of it depends on nothing else."""
    return [row.cpu().numpy().tobytes() for row in _rows(ids, lengths)]


def _room(num_bytes: int, folder: Path) -> tuple[Tensor, str]:
    """Make room in memory, or on disk: (num_bytes,) of uint8, and words for where that is."""
    if fits_in_memory(num_bytes, memory_bytes()[0]):
        return torch.empty(num_bytes, dtype=torch.uint8), "in memory"
    if num_bytes > _SHARE_OF_FREE_DISK * shutil.disk_usage(folder).free:
        raise ValueError(f"neither memory nor disk has room for {num_bytes / 1e6:,.1f} MB")
    with tempfile.TemporaryFile(dir=folder) as file:  # has no name: gone with the process
        file.truncate(num_bytes)
        mapped = mmap.mmap(file.fileno(), num_bytes)  # stays open by itself
    return torch.frombuffer(mapped, dtype=torch.uint8), "on disk"


def _row(language_model: LanguageModel, num_tokens: int) -> Encoded:
    size = language_model.vocabulary_size
    ids = tuple((5 + 7 * place * num_tokens) % size for place in range(num_tokens))
    return Encoded(ids, (True,) * num_tokens)

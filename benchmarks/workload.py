"""What everybody is measured on: models, rows and methods, and how much work in them is useful.

Free of torch, and the same in the product's environment and in the peers'.
"""

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Settings = Literal["own", "ours"]
Precision = Literal["fp32", "bf16", "nf4"]
NUM_ROWS, NUM_HELD_OUT_ROWS = 2000, 32
NUM_WORDS = 32_000
PAD_ID, OPENING_ID, END_ID = 0, 1, 2
_FIRST_WORD = 3
_MEDIAN_PROMPT_TOKENS, _MEDIAN_ANSWER_TOKENS, _LONGEST_ROW_TOKENS = 60, 20, 256
_ANSWER_RATIO = 0.25  # of rows whose length is given
_SHOT_TOKENS, _SHOTS_LOOKED_AT = 78, 40
NUM_VIRTUAL_TOKENS = 20
RANK, ALPHA = 8, 16
LEARNING_RATES = {"lora": 1e-2, "qlora": 1e-2, "prompt_tuning": 3e-2, "full": 1e-4}
NUM_PROMPTS, NUM_NEW_TOKENS = 64, 32
NUM_SHOTS, NUM_SCORED = 8, 48
LABELS = (101, 202, 303)  # one token each, so that one look at a prompt is enough for all


@dataclass(frozen=True)
class Shape:
    """A causal language model whose weights are random.

    Attributes:
        family: "llama" or "gpt2".
        width: D.
        inner_width: of the feed-forward part.
        num_layers: blocks.
        num_heads: all of them with keys of their own.
        vocabulary_size: V.
        tied: whether the output head is the input embedding.
        context_tokens: positions.
    """

    family: Literal["llama", "gpt2"]
    width: int
    inner_width: int
    num_layers: int
    num_heads: int
    vocabulary_size: int = NUM_WORDS
    tied: bool = True
    context_tokens: int = 4352

    @property
    def linear_weights(self) -> int:
        """Weights of the blocks' linear layers; embedding and head left out."""
        feed_forward = (3 if self.family == "llama" else 2) * self.width * self.inner_width
        return self.num_layers * (4 * self.width**2 + feed_forward)

    @property
    def lora_targets(self) -> tuple[str, ...]:
        """The layers that make queries and values."""
        return ("q_proj", "v_proj") if self.family == "llama" else ("c_attn",)


MODELS = {
    "llama-15m": Shape("llama", 288, 768, 6, 6),
    "llama-60m": Shape("llama", 512, 1376, 8, 8, tied=False),
    "gpt2-124m": Shape("gpt2", 768, 3072, 12, 12, 50_257, context_tokens=1024),
    "tiny": Shape("llama", 64, 128, 2, 2, 1024),  # for much data, and to try the benchmark itself
}


@dataclass(frozen=True)
class Row:
    """A prompt and its answer as token ids; the loss sees the answer."""

    ids: tuple[int, ...]
    num_prompt: int


@dataclass(frozen=True)
class Case:
    """One thing to measure; all contestants get the same.

    Attributes:
        task: training, greedy answers, or scores of labels.
        series: "main", or what is varied: "precision", "length", "batch", "data".
        model: a name in MODELS.
        method: a name in LEARNING_RATES; "" where nothing learns.
        settings: what the peers' processes are given: nothing, or type, threads and allocator of
            ours.
        precision: how our weights are held: "fp32", "bf16" or "nf4".
        batch_size: rows an optimizer step.
        row_tokens: length of every row; 0: as varied as people's.
        data_tokens: tokens of the whole training set, read once; 0: NUM_ROWS rows.
        num_turns: measured turns of each contestant.
        turn_seconds: how long a turn lasts at least; it ends with a whole step.
        warm_steps: before the first turn, and between first and last loss.
    """

    task: Literal["train", "generate", "score"]
    series: str
    model: str
    method: str = ""
    settings: Settings = "ours"
    precision: Precision = "fp32"
    batch_size: int = 8
    row_tokens: int = 0
    data_tokens: int = 0
    num_turns: int = 5
    turn_seconds: float = 2.5
    warm_steps: int = 5

    @property
    def shape(self) -> Shape:
        """The model."""
        return MODELS[self.model]

    @property
    def num_virtual(self) -> int:
        """Learned positions before every row."""
        return NUM_VIRTUAL_TOKENS if self.method == "prompt_tuning" else 0

    @property
    def point(self) -> dict[str, Any]:
        """What is measured, apart from how long and how often."""
        how = ("num_turns", "turn_seconds", "warm_steps")
        return {name: value for name, value in asdict(self).items() if name not in how}

    def training_rows(self) -> Iterator[Row]:
        """Draw what is trained on; the same in every process."""
        words = min(NUM_WORDS, self.shape.vocabulary_size)
        if self.data_tokens:
            return _rows_with_tokens(self.data_tokens, words)
        return iter(draw_rows(NUM_ROWS, words, 0, row_tokens=self.row_tokens))

    def held_out_rows(self) -> list[Row]:
        """Draw what the losses are compared on."""
        words = min(NUM_WORDS, self.shape.vocabulary_size)
        count = max(1, NUM_HELD_OUT_ROWS * 100 // max(100, self.row_tokens))
        return draw_rows(count, words, 1, row_tokens=self.row_tokens)

    def prompts(self) -> list[list[int]]:
        """Draw what is answered, or scored behind `shots`."""
        words = min(NUM_WORDS, self.shape.vocabulary_size)
        count = NUM_SCORED if self.task == "score" else NUM_PROMPTS
        return [list(row.ids[: row.num_prompt]) for row in draw_rows(count, words, 3)]

    def shots(self) -> list[int]:
        """Draw what stands before every prompt that is scored: solved items of usual length."""
        words = min(NUM_WORDS, self.shape.vocabulary_size)
        rows = draw_rows(_SHOTS_LOOKED_AT, words, 4)
        rows.sort(key=lambda row: abs(len(row.ids) - _SHOT_TOKENS))
        return [id_ for row in rows[:NUM_SHOTS] for id_ in row.ids]

    def useful_flops_per_token(self) -> float:
        """Average work of a training step for one token of text."""
        rows = list(itertools.islice(self.training_rows(), NUM_ROWS))
        learns_all = self.method == "full"
        flops = useful_flops(self.shape, rows, learns_all=learns_all, num_virtual=self.num_virtual)
        return flops / sum(len(row.ids) for row in rows)


def draw_rows(count: int, num_words: int, seed: int, *, row_tokens: int = 0) -> list[Row]:
    """Draw rows of words as unevenly frequent as in a language, so that a little is learnt.

    Args:
        count: how many.
        num_words: ids below it are drawn.
        seed: fixes the draw.
        row_tokens: length of every row; 0: medians of 60 + 20 tokens, at most 256.

    Returns:
        The rows.
    """
    draw = random.Random(seed)
    words = range(_FIRST_WORD, num_words)
    weights = list(itertools.accumulate(1 / word for word in words))
    rows = []
    for _ in range(count):
        prompt, answer = (
            (row_tokens - round(row_tokens * _ANSWER_RATIO), round(row_tokens * _ANSWER_RATIO))
            if row_tokens
            else _lengths(draw)
        )
        ids = draw.choices(words, cum_weights=weights, k=prompt + answer)
        rows.append(Row(tuple(ids), prompt))
    return rows


def useful_flops(
    shape: Shape, rows: Sequence[Row], *, learns_all: bool, num_virtual: int = 0
) -> float:
    """Count what training on rows cannot do without.

    Products alone: 2N a token forward, 2N for the gradient that passes through, 2N more for that
    of weights that learn; causal attention sees half of T x T, in two products forward and four
    backward; the head is needed only where it predicts a supervised token. Adapters are left out.

    Args:
        shape: the model.
        rows: each read once.
        learns_all: whether all weights learn.
        num_virtual: positions before every row.

    Returns:
        Floating-point operations.
    """
    passes = 6 if learns_all else 4
    lengths = [num_virtual + len(row.ids) for row in rows]
    supervised = sum(len(row.ids) - row.num_prompt for row in rows)
    linear = passes * shape.linear_weights * sum(lengths)
    head = passes * shape.width * shape.vocabulary_size * supervised
    attention = 6 * shape.num_layers * shape.width * sum(length**2 for length in lengths)
    return float(linear + head + attention)


def _lengths(draw: random.Random) -> tuple[int, int]:
    prompt = round(draw.lognormvariate(math.log(_MEDIAN_PROMPT_TOKENS), 0.6))
    answer = round(draw.lognormvariate(math.log(_MEDIAN_ANSWER_TOKENS), 0.7))
    prompt, answer = min(max(prompt, 4), 220), min(max(answer, 1), 120)
    return prompt, min(answer, _LONGEST_ROW_TOKENS - prompt)


def _rows_with_tokens(num_tokens: int, num_words: int) -> Iterator[Row]:
    """Draw rows until they hold so many tokens."""
    found = 0
    for seed in itertools.count(2, NUM_ROWS):
        for row in draw_rows(NUM_ROWS, num_words, seed):
            if found >= num_tokens:
                return
            yield row
            found += len(row.ids)

"""Which way of reading suits a model, and how many rows at once suit the memory."""

from engine.answering.packed_reading import PackedReading, reads_packed
from engine.answering.padded_reading import PaddedReading
from engine.answering.reading import Ids, Reading
from engine.language_model import LanguageModel

# 64 rows of 252 tokens of GPT-2 in fp32 are 1.1 GiB: with fewer rows, the last go on alone.
_MOST_KEPT_BYTES = 3 << 29


def rows_at_once(language_model: LanguageModel, most: int, num_tokens: int) -> int:
    """Choose how many rows to read at once, so that their keys and values stay in bounds.

    Args:
        language_model: the model.
        most: rows at most.
        num_tokens: the most that a row will read, context not counted.

    Returns:
        B, at least 1.
    """
    config = language_model.model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    values = 2 * config.num_hidden_layers * heads * width  # a key and a value
    num_bytes = values * (4 if language_model.precision == "fp32" else 2)
    return max(1, min(most, int(_MOST_KEPT_BYTES // (num_bytes * num_tokens))))


def open_reading(
    language_model: LanguageModel, context_ids: Ids, num_rows: int, num_tokens: int
) -> Reading:
    """Read a context, the fastest way that the architecture allows.

    Args:
        language_model: the model, inside `evaluating`.
        context_ids: S token ids that stand before every row, possibly none.
        num_rows: rows at once.
        num_tokens: the most that a row will read, context not counted.

    Returns:
        A reading without rows.
    """
    if reads_packed(language_model):
        return PackedReading(language_model, context_ids, num_rows, num_tokens)
    return PaddedReading(language_model, context_ids)

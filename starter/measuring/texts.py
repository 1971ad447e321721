"""Texts: what the model writes by itself."""

from functools import partial

from engine.answering.generation import generate
from starter.measuring.bench import Bench, Values
from templates.files import sha256_of_bytes

TEXT_TOKENS = 200
OPENINGS = (
    "Once upon a time, there was a little girl who",
    "The best way to make a cup of tea is to",
    "Dear Mr. Brown,\n\nThank you for your letter.",
    "In the morning the old man opened the door and",
    "Water is important for all living things because",
)


def measure_texts(bench: Bench) -> None:
    """Let the model go on from five everyday openings, greedily.

    Args:
        bench: what to measure, and where to.
    """
    cells = bench.cells("texts")
    for number, opening in enumerate(OPENINGS):
        digest = sha256_of_bytes(opening.encode())[:12]
        cells.measure(str(number), digest, partial(_continued, bench, opening))


def _continued(bench: Bench, opening: str) -> Values:
    language_model = bench.language_model
    # Every training document followed an end-of-text token.
    context = [int(language_model.tokenizer.eos_token_id)]
    length = 20 if bench.quick else TEXT_TOKENS
    prompt = language_model.encode(opening)
    answers = generate(language_model, context, [prompt], stop="", max_new_tokens=length)
    return {"opening": opening, "text": answers[0]}

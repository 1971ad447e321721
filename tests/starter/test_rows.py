from itertools import count, islice
from pathlib import Path

import numpy as np

from engine.base_model import load_reader, locate_base
from starter.corpus import load_corpus
from starter.rows import (
    SUPERVISED,
    PackedRows,
    Tokens,
    encode_document,
    fill_rows,
    mixed_documents,
    write_rows,
)
from templates.render import Segment
from tests.starter.tiny_data import write_tiny_data

MIX = {"tinystories": 0.5, "questions": 0.2, "episodes": 0.3}


def test_a_document_is_tokenised_as_the_studio_does_it() -> None:
    reader = load_reader(locate_base("starter"))
    pieces = (Segment("A text\n\n###\n\n", False), Segment(" word END", True))
    tokens = encode_document(pieces, reader.tokenizer)
    ids = (tokens.ids & ~SUPERVISED).tolist()
    prompt, answer = reader.encode(pieces[0].text), reader.encode(pieces[1].text)
    assert ids == [reader.tokenizer.eos_token_id, *prompt, *answer]
    assert (tokens.ids & SUPERVISED != 0).tolist() == [False] * (1 + len(prompt)) + [True] * len(
        answer
    )
    assert tokens.whole
    prose = encode_document((Segment("Some prose.", True),), reader.tokenizer)
    assert not prose.whole and bool((prose.ids & SUPERVISED).all())


def test_rows_are_full_lose_no_prose_and_do_not_cut_what_is_whole() -> None:
    prose = (Tokens(np.full(7, n, dtype=np.uint16) | SUPERVISED, False) for n in count(1))
    episodes = (Tokens(np.full(5, 1000 + n, dtype=np.uint16) | SUPERVISED, True) for n in count(1))
    mixed = (document for pair in zip(prose, episodes, strict=True) for document in pair)
    rows = [row & ~SUPERVISED for row in islice(fill_rows(mixed, 16), 50)]
    assert all(len(row) == 16 for row in rows)
    for row in rows:
        for number in set(row[row >= 1000].tolist()):
            assert (row == number).sum() == 5
    stream = np.concatenate(rows)
    told = stream[stream < 1000]
    assert told.tolist() == sorted(told.tolist())
    assert all((told == number).sum() == 7 for number in range(1, int(told.max())))


def test_the_mix_keeps_its_shares_and_equal_seeds_give_equal_files(tmp_path: Path) -> None:
    corpus, _ = load_corpus(write_tiny_data(tmp_path / "data"))
    documents = mixed_documents(corpus, MIX, most_episode_chars=500, seed="a")
    chars = {"episodes": 0, "other": 0}
    for document in islice(documents, 500):
        kind = "other" if all(piece.supervised for piece in document) else "episodes"
        chars[kind] += sum(len(piece.text) for piece in document)
    assert abs(chars["episodes"] / sum(chars.values()) - 0.3) < 0.02
    tokenizer = load_reader(locate_base("starter")).tokenizer
    for name in ("first", "second"):
        write_rows(
            tmp_path / f"{name}.npy",
            mixed_documents(corpus, MIX, most_episode_chars=500, seed="a"),
            tokenizer,
            row_tokens=64,
            num_rows=20,
        )
    rows = PackedRows(tmp_path / "first.npy")
    assert (tmp_path / "first.npy").read_bytes() == (tmp_path / "second.npy").read_bytes()
    assert len(rows) == 20 and len(rows[3].ids) == len(rows[3].supervised) == 64
    assert all(row.num_supervised for row in rows) and rows[:2] == [rows[0], rows[1]]

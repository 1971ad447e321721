"""Bytes -> text: byte order mark, strict UTF-8, UTF-16/32, then a reported guess."""

import codecs
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO

from charset_normalizer import from_bytes

from templates.errors import DataError

_BOMS = (  # UTF-32 first: its little-endian mark begins with the one of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SAMPLE_BYTES = 65_536
_PIECE_BYTES = 4 << 20
_FOREIGN_WORD = re.compile(rb"[A-Za-z\x80-\xff]*[\x80-\xff][A-Za-z\x80-\xff]*")
# In real Western text such a sign does not stand between two letters; the typographic
# apostrophe, dashes and the ellipsis do.
_ODD = re.compile(
    r"(?<=[^\W\d_])([^\w\s\x00-\x7f’‘“”–—…·]|[¹²³])(?=[^\W\d_])|[\x80-\x9f]|[ŸŠŽ¿£](?=[a-zß-ÿ])"
)
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # utf-7 and unicode_escape let them through
_SAVE_AS_UTF8 = "Save the file as UTF-8, or choose the encoding yourself"


@dataclass(frozen=True)
class Text:
    """A file whose encoding is known.

    Attributes:
        encoding: how the bytes are decoded.
        notes: what a person should know where it is a guess.
        pieces: the text without byte order mark, from one end to the other, once; reading it
            raises a `DataError` where the bytes do not fit the encoding.
    """

    encoding: str
    notes: tuple[str, ...]
    pieces: Iterator[str]


@dataclass(frozen=True)
class Decoded:
    """Text and how it was read."""

    text: str
    encoding: str
    notes: tuple[str, ...] = ()


def decode(data: bytes, *, name: str, encoding: str | None = None) -> Decoded:
    """Decode a text file that lies in memory.

    Args:
        data: the content.
        name: the file name, for the sentence.
        encoding: what the person chose; None finds out.

    Returns:
        The text without byte order mark, and notes where it was a guess.

    Raises:
        DataError: the bytes are not text, or not text in the chosen encoding.
    """
    text = open_text(BytesIO(data), name=name, encoding=encoding)
    return Decoded("".join(text.pieces), text.encoding, text.notes)


def open_text(
    file: BinaryIO, *, name: str, encoding: str | None = None, is_cut: bool = False
) -> Text:
    """Find the encoding of a file, to read it in pieces.

    Args:
        file: at its beginning, and seekable.
        name: the file name, for the sentence.
        encoding: what the person chose; None finds out.
        is_cut: whether this is only the beginning of a file; its last character may be broken.

    Returns:
        The text, to be read while the file is open.

    Raises:
        DataError: the bytes are not text, or there is no such encoding.
    """
    if encoding is not None:
        return Text(_codec(encoding, name), (), _pieces(file, name, encoding, is_cut))
    sample = file.read(_SAMPLE_BYTES)
    for mark, codec in _BOMS:
        if sample.startswith(mark):
            notes = ("Byte order mark removed",)
            return Text(_codec(codec, name), notes, _pieces(file, name, codec, is_cut))
    wide = _wide_encoding(sample)
    if wide is not None:
        note = f"Decoded as {wide} without a byte order mark: check the preview"
        return Text(wide, (note,), _pieces(file, name, wide, is_cut))
    start = _first_not_utf8(file, name, is_cut)
    if start is None:
        return Text("utf-8", (), _pieces(file, name, "utf-8", is_cut))
    file.seek(0)
    data = file.read()
    if is_cut:
        data = data[: data.rfind(b"\n") + 1] or data
    _refuse_damaged_utf8(data, name)
    guess = _guess(data, name)
    line = data.count(b"\n", 0, start) + 1
    note = f"Decoded as {guess} (line {line} is not UTF-8): check the preview"
    return Text(guess, (note,), iter([data.decode(guess)]))


def _codec(encoding: str, name: str) -> str:
    try:
        codec = codecs.lookup(encoding).name
        with suppress(UnicodeError):
            b" ".decode(codec)  # says no to what is not an encoding of text, such as zlib
    except LookupError:
        raise DataError(
            f"There is no text encoding called {encoding!r}",
            where=name,
            fix="Choose one such as utf-8, utf-16, cp1252, latin-1 or shift_jis",
        ) from None
    return codec


def _first_not_utf8(file: BinaryIO, name: str, is_cut: bool) -> int | None:
    """Give the position of the first byte that is not UTF-8, and refuse NUL bytes anywhere."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    first: int | None = None
    position = file.seek(0)
    while block := file.read(_PIECE_BYTES):
        if b"\x00" in block:
            line = _line_at(file, position + block.index(b"\x00"))
            raise DataError(
                "The file holds NUL bytes, so it is binary or damaged",
                where=f"{name}, line {line}",
                fix="Export the table again as CSV or JSONL in UTF-8",
            )
        start = position - len(decoder.getstate()[0])
        position += len(block)
        if first is None:
            try:
                decoder.decode(block)
            except UnicodeDecodeError as error:
                first = start + error.start
    if first is None and decoder.getstate()[0] and not is_cut:
        first = position - len(decoder.getstate()[0])
    return first


def _pieces(file: BinaryIO, name: str, encoding: str, is_cut: bool) -> Iterator[str]:
    """Decode block by block with a codec that was looked up before."""
    decoder = codecs.getincrementaldecoder(encoding)()
    line, position = 1, file.seek(0)
    while True:
        block = file.read(_PIECE_BYTES)
        is_last = not block
        if is_last and is_cut:
            return
        try:
            start = position - len(decoder.getstate()[0])
            text = decoder.decode(block, is_last)
        except UnicodeError as error:
            start += getattr(error, "start", 0)
            raise DataError(
                f"The file is not {encoding}: byte {start:,} does not fit",
                where=f"{name}, line {_line_at(file, start)}",
                fix="Leave the encoding empty to let the studio find it, or choose another one",
            ) from None
        if not position:
            text = text.removeprefix("\ufeff")
        position += len(block)
        _refuse_no_text(text, name, encoding, line)
        line += text.count("\n")
        if text:
            yield text
        if is_last:
            return


def _line_at(file: BinaryIO, position: int) -> int:
    """Count the line ends before a byte."""
    left, line = position - file.seek(0), 1
    while left > 0 and (block := file.read(min(left, _PIECE_BYTES))):
        line += block.count(b"\n")
        left -= len(block)
    return line


def _refuse_no_text(text: str, name: str, encoding: str, line: int) -> None:
    """Refuse characters that no text holds; `line` is the one on which the text starts."""
    if "\x00" in text:
        line += text.count("\n", 0, text.index("\x00"))
        raise DataError(
            f"Read as {encoding}, the file holds NUL characters",
            where=f"{name}, line {line}",
            fix="Choose another encoding, or export the table again in UTF-8",
        )
    half = None if text.isascii() else _HALF_CHARACTER.search(text)
    if half is not None:
        line += text.count("\n", 0, half.start())
        raise DataError(
            f"Read as {encoding}, the file holds half of a character (a lone surrogate)",
            where=f"{name}, line {line}",
            fix="Choose another encoding, or export the table again in UTF-8",
        )


def _wide_encoding(data: bytes) -> str | None:
    """Recognise UTF-16/32 without a mark by where the zero bytes of ASCII characters lie."""
    sample = data[: _SAMPLE_BYTES - _SAMPLE_BYTES % 4]
    quarter = len(sample) // 4
    if quarter < 2:
        return None
    zeros = [sample[offset::4].count(0) / quarter for offset in range(4)]
    if min(zeros[1:]) > 0.7 and zeros[0] < 0.3:
        return "utf-32-le"
    if min(zeros[:3]) > 0.7 and zeros[3] < 0.3:
        return "utf-32-be"
    if min(zeros[1], zeros[3]) > 0.4 and max(zeros[0], zeros[2]) < 0.1:
        return "utf-16-le"
    if min(zeros[0], zeros[2]) > 0.4 and max(zeros[1], zeros[3]) < 0.1:
        return "utf-16-be"
    return None


def _refuse_damaged_utf8(data: bytes, name: str) -> None:
    """Name the damaged lines of a file that is UTF-8 elsewhere; a guess would garble the rest."""
    good, bad = 0, []
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.isascii():
            continue
        try:
            line.decode("utf-8")
            good += 1
        except UnicodeDecodeError:
            bad.append(number)
    if good > len(bad):
        listed = ", ".join(str(number) for number in bad[:10]) + (" …" if len(bad) > 10 else "")
        raise DataError(
            f"The file is UTF-8, but {len(bad)} line(s) hold damaged bytes",
            where=f"{name}, line {listed}",
            fix="Correct or remove these lines, or choose the encoding yourself",
        )


def _guess(data: bytes, name: str) -> str:
    """Choose a legacy encoding: cp1252 where the text stays plausible, else the best candidate."""
    words = _FOREIGN_WORD.findall(data[: 16 * _SAMPLE_BYTES])
    sample = b" ".join(words)[:_SAMPLE_BYTES]
    high = sum(byte > 127 for byte in sample)
    try:
        western = data.decode("cp1252")
    except UnicodeDecodeError:
        western = None
    # Western words hold an accent or two; in Cyrillic, Greek or Asian words most bytes are high.
    if western is not None and high < 0.5 * len(sample):
        if len(_ODD.findall(western)) < 0.1 * high + 1:
            return "cp1252"
    best = from_bytes(b"\n".join(line for line in data.split(b"\n") if not line.isascii())).best()
    candidates = [best.encoding, *best.could_be_from_charset] if best is not None else []
    readings: list[tuple[int, str]] = []
    # Wide encodings were looked for before: what is left of them here is chance.
    narrow = [codec for codec in candidates if not codec.startswith(("utf_16", "utf_32"))]
    for codec in dict.fromkeys([*narrow, "cp1250", "cp1252"]):
        try:
            readings.append((len(_ODD.findall(data.decode(codec))), codec))
        except UnicodeError:
            continue
    if readings:
        return min(readings, key=lambda reading: reading[0])[1]
    raise DataError("The encoding of the file cannot be told", where=name, fix=_SAVE_AS_UTF8)

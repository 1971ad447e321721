from io import BytesIO

import pytest

from data_prep import encoding as module
from data_prep.encoding import decode, open_text
from templates.errors import DataError

FRENCH = "texte,étiquette\nL’été dernier, déjà vu à Orléans – 5 €,é\nNaïve façade,ç\n"
GERMAN = "text,label\nDie Grüße aus Köln sind schön,ä\nStraße für Fußgänger,ö\n"
POLISH = "tekst,etykieta\nZażółć gęślą jaźń w Łodzi,ż\nChrząszcz brzmi w trzcinie pięknie,ł\n" * 4
RUSSIAN = "текст,метка\nМой заказ ещё не пришёл,доставка\nВерните деньги,оплата\n" * 4
JAPANESE = "本文,ラベル\n注文した商品がまだ届きません,配送\n返金をお願いします,請求\n" * 6


@pytest.mark.parametrize(
    ("data", "text", "encoding"),
    [
        ("a,é\n".encode(), "a,é\n", "utf-8"),
        ("a,é\n".encode("utf-8-sig"), "a,é\n", "utf-8-sig"),
        ("a,é\n".encode("utf-16"), "a,é\n", "utf-16"),
        ("a,é\n".encode("utf-32"), "a,é\n", "utf-32"),
        ("ab,cd\nef,gh\n".encode("utf-16-le"), "ab,cd\nef,gh\n", "utf-16-le"),
        ("ab,cd\nef,gh\n".encode("utf-16-be"), "ab,cd\nef,gh\n", "utf-16-be"),
        ("ab,cd\nef,gh\n".encode("utf-32-le"), "ab,cd\nef,gh\n", "utf-32-le"),
        ("ab,cd\nef,gh\n".encode("utf-32-be"), "ab,cd\nef,gh\n", "utf-32-be"),
        (FRENCH.encode("cp1252"), FRENCH, "cp1252"),
        (GERMAN.encode("cp1252"), GERMAN, "cp1252"),
        ("text\ncafé\n".encode("cp1252"), "text\ncafé\n", "cp1252"),
        (POLISH.encode("cp1250"), POLISH, "cp1250"),
        (RUSSIAN.encode("cp1251"), RUSSIAN, "cp1251"),
        (JAPANESE.encode("shift_jis"), JAPANESE, None),
    ],
)
def test_found(data: bytes, text: str, encoding: str | None) -> None:
    decoded = decode(data, name="a.csv")
    assert decoded.text == text
    assert encoding is None or decoded.encoding == encoding


def test_a_guess_is_reported_and_can_be_overridden() -> None:
    data = "a\nb\ncafé\n".encode("cp1252")
    assert decode(data, name="a.csv").notes == (
        "Decoded as cp1252 (line 3 is not UTF-8): check the preview",
    )
    assert decode(data, name="a.csv", encoding="cp1250").notes == ()
    assert decode("é".encode("utf-8-sig"), name="a.csv").notes == ("Byte order mark removed",)


def test_a_chosen_utf8_drops_the_mark() -> None:
    assert decode("é".encode("utf-8-sig"), name="a.csv", encoding="UTF8").text == "é"


@pytest.mark.parametrize(
    ("data", "encoding"), [(b"a\n+2AA-", "utf-7"), (b"a\n\\ud800", "unicode_escape")]
)
def test_half_a_character_is_refused(data: bytes, encoding: str) -> None:
    with pytest.raises(DataError, match=r"half of a character.*a\.csv, line 2.*another encoding"):
        decode(data, name="a.csv", encoding=encoding)


def test_one_damaged_line_does_not_change_the_encoding() -> None:
    with pytest.raises(DataError, match=r"2 line\(s\).*line 2, 5"):
        decode(b"\xc3\xa9\n\xff\n\xc3\xa9\n\xc3\xa8\nx\xe9y\n", name="a.csv")


def test_no_encoding_fits() -> None:
    with pytest.raises(DataError, match=r"cannot be told.*Save the file as UTF-8"):
        decode(bytes([0x81, 0x8D, 0x8F, 0x90, 0x9D, 0xFF, 0x80, 0xFE] * 20), name="a.csv")


def test_one_damaged_row_does_not_turn_a_table_into_utf_16() -> None:
    data = b"text,label\n" + b"abc,red\n" * 5 + b"\xff\xfe\x81bad,red\nok,blue\n"
    try:
        decoded = decode(data, name="t.csv")
    except DataError as error:
        assert "t.csv" in str(error)
    else:
        assert "text,label" in decoded.text and not decoded.encoding.startswith("utf_16")


@pytest.mark.parametrize(
    ("text", "codec"),
    [
        (JAPANESE + "😀\r\n", "utf-8"),
        (RUSSIAN, "utf-8-sig"),
        (POLISH, "utf-16"),
        (GERMAN, "utf-32"),
    ],
)
def test_pieces_do_not_cut_characters(
    text: str, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PIECE_BYTES", 7)
    found = open_text(BytesIO(text.encode(codec)), name="a.csv")
    pieces = list(found.pieces)
    assert "".join(pieces) == text and len(pieces) > 20


def test_errors_in_later_pieces_know_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PIECE_BYTES", 5)
    with pytest.raises(DataError, match=r"byte 9 does not fit \(a.csv, line 3\)"):
        decode(b"abc\nde\nef\xff", name="a.csv", encoding="utf-8")
    with pytest.raises(DataError, match=r"NUL bytes.*line 4"):
        decode(b"aaaa\nbbbb\ncccc\n\x00", name="a.csv")
    assert "line 3 is not UTF-8" in decode(b"abcd\nefg\nh\xe9\n", name="a.csv").notes[0]


def test_the_beginning_of_a_file_may_end_in_half_a_character() -> None:
    data = "a,é".encode()[:-1]
    assert "".join(open_text(BytesIO(data), name="a.csv", is_cut=True).pieces) == "a,"
    assert decode(data, name="a.csv").encoding != "utf-8"

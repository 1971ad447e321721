import pytest

from data_prep.signatures import describe_binary


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\x7fELF\x02", "a program (ELF)"),
        (b"SQLite format 3\x00", "a SQLite database"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office file (.xls or .doc)"),
        (b"BZh9\x00", "a bzip2 archive"),
        (b"<html><body>", "a web page (HTML)"),
        (b"MZ,size\n1,2\n", None),
        (b"PAR,THREE\n", None),
        (b"a,b\n", None),
        (b"", None),
    ],
)
def test_kinds(data: bytes, kind: str | None) -> None:
    assert describe_binary(data) == kind

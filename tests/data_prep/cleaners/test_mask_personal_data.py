import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.cleaners.mask_personal_data import Options, clean, luhn_holds, mask
from templates.example import Example, Turn


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("write to a.b+c@mail.example.co.uk.", "write to [EMAIL]."),
        ("<ana@example.org>, bo@example.org", "<[EMAIL]>, [EMAIL]"),
        ("zoë@exämple.de", "[EMAIL]"),
        ("mailto:x_y@example.com?subject=a", "mailto:[EMAIL]?subject=a"),
        ("card 4111 1111 1111 1111 please", "card [CARD] please"),
        ("4111-1111-1111-1111, 5555555555554444", "[CARD], [CARD]"),
        ("amex 3782 822463 10005", "amex [CARD]"),
        ("card 6011\u00a01111\u00a01111\u00a01117.", "card [CARD]."),
        ("call +44 20 7946 0118 now", "call [PHONE] now"),
        ("call +49-30-23125-012", "call [PHONE]"),
        ("(202) 555-0143 or 202-555-0126", "[PHONE] or [PHONE]"),
        ("202.555.0126, 202 555 0126", "[PHONE], [PHONE]"),
        ("reach me on 2025550143", "reach me on [PHONE]"),
        ("phone: 1-800-555-0199", "phone: [PHONE]"),
    ],
)
def test_masked(text: str, masked: str) -> None:
    assert mask(text, Options(), Counter()) == masked


@pytest.mark.parametrize(
    "text",
    [
        "order 4155552671 is late",
        "order number: 2025550143",
        "#2025550143",
        "invoice 202-555-0143",
        "paid $1,234,567.89 on 2024-03-14 at 12:30",
        "03/04/2024, 12.07.2024, 2024-2025",
        "SN-20240311-7781 and 0x8007-0005-2222",
        "firmware 4.17.2204.31",
        "reference 4417 0000 1234 5678",
        "4111 1111 1111 1112 has a wrong check digit",
        "0000 0000 0000 0000",
        "ISBN 978-3-16-148410-0",
        "00:1A:2B:3C:4D:5E on 192.168.100.200",
        "setup@home, Home@Door 24, @handle, a@b",
        "1Z999AA10123456784",
        "4155552671",
        "lot 12345678901234567890123",
    ],
)
def test_untouched(text: str) -> None:
    assert mask(text, Options(), Counter()) == text


def test_options_and_counts() -> None:
    text = "a@example.org, 4111 1111 1111 1111, +1 202 555 0178, 020 7946 0118"
    example = Example(
        {"text": text},
        label=text,
        references=(text,),
        turns=(Turn("user", "ok"),),
        source_rows=(2,),
    )
    (found,), report = clean([example], Options())
    assert found.label == text, "labels stay"
    assert found.references[0] == "[EMAIL], [CARD], [PHONE], 020 7946 0118"
    assert report.counts == {"emails": 2, "cards": 2, "phones": 2}
    assert report.rows_changed == 1
    nothing = Options(emails=False, phones=False, cards=False)
    assert clean([example], nothing)[0] == [example]
    assert mask(text, Options(region="gb"), Counter()).endswith("[PHONE], [PHONE]")


def test_luhn() -> None:
    assert luhn_holds("79927398713") and not luhn_holds("79927398710")


pieces = st.lists(
    st.sampled_from(
        ["a@example.org", "4111 1111 1111 1111", "+1 202 555 0178", "(202) 555-0143", "order", "#"]
    )
    | st.text("ab @.-+(), 0123456789", max_size=8),
    max_size=6,
)


@given(pieces, st.sampled_from(["", " ", ", "]))
def test_twice_is_once(parts: list[str], glue: str) -> None:
    once = mask(glue.join(parts), Options(), Counter())
    assert mask(once, Options(), Counter()) == once


def test_long_runs_are_scanned_in_linear_time() -> None:
    start = time.process_time()
    for text in ("a" * 300_000, "a@" * 50_000, "a.b@c." * 20_000):
        mask(text, Options(), Counter())
    assert time.process_time() - start < 3

"""Replace e-mail addresses, payment card numbers and phone numbers by [EMAIL], [CARD], [PHONE].

A card number needs a length and first digits that a card network uses and a correct check digit
(Luhn, ISO/IEC 7812-1). A phone number needs a country code, or a valid number of the default
region that is written like one. So order numbers, prices, dates and serials stay.
"""

import re
from collections import Counter
from collections.abc import Sequence

from phonenumbers import (
    SUPPORTED_REGIONS,
    Leniency,
    PhoneNumberMatcher,
    is_possible_number,
    is_valid_number,
)
from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from data_prep.ledger import Ledger
from data_prep.step_spec import CleanerSpec, Outcome
from templates.example import Example
from templates.values import Value

# Bounded and possessive: a long run of letters is scanned once, not from every position.
_EMAIL = re.compile(
    r"(?<![\w.%+-])[\w.%+-]{1,64}+@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}[^\W\d_]{2,24}(?!\w)"
)
_CARD = re.compile(r"(?<![\w.-])\d(?:[ \u00a0\u202f-]?\d){11,18}(?![\w-])")
_CARD_NETWORKS = re.compile(
    r"4(\d{12}|\d{15}|\d{18})"  # Visa
    r"|(5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|(6011|65\d\d|64[4-9]\d)\d{12}(\d{3})?"  # Discover
    r"|3(0[0-5]|[68]\d)\d{11}"  # Diners Club
    r"|35(2[89]|[3-8]\d)\d{12}"  # JCB
    r"|62\d{14,17}"  # UnionPay
    r"|(50|5[6-9]|6[0-9])\d{10,17}"  # Maestro
)
_MAY_HOLD_PHONE = re.compile(r"\d(?:\D{0,3}\d){6}")
_PHONE_WORD = re.compile(
    r"\b(call|phone|tel|telephone|mobile|cell|ring|dial|fax|sms|text|whatsapp|reach|number is)\b"
    r"[^.!?\n]{0,30}$",
    re.IGNORECASE,
)
_OTHER_NUMBER_WORD = re.compile(
    r"(\b(order|invoice|ref|reference|serial|sku|ticket|tracking|parcel|case|account|customer|id|no"
    r"|isbn|part|model|rma|code|version|firmware)\b\W{0,3}(number|no|nr|id)?|#|№|[$€£¥])\W{0,3}$",
    re.IGNORECASE,
)
_WRITTEN_LIKE_PHONE = re.compile(r"\(\d{2,5}\)|^\D?\d{1,5}([ .\u00a0-]\d{2,5}){2,}")


class Options(Value):
    """What to mask."""

    emails: bool = Field(
        default=True, title="E-mail addresses", description="Replace them by [EMAIL]."
    )
    phones: bool = Field(
        default=True, title="Phone numbers", description="Replace them by [PHONE]."
    )
    cards: bool = Field(
        default=True, title="Payment card numbers", description="Replace them by [CARD]."
    )
    region: str = Field(
        default="US",
        title="Default region",
        description="Two-letter country of phone numbers written without a country code.",
    )

    @field_validator("region")
    @classmethod
    def _known_region(cls, region: str) -> str:
        if region.upper() not in SUPPORTED_REGIONS:
            raise PydanticCustomError(
                "no_fit", "this must be a two-letter country code such as US, GB or DE"
            )
        return region.upper()


def clean(examples: Sequence[Example], options: Options) -> Outcome:
    """Mask every text of every example; labels stay.

    Args:
        examples: all examples.
        options: what to mask.

    Returns:
        As many examples, and the report with a count per kind.
    """
    ledger = Ledger(SPEC.name)
    kept = []
    for example in examples:
        masked = example.with_texts(mask(text, options, ledger.counts) for text in example.texts())
        if masked != example:
            ledger.changed(example, masked)
        kept.append(masked)
    return kept, ledger.report(len(examples), len(kept))


def mask(text: str, options: Options, counts: Counter[str]) -> str:
    """Mask one text, so that masking it again finds nothing more.

    Args:
        text: any text.
        options: what to mask.
        counts: raised by what was found.

    Returns:
        The text with placeholders.
    """
    before = ""
    while text != before:
        # A placeholder can part two numbers that were written without a space.
        before, text = text, _mask_once(text, options, counts)
    return text


def _mask_once(text: str, options: Options, counts: Counter[str]) -> str:
    if options.emails and "@" in text:
        text, found = _EMAIL.subn("[EMAIL]", text)
        counts["emails"] += found
    if options.cards:
        text, found = _mask_spans(text, _card_spans(text), "[CARD]")
        counts["cards"] += found
    if options.phones and _MAY_HOLD_PHONE.search(text):
        text, found = _mask_spans(text, _phone_spans(text, options.region), "[PHONE]")
        counts["phones"] += found
    return text


def _mask_spans(text: str, spans: Sequence[tuple[int, int]], mark: str) -> tuple[str, int]:
    for start, end in reversed(spans):
        text = text[:start] + mark + text[end:]
    return text, len(spans)


def _card_spans(text: str) -> list[tuple[int, int]]:
    spans = []
    for found in _CARD.finditer(text):
        digits = re.sub(r"\D", "", found[0])
        if _CARD_NETWORKS.fullmatch(digits) and luhn_holds(digits):
            spans.append(found.span())
    return spans


def luhn_holds(digits: str) -> bool:
    """Check the last digit of a card number: doubled every second one, the sum ends in 0.

    Args:
        digits: digits only.

    Returns:
        Whether the check digit is right.
    """
    doubled = [2 * int(digit) for digit in digits[-2::-2]]
    plain = sum(int(digit) for digit in digits[-1::-2])
    return (plain + sum(number - 9 if number > 9 else number for number in doubled)) % 10 == 0


def _phone_spans(text: str, region: str) -> list[tuple[int, int]]:
    spans = []
    for found in PhoneNumberMatcher(text, region, leniency=Leniency.POSSIBLE):
        before, raw = text[: found.start], found.raw_string
        if before[-1:].isalnum() or text[found.end : found.end + 1].isalnum():
            continue
        if raw.startswith(("+", "(+")):
            is_phone = is_possible_number(found.number)
        elif _OTHER_NUMBER_WORD.search(before[-40:]):
            is_phone = False
        else:
            looks_so = _WRITTEN_LIKE_PHONE.search(raw) or _PHONE_WORD.search(before[-60:])
            is_phone = bool(looks_so) and is_valid_number(found.number)
        if is_phone:
            spans.append((found.start, found.end))
    return spans


SPEC = CleanerSpec(
    name="mask_personal_data",
    title="Mask personal data",
    summary="Replaces e-mail addresses, phone numbers and payment card numbers by placeholders.",
    options=Options,
    clean=clean,
    only_rewrites=True,
)

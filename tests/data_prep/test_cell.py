import json
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from data_prep.cell import cell_text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        ("  as it is ", "  as it is "),
        (True, "true"),
        (7, "7"),
        (10**20, "100000000000000000000"),
        (3.0, "3"),
        (-0.0, "0"),
        (0.1 + 0.2, "0.3"),
        (1e20, "1e+20"),
        (float("nan"), ""),
        (float("inf"), ""),
        (Decimal("12.50"), "12.5"),
        (Decimal("1200"), "1200"),
        (Decimal("0.12345678901234567890"), "0.1234567890123456789"),
        (date(2024, 2, 3), "2024-02-03"),
        (datetime(2024, 2, 3), "2024-02-03"),
        (datetime(2024, 2, 3, 4, 5), "2024-02-03 04:05:00"),
        (
            datetime(2024, 2, 3, 0, 0, tzinfo=timezone(timedelta(hours=2))),
            "2024-02-02 22:00:00+00:00",
        ),
        (time(4, 5), "04:05:00"),
        ("é".encode(), "é"),
        (b"\xff\x00\x01", "(3 bytes)"),
    ],
)
def test_values_as_people_write_them(value: Any, text: str) -> None:
    assert cell_text(value) == text


def test_nested_values_are_json() -> None:
    value = {"a": [1.0, None, float("nan"), Decimal("0.5")], 2: datetime(2024, 1, 1, tzinfo=UTC)}
    assert json.loads(cell_text(value)) == {
        "a": [1, None, None, 0.5],
        "2": "2024-01-01 00:00:00+00:00",
    }
    assert cell_text(["é"]) == '["é"]'

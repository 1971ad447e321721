import time

import pytest

from studio.web.words import count, duration, figure, moment, percent, size, span


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (1_449_000, "1.4 MB"),
     (236_000_000, "236 MB"), (999_600_000, "1.0 GB"), (7e12, "7000 GB")],
)  # fmt: skip
def test_size(num_bytes: float, text: str) -> None:
    assert size(num_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0.0 s"), (0.42, "0.4 s"), (9.96, "10 s"), (59.6, "1 min"), (200, "3 min 20 s"),
     (3599.7, "1 h"), (7500, "2 h 5 min"), (277_200, "3 days 5 h")],
)  # fmt: skip
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [(1, 1.5, "1–2 s"), (0.2, 0.9, "1 s"), (70, 170, "2–3 min"), (3000, 9000, "1–3 h"),
     (0, 300_000, "0–4 days")],
)  # fmt: skip
def test_span(low: float, high: float, text: str) -> None:
    assert span(low, high) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (0.01234, "0.0123"), (0.000042, "4.20e-05"), (1.5, "1.5"), (15_300, "15,300"),
     (float("nan"), "–"), (float("inf"), "–"), (-2.0, "-2"), (100, "100"), (0.9999, "1")],
)  # fmt: skip
def test_figure(number: float, text: str) -> None:
    assert figure(number) == text


@pytest.mark.parametrize(
    ("ratio", "text"), [(0, "0.0 %"), (0.125, "12.5 %"), (0.0001, "< 0.1 %"), (1, "100.0 %")]
)
def test_percent(ratio: float, text: str) -> None:
    assert percent(ratio) == text


def test_count() -> None:
    assert count(1, "row") == "1 row"
    assert count(1204, "row") == "1,204 rows"
    assert count(0, "class", "classes") == "0 classes"


def test_moment() -> None:
    noon = time.mktime((2026, 11, 3, 12, 0, 0, 0, 0, -1))
    assert moment(noon - 20, now=noon) == "just now"
    assert moment(noon - 60, now=noon) == "1 minute ago"
    assert moment(noon - 3700, now=noon) == "today 10:58"
    assert moment(noon - 2 * 86_400, now=noon) == "1 Nov 2026, 12:00"
    assert moment(noon + 300, now=noon) == "today 12:05"  # a clock that was set back

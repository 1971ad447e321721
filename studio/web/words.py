"""Numbers, sizes, times and dates as people read them."""

import math
import time

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


def size(num_bytes: float) -> str:
    """Write a size.

    Args:
        num_bytes: how many.

    Returns:
        Such as "1.4 MB"; a thousand bytes are a kilobyte, as in file managers and on the Hub.
    """
    for unit in ("bytes", "kB", "MB", "GB"):
        if num_bytes < 999.5 or unit == "GB":
            break
        num_bytes /= 1000
    figures = f"{num_bytes:.0f}" if unit == "bytes" or num_bytes >= 100 else f"{num_bytes:.1f}"
    return f"{figures} {unit}"


def count(number: float, noun: str = "", plural: str = "") -> str:
    """Write a number of things.

    Args:
        number: how many.
        noun: one of them, where it shall be said.
        plural: several of them; default: the noun and an s.

    Returns:
        Such as "1,204 rows".
    """
    text = f"{number:,.0f}"
    if not noun:
        return text
    return f"{text} {noun if number == 1 else plural or noun + 's'}"


def figure(number: float, digits: int = 3) -> str:
    """Write a measured number.

    Args:
        number: any.
        digits: that matter.

    Returns:
        Such as "0.0123", "4.2e-05", "15,300"; "–" for what is not a number.
    """
    if not math.isfinite(number):
        return "–"
    if number and (abs(number) < 1e-3 or abs(number) >= 1e7):
        return f"{number:.{digits - 1}e}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(number)))) if number else 0
    text = f"{number:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def percent(ratio: float, decimals: int = 1) -> str:
    """Write a share.

    Args:
        ratio: 0 to 1.
        decimals: behind the point.

    Returns:
        Such as "12.5 %"; a share that would read as nothing but is something is "< 0.1 %".
    """
    smallest = 10.0**-decimals
    if 0 < 100 * ratio < smallest / 2:
        return f"< {smallest:.{decimals}f} %"
    return f"{100 * ratio:.{decimals}f} %"


def duration(seconds: float) -> str:
    """Write a time span.

    Args:
        seconds: how long.

    Returns:
        Such as "0.4 s", "48 s", "3 min 20 s", "2 h 5 min", "3 days 4 h".
    """
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f} s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return _two(whole, _MINUTE, "min", 1, "s")
    if whole < 2 * _DAY:
        return _two(whole, _HOUR, "h", _MINUTE, "min")
    return _two(whole, _DAY, "days", _HOUR, "h")


def span(low_seconds: float, high_seconds: float) -> str:
    """Write an expected time between two bounds.

    Args:
        low_seconds: at best.
        high_seconds: at worst.

    Returns:
        Such as "2–3 min", in the unit that suits the longer one.
    """
    units = ((_DAY, "days"), (_HOUR, "h"), (_MINUTE, "min"), (1, "s"))
    unit, name = next((found for found in units if high_seconds >= 2 * found[0]), units[-1])
    low, high = (math.ceil(value / unit) for value in (low_seconds, high_seconds))
    return f"{high} {name}" if low == high else f"{low}–{high} {name}"


def moment(at: float, *, now: float | None = None) -> str:
    """Write when something was.

    Args:
        at: UTC seconds.
        now: UTC seconds; default: now.

    Returns:
        Such as "just now", "5 minutes ago", "today 14:05", "3 Nov 2026, 14:05".
    """
    now = time.time() if now is None else now
    ago = now - at
    if 0 <= ago < _MINUTE:
        return "just now"
    if 0 <= ago < _HOUR:
        return f"{count(ago // _MINUTE, 'minute')} ago"
    then, today = time.localtime(at), time.localtime(now)
    clock = time.strftime("%H:%M", then)
    if then[:3] == today[:3]:
        return f"today {clock}"
    return f"{then.tm_mday} {time.strftime('%b %Y', then)}, {clock}"


def _two(seconds: int, large: int, large_name: str, small: int, small_name: str) -> str:
    whole, rest = divmod(seconds, large)
    rest //= small
    return f"{whole} {large_name} {rest} {small_name}" if rest else f"{whole} {large_name}"

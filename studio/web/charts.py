"""Charts as SVG, drawn on the server: they follow the theme, need no script, and are read out.

Every chart is told in words by its `label`, and every mark by a tooltip. Sizes are in the units of
the drawing, which grows and shrinks with the page.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from studio.web.html import join
from studio.web.words import figure

_WIDTH = 640
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 10, 30
_MOST_TICKS = 6
_COLOURS = 6


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes:
        name: in the legend.
        points: (x, y), in the order of x; a y that is not finite leaves a gap.
        band: (x, low, high) behind the line, where there is one.
        is_dotted: shown as points joined by a thin line, for few measurements.
    """

    name: str
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float, float]] = ()
    is_dotted: bool = False


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes:
        name: beside it.
        value: its length.
        words: what is written at its end; default: the value.
    """

    name: str
    value: float
    words: str = ""


@dataclass(frozen=True)
class Interval:
    """One measurement with its uncertainty.

    Attributes:
        name: beside it.
        value: the point.
        low: where the interval begins.
        high: where it ends.
        words: written at the right.
        is_strong: whether it stands out.
    """

    name: str
    value: float
    low: float
    high: float
    words: str = ""
    is_strong: bool = False


def line_chart(
    series: Sequence[Series],
    *,
    label: str,
    x_title: str = "step",
    height: int = 220,
    x_max: float | None = None,
) -> Markup:
    """Draw curves over a common axis.

    Args:
        series: at least one point among them.
        label: says the chart in words.
        x_title: under the axis.
        height: of the drawing; its width is 640.
        x_max: where the x axis ends; default: at the last point.

    Returns:
        The chart with a legend.
    """
    xs = [x for one in series for x, _ in one.points]
    ys = [y for one in series for _, y in one.points if math.isfinite(y)]
    ys += [edge for one in series for _, *edges in one.band for edge in edges]
    scale_y = _Scale.around(ys, height - _BOTTOM, _TOP)
    ends = [min(xs, default=0.0), x_max if x_max is not None else max(xs, default=1.0)]
    scale_x = _Scale(ends[0], max(ends[1], ends[0] + 1e-9), _LEFT, _WIDTH - _RIGHT)
    marks = [_grid(scale_x, scale_y, height), _x_title(x_title, height)]
    for number, one in enumerate(series):
        marks.append(_curve(one, number % _COLOURS + 1, scale_x, scale_y))
    keys = ((one.name, number % _COLOURS + 1) for number, one in enumerate(series))
    return _figure(_svg(join(marks), height, label), _legend(keys) if len(series) > 1 else "")


def histogram(
    bins: Sequence[tuple[float, float, int]],
    *,
    label: str,
    x_title: str,
    cutoff: float | None = None,
    height: int = 170,
) -> Markup:
    """Draw how often values fall between bounds.

    Args:
        bins: (from, to, count).
        label: says the chart in words.
        x_title: under the axis.
        cutoff: values above it are shown as lost.
        height: of the drawing.

    Returns:
        The chart.
    """
    if not bins:
        return Markup("")
    scale_x = _Scale(bins[0][0], max(bins[-1][1], bins[0][0] + 1), _LEFT, _WIDTH - _RIGHT)
    most = max(number for *_, number in bins)
    scale_y = _Scale(0, max(most, 1), height - _BOTTOM, _TOP)
    marks = [_grid(scale_x, scale_y, height), _x_title(x_title, height)]
    for low, high, number in bins:
        lost = "ts-lost" if cutoff is not None and low > cutoff else "ts-fill-1"
        left, right = scale_x(low), max(scale_x(high), scale_x(low) + 1.5)
        top = scale_y(number)
        marks.append(Markup(
            '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}">'
            "<title>{}–{}: {}</title></rect>"
        ).format(
            lost, left, top, max(0.5, right - left - 1), max(0.0, height - _BOTTOM - top),
            figure(low), figure(high), f"{number:,}",
        ))  # fmt: skip
    if cutoff is not None and scale_x.low <= cutoff <= scale_x.high:
        x = scale_x(cutoff)
        marks.append(
            Markup('<line class="ts-cutoff" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>').format(
                x, _TOP, height - _BOTTOM
            )
        )
    return _figure(_svg(join(marks), height, label))


def bars(
    items: Sequence[Bar], *, label: str, is_small: bool = False, most: float | None = None
) -> Markup:
    """Draw named bars, one under the other.

    Args:
        items: at least one; not negative.
        label: says the chart in words.
        is_small: for a chart inside a table cell.
        most: what fills the whole width; default: the longest bar.

    Returns:
        A list with bars; text stays text, so that it can be read and copied.
    """
    longest = most or max((item.value for item in items), default=0.0) or 1.0
    rows = [
        Markup(
            '<li><span class="ts-bar-name">{}</span><span class="ts-bar-track"><span '
            'style="width:{:.1f}%"></span></span><span class="ts-bar-value">{}</span></li>'
        ).format(item.name, 100 * item.value / longest, item.words or figure(item.value))
        for item in items
    ]
    small = " ts-small" if is_small else ""
    return Markup('<ul class="ts-bars{}" aria-label="{}">{}</ul>').format(small, label, join(rows))


def sparkline(counts: Sequence[int], *, label: str) -> Markup:
    """Draw a distribution in the space of a word.

    Args:
        counts: one for each bin.
        label: says it in words.

    Returns:
        A tiny chart.
    """
    most = max(counts, default=0) or 1
    width = 100 / max(1, len(counts))
    marks = [
        Markup('<rect x="{:.2f}" y="{:.2f}" width="{:.2f}" height="{:.2f}"/>').format(
            place * width, 28 - 26 * number / most, max(0.5, width - 1), 26 * number / most + 0.5
        )
        for place, number in enumerate(counts)
    ]
    return Markup(
        '<svg class="ts-spark" viewBox="0 0 100 29" preserveAspectRatio="none" role="img" '
        'aria-label="{}">{}</svg>'
    ).format(label, join(marks))


def split_bar(parts: Sequence[tuple[str, int]], *, label: str) -> Markup:
    """Draw how a whole is divided.

    Args:
        parts: (name, count).
        label: says the chart in words.

    Returns:
        One bar in several colours, with a legend that holds the numbers.
    """
    whole = sum(number for _, number in parts) or 1
    pieces = join(
        Markup('<span class="ts-back-{}" style="width:{:.2f}%"></span>').format(
            place, 100 * number / whole
        )
        for place, (_, number) in enumerate(parts, 1)
    )
    keys = (
        (f"{name}: {number:,} ({100 * number / whole:.0f} %)", place)
        for place, (name, number) in enumerate(parts, 1)
    )
    drawing = Markup('<div class="ts-split" role="img" aria-label="{}">{}</div>').format(
        label, pieces
    )
    return _figure(drawing, _legend(keys))


def stacked_bar(items: Sequence[Bar], *, whole: float, whole_words: str, label: str) -> Markup:
    """Draw what parts take of something that is there.

    Args:
        items: the parts; not negative.
        whole: what is there; where the parts need more, a line marks it.
        whole_words: what is written at its end.
        label: says the chart in words.

    Returns:
        One bar in several colours, with a legend that holds the figures.
    """
    total = sum(item.value for item in items)
    longest = max(total, whole) or 1.0
    pieces = join(
        Markup('<span class="ts-back-{}" style="width:{:.2f}%" title="{}: {}"></span>').format(
            (place - 1) % _COLOURS + 1, 100 * item.value / longest, item.name,
            item.words or figure(item.value),
        )
        for place, item in enumerate(items, 1)
    )  # fmt: skip
    over = " ts-over" if total > whole else ""
    drawing = Markup(
        '<div class="ts-stack{}" role="img" aria-label="{}">{}'
        '<span class="ts-stack-end" style="left:{:.2f}%"></span></div>'
        '<p class="ts-stack-words">{}</p>'
    ).format(over, label, pieces, 100 * whole / longest, whole_words)
    keys = (
        (f"{item.name}: {item.words or figure(item.value)}", (place - 1) % _COLOURS + 1)
        for place, item in enumerate(items, 1)
    )
    return _figure(drawing, _legend(keys))


def interval_plot(
    items: Sequence[Interval],
    *,
    label: str,
    x_title: str,
    zero_line: bool = False,
) -> Markup:
    """Draw measurements with their intervals, one under the other.

    Args:
        items: at least one.
        label: says the chart in words.
        x_title: under the axis.
        zero_line: whether zero is marked, for differences.

    Returns:
        The chart.
    """
    row = 34
    height = row * len(items) + _BOTTOM + _TOP
    left, right = 190, _WIDTH - 96
    values = [edge for item in items for edge in (item.low, item.high)]
    scale = _Scale.around([*values, 0.0] if zero_line else values, left, right)
    marks = [
        Markup('<line class="ts-grid" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>'
               '<text class="ts-tick" x="{0:.1f}" y="{3}" text-anchor="middle">{4}</text>').format(
            scale(tick), _TOP, height - _BOTTOM, height - _BOTTOM + 14, figure(tick))
        for tick in scale.ticks()
    ]  # fmt: skip
    if zero_line:
        marks.append(
            Markup('<line class="ts-zero" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>').format(
                scale(0), _TOP, height - _BOTTOM
            )
        )
    for place, item in enumerate(items):
        y = _TOP + row * place + row / 2
        strong = "ts-strong" if item.is_strong else "ts-weak"
        words = item.words or figure(item.value)
        marks.append(Markup(
            '<g class="{}"><title>{}: {} ({} to {})</title>'
            '<text class="ts-name" x="{}" y="{:.1f}" text-anchor="end">{}</text>'
            '<line class="ts-whisker" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>'
            '<circle cx="{:.1f}" cy="{:.1f}" r="5.5"/>'
            '<text class="ts-value" x="{}" y="{:.1f}">{}</text></g>'
        ).format(
            strong, item.name, words, figure(item.low), figure(item.high),
            left - 12, y + 4, _short(item.name, 26),
            scale(item.low), scale(item.high), y, y, scale(item.value), y,
            right + 12, y + 4, words,
        ))  # fmt: skip
    marks.append(_x_title(x_title, height, (left + right) / 2))
    return _figure(_svg(join(marks), height, label))


def heat_table(
    rows: Sequence[str],
    columns: Sequence[str],
    counts: Sequence[Sequence[int]],
    *,
    label: str,
    row_title: str,
    column_title: str,
) -> Markup:
    """Show a matrix of counts as a table whose cells are the darker the more they hold.

    Args:
        rows: their names.
        columns: their names.
        counts: one list for each row.
        label: says the table in words.
        row_title: what the rows are.
        column_title: what the columns are.

    Returns:
        A table; the shade of a cell is its share of its row.
    """
    head = join(Markup('<th scope="col"><span>{}</span></th>').format(name) for name in columns)
    body = []
    for name, row in zip(rows, counts, strict=True):
        whole = sum(row) or 1
        cells = join(
            Markup('<td class="{}" style="--share:{:.2f}">{}</td>').format(
                "ts-hit" if column == name else "ts-miss", number / whole, number or ""
            )
            for column, number in zip(columns, row, strict=True)
        )
        body.append(Markup('<tr><th scope="row">{}</th>{}</tr>').format(name, cells))
    return Markup(
        '<div class="ts-scroll" tabindex="0" role="region" aria-label="{}">'
        '<table class="ts-heat"><caption class="ts-unseen">{}</caption><thead><tr>'
        '<td class="ts-corner">{} ↓ {} →</td>{}</tr></thead><tbody>{}</tbody></table></div>'
    ).format(label, label, row_title, column_title, head, join(body))


@dataclass(frozen=True)
class _Scale:
    """From a value to a place in the drawing."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def around(cls, values: Sequence[float], start: float, end: float) -> "_Scale":
        """Leave some air around the values."""
        low, high = min(values, default=0.0), max(values, default=1.0)
        air = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
        floor = 0.0 if 0 <= low <= air * 4 else low - air
        return cls(floor, high + air, start, end)

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Choose round values."""
        rough = (self.high - self.low) / (_MOST_TICKS - 1)
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
        first = math.ceil(self.low / step)
        last = math.floor(self.high / step)
        return [number * step for number in range(first, last + 1)]


def _curve(series: Series, colour: int, scale_x: _Scale, scale_y: _Scale) -> Markup:
    marks = []
    if series.band:
        upper = [f"{scale_x(x):.1f},{scale_y(high):.1f}" for x, _, high in series.band]
        lower = [f"{scale_x(x):.1f},{scale_y(low):.1f}" for x, low, _ in reversed(series.band)]
        marks.append(
            Markup('<polygon class="ts-band ts-fill-{}" points="{}"/>').format(
                colour, " ".join(upper + lower)
            )
        )
    pieces: list[list[str]] = [[]]
    for x, y in series.points:
        if math.isfinite(y):
            pieces[-1].append(f"{scale_x(x):.1f},{scale_y(y):.1f}")
        elif pieces[-1]:
            pieces.append([])
    for piece in filter(None, pieces):
        marks.append(
            Markup('<polyline class="ts-line ts-stroke-{}{}" points="{}"/>').format(
                colour, " ts-thin" if series.is_dotted else "", " ".join(piece)
            )
        )
    if series.is_dotted or len(series.points) == 1:
        marks += [
            Markup('<circle class="ts-fill-{}" cx="{:.1f}" cy="{:.1f}" r="3.5">'
                   "<title>{} at {}: {}</title></circle>").format(
                colour, scale_x(x), scale_y(y), series.name, figure(x), figure(y, 4))
            for x, y in series.points
            if math.isfinite(y)
        ]  # fmt: skip
    return join(marks)


def _grid(scale_x: _Scale, scale_y: _Scale, height: int) -> Markup:
    across = [
        Markup('<line class="ts-grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>'
               '<text class="ts-tick" x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(
            _LEFT, _WIDTH - _RIGHT, scale_y(tick), scale_y(tick), _LEFT - 8, scale_y(tick) + 4,
            figure(tick))
        for tick in scale_y.ticks()
    ]  # fmt: skip
    down = [
        Markup('<text class="ts-tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
            scale_x(tick), height - _BOTTOM + 14, figure(tick)
        )
        for tick in scale_x.ticks()
    ]
    return join((*across, *down))


def _x_title(text: str, height: int, x: float = (_LEFT + _WIDTH - _RIGHT) / 2) -> Markup:
    return Markup('<text class="ts-axis" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
        x, height - 2, text
    )


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _legend(keys: Iterable[tuple[str, int]]) -> Markup:
    items = [
        Markup('<li><span class="ts-key ts-back-{}"></span>{}</li>').format(colour, name)
        for name, colour in keys
    ]
    return Markup('<ul class="ts-legend">{}</ul>').format(join(items))


def _svg(content: Markup, height: int, label: str) -> Markup:
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        _WIDTH, height, label, content
    )


def _figure(drawing: Markup, legend: Markup | str = "") -> Markup:
    return Markup('<div class="ts-chart">{}{}</div>').format(drawing, legend)

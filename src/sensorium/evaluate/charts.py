"""The geometry of the report's drawings; their markup is in ``templates/charts.html``.

Colours, fonts and sizes are CSS, so that one page serves light, dark, desktop and phone; here there are only positions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sensorium.evaluate.curves import Curve, smoothed
from sensorium.evaluate.evaluation import CalibrationBin, Confusion
from sensorium.evaluate.statistics import wilson

WIDTH, HEIGHT = 480.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 12.0, 12.0, 34.0


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: where, and what it says."""

    position: float
    text: str


@dataclass(frozen=True)
class Line:
    """A drawn curve: an SVG path, its points, and a role that CSS gives a colour."""

    role: str
    path: str
    points: tuple[tuple[float, float, str], ...] = ()


@dataclass(frozen=True)
class LineChart:
    """Loss over steps."""

    name: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    has_training: bool
    has_held_out: bool
    facts: tuple[tuple[str, str], ...]
    """What to read off it: (what, value)."""


@dataclass(frozen=True)
class ReliabilityPoint:
    """A bin: where its mean score and its accuracy meet, Wilson's interval, and its share of the items."""

    x: float
    y: float
    low: float
    high: float
    bar_x: float
    bar_width: float
    bar_height: float
    radius: float
    title: str


@dataclass(frozen=True)
class Reliability:
    """How often the model is right when it says how sure it is."""

    ticks_x: tuple[Tick, ...]
    ticks_y: tuple[Tick, ...]
    diagonal: str
    points: tuple[ReliabilityPoint, ...]


@dataclass(frozen=True)
class HeatCell:
    """A cell of a large confusion matrix that is not empty."""

    x: int
    y: int
    share: float
    right: bool
    title: str


@dataclass(frozen=True)
class Heatmap:
    """A confusion matrix with too many classes to write in."""

    size: int
    cells: tuple[HeatCell, ...]


def loss_charts(curves: Sequence[Curve]) -> list[LineChart]:
    """A chart for each loss, training and held-out together."""
    names = dict.fromkeys(curve.name for curve in curves)
    ordered = sorted(names, key=lambda name: name != "loss")
    return [_loss_chart(name, [curve for curve in curves if curve.name == name]) for name in ordered]


def reliability(bins: Sequence[CalibrationBin]) -> Reliability:
    """The reliability diagram, both axes from 0 to 1."""
    quarters = [k / 4 for k in range(5)]
    most = max(item.n for item in bins)
    total = sum(item.n for item in bins)
    points = []
    for item in bins:
        low, high = wilson(item.accuracy * item.n, item.n)
        title = (
            f"said {item.score:.0%} on average, right {item.accuracy:.0%} "
            f"({round(item.accuracy * item.n):,} of {item.n:,}; {item.n / total:.0%} of the items)"
        )
        x, right = _x(item.low), _x(item.high)
        bar = 40 * item.n / most
        points.append(
            ReliabilityPoint(
                _x(item.score),
                _y(item.accuracy),
                _y(low),
                _y(high),
                bar_x=round(x + 1, 2),
                bar_width=round(right - x - 2, 2),
                bar_height=round(max(bar, 1), 2),
                radius=round(2.6 + 3.4 * math.sqrt(item.n / most), 2),
                title=title,
            )
        )
    return Reliability(
        ticks_x=tuple(Tick(_x(value), f"{value:.0%}") for value in quarters),
        ticks_y=tuple(Tick(_y(value), f"{value:.0%}") for value in quarters),
        diagonal=f"M{_x(0)} {_y(0)}L{_x(1)} {_y(1)}",
        points=tuple(points),
    )


def heatmap(confusion: Confusion) -> Heatmap:
    """The cells that are not empty; ``share`` is of the row, so that rare classes are seen too."""
    cells = []
    for y, row in enumerate(confusion.counts):
        support = sum(row)
        for x, count in enumerate(row):
            if count:
                said = f"{confusion.labels[y]} called {confusion.labels[x]}: {count:,} of {support:,}"
                cells.append(HeatCell(x, y, round(count / support, 3), x == y, said))
    return Heatmap(len(confusion.labels), tuple(cells))


def confusions(confusion: Confusion, limit: int = 12) -> list[tuple[str, str, int, int]]:
    """The most frequent errors: (label, predicted as, how often, of how many)."""
    errors = [
        (confusion.labels[y], confusion.labels[x], count, sum(row))
        for y, row in enumerate(confusion.counts)
        for x, count in enumerate(row)
        if count and x != y
    ]
    return sorted(errors, key=lambda error: (-error[2], error[0], error[1]))[:limit]


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten) that span the range, ends included.

    >>> nice_ticks(0.3, 2.2)
    [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    """
    if high - low <= 1e-9 * max(1.0, abs(low), abs(high)):
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


# --- details ---------------------------------------------------------------------------------------------------------


def _loss_chart(name: str, curves: Sequence[Curve]) -> LineChart:
    values = sorted(value for curve in curves for value in curve.values)
    highest = values[min(len(values) - 1, int(len(values) * 0.995))]  # a single spike does not flatten the rest
    y_ticks = nice_ticks(values[0], max(highest, values[0]))
    last_step = max(step for curve in curves for step in curve.steps)
    first_step = min(step for curve in curves for step in curve.steps)
    x_ticks = nice_ticks(0 if first_step <= last_step / 5 else first_step, last_step)
    x_low, x_high = x_ticks[0], max(last_step, x_ticks[0] + 1)

    def place(curve: Curve) -> list[tuple[float, float]]:
        across = [(step - x_low) / (x_high - x_low) for step in curve.steps]
        up = [min(1.0, (value - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])) for value in curve.values]
        return [(_x(x), _y(y)) for x, y in zip(across, up, strict=True)]

    lines = []
    for curve in sorted(curves, key=lambda curve: curve.held_out):
        if curve.held_out:
            titles = [f"step {step:,.0f}: {value:.4g}" for step, value in zip(curve.steps, curve.values, strict=True)]
            points = [(x, y, title) for (x, y), title in zip(place(curve), titles, strict=True)]
            lines.append(Line("held-out", _path(place(curve)), tuple(points) if len(points) <= 60 else ()))
        else:
            smooth = smoothed(curve)
            if smooth != curve:
                lines.append(Line("raw", _path(place(curve))))
            lines.append(Line("training", _path(place(smooth))))
    return LineChart(
        name=name,
        x_ticks=tuple(Tick(_x((tick - x_low) / (x_high - x_low)), _short(tick)) for tick in x_ticks if tick <= x_high),
        y_ticks=tuple(Tick(_y((tick - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])), f"{tick:g}") for tick in y_ticks),
        lines=tuple(lines),
        has_training=any(not curve.held_out for curve in curves),
        has_held_out=any(curve.held_out for curve in curves),
        facts=tuple(fact for curve in curves for fact in _facts(curve)),
    )


def _facts(curve: Curve) -> list[tuple[str, str]]:
    if not curve.held_out:
        return [("Steps", f"{curve.steps[-1]:,.0f}"), ("Training, at the end", f"{smoothed(curve).values[-1]:.3f}")]
    best = min(range(len(curve.values)), key=curve.values.__getitem__)
    return [
        ("Held-out, at the end", f"{curve.values[-1]:.3f}"),
        ("Held-out, best", f"{curve.values[best]:.3f} at step {curve.steps[best]:,.0f}"),
    ]


def _x(share: float) -> float:
    return round(LEFT + share * (WIDTH - LEFT - RIGHT), 2)


def _y(share: float) -> float:
    return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 2)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x} {y}" for x, y in points)


def _short(number: float) -> str:
    """1 500 000 → "1.5M"."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(number) >= size:
            return f"{number / (1e3 if letter == 'k' else size):g}{letter}"
    return f"{number:,g}"

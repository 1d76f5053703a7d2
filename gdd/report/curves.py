"""A training's metrics as line charts: points of an SVG, its ticks, and the same in words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from matplotlib.ticker import MaxNLocator

WIDTH, HEIGHT = 320, 200  # of a chart, about the width of a phone, so that its text is as large as the page's
LEFT, RIGHT, TOP, BOTTOM = 46, 312, 10, 172  # of the plane within it
STYLES = 6  # different lines; more begin anew
_MOST_POINTS = 300  # of a line

# By the part of a metric's name before the slash; others are named by that part.
_TITLES = {
    "loss": "Losses",
    "score": "Discriminator's mean output",
    "diversity": "Diversity within a class, relative to real images",
    "accuracy": "Validation accuracy of the pool's networks",
    "proxy": "Validation accuracy of a proxy, by the average that taught it",
    "gradient": "Matching gradient's norm, relative to the adversarial one",
    "lessons": "Share of the time that the pool learns",
    "uses": "Iterations so far that drew a network of the pool",
}


@dataclass(frozen=True)
class Line:
    """One metric."""

    name: str
    points: str  # of an SVG polyline
    end: tuple[float, float]  # where it ends on the chart
    last: str  # its last value


@dataclass(frozen=True)
class Chart:
    """All metrics of one kind."""

    title: str
    lines: list[Line]
    x_ticks: list[tuple[float, str]]  # place and text
    y_ticks: list[tuple[float, str]]
    words: str  # for those who cannot see it


def charts(metrics: Sequence[dict[str, float]]) -> list[Chart]:
    """Return a chart for each kind of metric, in the order in which they first appear."""
    by_kind: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for values in metrics:
        for name, value in values.items():
            kind, slash, _ = name.partition("/")
            if slash:
                by_kind.setdefault(kind, {}).setdefault(name, []).append((values["step"], value))
    return [_chart(_TITLES.get(kind, kind), lines) for kind, lines in by_kind.items()]


def _chart(title: str, lines: dict[str, list[tuple[float, float]]]) -> Chart:
    steps, values = zip(*(point for line in lines.values() for point in line), strict=True)
    rising = ticks(min(values), max(values))
    across, up = Axis(0, max(steps), LEFT, RIGHT), Axis(rising[0], rising[-1], BOTTOM, TOP)
    drawn = []
    for name, points in lines.items():
        # From the last point backwards, so that the end is shown.
        thinned = points[:: -max(1, -(-len(points) // _MOST_POINTS))][::-1]
        places = [(across.place(step), up.place(value)) for step, value in thinned]
        text = " ".join(f"{x:g},{y:g}" for x, y in places)
        drawn.append(Line(name, text, places[-1], _short(points[-1][1])))
    x_ticks = [(across.place(tick), f"{tick:,.0f}") for tick in ticks(0, max(steps)) if tick <= max(steps)]
    y_ticks = [(up.place(tick), _short(tick)) for tick in rising]
    words = "; ".join(_in_words(name, points) for name, points in lines.items())
    return Chart(title, drawn, x_ticks, y_ticks, f"{title}. {words}.")


def ticks(low: float, high: float) -> list[float]:
    """Return round numbers that enclose the two; two equal ones get a margin."""
    if low == high:
        margin = abs(low) / 10 or 1
        low, high = low - margin, high + margin
    return [float(tick) for tick in MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)]


class Axis(NamedTuple):
    """Where numbers stand on a chart."""

    low: float
    high: float
    begin: float  # place of the lowest
    end: float  # place of the highest

    def place(self, value: float) -> float:
        return round(self.begin + (value - self.low) / (self.high - self.low) * (self.end - self.begin), 1)


def _short(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")


def _in_words(name: str, points: Sequence[tuple[float, float]]) -> str:
    (begin, first), (end, last) = points[0], points[-1]
    low, high = (_short(limit(value for _, value in points)) for limit in (min, max))
    if len(points) == 1:
        return f"{name}: {_short(last)} at step {end:,.0f}"
    way = f"from {_short(first)} at step {begin:,.0f} to {_short(last)} at step {end:,.0f}"
    return f"{name}: {way}, between {low} and {high}"

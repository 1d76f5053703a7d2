"""A comparison to choose from: what each source is worth, what it takes, and the commands that say so again."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from matplotlib.ticker import LogLocator
from pandas import DataFrame
from pydantic import Field

from gdd.config.fields import AtLeast1, NotNegativeOrNull
from gdd.evaluation.sources import Kind, Protocol, Source
from gdd.report.commands import distilling
from gdd.report.curves import BOTTOM, LEFT, RIGHT, STYLES, TOP, Axis, ticks

SHAPES = (  # of marks, as paths of an SVG around its origin, one for each look
    "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0Z",
    "M-3.6,-3.6h7.2v7.2h-7.2Z",
    "M0,-4.8L4.6,3.4H-4.6Z",
    "M0,-5L5,0L0,5L-5,0Z",
    "M-1.5,-4.5h3v3h3v3h-3v3h-3v-3h-3v-3h3Z",
    "M0,4.8L4.6,-3.4H-4.6Z",
)
_MOST_LABELS = 6  # that stand beside each other on an axis
LOOKS = STYLES * len(SHAPES)  # colours go with other shapes before a look comes again
_NOTHING = 26  # width of the strip for what takes no seconds, on whose right the logarithmic axis begins
_REAL_FREE: tuple[Kind, ...] = ("real:random", "real:fraction", "real:all", "real:stream")  # nobody chose among them


@dataclass(frozen=True)
class Point:
    """What one source, at one IPC and by one protocol, is worth to one network."""

    method: str  # the source's name in pictures
    source: str  # and in tables
    arch: str
    ipc: int | None  # images per class; none for all real images
    protocol: Protocol
    accuracy: Annotated[float, Field(ge=0, le=100)]  # mean, in percent of the test images
    half_width: NotNegativeOrNull  # of its 95 % interval; none where the students do not tell
    students: AtLeast1  # that have a score
    bytes: AtLeast1  # of images and labels, or of the generator's file if streamed; and of a kept teacher's
    seconds: NotNegativeOrNull  # to distil it; 0 of real images that nobody chose, none if its maker did not say
    commands: list[str]  # that distil it, and that score it


def distilled(named: Sequence[tuple[str, Source]]) -> dict[tuple[str, int | None], list[str]]:
    """Return the commands that distil sources, several for replicates, by label and IPC of a stored set."""
    made = dict[tuple[str, int | None], list[str]]()
    for label, source in named:
        command = distilling(source)
        made.setdefault((label, source.stored_ipc), []).extend([] if command is None else [command])
    return made


def points(cells: DataFrame, made: Mapping[tuple[str, int | None], Sequence[str]], command: str | None) -> list[Point]:
    """Return the points of a comparison.

    Args:
        cells: as `statistics.summarise` returns them, with a column `line`, the method.
        made: what `distilled` returns.
        command: that scores them all; none if it cannot be told.
    """
    found = []
    for cell in cells.itertuples():
        width, seconds = cell.accuracy.half_width, cell.generator_seconds
        unknown = seconds is None or math.isnan(seconds)
        found.append(
            Point(
                cell.line,
                cell.source,
                cell.arch,
                cell.ipc,
                cell.protocol,
                cell.accuracy.mean,
                None if math.isnan(width) else width,
                cell.accuracy.students - cell.accuracy.failed,
                cell.bytes,
                (0.0 if cell.kind in _REAL_FREE else None) if unknown else float(seconds),
                [
                    *made.get((cell.source, cell.ipc), made.get((cell.source, None), [])),
                    *([command] if command else []),
                ],
            )
        )
    return found


@dataclass(frozen=True)
class Mark:
    """Where a point stands on a chart."""

    point: int  # its number
    style: int
    x: float
    y: float
    ends: tuple[float, float]  # of its whisker
    words: str


@dataclass(frozen=True)
class Scatter:
    """Accuracy against what it takes, for one network."""

    title: str
    marks: list[Mark]  # from left to right
    fronts: list[str]  # points of SVG polylines: the most accurate of all that take no more, of each protocol
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    words: str  # for those who cannot see it


def styles(shown: Sequence[Point]) -> dict[str, int]:
    """Return the number of each method's look, in the order in which they first appear."""
    return {method: index % LOOKS for index, method in enumerate(dict.fromkeys(point.method for point in shown))}


def scatters(shown: Sequence[Point]) -> list[Scatter]:
    """Return for each network a chart against KiB and one against seconds to distil, where any are known."""
    drawn = []
    for arch in dict.fromkeys(point.arch for point in shown):
        mine = [number for number, point in enumerate(shown) if point.arch == arch]
        drawn.append(_scatter(f"{arch}: accuracy (%) against KiB", shown, mine, lambda point: point.bytes / 1024))
        timed = [number for number in mine if shown[number].seconds is not None]
        if any(shown[number].seconds for number in timed):
            title = f"{arch}: accuracy (%) against seconds to distil"
            drawn.append(_scatter(title, shown, timed, lambda point: point.seconds or 0.0))
    return drawn


def _scatter(title: str, shown: Sequence[Point], mine: Sequence[int], cost: Callable[[Point], float]) -> Scatter:
    costs = {number: cost(shown[number]) for number in mine}
    taken, free = [value for value in costs.values() if value > 0], 0.0 in costs.values()
    lowest, highest = math.log10(min(taken)) - 0.1, math.log10(max(taken)) + 0.1
    across = Axis(lowest, highest, LEFT + _NOTHING * free, RIGHT)
    whiskers = {number: _whisker(shown[number]) for number in mine}
    rising = ticks(min(low for low, _ in whiskers.values()), max(high for _, high in whiskers.values()))
    up = Axis(rising[0], rising[-1], BOTTOM, TOP)

    def place(number: int) -> float:
        return across.place(math.log10(costs[number])) if costs[number] else LEFT + _NOTHING / 2

    look = styles(shown)
    ordered = sorted(mine, key=lambda number: (costs[number], shown[number].accuracy))
    marks = [
        Mark(
            number,
            look[shown[number].method],
            place(number),
            up.place(shown[number].accuracy),
            (up.place(whiskers[number][0]), up.place(whiskers[number][1])),
            point_in_words(shown[number]),
        )
        for number in ordered
    ]
    at = {mark.point: mark for mark in marks}
    fronts, told = list[str](), list[str]()
    for protocol in dict.fromkeys(point.protocol for point in shown):
        of_protocol = [number for number in ordered if shown[number].protocol == protocol]
        best = [at[number] for number in _front(of_protocol, costs, shown)]
        fronts += [_stairs([(mark.x, mark.y) for mark in best])] if best else []
        told += [mark.words for mark in best]
    x_ticks = [(across.place(math.log10(tick)), f"{tick:,g}") for tick in _round(10**lowest, 10**highest)]
    return Scatter(
        title,
        marks,
        fronts,
        [(LEFT + _NOTHING / 2, "0")] * free + x_ticks,
        [(up.place(tick), f"{tick:g}") for tick in rising],
        f"{title}, {len(marks)} points. Most accurate of all that take no more: {'; '.join(told)}.",
    )


def _stairs(corners: Sequence[tuple[float, float]]) -> str:
    """Return the points of an SVG polyline that keeps the height of each corner up to the next, the last to the end."""
    steps = [corner for (_, y), (x, new) in itertools.pairwise(corners) for corner in ((x, y), (x, new))]
    return " ".join(f"{x:g},{y:g}" for x, y in (*corners[:1], *steps, (RIGHT, corners[-1][1])))


def _front(ordered: Sequence[int], costs: dict[int, float], shown: Sequence[Point]) -> list[int]:
    """Return the points that are more accurate, by their means, than all that take no more, cheapest first."""
    front: list[int] = []
    for number in ordered:
        if front and shown[number].accuracy <= shown[front[-1]].accuracy:
            continue
        if front and costs[front[-1]] == costs[number]:
            front.pop()
        front.append(number)
    return front


def _whisker(point: Point) -> tuple[float, float]:
    reach = point.half_width or 0.0
    return max(0.0, point.accuracy - reach), min(100.0, point.accuracy + reach)


def _round(low: float, high: float) -> list[float]:
    """Return powers of ten between two numbers, or more round numbers where there are few, not too near each other."""
    room = (math.log10(high) - math.log10(low)) / _MOST_LABELS
    for digits in ((1,), (1, 3), (1, 2, 5), range(1, 10), range(10, 100)):
        subs = [digit / 10 ** (digit >= 10) for digit in digits]
        found = [float(tick) for tick in LogLocator(subs=subs).tick_values(low, high) if low <= tick <= high]
        if len(found) >= 3:
            break
    kept = found[:1]
    for tick in found:
        if math.log10(tick / kept[-1]) >= room:
            kept.append(tick)
    return kept


def point_in_words(point: Point) -> str:
    """Return a point's name and accuracy: `refined generator, 10 images per class, streamed: 71.2 ± 0.9 %`."""
    images = "all images" if point.ipc is None else f"{point.ipc:,} image{'s' * (point.ipc > 1)} per class"
    width = "" if point.half_width is None else f" ± {point.half_width:.1f}"
    streamed = ", streamed" if point.protocol == "stream" else ""
    return f"{point.source}, {images}{streamed}: {point.accuracy:.1f}{width} %"

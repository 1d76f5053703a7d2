"""The pictures of a comparison: accuracy against images per class, and against the seconds that distilling took."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from gdd.evaluation.sources import CEILING, FLOOR, Kind, Protocol
from gdd.report import style
from gdd.report.style import GREYS

_COLUMNS = 3
# Where a number may stand beside its marker, best first, and the distance from all others that is far enough.
_BESIDE = [(9, 0), (-9, 0), (9, 8), (-9, 8), (9, -8), (-9, -8)]
_FAR = 9.0
_DASHES: dict[Protocol, Literal["-", "--"]] = {"fixed": "-", "stream": "--"}


@dataclass(frozen=True)
class Point:
    """A mean accuracy in percent with the half width of its 95 % interval, nan for one seed.

    Args:
        line: what it belongs to: a method, or one of several runs of a method.
        kind: of the source.
        ipc: images per class; none for all real images.
        protocol: how it was scored.
        arch: the student.
        mean: of the seeds.
        half_width: of the interval.
        seconds: that distilling took; none if unknown, or for real images.
        snapshot: whether a later set of the same run is there too.
    """

    line: str
    kind: Kind
    ipc: int | None
    protocol: Protocol
    arch: str
    mean: float
    half_width: float
    seconds: float | None
    snapshot: bool


def draw_ipc(path: Path, points: Sequence[Point], title: str, note: str) -> None:
    """Write the PNG of accuracy against images per class: a panel per architecture, a line per method."""
    points = [point for point in points if not point.snapshot]
    archs, colours = _archs(points), _colours(points)
    ipcs = sorted({point.ipc for point in points if point.ipc is not None})
    curves = list(dict.fromkeys((point.line, point.protocol) for point in points))
    columns = min(len(archs), _COLUMNS)
    rows = math.ceil(len(archs) / columns)
    figure = style.empty(max(6.5, 0.8 + 3.6 * columns), 1.6 + 3.0 * rows)
    panels = list(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
    for axes in panels[len(archs) :]:
        axes.set_visible(False)
    for axes, arch in zip(panels, archs, strict=False):
        own = [point for point in points if point.arch == arch]
        for group in _grouped(own, lambda point: (point.line, point.protocol)):
            if group[0].kind == CEILING:
                axes.axhline(group[0].mean, color=GREYS[CEILING], linewidth=1.2)
                continue
            # Beside each other, or whiskers at one IPC would hide each other.
            shift = 1.03 ** (curves.index((group[0].line, group[0].protocol)) - (len(curves) - 1) / 2)
            group.sort(key=lambda point: point.ipc or 0)
            _curve(axes, [shift * (point.ipc or 0) for point in group], group, colours)
        axes.set_xscale("log")
        axes.set_xlim(ipcs[0] / 1.6, ipcs[-1] * 1.6)
        axes.set_xticks(ipcs, map(str, ipcs))
        axes.set_xticks([], minor=True)
        axes.set_xlabel("images per class", fontsize=8)
        axes.set_title(arch, fontsize=10, loc="left")
        style.plain(axes)
    for axes in panels[::columns]:
        axes.set_ylabel("test accuracy (%)")
    style.save(figure, path, _handles(points, colours), title, note)


def draw_seconds(path: Path, points: Sequence[Point], marks: Sequence[float], title: str, note: str) -> bool:
    """Write the PNG of accuracy against seconds, a panel per architecture; false if no source knows its seconds.

    Sets of one run and IPC, which are its snapshots, are joined; real images are horizontal lines.

    Args:
        path: of the picture.
        points: all of the comparison.
        marks: accuracies in percent to draw as dotted lines.
        title: above the legend.
        note: below the panels.
    """
    timed = [point for point in points if point.seconds]
    if not timed:
        return False
    real = [point for point in points if point.kind in GREYS]
    archs, colours = _archs(timed), _colours([*real, *timed])
    figure = style.empty(7.5, 1.8 + 2.8 * len(archs))
    panels = figure.subplots(len(archs), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    ends: dict[str, list[Point]] = {arch: [] for arch in archs}
    for axes, arch in zip(panels, archs, strict=True):
        axes.set_xscale("log")
        own = [point for point in timed if point.arch == arch]
        for group in _grouped(own, lambda point: (point.line, point.ipc, point.protocol)):
            group.sort(key=_seconds)
            _curve(axes, [_seconds(point) for point in group], group, colours)
            ends[arch].append(group[-1])
        for point in real:
            if point.arch == arch:
                axes.axhline(point.mean, color=GREYS[point.kind], linewidth=1.1, zorder=0)
        for mark in marks:
            axes.axhline(mark, color="black", linewidth=0.9, linestyle=":", zorder=0)
        axes.set_ylabel("test accuracy (%)")
        axes.set_title(arch, fontsize=10, loc="left")
        style.plain(axes)
    for axes, arch in zip(panels, archs, strict=True):  # now that the axes reach as far as they will
        _number_ends(axes, [point for point in timed if point.arch == arch], ends[arch], colours)
        _number_lines(axes, [point for point in real if point.arch == arch])
    panels[-1].set_xlabel("seconds to distil", fontsize=8)
    published = "published: " + ", ".join(f"{mark:g}" for mark in marks)
    dotted = [Line2D([], [], color="black", linewidth=0.9, linestyle=":", label=published)] if marks else []
    style.save(figure, path, [*_handles([*real, *timed], colours), *dotted], title, note)
    return True


def _seconds(point: Point) -> float:
    assert point.seconds is not None
    return point.seconds


def _archs(points: Sequence[Point]) -> list[str]:
    return list(dict.fromkeys(point.arch for point in points))


def _colours(points: Sequence[Point]) -> dict[str, str]:
    return style.palette((point.line, point.kind) for point in points)


def _grouped(points: Sequence[Point], key: Callable[[Point], object]) -> list[list[Point]]:
    groups: dict[object, list[Point]] = {}
    for point in points:
        groups.setdefault(key(point), []).append(point)
    return list(groups.values())


def _curve(axes: Axes, x: list[float], group: list[Point], colours: dict[str, str]) -> None:
    first = group[0]
    colour = colours[first.line]
    below, above = zip(*(style.whisker(point.mean, point.half_width) for point in group), strict=True)
    axes.errorbar(
        x,
        [point.mean for point in group],
        yerr=[below, above],
        color=colour,
        linestyle=_DASHES[first.protocol],
        linewidth=1.3,
        elinewidth=0.8,
        capsize=2,
        marker="o",
        markersize=4.5,
        markerfacecolor=colour if first.protocol == "fixed" else "white",
    )


def _number_ends(axes: Axes, points: Sequence[Point], ends: Sequence[Point], colours: dict[str, str]) -> None:
    """Write the IPC of every curve beside its last marker, where there is most room."""

    def place(point: Point) -> tuple[float, float]:
        """Return where a marker is, in points of the page."""
        x, y = axes.transData.transform((_seconds(point), point.mean)) * 72 / axes.figure.dpi
        return float(x), float(y)

    taken = [place(point) for point in points]
    for point in ends:
        x, y = place(point)

        def room(shift: tuple[int, int], x: float = x, y: float = y) -> float:
            spots = [(x + shift[0] - left, y + shift[1] - up) for left, up in taken]
            return min(_FAR, *(math.hypot(*spot) for spot in spots))

        shift = max(_BESIDE, key=room)
        taken.append((x + shift[0], y + shift[1]))
        axes.annotate(
            str(point.ipc),
            (_seconds(point), point.mean),
            shift,
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=7,
            color=colours[point.line],
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )


def _number_lines(axes: Axes, real: Sequence[Point]) -> None:
    """Write the IPC of real images at the right edge, close ones moved apart."""
    low, high = axes.get_ylim()
    height = -math.inf
    for point in sorted(real, key=lambda point: point.mean):
        height = max(point.mean, height + 0.06 * (high - low))
        axes.annotate(
            "all" if point.ipc is None else str(point.ipc),
            (1, height),
            (4, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            fontsize=7,
            color=GREYS[CEILING],
        )


def _handles(points: Sequence[Point], colours: dict[str, str]) -> list[Line2D]:
    """Return a legend's entry per line, and what dashes mean if there are any."""
    kinds = {point.line: point.kind for point in points}
    roles = {FLOOR: " (floor)", CEILING: " (ceiling)"}
    found = [
        Line2D([], [], color=colour, marker="o", markersize=4.5, label=line + roles.get(kinds[line], ""))
        for line, colour in colours.items()
    ]
    if any(point.protocol == "stream" for point in points):
        for protocol, dashes in _DASHES.items():
            face = "black" if protocol == "fixed" else "white"
            look = Line2D([], [], color="black", linestyle=dashes, marker="o", markersize=4.5, label=protocol)
            look.set_markerfacecolor(face)
            found.append(look)
    return found

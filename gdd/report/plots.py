"""The pictures: bars of an evaluation, and a comparison's accuracy against images per class and against seconds.

Each is a PNG with a title above its legend and a note below its panels, drawn from what `statistics.summarise` returns.
"""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from pandas import DataFrame

from gdd.evaluation.sources import CEILING, FIXED_REAL, FLOOR, ROLES, STREAM_CEILING, Kind, Protocol
from gdd.report.intervals import Estimate
from gdd.runtime.checkpoint import write_atomically

# Okabe and Ito's colours, which colour-blind readers can tell apart; grey is for real images.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
GREYS: dict[Kind, str] = {FLOOR: "#C4C4C4", CEILING: "#5A5A5A", STREAM_CEILING: "#8C8C8C"}
# Above so many bars in a panel their numbers would overlap.
_NUMBERED = 24
# Panels beside each other in the picture of IPC.
_COLUMNS = 3
# Where a number may stand beside its marker, best first, and the distance from all others that is far enough.
_BESIDE = [(9, 0), (-9, 0), (9, 8), (-9, 8), (9, -8), (-9, -8)]
_FAR = 9.0
_DASHES: dict[Protocol, Literal["-", "--"]] = {"fixed": "-", "stream": "--"}


def draw_bars(path: Path, bars: DataFrame, title: str, note: str) -> None:
    """Write the picture of an evaluation: a panel for each protocol and IPC, bars by student architecture.

    Floor and ceiling, always fixed sets, stand in every panel for comparison.
    """
    protocols = [name for name in _DASHES if (bars["protocol"] == name).any()]
    ipcs: list[int | None] = sorted(bars["ipc"].dropna().unique()) or [None]
    archs = list(bars["arch"].unique())
    kinds = dict(zip(bars["source"], bars["kind"], strict=True))
    colours = palette(kinds)
    width = max(6.5, len(ipcs) * (1.2 + 0.42 * len(archs) * (len(kinds) + 1)))
    figure = empty(min(width, 24), 1.6 + 3.0 * len(protocols))
    panels = figure.subplots(len(protocols), len(ipcs), sharey=True, squeeze=False)
    real = bars["kind"].isin(FIXED_REAL)
    for line, protocol in zip(panels, protocols, strict=True):
        for axes, ipc in zip(line, ipcs, strict=True):
            here = bars["ipc"] == ipc
            distilled = ~real & here & (bars["protocol"] == protocol)
            shown = bars[distilled | (real & (here | bars["ipc"].isna()))]
            _bar_panel(axes, shown, archs, [source for source in kinds if source in {*shown["source"]}], colours)
            axes.set_title(f"{protocol}, {ipc} images per class", fontsize=10, loc="left")
        line[0].set_ylabel("test accuracy (%)")
    handles = [
        Patch(color=colours[source], label=_titled(source, kind, ", fixed" if kind in FIXED_REAL else ""))
        for source, kind in kinds.items()
    ]
    save_picture(figure, path, handles, title, note)


def draw_groups(path: Path, groups: Sequence[tuple[str, DataFrame]], title: str, note: str) -> None:
    """Write the picture of sources in groups: a titled panel for each group, bars by student architecture.

    A source has one colour in all groups.
    """
    kinds = {bar.source: bar.kind for _, bars in groups for bar in bars.itertuples()}
    colours, archs = palette(kinds), list(dict.fromkeys(arch for _, bars in groups for arch in bars["arch"]))
    figure = empty(min(max(6.5, 1.2 + 0.42 * len(archs) * (len(kinds) + 1)), 24), 1.6 + 3.0 * len(groups))
    panels = figure.subplots(len(groups), 1, sharey=True, squeeze=False)[:, 0]
    for axes, (name, bars) in zip(panels, groups, strict=True):
        _bar_panel(axes, bars, archs, [source for source in kinds if source in {*bars["source"]}], colours)
        axes.set_title(name, fontsize=10, loc="left")
        axes.set_ylabel("test accuracy (%)")
    handles = [Patch(color=colours[source], label=_titled(source, kind)) for source, kind in kinds.items()]
    save_picture(figure, path, handles, title, note)


def _bar_panel(axes: Axes, bars: DataFrame, archs: list[str], sources: list[str], colours: dict[str, str]) -> None:
    thickness = 0.8 / max(1, len(sources))
    for bar in bars.itertuples():
        mean, half_width = bar.accuracy.mean, bar.accuracy.half_width
        x = archs.index(bar.arch) + (sources.index(bar.source) - (len(sources) - 1) / 2) * thickness
        if bar.accuracy.n == 0:
            axes.annotate("failed", (x, 0), (0, 2), textcoords="offset points", ha="center", fontsize=7, rotation=90)
            continue
        known = not math.isnan(half_width)
        axes.bar(x, mean, 0.92 * thickness, color=colours[bar.source])
        if known:
            reach = [[end] for end in _whisker(bar.accuracy)]
            axes.errorbar(x, mean, yerr=reach, color="black", capsize=2, linewidth=0.9)
        if len(bars) <= _NUMBERED:
            top = min(100, mean + (half_width if known else 0))
            axes.annotate(f"{mean:.0f}", (x, top), (0, 2), textcoords="offset points", ha="center", fontsize=7)
    axes.set_xticks(range(len(archs)), archs, fontsize=8)
    axes.set_ylim(0, 108)
    axes.set_yticks(range(0, 101, 20))
    plain(axes)


def draw_ipc(path: Path, points: DataFrame, title: str, note: str) -> bool:
    """Write the picture of accuracy against images per class, a panel per architecture; false if no point has any.

    A line is a method. The points have two more columns. `line`: the method, or one of several runs of a method, that a
    point belongs to. `snapshot`: whether a later set of the same run is there too.
    """
    points = points[~points["snapshot"]]
    ipcs = sorted(points["ipc"].dropna().unique())
    if not ipcs:
        return False
    archs = list(points["arch"].unique())
    kinds = dict(zip(points["line"], points["kind"], strict=True))
    colours = palette(kinds)
    curves = list(points.groupby(["line", "protocol"], sort=False).groups)
    columns = min(len(archs), _COLUMNS)
    rows = math.ceil(len(archs) / columns)
    figure = empty(max(6.5, 0.8 + 3.6 * columns), 1.6 + 3.0 * rows)
    panels = list(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
    for axes in panels[len(archs) :]:
        axes.set_visible(False)
    for axes, arch in zip(panels, archs, strict=False):
        for key, curve in points[points["arch"] == arch].groupby(["line", "protocol"], sort=False):
            if kinds[key[0]] == CEILING:
                axes.axhline(curve["accuracy"].iloc[0].mean, color=GREYS[CEILING], linewidth=1.2)
                continue
            # Beside each other, or whiskers at one IPC would hide each other.
            shift = 1.03 ** (curves.index(key) - (len(curves) - 1) / 2)
            curve = curve.sort_values("ipc", kind="stable")
            _curve(axes, list(shift * curve["ipc"]), curve, colours)
        axes.set_xscale("log")
        axes.set_xlim(ipcs[0] / 1.6, ipcs[-1] * 1.6)
        axes.set_xticks(ipcs, map(str, ipcs))
        axes.set_xticks([], minor=True)
        axes.set_xlabel("images per class", fontsize=8)
        axes.set_title(arch, fontsize=10, loc="left")
        plain(axes)
    for axes in panels[::columns]:
        axes.set_ylabel("test accuracy (%)")
    save_picture(figure, path, _handles(points, colours, kinds), title, note)
    return True


def draw_seconds(path: Path, points: DataFrame, marks: Sequence[float], title: str, note: str) -> bool:
    """Write the picture of accuracy against seconds, a panel per architecture; false if no source knows its seconds.

    Sets of one run and IPC, which are its snapshots, are joined; real images are horizontal lines, `marks` (accuracies
    in percent) dotted ones. The points are those of `draw_ipc`.
    """
    is_real, is_timed = points["kind"].isin(GREYS), points["generator_seconds"].astype(float) > 0
    real, timed, shown = points[is_real], points[is_timed], points[is_real | is_timed]
    if timed.empty:
        return False
    archs = list(timed["arch"].unique())
    seconds = timed["generator_seconds"].astype(float)
    kinds = dict(zip(shown["line"], shown["kind"], strict=True))
    colours = palette(kinds)
    figure = empty(7.5, 1.8 + 2.8 * len(archs))
    panels = figure.subplots(len(archs), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, arch in zip(panels, archs, strict=True):
        axes.set_xscale("log")
        axes.set_xlim(seconds.min() / 1.6, seconds.max() * 1.6)  # which matplotlib fails to find for a single time
        for _, curve in timed[timed["arch"] == arch].groupby(["line", "ipc", "protocol"], sort=False):
            curve = curve.sort_values("generator_seconds", kind="stable")
            _curve(axes, list(curve["generator_seconds"]), curve, colours)
        for point in real[real["arch"] == arch].itertuples():
            axes.axhline(point.accuracy.mean, color=GREYS[point.kind], linewidth=1.1, zorder=0)
        for mark in marks:
            axes.axhline(mark, color="black", linewidth=0.9, linestyle=":", zorder=0)
        axes.set_ylabel("test accuracy (%)")
        axes.set_title(arch, fontsize=10, loc="left")
        plain(axes)
    for axes, arch in zip(panels, archs, strict=True):  # now that the axes reach as far as they will
        _number_ends(axes, timed[timed["arch"] == arch], colours)
        _number_lines(axes, real[real["arch"] == arch])
    panels[-1].set_xlabel("seconds to distil", fontsize=8)
    published = "published: " + ", ".join(f"{mark:g}" for mark in marks)
    dotted = [Line2D([], [], color="black", linewidth=0.9, linestyle=":", label=published)] if marks else []
    save_picture(figure, path, [*_handles(shown, colours, kinds), *dotted], title, note)
    return True


def _curve(axes: Axes, x: list[float], points: DataFrame, colours: dict[str, str]) -> None:
    first = points.iloc[0]
    colour = colours[first.line]
    below, above = zip(*map(_whisker, points["accuracy"]), strict=True)
    axes.errorbar(
        x,
        [accuracy.mean for accuracy in points["accuracy"]],
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


def _number_ends(axes: Axes, points: DataFrame, colours: dict[str, str]) -> None:
    """Write the IPC of every curve beside its last marker, where there is most room."""
    scale = 72 / axes.figure.dpi  # from dots to points of the page

    def place(point: Any) -> tuple[float, float]:
        x, y = axes.transData.transform((point.generator_seconds, point.accuracy.mean)) * scale
        return float(x), float(y)

    taken = [place(point) for point in points.itertuples()]
    for _, curve in points.groupby(["line", "ipc", "protocol"], sort=False):
        point = curve.sort_values("generator_seconds", kind="stable").iloc[-1]
        x, y = place(point)
        spots = [(x + right, y + up) for right, up in _BESIDE]
        room = [min(_FAR, *(math.dist(spot, other) for other in taken)) for spot in spots]
        best = room.index(max(room))
        taken.append(spots[best])
        axes.annotate(
            str(point.ipc),
            (point.generator_seconds, point.accuracy.mean),
            _BESIDE[best],
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=7,
            color=colours[point.line],
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )


def _number_lines(axes: Axes, real: DataFrame) -> None:
    """Write the IPC of real images at the right edge, close ones moved apart."""
    low, high = axes.get_ylim()
    height = -math.inf
    for point in sorted(real.itertuples(), key=lambda point: point.accuracy.mean):
        height = max(point.accuracy.mean, height + 0.06 * (high - low))
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


def _handles(points: DataFrame, colours: dict[str, str], kinds: dict[str, Kind]) -> list[Line2D]:
    """Return a legend's entry per line, and what dashes mean if there are any."""
    handles = [
        Line2D([], [], color=colour, marker="o", markersize=4.5, label=_titled(line, kinds[line]))
        for line, colour in colours.items()
    ]
    if (points["protocol"] == "stream").any():
        for protocol, dashes in _DASHES.items():
            look = Line2D([], [], color="black", linestyle=dashes, marker="o", markersize=4.5, label=protocol)
            look.set_markerfacecolor("black" if protocol == "fixed" else "white")
            handles.append(look)
    return handles


def _titled(name: str, kind: Kind, more: str = "") -> str:
    """Return a legend's entry; floor and ceilings carry their role."""
    return f"{name} ({ROLES[kind]}{more})" if kind in ROLES else name


def palette(kinds: dict[str, Kind]) -> dict[str, str]:
    """Return a colour by name: grey for real images."""
    coloured = [name for name, kind in kinds.items() if kind not in GREYS]
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(coloured)}
    return colours | {name: GREYS[kind] for name, kind in kinds.items() if kind in GREYS}


def empty(width: float, height: float) -> Figure:
    """Return a figure of so many inches that draws without a screen."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plain(axes: Axes) -> None:
    """Draw a light grid and leave out the frame."""
    axes.grid(axis="y", linewidth=0.4, color="#DDDDDD")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _whisker(accuracy: Estimate) -> tuple[float, float]:
    """Return an interval's reach below and above its mean, cut to [0, 100]; nan is drawn as 0."""
    reach = 0.0 if math.isnan(accuracy.half_width) else accuracy.half_width
    return min(reach, accuracy.mean), min(reach, 100 - accuracy.mean)


def save_picture(figure: Figure, path: Path, handles: Sequence[Artist], title: str, note: str) -> None:
    """Write a PNG with title and legend above the panels and the note below them."""
    room = int(figure.get_figwidth() * 13)  # characters of the legend's font
    for handle in handles:
        handle.set_label(textwrap.fill(str(handle.get_label()), room - 8))
    longest = max(len(line) for handle in handles for line in str(handle.get_label()).split("\n"))
    fitting = room // (longest + 8)
    figure.legend(
        handles=handles,
        title=title,
        alignment="left",
        loc="outside upper left",
        ncols=max(1, min(len(handles), 4, fitting)),
        frameon=False,
        fontsize=9,
        title_fontsize=11,
    )
    columns = int(figure.get_figwidth() * 15)
    figure.supxlabel(textwrap.fill(note, columns), x=0.01, ha="left", fontsize=7, color="#444444")
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=150))

"""The picture of an evaluation: a panel for each protocol and IPC, bars by student architecture."""

import math
import textwrap
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from gdd.checkpoint import write_atomically
from gdd.evaluation.protocol import CEILING, FLOOR, Kind, Protocol

# Okabe and Ito's colours, which colour-blind readers can tell apart; grey is for real images.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
_GREYS = {FLOOR: "#C4C4C4", CEILING: "#5A5A5A"}
# Above so many bars in a panel their numbers would overlap.
_NUMBERED = 24


@dataclass(frozen=True)
class Bar:
    """A mean accuracy in percent with the half width of its 95 % interval, nan for one seed."""

    source: str
    kind: Kind
    ipc: int | None
    protocol: Protocol
    arch: str
    mean: float
    half_width: float


def draw(path: Path, bars: list[Bar], title: str, note: str) -> None:
    """Write a PNG; floor and ceiling, always fixed sets, stand in every panel for comparison."""
    protocols = [name for name in ("fixed", "stream") if any(bar.protocol == name for bar in bars)]
    ipcs: list[int | None] = [*sorted({bar.ipc for bar in bars if bar.ipc is not None})] or [None]
    archs = list(dict.fromkeys(bar.arch for bar in bars))
    sources = list(dict.fromkeys((bar.source, bar.kind) for bar in bars))
    plain = [source for source, kind in sources if kind not in _GREYS]
    colours = {source: _COLOURS[index % len(_COLOURS)] for index, source in enumerate(plain)}
    colours |= {source: _GREYS[kind] for source, kind in sources if kind in _GREYS}

    width = max(6.5, len(ipcs) * (1.2 + 0.42 * len(archs) * (len(sources) + 1)))
    figure = Figure(figsize=(min(width, 24), 1.6 + 3.0 * len(protocols)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(protocols), len(ipcs), sharey=True, squeeze=False)
    for line, protocol in zip(panels, protocols, strict=True):
        for axes, ipc in zip(line, ipcs, strict=True):
            real = [bar for bar in bars if bar.kind in _GREYS and bar.ipc in (ipc, None)]
            own = [bar for bar in bars if bar.kind not in _GREYS and bar.ipc == ipc and bar.protocol == protocol]
            _panel(axes, real + own, archs, [source for source, _ in sources], colours)
            axes.set_title(f"{protocol}, {ipc} images per class", fontsize=10, loc="left")
        line[0].set_ylabel("test accuracy (%)")
    roles = {FLOOR: " (floor, fixed)", CEILING: " (ceiling, fixed)"}
    handles = [Patch(color=colours[source], label=source + roles.get(kind, "")) for source, kind in sources]
    figure.legend(
        handles=handles,
        title=title,
        alignment="left",
        loc="outside upper left",
        ncols=min(len(handles), 4),
        frameon=False,
        fontsize=9,
        title_fontsize=11,
    )
    columns = int(figure.get_figwidth() * 15)
    figure.supxlabel(textwrap.fill(note, columns), x=0.01, ha="left", fontsize=7, color="#444444")
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=150))


def _panel(axes: Axes, bars: list[Bar], archs: list[str], sources: list[str], colours: dict[str, str]) -> None:
    present = [source for source in sources if any(bar.source == source for bar in bars)]
    thickness = 0.8 / max(1, len(present))
    for bar in bars:
        offset = (present.index(bar.source) - (len(present) - 1) / 2) * thickness
        x = archs.index(bar.arch) + offset
        known = not math.isnan(bar.half_width)
        axes.bar(x, bar.mean, 0.92 * thickness, color=colours[bar.source])
        if known:
            # An interval may leave [0, 100]; accuracies cannot.
            reach = [[min(bar.half_width, bar.mean)], [min(bar.half_width, 100 - bar.mean)]]
            axes.errorbar(x, bar.mean, yerr=reach, color="black", capsize=2, linewidth=0.9)
        if len(bars) <= _NUMBERED:
            top = min(100, bar.mean + (bar.half_width if known else 0))
            axes.annotate(f"{bar.mean:.0f}", (x, top), (0, 2), textcoords="offset points", ha="center", fontsize=7)
    axes.set_xticks(range(len(archs)), archs, fontsize=8)
    axes.set_ylim(0, 108)
    axes.set_yticks(range(0, 101, 20))
    axes.grid(axis="y", linewidth=0.4, color="#DDDDDD")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)

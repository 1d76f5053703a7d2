"""The picture of an evaluation: a panel for each protocol and IPC, bars by student architecture."""

import math
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.patches import Patch

from gdd.evaluation.sources import CEILING, FLOOR, Kind, Protocol
from gdd.report import style
from gdd.report.style import GREYS

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
    colours = style.palette(sources)

    width = max(6.5, len(ipcs) * (1.2 + 0.42 * len(archs) * (len(sources) + 1)))
    figure = style.empty(min(width, 24), 1.6 + 3.0 * len(protocols))
    panels = figure.subplots(len(protocols), len(ipcs), sharey=True, squeeze=False)
    for line, protocol in zip(panels, protocols, strict=True):
        for axes, ipc in zip(line, ipcs, strict=True):
            real = [bar for bar in bars if bar.kind in GREYS and bar.ipc in (ipc, None)]
            own = [bar for bar in bars if bar.kind not in GREYS and bar.ipc == ipc and bar.protocol == protocol]
            _panel(axes, real + own, archs, [source for source, _ in sources], colours)
            axes.set_title(f"{protocol}, {ipc} images per class", fontsize=10, loc="left")
        line[0].set_ylabel("test accuracy (%)")
    roles = {FLOOR: " (floor, fixed)", CEILING: " (ceiling, fixed)"}
    handles = [Patch(color=colours[source], label=source + roles.get(kind, "")) for source, kind in sources]
    style.save(figure, path, handles, title, note)


def _panel(axes: Axes, bars: list[Bar], archs: list[str], sources: list[str], colours: dict[str, str]) -> None:
    present = [source for source in sources if any(bar.source == source for bar in bars)]
    thickness = 0.8 / max(1, len(present))
    for bar in bars:
        offset = (present.index(bar.source) - (len(present) - 1) / 2) * thickness
        x = archs.index(bar.arch) + offset
        known = not math.isnan(bar.half_width)
        axes.bar(x, bar.mean, 0.92 * thickness, color=colours[bar.source])
        if known:
            reach = style.whisker(bar.mean, bar.half_width)
            axes.errorbar(x, bar.mean, yerr=[[end] for end in reach], color="black", capsize=2, linewidth=0.9)
        if len(bars) <= _NUMBERED:
            top = min(100, bar.mean + (bar.half_width if known else 0))
            axes.annotate(f"{bar.mean:.0f}", (x, top), (0, 2), textcoords="offset points", ha="center", fontsize=7)
    axes.set_xticks(range(len(archs)), archs, fontsize=8)
    axes.set_ylim(0, 108)
    axes.set_yticks(range(0, 101, 20))
    style.plain(axes)

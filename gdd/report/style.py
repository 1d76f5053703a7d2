"""What all pictures share: colours, frame, legend, and the file."""

import math
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gdd.evaluation.sources import CEILING, FLOOR, Kind
from gdd.runtime.checkpoint import write_atomically

# Okabe and Ito's colours, which colour-blind readers can tell apart; grey is for real images.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
GREYS: dict[Kind, str] = {FLOOR: "#C4C4C4", CEILING: "#5A5A5A"}


def palette(sources: Iterable[tuple[str, Kind]]) -> dict[str, str]:
    """Return a colour by name: grey for real images."""
    found = dict(sources)
    coloured = [name for name, kind in found.items() if kind not in GREYS]
    colours = {name: _COLOURS[index % len(_COLOURS)] for index, name in enumerate(coloured)}
    return colours | {name: GREYS[kind] for name, kind in found.items() if kind in GREYS}


def empty(width: float, height: float) -> Figure:
    """Return a figure of so many inches that draws without a screen."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plain(axes: Axes) -> None:
    """Leave out what carries nothing."""
    axes.grid(axis="y", linewidth=0.4, color="#DDDDDD")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def save(figure: Figure, path: Path, handles: Sequence[Artist], title: str, note: str) -> None:
    """Write a PNG with title and legend above the panels and the note below them."""
    longest = max(len(str(handle.get_label())) for handle in handles)
    fitting = int(figure.get_figwidth() * 13 / (longest + 8))  # characters of the legend's font in an inch
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


def whisker(mean: float, half_width: float) -> tuple[float, float]:
    """Return an interval's reach below and above its mean: it may leave [0, 100], accuracies cannot; nan is none."""
    reach = 0.0 if math.isnan(half_width) else half_width
    return min(reach, mean), min(reach, 100 - mean)

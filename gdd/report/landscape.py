"""What `gdd landscape` shows: a few lines, and a picture of the eigenvalues and of the loss around the student."""

from pathlib import Path

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from gdd.evaluation.landscape import Landscape
from gdd.report import plots

PICTURE = "landscape.png"
_SHOWN = 5  # eigenvalues in the summary


def summary(found: Landscape) -> str:
    """Return the largest eigenvalues, and the loss where the student is and at most on the surface."""
    values = ", ".join(f"{value:.4g}" for value in found.eigenvalues[:_SHOWN])
    highest = max(map(max, found.surface))
    lines = [
        f"{found.arch} of seed {found.seed} on {found.source}: recipe {found.recipe}, labels {found.label_kind}",
        f"largest eigenvalues of the Hessian ({found.weights:,} weights): {values}",
        f"loss {found.loss:.4g}, within {found.distances[-1]:g} along two eigenvectors up to {highest:.4g}",
    ]
    return "\n".join(lines)


def draw(path: Path, found: Landscape) -> None:
    """Write the picture: eigenvalues by rank, and the loss along the eigenvectors of the largest two."""
    figure = plots.empty(9.5, 4.4)
    spectrum, plane = figure.subplots(1, 2)
    ranks = range(1, len(found.eigenvalues) + 1)
    spectrum.plot(ranks, found.eigenvalues, "o-", color=plots.COLOURS[0], markersize=4, linewidth=1)
    if found.eigenvalues[-1] > 0:
        spectrum.set_yscale("log")
        spectrum.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        spectrum.yaxis.set_major_formatter("{x:g}")
        spectrum.yaxis.set_minor_locator(NullLocator())
    spectrum.xaxis.set_major_locator(MaxNLocator(integer=True))
    spectrum.set_xlabel("rank")
    spectrum.set_title("largest eigenvalues of the Hessian", fontsize=10, loc="left")
    plots.plain(spectrum)
    loss = np.array(found.surface).T  # the first eigenvector is the horizontal axis
    floor = max(loss.min(), 1e-12)
    levels = np.geomspace(floor, max(loss.max(), 1.001 * floor), 16)
    filled = plane.contourf(found.distances, found.distances, np.maximum(loss, floor), levels, norm=LogNorm())
    bar = figure.colorbar(filled, ax=plane, format="%.2g", ticks=levels[::3])
    bar.ax.minorticks_off()
    plane.plot(0, 0, "*", color="white", markeredgecolor="black", markersize=11)
    plane.set_xlabel("along the first eigenvector")
    plane.set_ylabel("along the second")
    plane.set_title("training loss", fontsize=10, loc="left")
    plane.set_aspect("equal")
    student = Line2D([], [], marker="*", color="white", markeredgecolor="black", markersize=9, label="the student")
    note = f"recipe {found.recipe}; labels: {found.label_kind}; {found.weights:,} weights; eigenvectors of length 1."
    plots.save(figure, path, [student], f"{found.arch}, seed {found.seed}, on {found.source}", note)

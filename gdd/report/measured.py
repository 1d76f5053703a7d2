"""What `gdd audit` and `gdd landscape` show: sentences, tables and pictures of what they measured."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from torch import Tensor
from torchvision.utils import make_grid

from gdd.evaluation.audit import Audit, Evidence, Membership
from gdd.evaluation.copies import NEIGHBOURS, Proportion
from gdd.evaluation.landscape import Landscape
from gdd.evaluation.sources import CEILING
from gdd.formats.plain import to_arrays
from gdd.report import plots
from gdd.report.tables import Section

AUDIT_PICTURE, LANDSCAPE_PICTURE = "audit.png", "landscape.png"
_TRAINING, _HELD_OUT, _REAL = plots.COLOURS[0], plots.COLOURS[1], plots.GREYS[CEILING]
_BINS = 50
_EIGENVALUES = 5  # that a landscape's summary names


def audit_section(audit: Audit) -> Section:
    """Return an audit as a table, with its sentences below."""
    attack, medians = audit.membership, audit.nearest
    lines = [
        ["near copies", *_cells(audit.near_copies)],
        ["exact copies", f"{audit.copies:,}", "", ""],
        ["samples nearer to a training image than to a held-out one", *_cells(audit.nearer_to_training)],
        *_attack_lines("AUC of a membership attack", attack),
        *([] if audit.answers is None else _attack_lines("AUC of an attack on the teacher's answers", audit.answers)),
        ["median distance, samples to training images", f"{medians.training:.2f}", "", ""],
        ["median distance, samples to held-out images", f"{medians.held_out:.2f}", "", ""],
        ["median distance, held-out to training images", f"{medians.real:.2f}", "", ""],
    ]
    title = f"copies and privacy: {audit.source.kind} {audit.source.label} ({audit.source.hash[:6]})"
    return Section(title, audit_notes(audit), ["measure", "found", "95 % interval", "expected"], lines)


def _attack_lines(name: str, attack: Membership) -> list[list[str]]:
    return [
        [name, f"{attack.auc:.3f}", f"{attack.low:.3f} to {attack.high:.3f}", "0.500"],
        ["its true positives at 1 % false positives", _percent(attack.tpr_at_1_percent_fpr), "", "1.0 %"],
    ]


def audit_notes(audit: Audit) -> list[str]:
    """Return sentences on near copies, on the membership attack, and on what was compared."""
    near, attack, asked = audit.near_copies, audit.membership, audit.answers
    answers = []
    if asked is not None:
        answers = [
            f"By the teacher's answers beside it they are told with an AUC of {asked.auc:.3f} ({asked.low:.3f} to "
            f"{asked.high:.3f})."
        ]
    return [
        f"{_percent(near.share)} ({_interval(near)}) of the samples are nearer to a training image, relative to its "
        f"{NEIGHBOURS} nearest ones, than 99 % of held-out images are; expected {_percent(near.expected)}.",
        f"From samples alone, training images are told from held-out ones with an AUC of {attack.auc:.3f} "
        f"({attack.low:.3f} to {attack.high:.3f}); a guess has 0.5.",
        *answers,
        f"{audit.n_samples:,} samples, {audit.n_training:,} training images, {audit.n_held_out:,} held-out images (the "
        f"{audit.held_out} part); for all but copies {audit.n_group:,} of each. Distances are Euclidean, of pixels in "
        "[0, 1]. Expected: of real images that nobody has trained on.",
    ]


def _cells(proportion: Proportion) -> list[str]:
    return [_percent(proportion.share), f"{_interval(proportion)} %", _percent(proportion.expected)]


def _interval(proportion: Proportion) -> str:
    return f"{100 * proportion.low:.1f} to {100 * proportion.high:.1f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def draw_audit(path: Path, audit: Audit, evidence: Evidence) -> None:
    """Write the picture: the samples most like copies above their training images, and distributions of distances."""
    figure = plots.empty(9.5, 6.0)
    grid = figure.add_gridspec(2, 2, height_ratios=[2, 3])
    _pairs(figure.add_subplot(grid[0, :]), evidence)
    distances, relative = (figure.add_subplot(grid[1, column]) for column in range(2))
    _histogram(distances, (_TRAINING, evidence.to_training), (_HELD_OUT, evidence.to_held_out), (_REAL, evidence.real))
    distances.set_title("distance to the nearest image of a group", fontsize=10, loc="left")
    _histogram(relative, (_TRAINING, evidence.relative), (_REAL, evidence.real_relative))
    relative.axvline(evidence.threshold, color="black", linewidth=0.9, linestyle="--")
    relative.set_title("relative distance to the nearest training image", fontsize=10, loc="left")
    handles = [
        Line2D([], [], color=_TRAINING, label="samples to training images"),
        Line2D([], [], color=_HELD_OUT, label="samples to held-out images"),
        Line2D([], [], color=_REAL, label="held-out to training images"),
        Line2D([], [], color="black", linewidth=0.9, linestyle="--", label="near copies lie left of it"),
    ]
    title = f"{audit.source.label}: the samples most like copies, and distances to real images"
    plots.save_picture(figure, path, handles, title, " ".join(audit_notes(audit)))


def _pairs(axes: Axes, evidence: Evidence) -> None:
    """Show samples above the training images that are nearest to them, and their relative distances."""
    count, (height, width) = len(evidence.closest), evidence.closest.shape[2:]
    strip = make_grid([*evidence.closest, *evidence.originals], nrow=count, padding=1, pad_value=255)
    axes.imshow(to_arrays(strip[None])[0], interpolation="nearest")
    centres = [1 + width / 2 + index * (width + 1) for index in range(count)]
    axes.set_xticks(centres, [f"{value:.2f}" for value in evidence.closest_relative.tolist()], fontsize=7)
    axes.set_yticks([1 + height / 2, 2 + 1.5 * height], ["sample", "nearest\ntraining image"], fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("relative distance", fontsize=8)


def _histogram(axes: Axes, *groups: tuple[str, Tensor]) -> None:
    """Draw densities of the groups' distances, each in its colour."""
    values = [group.numpy() for _, group in groups]
    edges = np.histogram_bin_edges(np.concatenate(values), _BINS).tolist()
    for (colour, _), group in zip(groups, values, strict=True):
        axes.hist(group, edges, density=True, histtype="step", color=colour, linewidth=1.3)
    axes.set_yticks([])
    axes.set_ylabel("density", fontsize=8)
    plots.plain(axes)


def landscape_summary(landscape: Landscape) -> str:
    """Return the largest eigenvalues, the student's loss, and the highest loss around it."""
    values = ", ".join(f"{value:.4g}" for value in landscape.eigenvalues[:_EIGENVALUES])
    highest = max(map(max, landscape.surface))
    lines = [
        f"{landscape.arch} of seed {landscape.seed} on {landscape.source}: recipe {landscape.recipe}, "
        f"labels {landscape.label_kind}",
        f"largest eigenvalues of the Hessian ({landscape.weights:,} weights): {values}",
        f"loss {landscape.loss:.4g}, within {landscape.distances[-1]:g} along two eigenvectors up to {highest:.4g}",
    ]
    return "\n".join(lines)


def draw_landscape(path: Path, landscape: Landscape) -> None:
    """Write the picture: eigenvalues by rank, and the loss along the eigenvectors of the largest two."""
    figure = plots.empty(9.5, 4.4)
    spectrum, plane = figure.subplots(1, 2)
    ranks = range(1, len(landscape.eigenvalues) + 1)
    spectrum.plot(ranks, landscape.eigenvalues, "o-", color=plots.COLOURS[0], markersize=4, linewidth=1)
    if landscape.eigenvalues[-1] > 0:
        spectrum.set_yscale("log")
        spectrum.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        spectrum.yaxis.set_major_formatter("{x:g}")
        spectrum.yaxis.set_minor_locator(NullLocator())
    spectrum.xaxis.set_major_locator(MaxNLocator(integer=True))
    spectrum.set_xlabel("rank")
    spectrum.set_title("largest eigenvalues of the Hessian", fontsize=10, loc="left")
    plots.plain(spectrum)
    loss = np.array(landscape.surface).T  # the first eigenvector is the horizontal axis
    floor = max(loss.min(), 1e-12)
    levels = np.geomspace(floor, max(loss.max(), 1.001 * floor), 16)
    filled = plane.contourf(landscape.distances, landscape.distances, np.maximum(loss, floor), levels, norm=LogNorm())
    bar = figure.colorbar(filled, ax=plane, format="%.2g", ticks=levels[::3])
    bar.ax.minorticks_off()
    plane.plot(0, 0, "*", color="white", markeredgecolor="black", markersize=11)
    plane.set_xlabel("along the first eigenvector")
    plane.set_ylabel("along the second")
    plane.set_title("training loss", fontsize=10, loc="left")
    plane.set_aspect("equal")
    student = Line2D([], [], marker="*", color="white", markeredgecolor="black", markersize=9, label="the student")
    recipe = f"recipe {landscape.recipe}; labels: {landscape.label_kind}"
    note = f"{recipe}; {landscape.weights:,} weights; eigenvectors of length 1."
    plots.save_picture(figure, path, [student], f"{landscape.arch}, seed {landscape.seed}, on {landscape.source}", note)

"""What `gdd audit` shows: a table with its sentences, and a picture of the samples that are most like copies."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from torch import Tensor
from torchvision.utils import make_grid

from gdd.evaluation.audit import Audit, Evidence
from gdd.evaluation.copies import NEIGHBOURS, Proportion
from gdd.evaluation.sources import CEILING
from gdd.formats.export import to_arrays
from gdd.report import plots
from gdd.report.tables import Section

PICTURE = "audit.png"
_TRAINING, _HELD_OUT, _REAL = plots.COLOURS[0], plots.COLOURS[1], plots.GREYS[CEILING]
_BINS = 50


def section(found: Audit) -> Section:
    """Return the table of what was found, with sentences that say it and what it was compared with."""
    attack, medians = found.membership, found.nearest
    lines = [
        ["near copies", *_cells(found.near_copies)],
        ["exact copies", f"{found.copies:,}", "", ""],
        ["samples nearer to a training image than to a held-out one", *_cells(found.nearer_to_training)],
        ["AUC of a membership attack", f"{attack.auc:.3f}", f"{attack.low:.3f} to {attack.high:.3f}", "0.500"],
        ["its true positives at 1 % false positives", _percent(attack.tpr_at_1_percent_fpr), "", "1.0 %"],
        ["median distance, samples to training images", f"{medians.training:.2f}", "", ""],
        ["median distance, samples to held-out images", f"{medians.held_out:.2f}", "", ""],
        ["median distance, held-out to training images", f"{medians.real:.2f}", "", ""],
    ]
    title = f"copies and privacy: {found.source.kind} {found.source.label} ({found.source.hash[:6]})"
    return Section(
        title, [*sentences(found), compared(found)], ["measure", "found", "95 % interval", "expected"], lines
    )


def sentences(found: Audit) -> list[str]:
    """Return what was found of copies and of the membership attack, a sentence for each."""
    near, attack = found.near_copies, found.membership
    return [
        f"{_percent(near.share)} ({_interval(near)}) of the samples are nearer to a training image, relative to its "
        f"{NEIGHBOURS} nearest ones, than 99 % of held-out images are; expected {_percent(near.expected)}.",
        f"From samples alone, training images are told from held-out ones with an AUC of {attack.auc:.3f} "
        f"({attack.low:.3f} to {attack.high:.3f}); a guess has 0.5.",
    ]


def compared(found: Audit) -> str:
    """Return what was compared with what."""
    return (
        f"{found.n_samples:,} samples, {found.n_training:,} training images, {found.n_held_out:,} held-out images (the "
        f"{found.held_out} part); for all but copies {found.n_group:,} of each. Distances are Euclidean, of pixels in "
        "[0, 1]. Expected: of real images that nobody has trained on."
    )


def _cells(proportion: Proportion) -> list[str]:
    return [_percent(proportion.share), f"{_interval(proportion)} %", _percent(proportion.expected)]


def _interval(proportion: Proportion) -> str:
    return f"{100 * proportion.low:.1f} to {100 * proportion.high:.1f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def draw(path: Path, found: Audit, evidence: Evidence) -> None:
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
    title = f"{found.source.label}: the samples most like copies, and distances to real images"
    plots.save(figure, path, handles, title, " ".join([*sentences(found), compared(found)]))


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

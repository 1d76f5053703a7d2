"""From rows to estimates: means over seeds with their intervals, and differences paired by seed.

The seeds are those of students or, where `replicates` are asked for, those of distillations and students.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

from pandas import DataFrame, Series, isna

from gdd.config import ConfigError
from gdd.evaluation import grid
from gdd.evaluation.row import Row
from gdd.evaluation.sources import CEILING, REAL_NAMES, STREAM_CEILING, place
from gdd.report.intervals import Estimate, crossed, estimate

# Rows that agree in these differ by their seed alone.
_CELL = ["recipe_hash", "precision", "epochs", "source", "source_hash", "ipc", "protocol", "arch"]
# What tells distillations apart: of a row, of a pair both.
_HASHES = ("source_hash", "source_hash_b")


def require_rows(folder: Path) -> list[Row]:
    """Return the rows of an evaluation's run folder; ConfigError if it has none."""
    rows = grid.read_rows(folder)
    if not rows:
        raise ConfigError(f"{folder} has no row in {grid.ROWS}; a run folder of gdd evaluate was expected")
    return rows


def frame(rows: Sequence[Row]) -> DataFrame:
    """Return a line per row, in the given order, with a column per field."""
    # Objects stay what they are: pandas would make 10 images per class 10.0 if another row has none.
    columns = [field.name for field in fields(Row)]
    return DataFrame([row.to_dict() for row in rows], columns=columns, dtype=object)


def _estimates(
    rows: DataFrame, cell: list[str], column: str, replicates: bool, shared_draws: bool = False
) -> DataFrame:
    """Return the first row of each cell, in their order, with an estimate in place of the column's value.

    Of replicates it is over distillations crossed with students; of real images, which are not distilled, over
    students.
    """
    if replicates:
        cell = [name for name in cell if name not in _HASHES]
    cells = rows.groupby(cell, sort=False, dropna=False)
    first = cells.head(1)
    estimates = [
        _of_replicates(of_cell, column, shared_draws) if replicates else estimate(list(of_cell[column]))
        for _, of_cell in cells
    ]
    return first.assign(**{column: Series(estimates, index=first.index, dtype=object)})


def _of_replicates(rows: DataFrame, column: str, shared_draws: bool) -> Estimate:
    """Return the estimate of one cell; scores share draws too if one side of a difference is not distilled."""
    if rows.filter(regex="^kind").isin([*REAL_NAMES]).all(axis=None):  # of a pair both
        return estimate(list(rows[column]))
    table: dict[tuple[str, ...], dict[int, float | None]] = {}
    hashes = rows[[name for name in _HASHES if name in rows]]
    for distillation, seed, score in zip(
        hashes.itertuples(index=False, name=None), rows["seed"], rows[column], strict=True
    ):
        table.setdefault(distillation, {})[seed] = score
    seeds = rows["seed"].unique()
    shared = shared_draws or bool(rows.filter(regex="^distillation_seed").isna().any(axis=None))
    return crossed([[line.get(seed, math.nan) for seed in seeds] for line in table.values()], shared)


def summarise(
    rows: DataFrame, replicates: bool = False, column: str = "accuracy", shared_draws: bool = False
) -> DataFrame:
    """Return a line per source, IPC, protocol and architecture: floor first, ceiling last, else as given.

    `column` holds its estimate, the other columns what the first of its rows says; but replicates, which are one
    source, took `generator_seconds` on average.
    """
    if replicates:
        seconds = rows.assign(generator_seconds=rows["generator_seconds"].astype(float))
        means = seconds.groupby(["source", "ipc"], dropna=False)["generator_seconds"].transform("mean")
        rows = rows.assign(generator_seconds=means)
    summary = _estimates(rows, _CELL, column, replicates, shared_draws)
    return summary.sort_values("kind", key=lambda kinds: kinds.map(place), kind="stable")


def teachers(rows: DataFrame) -> dict[tuple[str, int | None], Estimate]:
    """Return the accuracy of the teachers of each source and IPC over seeds; nothing where rows do not say it."""
    told = rows[rows["teacher_accuracy"].notna()]
    taught = told.drop_duplicates(["source", "source_hash", "ipc", "protocol", "seed"])  # of all architectures one
    cells = taught.groupby(["source", "ipc"], sort=False, dropna=False)["teacher_accuracy"]
    return {
        (source, None if ipc is None or math.isnan(ipc) else ipc): estimate(list(of)) for (source, ipc), of in cells
    }


def differences(rows: DataFrame, others: DataFrame, replicates: bool = False) -> DataFrame:
    """Return `rows` minus `others`, a line per pair of sources, IPC, protocol and architecture, over the seeds of both.

    `points` holds the estimate, `source` and `source_b` the pair. A seed fixes the student's initialisation, order
    and augmentation and the generators' noise, so that the paired interval is narrower than one of two independent
    means. Replicates are paired by the seed of their distillation too. A pair has failed if either student has.
    """
    pairs = _paired(rows, others, replicates)
    pairs["points"] = _of_pairs(pairs, lambda accuracy, other: accuracy - other)
    return _estimates(pairs, [*_CELL, "epochs_b", "source_b", "source_hash_b"], "points", replicates)


def shares(rows: DataFrame, replicates: bool = False) -> DataFrame:
    """Return a line per streamed source, IPC and architecture: its `share` of the accuracy of fresh real images.

    An estimate in percent over the seeds that both have, of the ratio of each seed.
    """
    pairs = _paired(rows[rows["kind"] == "generator"], rows[rows["kind"] == STREAM_CEILING], replicates)
    pairs["share"] = _of_pairs(pairs, lambda accuracy, other: 100 * accuracy / other)
    return _estimates(pairs, _CELL, "share", replicates)


def _paired(rows: DataFrame, others: DataFrame, replicates: bool) -> DataFrame:
    """Pair rows by the seed of their students and, for replicates that both have one, by that of their distillation."""
    alike = ["recipe_hash", "precision", "ipc", "protocol", "arch", "seed"]
    pairs = rows.merge(others, on=alike, suffixes=("", "_b"))
    if not replicates:
        return pairs
    seed, other = pairs["distillation_seed"], pairs["distillation_seed_b"]
    return pairs[seed.isna() | other.isna() | (seed == other)].copy()


def _of_pairs(pairs: DataFrame, formula: Callable[[float, float], float]) -> Series:
    """Return what a formula makes of each pair's accuracies; none where a student failed."""
    both = zip(pairs["accuracy"], pairs["accuracy_b"], strict=True)
    values = [None if isna(accuracy) or isna(other) else formula(accuracy, other) for accuracy, other in both]
    return Series(values, index=pairs.index, dtype=object)


def refinement(rows: DataFrame) -> DataFrame:
    """Return every refined generator minus every pretrained one."""
    generators = rows[rows["kind"] == "generator"]
    return differences(generators[generators["stage"] == "refine"], generators[generators["stage"] == "pretrain"])


def by_recipe(rows: DataFrame, mixed: bool = False) -> list[DataFrame]:
    """Split rows by training conditions, since only equal conditions compare.

    Rows of another precision are parted too, unless they shall be `mixed`; their sources' names then tell it.

    A folder may also hold one name's rows from before and after it was distilled anew, or the ceiling's of several
    numbers of epochs; hashes and epochs then tell them. Stored sets may share a name, each at its own IPC.
    """
    apart = ["recipe_hash"] if mixed else ["recipe_hash", "precision"]
    return [_told_apart(part) for _, part in rows.groupby(apart, sort=False)]


def _told_apart(rows: DataFrame) -> DataFrame:
    several_hashes = rows.groupby(["source", "ipc"], dropna=False)["source_hash"].transform("nunique") > 1
    hashes = " (" + rows["source_hash"].str[:6] + ")"
    ceiling = rows["kind"] == CEILING
    several_epochs = ceiling & (rows["epochs"][ceiling].nunique() > 1)
    epochs = rows["epochs"].map(lambda n: f", {n:,} epoch{'s' * (n > 1)}")
    precision = ", " + rows["precision"] if rows["precision"].nunique() > 1 else ""
    told = hashes.where(several_hashes, "") + epochs.where(several_epochs, "") + precision
    return rows.assign(source=rows["source"] + told)

"""From rows to estimates: means over seeds with their intervals, and differences paired by seed.

The seeds are those of students or, where `replicates` are asked for, those of distillations.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pandas import DataFrame, Series
from scipy.special import stdtrit

from gdd.config import ConfigError
from gdd.evaluation import grid
from gdd.evaluation.row import Row
from gdd.evaluation.sources import CEILING, REAL_NAMES, STREAM_CEILING, place

# Rows that agree in these differ by their seed alone.
_CELL = ["recipe_hash", "precision", "epochs", "source", "source_hash", "ipc", "protocol", "arch"]


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, in percent (points for a difference)."""

    mean: float  # of the values; nan if all students failed
    std: float  # of the sample (n - 1); nan for one value
    half_width: float  # of the 95 % confidence interval by Student's t; nan for one value
    n: int  # values
    failed: int = 0  # students that have no value


def estimate(scores: Sequence[float | None]) -> Estimate:
    """Return mean, sample standard deviation and the half width of the 95 % t-interval; none is a failed student."""
    values = [score for score in scores if score is not None]
    n, failed = len(values), len(scores) - len(values)
    mean = statistics.fmean(values) if values else math.nan
    if n < 2:
        return Estimate(mean, math.nan, math.nan, n, failed)
    std = statistics.stdev(values)
    return Estimate(mean, std, float(stdtrit(n - 1, 0.975)) * std / math.sqrt(n), n, failed)


def read_rows(folder: Path) -> list[Row]:
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


def _estimates(rows: DataFrame, cell: list[str], column: str, replicates: bool) -> DataFrame:
    """Return the first row of each cell, in their order, with an estimate in place of the column's value.

    For replicates a distillation counts once, by the mean over its students. Real images are not distilled, so there
    the students count.
    """
    if replicates:
        real = rows.filter(regex="^kind").isin([*REAL_NAMES]).all(axis=1)  # of a pair both
        rows = _combined(rows, [*cell, rows["seed"].where(real)], column, _mean)
        cell = [name for name in cell if name not in ("source_hash", "source_hash_b")]
    return _combined(rows, cell, column, estimate)


def _mean(scores: Sequence[float | None]) -> float | None:
    """Return the mean of what did not fail; none if all did."""
    values = [score for score in scores if score is not None]
    return statistics.fmean(values) if values else None


def _combined(
    rows: DataFrame, cell: list[Any], column: str, combine: Callable[[list[float | None]], object]
) -> DataFrame:
    """Return the first row of each cell, in their order, with its values of the column combined."""
    cells = rows.groupby(cell, sort=False, dropna=False)
    first = cells.head(1)
    combined = [combine(list(values)) for _, values in cells[column]]
    return first.assign(**{column: Series(combined, index=first.index, dtype=object)})  # or None would become NaN


def summarise(rows: DataFrame, replicates: bool = False, column: str = "accuracy") -> DataFrame:
    """Return a line per source, IPC, protocol and architecture: floor first, ceiling last, else as given.

    `column` holds its estimate, the other columns what the first of its rows says; but replicates, which are one
    source, took `generator_seconds` on average.
    """
    if replicates:
        seconds = rows.assign(generator_seconds=rows["generator_seconds"].astype(float))
        means = seconds.groupby(["source", "ipc"], dropna=False)["generator_seconds"].transform("mean")
        rows = rows.assign(generator_seconds=means)
    summary = _estimates(rows, _CELL, column, replicates)
    return summary.sort_values("kind", key=lambda kinds: kinds.map(place), kind="stable")


def teachers(rows: DataFrame) -> dict[tuple[str, int | None], Estimate]:
    """Return the accuracy of the teachers of each source and IPC over seeds; nothing where rows do not say it."""
    told = rows[rows["teacher_accuracy"].notna()]
    own = told.drop_duplicates(["source", "source_hash", "ipc", "protocol", "seed"])  # of all architectures one
    cells = own.groupby(["source", "ipc"], sort=False, dropna=False)["teacher_accuracy"]
    return {
        (source, None if ipc is None or math.isnan(ipc) else ipc): estimate(list(of)) for (source, ipc), of in cells
    }


def differences(rows: DataFrame, others: DataFrame, replicates: bool = False) -> DataFrame:
    """Return `rows` minus `others`, a line per pair of sources, IPC, protocol and architecture, over the seeds of both.

    `points` holds the estimate, `source` and `source_b` the pair. A seed fixes the student's initialisation, order
    and augmentation and the generators' noise, so that the paired interval is narrower than one of two independent
    means. Replicates are paired by the seed of their distillation too.
    """
    pairs = _paired(rows, others, replicates)
    pairs["points"] = pairs["accuracy"] - pairs["accuracy_b"]
    return _estimates(pairs, [*_CELL, "epochs_b", "source_b", "source_hash_b"], "points", replicates)


def shares(rows: DataFrame, replicates: bool = False) -> DataFrame:
    """Return a line per streamed source, IPC and architecture: its `share` of the accuracy of fresh real images.

    An estimate in percent over the seeds that both have, of the ratio of each seed.
    """
    pairs = _paired(rows[rows["kind"] == "generator"], rows[rows["kind"] == STREAM_CEILING], replicates)
    pairs["share"] = 100 * pairs["accuracy"] / pairs["accuracy_b"]
    return _estimates(pairs, _CELL, "share", replicates)


def _paired(rows: DataFrame, others: DataFrame, replicates: bool) -> DataFrame:
    """Pair rows by the seed of their students and, for replicates that both have one, by that of their distillation.

    What failed has no pair.
    """
    alike = ["recipe_hash", "precision", "ipc", "protocol", "arch", "seed"]
    pairs = rows[rows["failure"].isna()].merge(others[others["failure"].isna()], on=alike, suffixes=("", "_b"))
    if not replicates:
        return pairs
    one, other = pairs["distillation_seed"], pairs["distillation_seed_b"]
    return pairs[one.isna() | other.isna() | (one == other)].copy()


def refinement(rows: DataFrame) -> DataFrame:
    """Return every refined generator minus every pretrained one."""
    generators = rows[rows["kind"] == "generator"]
    return differences(generators[generators["stage"] == "refine"], generators[generators["stage"] == "pretrain"])


def by_recipe(rows: DataFrame, mixed: bool = False) -> list[DataFrame]:
    """Part rows that were trained under different conditions, for they do not compare.

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

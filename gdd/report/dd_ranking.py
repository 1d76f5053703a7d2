"""DD-Ranking's scores (Li et al., arXiv 2505.13300): how far accuracy is due to the images of a set.

All accuracies are fractions in [0, 1], as the formulas need them: their exponents then lie in [-1, 1] and the scores in
[0, 1]. The released ddranking 0.2.0 puts percent into the exponent, so that it prints up to 10^43 for what is 1 here.
Differences are those of one student seed; means and intervals come after.
"""

import math
from collections.abc import Callable, Sequence

from pandas import DataFrame

from gdd.evaluation.dd_ranking import SCORED
from gdd.evaluation.row import Row
from gdd.evaluation.sources import CEILING, FLOOR
from gdd.report import statistics, tables
from gdd.report.tables import Section

WEIGHT = 0.5  # of both sums, as on their leaderboard
_SCORES = ("HLR", "IOR", "LRS", "ARS")


def hard_label_recovery(full: float, synthetic: float) -> float:
    """Return HLR, in [-1, 1], lower is better: what hard labels of the set leave of the accuracy of all real images.

    Args:
        full: accuracy of a student of all real images, with hard labels.
        synthetic: that of a student of the set, with hard labels.
    """
    return full - synthetic


def improvement_over_random(synthetic: float, random: float) -> float:
    """Return IOR, in [-1, 1]: the accuracy of the set above that of as many random real images, both trained alike."""
    return synthetic - random


def normalised(exponent: float) -> float:
    """Return (e^x - e^-1) / (e - e^-1), which maps [-1, 1] onto [0, 1] and 0 to 0.269; it grows with x."""
    return (math.exp(exponent) - math.exp(-1)) / (math.exp(1) - math.exp(-1))


def label_robust_score(hlr: float, ior: float, weight: float = WEIGHT) -> float:
    """Return LRS, in [0, 1]: of weight * IOR - (1 - weight) * HLR, normalised; `weight` is in [0, 1]."""
    return normalised(weight * ior - (1 - weight) * hlr)


def augmentation_robust_score(augmented: float, plain: float, weight: float = WEIGHT) -> float:
    """Return ARS, in [0, 1]: of the IOR with augmentation and the one without, averaged and normalised.

    Args:
        augmented: IOR where both students are trained with augmentation.
        plain: IOR where neither is.
        weight: of the first, in [0, 1].
    """
    return normalised(weight * augmented + (1 - weight) * plain)


def section(
    rows: Sequence[Row],
    other: Sequence[Row],
    hard: Sequence[Row],
    brief: bool,
    replicates: bool = False,
    equal_bytes: bool = False,
) -> Section:
    """Return the table of the four scores, a line per source, IPC and student.

    Args:
        rows: of the comparison.
        other: of its fixed sources, with the other augmentation.
        hard: of these and of all real images, with hard labels alone.
        brief: for a terminal, with fewer notes.
        replicates: whether intervals are over distillations and students, as in the tables beside this one.
        equal_bytes: whether random real images have the bytes and the kind of labels of what is scored, not its IPC.
    """
    used = [row for row in rows if row.protocol == "fixed" and row.kind in SCORED]
    table = _with_scores(used, other, hard, equal_bytes)
    summaries = [statistics.summarise(table, replicates, name, shared_draws=True) for name in _SCORES]
    most = max(tables.most_seeds(summary[name]) for name, summary in zip(_SCORES, summaries, strict=True))
    order = summaries[0].sort_values("ipc", kind="stable").index
    lines = []
    for index in order:
        row = summaries[0].loc[index]
        values = [summary[name][index] for name, summary in zip(_SCORES, summaries, strict=True)]
        lines.append(
            [*tables.name_and_ipc(row, "fixed"), row.arch, *(tables.interval(value, most) for value in values)]
        )
    return Section(
        f"{used[0].dataset}, DD-Ranking's scores of fixed images",
        _notes(table, other[0], hard, brief, replicates, equal_bytes),
        ["method", "IPC", "student", *_SCORES],
        lines,
    )


def _with_scores(rows: Sequence[Row], other: Sequence[Row], hard: Sequence[Row], equal_bytes: bool) -> DataFrame:
    """Return a line per row and a column per score, in percent; none if a student it needs has failed."""
    full = {(row.arch, row.seed): _fraction(row) for row in hard if row.kind == CEILING}
    arms = [{_key(row): _fraction(row) for row in arm} for arm in (rows, other, hard)]
    floors = [{_rival(row, equal_bytes): _fraction(row) for row in arm if row.kind == FLOOR} for arm in (rows, other)]
    scores = []
    for row in rows:
        key, rival = _key(row), _rival(row, equal_bytes)
        hlr = _of(hard_label_recovery, full[row.arch, row.seed], arms[2][key])
        # With and without augmentation, in either order: their weights are equal.
        ior, otherwise = (_of(improvement_over_random, arms[i][key], floors[i][rival]) for i in (0, 1))
        values = hlr, ior, _of(label_robust_score, hlr, ior), _of(augmentation_robust_score, ior, otherwise)
        scores.append([None if value is None else 100 * value for value in values])
    table = statistics.frame(rows)
    columns = dict(zip(_SCORES, zip(*scores, strict=True), strict=True))
    return table.join(DataFrame(columns, index=table.index, dtype=object))


def _key(row: Row) -> tuple[object, ...]:
    """Return the key of a student in all arms; no hash, for a set without its soft labels has another."""
    return row.kind, row.source, row.distillation_seed, row.ipc, row.arch, row.seed


def _rival(row: Row, equal_bytes: bool) -> tuple[object, ...]:
    """Return what a student shares with that of random real images which it is measured by."""
    return row.label_kind if equal_bytes else row.ipc, row.arch, row.seed


def _fraction(row: Row) -> float | None:
    return None if row.accuracy is None else row.accuracy / 100


def _of(formula: Callable[[float, float], float], first: float | None, second: float | None) -> float | None:
    """Return what a formula makes of two values; none if one of them is none."""
    return None if first is None or second is None else formula(first, second)


def _notes(
    table: DataFrame, other: Row, hard: Sequence[Row], brief: bool, replicates: bool, equal_bytes: bool
) -> list[str]:
    row, floor = table.iloc[0], table[table["kind"] == FLOOR].iloc[0]
    spread = f", mean ± {tables.spread(replicates)}" if table["seed"].nunique() > 1 or replicates else ""
    lines = [
        f"HLR and IOR in points (lower is better for HLR), LRS and ARS in percent{spread}; "
        f"{tables.facts(table, 'fixed', replicates)}.",
        *tables.limits(table, replicates),
    ]
    soft = table["source"][table["label_kind"] != floor.label_kind].unique()
    if equal_bytes:
        lines.append("Random real images of IOR, LRS and ARS have the same kind of labels and as many bytes.")
    elif len(soft):
        lines.append(
            f"IOR, LRS and ARS of {', '.join(soft)} also count what stored labels bring: random real images have none."
        )
    if not brief:
        epochs = next(row.epochs for row in hard if row.kind == CEILING)
        augment = row.augment if other.augment == "none" else other.augment
        random = "random real images of as many bytes" if equal_bytes else "as many random real images"
        lines.append(
            f"HLR: all real images ({epochs:,} epochs) minus these, both with hard labels alone and no augmentation. "
            f"IOR: these minus {random}, by the recipe above. LRS: (IOR - HLR) / 2, normalised by "
            "(e^x - 1/e) / (e - 1/e) of fractions. ARS: the mean of two IOR, normalised alike, one with augmentation "
            f"{augment} and one without."
        )
    return lines

"""Means and their 95 % intervals: over values of their own, and over distillations crossed with students."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

_LEVEL = 0.975  # leaves 2.5 % on either side
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, in percent (points for a difference)."""

    mean: float  # of the values; nan if all students failed
    std: float  # of the sample (n - 1); nan for one value
    half_width: float  # of the 95 % confidence interval; nan where the values do not tell
    n: int  # values: of students or, of replicates, of distillations
    failed: int = 0  # students that have no value
    students: int = 0  # all of them, those that failed too
    lost: int = 0  # values that are not there because all their students failed


def estimate(scores: Sequence[float | None]) -> Estimate:
    """Return mean, spread and interval by Student's t of independent scores; none is a failed student."""
    values = np.array([score for score in scores if score is not None], dtype=np.float64)
    failed = len(scores) - len(values)
    return _estimate(values, _by_t(values), failed, len(scores), failed)


def crossed(scores: Sequence[Sequence[float | None]], shared_draws: bool) -> Estimate:
    """Return the mean over distillations, each of which counts by the mean over its students.

    Args:
        scores: a line per distillation, a column per student seed; none is a student that failed, nan one that is not
            there.
        shared_draws: whether a score holds draws that all distillations have in common, as its difference to real
            images does: one student seed then leaves no interval.
    """
    table = np.array([[math.nan if score is None else score for score in line] for line in scores], dtype=np.float64)
    scored, failed = ~np.isnan(table), sum(score is None for line in scores for score in line)
    table = table[scored.any(1)][:, scored.any(0)]
    values = np.nanmean(table, axis=1) if table.size else np.empty(0)
    if table.shape[1] < 2:
        half_width = math.nan if shared_draws else _by_t(values)
    else:
        half_width = float(two_way_half_width(table))
    return _estimate(values, half_width, failed, int(scored.sum()) + failed, len(scores) - len(values))


def _estimate(values: Floats, half_width: float, failed: int, students: int, lost: int) -> Estimate:
    mean = float(values.mean()) if len(values) else math.nan
    std = float(values.std(ddof=1)) if len(values) > 1 else math.nan
    return Estimate(mean, std, half_width, len(values), failed, students, lost)


def _by_t(values: Floats) -> float:
    """Return the half width of the 95 % interval of a mean of independent values by Student's t; nan of one."""
    n = len(values)
    return float(stdtrit(n - 1, _LEVEL) * values.std(ddof=1) / math.sqrt(n)) if n > 1 else math.nan


def two_way_half_width(scores: Floats) -> Floats:
    """Return the half width of the 95 % interval of the mean of scores (..., D, S): D distillations, S student seeds.

    A score is mean + distillation + student seed + rest. The student's part, which all distillations have in common,
    holds the draws of real images in a difference to them. With V_d the variance of the mean of the D means over
    students, s_d^2 / D, and V_s that of the S means over distillations, s_s^2 / S, the variance of the mean is taken as
    V = V_d + V_s. It expects the variances of all three parts, and the rest's once more (Cornfield and Tukey 1956), so
    that it is right or too large: the estimate without bias, V_d + V_s - V_rest (Cameron, Gelbach and Miller 2011), is
    often too small for so few seeds.

    The half width is h sqrt(V), with h^2 = z^2 + (V_d/V)^2 (t_d^2 - z^2) + (V_s/V)^2 (t_s^2 - z^2), t_d and t_s being
    the quantiles of Student's t with D - 1 and S - 1 degrees of freedom, and z that of the normal distribution. It is
    the t-interval where one variance is 0, and to first order in 1 / (D - 1) and 1 / (S - 1) the series of Welch
    (1947), as is t with the degrees of freedom of Satterthwaite (1946), V^2 / (V_d^2 / (D - 1) + V_s^2 / (S - 1)); but
    these give 88 % for 10 distillations of 2 students.

    Args:
        scores: D and S are at least 2 (nan otherwise); nan is a student that failed, of which no line and no column
            may consist.
    """
    variances, quantiles = [], []
    z = ndtri(_LEVEL)
    for averaged in (-1, -2):
        means = np.nanmean(scores, axis=averaged)  # (..., D), then (..., S)
        n = means.shape[-1]
        if n < 2:
            return np.full(scores.shape[:-2], math.nan)
        variances.append(means.var(axis=-1, ddof=1) / n)
        quantiles.append(stdtrit(n - 1, _LEVEL))
    variance = sum(variances)
    excess = sum(part**2 * (t**2 - z**2) for part, t in zip(variances, quantiles, strict=True))
    squared = z**2 * variance + np.divide(excess, variance, out=np.zeros_like(variance), where=variance > 0)
    return np.sqrt(squared)

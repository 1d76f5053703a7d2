"""Intervals of distillations crossed with students hold the truth as often as they say, whatever varies most."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from gdd.evaluation.row import Row
from gdd.report import statistics
from gdd.report.intervals import Floats, crossed, estimate, two_way_half_width

STUDIES = 10_000  # of each kind: the standard error of a share of 95 % is .22 %, of 93 or 97 % at most .26 %
ERROR = 4 * math.sqrt(0.07 * 0.93 / STUDIES)  # 1 %: four standard errors, for there are a hundred shares


def drawn(seed: int, distillations: int, students: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Standard normal values of distillations, students of each, student seeds, and draws of real images."""
    random = np.random.default_rng((seed, distillations, students))
    shapes = ((distillations, 1), (distillations, students), (1, students), (1, students))
    one, two, three, four = (random.standard_normal((STUDIES, *shape)) for shape in shapes)
    return one, two, three, four


def share_that_hold(truth: float, scores: Floats) -> float:
    return float((abs(scores.mean((1, 2)) - truth) <= two_way_half_width(scores)).mean())


SMALL = [(2, 2), (2, 5), (2, 10), (3, 2), (3, 3), (5, 2), (10, 2), (5, 3)]
LARGE = [(5, 5), (10, 3), (10, 5)]


@pytest.mark.parametrize(("distillations", "students"), SMALL + LARGE)
def test_differences_to_real_images_hold_the_truth(distillations: int, students: int) -> None:
    """Never in less than 93 %; with 5 distillations of 5 students, or 10 of 3, in 93 to 97 %, else perhaps in more."""
    of_distillation, of_student, of_seed, of_real = drawn(1, distillations, students)
    # What a student seed does to all distillations alike: nothing; the same to real images (`alike`), so that it
    # cancels; and something else to these (`other`).
    plain = [(spread, real, 0, 0) for spread in (0.3, 1.0) for real in (0.5, 1.5)]
    for spread, real, alike, other in [*plain, (0.3, 0.5, 1, 0), (0.3, 0.5, 0, 1), (1.0, 0.5, 1, 0)]:
        scores = 70 + spread * of_distillation + 0.5 * of_student + (alike + other) * of_seed
        found = share_that_hold(-2, scores - (72 + real * of_real + alike * of_seed))
        assert found > 0.93 - ERROR, (spread, real, alike, other, found)
        if (distillations, students) in LARGE:
            assert found < 0.97 + ERROR, (spread, real, alike, other, found)


@pytest.mark.parametrize(("distillations", "students"), [(3, 2), (3, 3), (5, 3), (10, 3)])
def test_real_images_that_vary_most_are_counted(distillations: int, students: int) -> None:
    """Over distillations alone, intervals held the truth in 60, 63, 41 and 26 % of these studies."""
    of_distillation, of_student, _, of_real = drawn(0, distillations, students)
    found = share_that_hold(0, 0.3 * of_distillation + 0.5 * of_student - 1.5 * of_real)
    assert 0.93 - ERROR < found < 0.97 + ERROR


@pytest.mark.parametrize(("distillations", "students"), [(2, 2), (3, 3), (5, 3), (10, 5)])
def test_shares_hold_the_ratio_of_the_truths(distillations: int, students: int) -> None:
    of_distillation, of_student, of_seed, of_real = drawn(2, distillations, students)
    for real in (0.5, 1.5):
        scores = 60 + 0.5 * of_distillation + 0.5 * of_student + 0.5 * of_seed
        found = share_that_hold(100 * 60 / 75, 100 * scores / (75 + real * of_real + 0.5 * of_seed))
        assert 0.93 - ERROR < found < (0.97 + ERROR if distillations == 10 else 1), (real, found)


@pytest.mark.parametrize(("distillations", "students"), [(2, 2), (3, 3), (5, 3), (10, 2), (10, 5)])
def test_differences_of_two_methods_hold_the_truth(distillations: int, students: int) -> None:
    """Paired by both seeds, what both have of them cancels; what a student seed does to one method alone counts."""
    start, of_student, of_seed, other = drawn(3, distillations, students)
    own, of_other_student, _, _ = drawn(4, distillations, students)
    for spread, alone in itertools.product((0.2, 1.0), (0, 0.5)):
        one = 70 + 3 * start + spread * own + 0.5 * of_student + of_seed + alone * other
        found = share_that_hold(1, one - (69 + 3 * start + 0.5 * of_other_student + of_seed))
        assert found > 0.93 - ERROR, (spread, alone, found)


def test_scores_of_one_kind_of_chance_have_the_interval_of_student() -> None:
    values = np.array([61.0, 64.5, 60.2, 66.1])
    low, high = stats.t.interval(0.95, 3, loc=values.mean(), scale=stats.sem(values))
    for scores in (np.tile(values[:, None], (1, 3)), np.tile(values, (5, 1))):
        assert float(two_way_half_width(scores)) == pytest.approx((high - low) / 2)
    assert two_way_half_width(np.full((2, 3), 50.0)) == 0


def test_many_seeds_have_the_interval_of_the_normal_distribution() -> None:
    """And the rest is counted twice, as the variance's expectation says: 1 / 20,000 + 4 / 200 + 2 * 9 / 4,000,000."""
    random = np.random.default_rng(5)
    scores = random.normal(0, 1, (20_000, 1)) + random.normal(0, 2, (1, 200)) + random.normal(0, 3, (20_000, 200))
    variance = 1 / 20_000 + 4 / 200 + 2 * 9 / 4_000_000
    assert float(two_way_half_width(scores)) == pytest.approx(1.96 * math.sqrt(variance), rel=0.15)


def test_what_has_one_seed_has_no_interval_unless_nothing_else_varies() -> None:
    for scores in ([[50.0, 51.0]], [[50.0]]):
        assert math.isnan(crossed(scores, shared_draws=False).half_width)
    one_student = [[50.0], [56.0], [None]]
    assert crossed(one_student, shared_draws=False).half_width == estimate([50.0, 56.0]).half_width
    assert math.isnan(crossed(one_student, shared_draws=True).half_width)


def test_what_failed_is_counted_and_what_is_not_there_is_not() -> None:
    found = crossed([[50.0, None, 52.0], [54.0, 55.0, math.nan], [None, None, None]], shared_draws=True)
    assert (found.mean, found.n, found.failed, found.students, found.lost) == (52.75, 2, 4, 8, 1)
    assert found.half_width == two_way_half_width(np.array([[50.0, math.nan, 52.0], [54.0, 55.0, math.nan]]))
    nothing = crossed([[None], [None]], shared_draws=False)
    assert (nothing.n, nothing.failed, nothing.students, nothing.lost) == (0, 2, 2, 2)
    assert math.isnan(nothing.mean)


def test_rows_of_replicates_get_this_interval(row: Row) -> None:
    """Differences, shares and accuracies of rows are those of the tables by distillation and student."""
    random = np.random.default_rng(6)
    scores, references = random.normal(70, 1, (4, 3)), random.normal(80, 2, 3)
    stream: dict = {"protocol": "stream", "ipc": 10}
    rows = [
        replace(
            row,
            source="skd",
            kind="generator",
            source_hash=f"{of}",
            distillation_seed=of,
            seed=seed,
            accuracy=score,
            **stream,
        )
        for (of, seed), score in np.ndenumerate(scores)
    ]
    real = [
        replace(row, source="fresh", kind="real:stream", source_hash="real", seed=seed, accuracy=score, **stream)
        for seed, score in enumerate(references)
    ]
    table, others = statistics.frame(rows), statistics.frame(real)
    (accuracy,) = statistics.summarise(table, replicates=True)["accuracy"]
    (points,) = statistics.differences(table, others, replicates=True)["points"]
    (share,) = statistics.shares(statistics.frame([*rows, *real]), replicates=True)["share"]
    expected: list[NDArray] = [scores, scores - references, 100 * scores / references]
    for found, of in zip((accuracy, points, share), expected, strict=True):
        assert (found.mean, found.n) == (pytest.approx(of.mean()), 4)
        assert found.half_width == pytest.approx(float(two_way_half_width(of)))
        assert found.std == pytest.approx(of.mean(1).std(ddof=1))

"""Estimates with known answers."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from scipy import stats

from gdd.config import ConfigError
from gdd.evaluation.row import Row
from gdd.report import statistics
from gdd.report.intervals import estimate


def test_interval_is_that_of_scipy() -> None:
    values = [61.0, 64.5, 60.2, 66.1]
    found = estimate(values)
    low, high = stats.t.interval(0.95, 3, loc=found.mean, scale=stats.sem(values))
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx((low, high))
    assert found.std == pytest.approx(stats.tstd(values))


def test_one_seed_has_no_spread() -> None:
    found = estimate([50.0])
    assert (found.mean, found.n) == (50.0, 1)
    assert math.isnan(found.std)
    assert math.isnan(found.half_width)


def test_what_failed_is_counted_and_is_no_value() -> None:
    found = estimate([61.0, None, 64.5])
    assert replace(found, failed=0, lost=0, students=2) == estimate([61.0, 64.5])
    assert (found.failed, found.lost, found.students) == (1, 1, 3)
    nothing = estimate([None, None])
    assert (nothing.n, nothing.failed) == (0, 2)
    assert math.isnan(nothing.mean)


def test_a_failed_student_leaves_all_other_numbers_as_they_are_without_it(rows: list[Row]) -> None:
    def is_failed(row: Row) -> bool:
        return (row.source, row.seed) == ("refined", 1)

    failed = statistics.frame([replace(row, accuracy=None, failure="why") if is_failed(row) else row for row in rows])
    without = statistics.frame([row for row in rows if not is_failed(row)])
    for one, other in zip(*(statistics.summarise(table)["accuracy"] for table in (failed, without)), strict=True):
        assert replace(one, failed=0, lost=0, students=other.n) == other
        assert one.failed == 3 - other.n
    for one, other in zip(*(statistics.refinement(table)["points"] for table in (failed, without)), strict=True):
        assert replace(one, failed=0, lost=0, students=2) == other
        assert (one.n, one.failed, one.students) == (2, 1, 3)


def test_difference_is_paired(rows: list[Row]) -> None:
    differences = statistics.refinement(statistics.frame(rows))
    assert list(differences["protocol"]) == ["fixed", "stream"]
    for points in differences["points"]:
        # 9, 10, 11: standard deviation 1, though the accuracies themselves spread by 5.
        assert (points.mean, points.std, points.n) == pytest.approx((10, 1, 3))
        assert points.half_width == pytest.approx(4.302653 / math.sqrt(3), rel=1e-5)


def test_difference_leaves_out_seeds_that_one_lacks(rows: list[Row]) -> None:
    fewer = statistics.frame([row for row in rows if not (row.source == "refined" and row.seed == 2)])
    assert [points.n for points in statistics.refinement(fewer)["points"]] == [2, 2]


def test_floor_comes_first_and_ceiling_last(rows: list[Row]) -> None:
    kinds = statistics.summarise(statistics.frame(rows))["kind"]
    assert list(kinds) == ["real:random", *["generator"] * 4, "real:all"]


@pytest.mark.parametrize("change", [{"recipe_hash": "other"}, {"epochs": 1000}, {"source_hash": "other"}], ids=str)
def test_rows_of_another_kind_are_not_averaged(change: dict, rows: list[Row]) -> None:
    others = [replace(row, **change, accuracy=row.accuracy / 10) for row in rows]
    alone, apart, both = (statistics.frame(given) for given in (rows, others, [*rows, *others]))
    expected = {*statistics.summarise(alone)["accuracy"], *statistics.summarise(apart)["accuracy"]}
    assert {*statistics.summarise(both)["accuracy"]} == expected
    assert {points.n for points in statistics.refinement(both)["points"]} == {3}


def test_what_is_missing_stays_missing_and_whole_numbers_whole(rows: list[Row]) -> None:
    frame = statistics.frame(rows)
    for field in ("ipc", "epochs", "stage", "generator_seconds", "set_hash", "versions"):
        assert [(type(value), value) for value in frame[field]] == [
            (type(getattr(row, field)), getattr(row, field)) for row in rows
        ]


def test_folder_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no row in rows\.jsonl"):
        statistics.require_rows(tmp_path)


def test_shares_are_ratios_of_each_seed_and_of_streams_alone(rows: list[Row], row: Row) -> None:
    real = {"source": "fresh real", "kind": "real:stream", "protocol": "stream", "method": "real", "stage": None}
    accuracies = {0: 80.0, 1: 60.0}  # and none of seed 2
    fresh = [replace(row, seed=seed, accuracy=value, **real) for seed, value in accuracies.items()]
    table = statistics.frame([*rows, *fresh])
    streams = [one for one in rows if one.kind == "generator" and one.protocol == "stream"]
    for _, cell in statistics.shares(table).iterrows():
        assert cell.protocol == "stream"
        own = {one.seed: one.accuracy for one in streams if one.source == cell.source}
        expected = [100 * own[seed] / accuracies[seed] for seed in (0, 1)]
        assert (cell.share.n, cell.share.mean) == (2, pytest.approx(sum(expected) / 2))
    assert len(statistics.shares(table)) == len({one.source for one in streams}) == 2
    assert statistics.shares(statistics.frame(rows)).empty

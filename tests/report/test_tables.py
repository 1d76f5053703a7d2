"""Statistics with known answers, and tables that keep the protocols apart."""

import csv
import io
import math
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console
from scipy import stats
from scoring import Evaluate

from gdd.config import ConfigError
from gdd.evaluation.row import Row
from gdd.report import statistics


@pytest.fixture
def rows(evaluate: Evaluate, generator: Path) -> list[Row]:
    """Real rows whose accuracies are set: floor 30 + seed, stages 50 and 60 with known differences, ceiling 90."""
    found = evaluate(str(generator), seeds=(0, 1, 2))
    floor, stage, ceiling = (
        [row for row in found if row.kind == kind] for kind in ("real:random", "generator", "real:all")
    )
    gain = {0: 9.0, 1: 10.0, 2: 11.0}
    first = [replace(row, source="stage 1", accuracy=50.0 + 5 * row.seed) for row in stage]
    second = [
        replace(row, source="stage 2", stage="refine", source_hash="2", accuracy=row.accuracy + gain[row.seed])
        for row in first
    ]
    low = [replace(row, accuracy=30.0 + row.seed) for row in floor]
    return [*[replace(row, accuracy=90.0) for row in ceiling], *first, *second, *low]


def test_interval_is_that_of_scipy() -> None:
    values = [61.0, 64.5, 60.2, 66.1]
    found = statistics.estimate(values)
    low, high = stats.t.interval(0.95, 3, loc=found.mean, scale=stats.sem(values))
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx((low, high))
    assert found.std == pytest.approx(stats.tstd(values))


def test_one_seed_has_no_spread() -> None:
    found = statistics.estimate([50.0])
    assert (found.mean, found.n) == (50.0, 1)
    assert math.isnan(found.std)
    assert math.isnan(found.half_width)


def test_difference_is_paired(rows: list[Row]) -> None:
    found = statistics.differences(rows, "stage 2", "stage 1")
    assert [difference.protocol for difference in found] == ["fixed", "stream"]
    for difference in found:
        # 9, 10, 11: standard deviation 1, though the accuracies themselves spread by 5.
        assert (difference.points.mean, difference.points.std, difference.points.n) == pytest.approx((10, 1, 3))
        assert difference.points.half_width == pytest.approx(4.302653 / math.sqrt(3), rel=1e-5)


def test_difference_leaves_out_seeds_that_one_lacks(rows: list[Row]) -> None:
    fewer = [row for row in rows if not (row.source == "stage 2" and row.seed == 2)]
    assert [x.points.n for x in statistics.differences(fewer, "stage 2", "stage 1")] == [2, 2]


def test_floor_comes_first_and_ceiling_last(rows: list[Row]) -> None:
    kinds = [summary.kind for summary in statistics.summarise(rows)]
    assert kinds == ["real:random", *["generator"] * 4, "real:all"]


def lines_of(text: str, start: str) -> list[str]:
    section = text.split(start)[1].split("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("| ")]


def test_markdown_keeps_the_protocols_apart(rows: list[Row]) -> None:
    text = statistics.markdown(rows)
    fixed, stream = lines_of(text, "fixed: exactly"), lines_of(text, "stream: new")
    for lines in (fixed, stream):
        names = [line.split("|")[1].strip().split(" (")[0] for line in lines[2:]]
        assert names == ["real:random", "stage 1", "stage 2", "real:all"]
    assert "| stage 2 | 1 | 10 |" in fixed[4]
    assert "| stage 2 | 1 | 30 |" in stream[4]
    assert "(floor, fixed)" in stream[2]
    assert "65.0 ± 6.0 (± 14.9)" in fixed[4]
    assert "+10.0 ± 2.5" in lines_of(text, "fixed: difference")[2]
    for fact in ("n = 3 (seeds 0, 1, 2)", "recipe dc, 3 epochs (1 on all", "labels: hard", "device: cpu", "torch"):
        assert fact in text


def test_terminal_shows_names_with_brackets_and_missing_seeds(rows: list[Row]) -> None:
    named = [replace(row, source="[red]set") if row.source == "stage 2" else row for row in rows]
    fewer = [row for row in named if not (row.source == "stage 1" and row.seed == 2)]
    output = io.StringIO()
    Console(file=output, width=160).print(statistics.table(fewer))
    assert "[red]set" in output.getvalue()
    assert "52.5 ± 3.5, n = 2" in output.getvalue()


def test_rows_of_another_recipe_or_another_generator_are_not_averaged(rows: list[Row]) -> None:
    other = [replace(row, recipe_hash="other", accuracy=1.0) for row in rows]
    assert len(statistics.summarise([*rows, *other])) == 2 * len(statistics.summarise(rows))
    again = [replace(row, source_hash="abcdef", accuracy=1.0) for row in rows if row.source == "stage 1"]
    assert "stage 1 (abcdef)" in statistics.markdown([*rows, *again])
    larger = [replace(row, ipc=10) for row in again]
    assert "abcdef" not in statistics.markdown([*rows, *larger])


def test_ceilings_of_different_epochs_are_not_averaged(rows: list[Row]) -> None:
    longer = [replace(row, epochs=1000, accuracy=99.0) for row in rows if row.kind == "real:all"]
    lines = [line.split("|")[1].strip() for line in lines_of(statistics.markdown([*rows, *longer]), "fixed: exactly")]
    assert lines[-2:] == ["real:all, 1 epoch (ceiling)", "real:all, 1,000 epochs (ceiling)"]
    assert [found.accuracy.mean for found in statistics.summarise([*rows, *longer])][-2:] == [90.0, 99.0]


def test_files(rows: list[Row], tmp_path: Path) -> None:
    folder = tmp_path / "report"
    folder.mkdir()
    paths = statistics.write(folder, rows)
    assert [path.name for path in paths] == ["rows.csv", "table.md", "accuracy.png"]
    with paths[0].open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(rows)
    assert lines[0]["accuracy"] == "90.0"
    with Image.open(paths[2]) as image:
        assert image.width > 500
    assert statistics.write(folder, rows[:1])[2].exists()  # one bar, one seed, no interval


def test_folder_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no row in rows\.jsonl"):
        statistics.read_rows(tmp_path)

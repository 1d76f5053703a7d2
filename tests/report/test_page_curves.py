"""Charts of the page: points stand where their axis says, and words tell the same."""

import pytest

from gdd.report import curves
from gdd.report.curves import BOTTOM, LEFT, RIGHT, TOP, charts


def points_of(text: str) -> list[tuple[float, float]]:
    return [tuple(map(float, point.split(","))) for point in text.split()]  # type: ignore[misc]


def test_a_point_stands_where_the_ticks_say():
    metrics = [{"step": step, "loss/a": value} for step, value in ((0, 0.0), (50, 1.0), (100, 0.5))]
    (chart,) = charts(metrics)
    assert chart.y_ticks[0] == (BOTTOM, "0")
    assert chart.y_ticks[-1] == (TOP, "1")
    assert (chart.x_ticks[0], chart.x_ticks[-1]) == ((LEFT, "0"), (RIGHT, "100"))
    middle = (LEFT + RIGHT) / 2
    assert points_of(chart.lines[0].points) == [(LEFT, BOTTOM), (middle, TOP), (RIGHT, (TOP + BOTTOM) / 2)]
    assert chart.lines[0].end == (RIGHT, (TOP + BOTTOM) / 2)
    assert chart.words == "Losses. loss/a: from 0 at step 0 to 0.5 at step 100, between 0 and 1."


def test_metrics_of_one_kind_share_a_chart_and_others_none():
    line = {"step": 10, "images_per_second": 5.0, "loss/a": 1.0, "score/real": -2.0, "loss/b": 2.0, "new/thing": 3.0}
    found = charts([line])
    assert [chart.title for chart in found] == ["Losses", "Discriminator's mean output", "new"]
    assert [line.name for line in found[0].lines] == ["loss/a", "loss/b"]
    assert found[1].words == "Discriminator's mean output. score/real: −2 at step 10."
    assert charts([{"step": 10, "images_per_second": 5.0}]) == charts([]) == []


@pytest.mark.parametrize("value", [0.0, 1.0, -3e-9, 1e12])
def test_a_constant_lies_within_its_ticks(value):
    (chart,) = charts([{"step": step, "loss/a": value} for step in (1, 2)])
    assert all(TOP <= y <= BOTTOM for _, y in points_of(chart.lines[0].points))
    assert len({text for _, text in chart.y_ticks}) == len(chart.y_ticks) > 1


def test_a_long_line_keeps_its_last_point_and_its_extremes_in_words():
    metrics = [{"step": step, "loss/a": float(step == 5)} for step in range(1, 10_001)]
    (chart,) = charts(metrics)
    points = points_of(chart.lines[0].points)
    assert len(points) <= curves._MOST_POINTS
    assert points[-1] == (RIGHT, BOTTOM)
    assert points == sorted(points)
    assert "between 0 and 1" in chart.words

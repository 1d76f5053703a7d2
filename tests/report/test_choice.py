"""A comparison to choose from: where its marks stand, what the line joins, and which command each point has."""

import shlex
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdd.cli.main import parse_config
from gdd.config import Config
from gdd.config.flags import flags
from gdd.report import choice
from gdd.report.choice import Point, scatters
from gdd.report.commands import Asked
from gdd.report.curves import BOTTOM, LEFT, RIGHT, TOP

COMMAND = ["gdd compare zoo:digits"]
SECTIONS = ("data", "gan", "pretrain", "refine", "matching", "ensemble", "evaluate")


def point(accuracy: float, kib: float, seconds: float | None = 1.0, **other: object) -> Point:
    known = Point("dc", "dc", "mlp", 1, "fixed", accuracy, 1.0, 3, round(1024 * kib), seconds, COMMAND)
    return replace(known, **other)  # type: ignore[arg-type]


def corners(front: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in front.split())]


def test_marks_stand_where_the_ticks_say() -> None:
    chart = scatters([point(50, 1), point(60, 10), point(70, 100)])[0]
    assert [mark.point for mark in chart.marks] == [0, 1, 2]
    at = {text: x for x, text in chart.x_ticks}
    assert [mark.x for mark in chart.marks] == [at["1"], at["10"], at["100"]]
    assert chart.marks[1].x == pytest.approx((LEFT + RIGHT) / 2)
    levels = {text: y for y, text in chart.y_ticks}
    assert [mark.y for mark in chart.marks] == [levels["50"], levels["60"], levels["70"]]
    above = chart.marks[0].ends[1]
    assert levels["50"] - above == pytest.approx((levels["50"] - levels["60"]) / 10, abs=0.2)  # one point


def test_the_line_joins_what_nothing_that_takes_no_more_beats() -> None:
    shown = [point(50, 1), point(40, 2), point(70, 4), point(60, 4), point(70, 8), point(80, 16)]
    chart = scatters(shown)[0]
    at = {mark.point: (mark.x, mark.y) for mark in chart.marks}
    line = corners(chart.front)
    assert [place for place in line if place in at.values()] == [at[0], at[2], at[5]]
    assert line[-1] == (RIGHT, at[5][1])
    assert chart.words.count("%;") == 2


@given(st.lists(st.tuples(st.integers(1, 99), st.integers(1, 10**6)), min_size=1, max_size=30))
def test_no_mark_is_above_the_line(pairs: list[tuple[int, int]]) -> None:
    chart = scatters([point(accuracy, kib) for accuracy, kib in pairs])[0]
    line = corners(chart.front)
    assert [x for x, _ in line] == sorted(x for x, _ in line)
    for mark in chart.marks:
        assert LEFT <= mark.x <= RIGHT
        assert TOP <= mark.y <= BOTTOM
        assert min(y for x, y in line if x <= mark.x) <= mark.y


def test_what_takes_no_seconds_stands_before_the_axis_and_what_nobody_says_nowhere() -> None:
    shown = [point(50, 1, 0.0), point(60, 1, None), point(70, 1, 1000.0), point(80, 1, 10.0)]
    _, chart = scatters(shown)
    assert [mark.point for mark in chart.marks] == [0, 3, 2]
    assert chart.x_ticks[0][1] == "0"
    assert chart.marks[0].x == chart.x_ticks[0][0] < chart.x_ticks[1][0]
    (alone,) = scatters(shown[:2])
    assert alone.title == "mlp: accuracy (%) against KiB"


def test_each_network_has_its_charts_and_each_method_its_look() -> None:
    shown = [point(50, 1), point(60, 2, arch="vit"), point(55, 2, method="skd")]
    assert [chart.title.split(":")[0] for chart in scatters(shown)] == ["mlp", "mlp", "vit", "vit"]
    assert choice.styles(shown) == {"dc": 0, "skd": 1}
    many = choice.styles([point(1, 1, method=str(index)) for index in range(8)])
    assert {*many.values()} == set(range(len(choice.SHAPES)))


def test_points_in_words() -> None:
    assert choice.point_in_words(point(50, 1)) == "dc, 1 image per class: 50.0 ± 1.0 %"
    streamed = point(50, 1, ipc=1000, protocol="stream", half_width=None)
    assert choice.point_in_words(streamed) == "dc, 1,000 images per class, streamed: 50.0 %"
    assert choice.point_in_words(point(50, 1, ipc=None)) == "dc, all images: 50.0 ± 1.0 %"


@pytest.mark.parametrize(
    "told",
    [
        [],
        ["--data.name", "a b's", "--data.size", "[20, 24]", "--data.val_fraction", "0", "--data.root", "/x y"],
        ["--refine.loss", "none", "--refine.pool.members", "[convnet3-w4, 'a, b']", "--gan.ema_decays", "[0.5]"],
        ["--method", "matching", "--matching.pool.kind", "main+similar", "--seed", "3", "--score", "false"],
        ["--evaluate.recipe.name", "converged", "--evaluate.recipe.steps", "10", "--evaluate.ceiling", "false"],
        ["--run.precision", "float32", "--run.deterministic", "true"],
    ],
)
def test_flags_are_the_settings_they_were_made_from(told: list[str]) -> None:
    config = parse_config(told)
    words = flags(config, SECTIONS)
    assert parse_config(shlex.split(shlex.join(words))) == config
    assert len(words) == len(told)


def test_flags_leave_out_other_sections_and_how_a_machine_was_used() -> None:
    config = parse_config(["--gan.width", "8", "--run.threads", "1", "--seed", "3", "--evaluate.ipc", "[1]"])
    assert flags(config, ["evaluate"]) == ["--seed", "3", "--evaluate.ipc", "[1]"]


def test_a_point_has_the_commands_that_make_its_source_and_its_students() -> None:
    config = parse_config(["--evaluate.sources", "[runs/a, runs/b]", "--name", "mine"])
    asked = Asked(config, {"dc": ["runs/a b"]}, {"dc": ["gdd distill"]}, ["--replicates"])
    made, scored = asked.commands("dc", "set", "mlp", 2, "fixed")
    assert made == "gdd distill"
    head = "gdd compare 'runs/a b' --replicates --name mine-again"
    assert scored == f"{head} --evaluate.ipc '[2]' --evaluate.protocols '[\"fixed\"]' --evaluate.archs '[\"mlp\"]'"
    (floor,) = asked.commands("random real", "real:random", "mlp", 2, "fixed")
    assert floor.startswith("gdd evaluate real:random ")
    (ceiling,) = asked.commands("all real", "real:all", "mlp", None, "fixed")
    assert "--evaluate.ipc" not in ceiling


def test_sources_of_a_budget_are_scored_together() -> None:
    config = replace(Config(), evaluate=replace(Config().evaluate, sources=("zoo:digits",)))
    asked = Asked(config, words=["--budget", "3ipc"], together=True)
    for label, kind in (("random real", "real:random"), ("herded real", "real:herded")):
        (command,) = asked.commands(label, kind, "mlp", 3, "fixed")  # type: ignore[arg-type]
        assert command == "gdd compare zoo:digits --budget 3ipc --name digits-again --evaluate.archs '[\"mlp\"]'"

"""A comparison to choose from: where its marks stand, what the line joins, and which command each point has."""

import itertools
import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jsonargparse import Namespace

from gdd.cli.command import read_config
from gdd.cli.main import _parse, parse_config
from gdd.config import Config, ConfigError, to_plain
from gdd.config.flags import flags
from gdd.data.spec import DatasetSpec
from gdd.evaluation.sources import Source
from gdd.report import choice
from gdd.report.choice import Point, scatters
from gdd.report.commands import comparing, distilling
from gdd.report.compare import read_points
from gdd.report.curves import BOTTOM, LEFT, RIGHT, TOP
from gdd.sampling.set_file import SyntheticSet

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
    line = corners(chart.fronts[0])
    assert [place for place in line if place in at.values()] == [at[0], at[2], at[5]]
    assert line[-1] == (RIGHT, at[5][1])
    assert chart.words.count("%;") == 2


@given(st.lists(st.tuples(st.integers(1, 99), st.integers(1, 10**6)), min_size=1, max_size=30))
def test_no_mark_is_above_the_line(pairs: list[tuple[int, int]]) -> None:
    chart = scatters([point(accuracy, kib) for accuracy, kib in pairs])[0]
    line = corners(chart.fronts[0])
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


def test_streams_have_a_line_of_their_own() -> None:
    shown = [point(90, 1), point(50, 2, protocol="stream"), point(60, 4, protocol="stream")]
    chart = scatters(shown)[0]
    at = {mark.point: (mark.x, mark.y) for mark in chart.marks}
    assert [corners(front)[0] for front in chart.fronts] == [at[0], at[1]]


@given(st.floats(0.01, 1e7), st.floats(1, 1e6))
def test_ticks_are_apart(least: float, ratio: float) -> None:
    chart = scatters([point(50, least), point(60, least * ratio)])[0]
    places = [x for x, _ in chart.x_ticks]
    assert places
    assert all(after - before >= 30 for before, after in itertools.pairwise(places))


def test_each_network_has_its_charts_and_each_method_its_look() -> None:
    shown = [point(50, 1), point(60, 2, arch="vit"), point(55, 2, method="skd")]
    assert [chart.title.split(":")[0] for chart in scatters(shown)] == ["mlp", "mlp", "vit", "vit"]
    assert choice.styles(shown) == {"dc": 0, "skd": 1}
    many = choice.styles([point(1, 1, method=str(index)) for index in range(8)])
    assert [*many.values()] == [*range(8)]


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
        ["--data.name=-x"],
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


def comparison_of(command: str | None) -> Namespace:
    """Return the options that `gdd compare` takes from a command, which has to be one."""
    program, name, *words = shlex.split(command or "")
    assert (program, name) == ("gdd", "compare")
    return _parse(["compare", *words], "gdd")["compare"]


def test_the_command_of_a_comparison_is_its_settings() -> None:
    named = ["--evaluate.sources", "[runs/a b, 'zoo:digits,filter=runs/c']", "--name", "mine"]
    config = parse_config([*named, "--evaluate.ipc", "[1, 5]", "--run.precision", "float32", "--seed", "4"])
    options = comparison_of(comparing(config, ["--replicates", "--mark", "28.3"]))
    assert (options.sources, options.replicates, options.mark) == ([*config.evaluate.sources], True, [28.3])
    again = read_config(options)
    assert replace(again, evaluate=replace(again.evaluate, sources=config.evaluate.sources)) == config


def test_a_comparison_within_a_budget_tells_how_its_teacher_is_trained() -> None:
    config = parse_config(["--ensemble.steps", "7", "--gan.width", "8"])
    options = comparison_of(comparing(config, ["--budget", "3ipc"], with_ensemble=True))
    assert (options.budget, options.ensemble.steps, options.gan.width) == ("3ipc", 7, None)
    assert "--ensemble" not in (comparing(config) or "")


def source(told: Sequence[str], stage: str, **provenance: object) -> Source:
    """A stored set of two images a class that was made with these flags."""
    config = to_plain(parse_config(told))
    del config["run"]
    origin = {"stage": stage, "seed": 0, "config": config, **provenance}
    spec = DatasetSpec("digits", 1, 16, 16, ("a", "b"), (0.5,), (0.5,), flip=False)
    made = SyntheticSet(torch.zeros(4, 1, 16, 16), torch.tensor([0, 0, 1, 1]), spec, 2, origin)
    return Source("dc", "set", "", synthetic=made)


def made_from(command: str | None) -> Config:
    """Return the settings that `gdd distill` takes from a command."""
    assert command is not None
    assert shlex.split(command)[:2] == ["gdd", "distill"]
    return parse_config(shlex.split(command)[2:])


def test_a_matching_set_is_distilled_by_its_settings_and_a_snapshot_kept() -> None:
    told = ["--method", "matching", "--matching.iterations", "100", "--matching.ipc", "2"]
    last = made_from(distilling(source(told, "matching", iterations=100)))
    assert last == replace(parse_config(told), score=False)
    early = made_from(distilling(source(told, "matching", iterations=10)))
    assert early.run.snapshots == (10,)
    assert made_from(distilling(source(told, "matching"))) == last  # of what does not say how far it came


def test_a_refined_generator_is_distilled_with_the_teacher_beside_it() -> None:
    told = ["--ensemble.teaches", "true", "--ensemble.steps", "9", "--pretrain.steps", "3", "--refine.loss", "none"]
    assert made_from(distilling(source(told, "refine"))) == replace(parse_config(told), score=False)
    without = made_from(distilling(source(["--ensemble.steps", "9"], "refine")))
    assert without.ensemble == Config().ensemble


@pytest.mark.parametrize(
    "provenance",
    [
        {"config": {}},
        {"config": {"gan": {"arch": "of another version"}}},
        {"config": {"pool": {"members": []}}},  # as 0.1.0 had it
    ],
)
def test_what_does_not_say_its_settings_has_no_command(provenance: dict[str, object]) -> None:
    assert distilling(source([], "matching", **provenance)) is None
    assert distilling(source([], "evaluate")) is None


def test_no_command_holds_what_a_terminal_would_obey() -> None:
    config = replace(Config(), data=replace(Config().data, name="x\x03\nrm -r"))
    assert comparing(config) is None
    assert distilling(source([], "refine", config=to_plain(config))) is None


def test_a_set_has_the_command_of_its_own_ipc_and_replicates_have_all() -> None:
    stored = source(["--method", "matching"], "matching")
    made = choice.distilled([("dc", stored), ("dc", stored), ("real", Source("real", "real:random", ""))])
    assert [*made] == [("dc", 2), ("real", None)]
    assert (len(made["dc", 2]), made["real", None]) == (2, [])


def test_damaged_points_are_refused(tmp_path: Path) -> None:
    path, known = tmp_path / "compare.json", asdict(point(50, 1))
    path.write_text(json.dumps({"sections": [], "points": [known]}))
    assert read_points(tmp_path) == [point(50, 1)]
    for damage in ({"bytes": 0}, {"bytes": 10**400}, {"seconds": -1}, {"seconds": math.nan}, {"accuracy": math.inf}):
        path.write_text(json.dumps({"sections": [], "points": [known | damage]}))
        with pytest.raises(ConfigError, match=r"compare\.json"):
            read_points(tmp_path)
    path.write_text('{"sections": []}')
    assert read_points(tmp_path) == []

"""Methods beside each other: names, cells with known answers, and what the pictures join."""

import dataclasses
import logging
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gdd.config import ConfigError
from gdd.evaluation.row import Row
from gdd.evaluation.sources import Source, read
from gdd.report import compare, plots
from gdd.report.compare import Compared, compared
from gdd.sampling import generator_file, sample, set_file

SEEDS = (0, 1, 2)
COMMAND = "gdd compare"


def scored(row: Row, source: str, accuracies: Sequence[float], **fields: object) -> list[Row]:
    """A row per seed of one source; a stored set at IPC 1 unless told."""
    given = {"kind": "set", "stage": "matching", "source_hash": f"{source} {fields.get('ipc', 1)}", **fields}
    return [
        dataclasses.replace(row, source=source, seed=seed, accuracy=accuracy, **given)  # type: ignore[arg-type]
        for seed, accuracy in zip(SEEDS, accuracies, strict=True)
    ]


def cells(rows: Sequence[Row], reference: str, table: int = 0, brief: bool = False) -> dict[tuple[str, str], list[str]]:
    """A table's cells by method and IPC: accuracy, difference, KiB, seconds, seconds of another IPC, images."""
    section = compare.comparison_sections(rows, reference, brief)[table]
    return {(line[0], line[1]): line[2:] for line in section.lines}


def test_accuracy_and_difference_with_their_intervals(row: Row) -> None:
    # Differences 1, 2, 3: standard deviation 1, times t(0.975, 2) / sqrt(3) = 4.302653 / 1.732051 = 2.484.
    rows = [*scored(row, "first", (50, 55, 60)), *scored(row, "second", (51, 57, 63))]
    found = cells(rows, "first")
    assert found["first", "1"][:2] == ["55.0 ± 12.4", ""]
    assert found["second", "1"][:2] == ["57.0 ± 14.9", "+2.0 ± 2.5"]
    assert cells(rows, "first", brief=True)["second", "1"][0] == "57.0 ± 14.9\n+2.0 ± 2.5"
    assert cells(rows, "second")["first", "1"][1] == "-2.0 ± 2.5"


def test_difference_is_taken_at_the_same_ipc_and_blank_without(row: Row) -> None:
    rows = [
        *(one for ipc, at in ((1, 20.0), (10, 40.0)) for one in scored(row, "first", [at] * 3, ipc=ipc)),
        *(one for ipc in (1, 10, 50) for one in scored(row, "second", [45.0] * 3, ipc=ipc)),
    ]
    found = cells(rows, "first")
    assert [found["second", ipc][1] for ipc in ("1", "10", "50")] == ["+25.0 ± 0.0", "+5.0 ± 0.0", ""]
    assert [line[1] for line in found] == ["1", "1", "10", "10", "50"]


def test_difference_is_taken_at_the_same_protocol(row: Row) -> None:
    floor = scored(row, "random real", (10, 10, 10), kind="real:random", stage=None)
    pixels = scored(row, "pixels", (30, 30, 30))
    one = scored(row, "one", (40, 40, 40), kind="generator")
    other = scored(row, "other", (50, 50, 50), kind="generator")
    streams = [dataclasses.replace(row, protocol="stream", accuracy=row.accuracy + 9) for row in [*one, *other]]
    odd = scored(row, "odd", (7, 7, 7), ipc=3)
    elsewhere = [dataclasses.replace(row, ipc=3) for row in floor]
    rows = [*floor, *elsewhere, *pixels, *odd, *one, *other[:1], *streams]
    assert cells(rows, "one")["pixels", "1"][1] == "-10.0 ± 0.0"
    assert cells(rows, "one")["other", "1"][:2] == ["50.0, n = 1", "+10.0, n = 1"]
    stream = cells(rows, "one", table=1)
    assert list(stream) == [("random real (floor, fixed)", "1"), ("one", "1"), ("other", "1")]
    assert [line[1] for line in stream.values()] == ["", "", "+10.0 ± 0.0"]
    # A stored set is no stream, so nothing in the table of streams can be compared with it.
    without = compare.comparison_sections(rows, "pixels", brief=False)[1]
    assert "mlp-w16" in without.headers
    assert {len(line) for line in without.lines} == {len(without.headers)}
    assert not any("difference" in text.lower() for text in [*without.headers, *without.notes])


def test_costs(row: Row) -> None:
    zeros = (0.0, 0.0, 0.0)
    drawn = [
        dataclasses.replace(row, seconds_generating=seconds)
        for row, seconds in zip(scored(row, "refined generator", zeros, kind="generator"), (0.25, 0, 0), strict=True)
    ]
    drawn = [dataclasses.replace(row, stage="refine", generator_seconds=1500.0, bytes=2048) for row in drawn]
    streamed = [dataclasses.replace(row, protocol="stream", seconds_generating=77.0) for row in drawn]
    rows = [
        *scored(row, "random real", zeros, kind="real:random", stage=None, generator_seconds=None),
        *scored(row, "pixels", zeros, generator_seconds=123.4, distinct_images_seen=1000),
        *scored(row, "samples of refined generator", zeros, stage="refine", generator_seconds=1500.0),
        *scored(row, "found", zeros, stage=None, generator_seconds=None),
        *scored(row, "all real", zeros, kind="real:all", stage=None, generator_seconds=None, ipc=None),
        *drawn,
        *streamed,
    ]
    found = cells(rows, "random real")
    assert found["pixels", "1"][3:] == ["123", "anew: 123", "1,000"]
    assert found["refined generator", "1"][2:5] == ["2.0", "1,500", "0.25"]
    assert found["random real (floor)", "1"][3:5] == ["", "0"]
    assert found["samples of refined generator", "1"][3:5] == ["1,500", ""]
    assert found["found", "1"][3:5] == found["all real (ceiling)", "all"][3:5] == ["", ""]
    # The stream's own generating is another matter: a set of another IPC is drawn, not streamed.
    assert cells(rows, "refined generator", table=1)["refined generator", "1"][-2] == "0.25"


@pytest.fixture
def stored(generator: Path, tmp_path: Path):
    """Return a function that stores a set of its own content and gives its path."""
    made = iter(range(100))

    def save(name: str, ipc: int, **provenance: object) -> str:
        images = sample.sample_set(generator_file.load(generator), ipc, next(made))
        set_file.save(tmp_path / name, dataclasses.replace(images, provenance=provenance))
        return str(tmp_path / name)

    return save


def names(texts: Sequence[str]) -> list[str]:
    return [one.source.label for one in compared([read(text) for text in texts])]


def test_sources_are_called_by_their_methods(generator: Path, stored) -> None:
    texts = [
        stored("a/set.safetensors", 2, method="gradient matching"),
        str(generator),
        stored("drawn.safetensors", 2, method="gan + skd", stage="refine", seconds=5.0),
        stored("theirs.safetensors", 2),
        "real:all",
        stored("b/set.safetensors", 1, method="gradient matching"),
    ]
    expected = [
        "gradient matching",
        "pretrained generator",
        "samples of refined generator (SKD)",
        "theirs",
        "all real",
        "gradient matching",
    ]
    assert names(texts) == [*expected, "random real"]
    assert names(["real:random", texts[0]]) == ["random real", "gradient matching"]


def test_sets_of_one_method_and_ipc_are_told_apart_by_their_place(stored) -> None:
    texts = [stored(f"{run}/matching/set.safetensors", 1, method="dc") for run in ("one", "two")]
    folder = str(Path(texts[1]).parent)
    texts += [stored("three/matching/set.safetensors", 2, method="dc")]
    assert names([texts[0], folder, texts[2]]) == ["dc (one)", "dc (two)", "dc", "random real"]
    files = [stored(f"sets/{name}.safetensors", 3, method="dm") for name in ("x", "y")]
    assert names(files) == ["dm (x)", "dm (y)", "random real"]


def test_generators_of_one_method_are_told_apart(generator: Path, tmp_path: Path) -> None:
    made = generator_file.load(generator)
    for parameter in made.generator.parameters():
        parameter.data.mul_(2)
    other = tmp_path / "other"
    other.mkdir()
    generator_file.save(other, made.generator, made.spec, {"method": "gan", "stage": "pretrain"})
    expected = ["pretrained generator (generator)", "pretrained generator (other)", "random real"]
    assert names([str(generator), str(other)]) == expected


def test_snapshots_are_called_by_their_iteration_and_drawn_with_the_end_of_their_run(stored) -> None:
    run = {"method": "dc", "fingerprint": "f", "config": {"matching": {"iterations": 100}}}
    early = stored("matching/set-00000010.safetensors", 1, **run, iterations=10)
    end = stored("matching/set.safetensors", 1, **run, iterations=100)
    other = stored("again/set.safetensors", 1, **{**run, "fingerprint": "g"}, iterations=100)
    found = compared([read(text) for text in (early, end, other)])
    lines = ["dc (matching)", "dc (matching)", "dc (again)", "random real"]
    assert [source.line for source in found] == lines
    assert found[0].source.label == "dc (matching), iteration 10"
    assert [one.source.label for one in found[1:]] == lines[1:]
    assert names([early, end]) == ["dc, iteration 10", "dc", "random real"]
    assert names([early]) == ["dc, iteration 10", "random real"]


def test_the_same_content_is_scored_once(stored, caplog: pytest.LogCaptureFixture) -> None:
    path = Path(stored("set.safetensors", 1, method="dc"))
    copy = path.with_name("copy.safetensors")
    copy.write_bytes(path.read_bytes())
    with caplog.at_level(logging.INFO):
        assert names([str(path), str(copy)]) == ["dc", "random real"]
    assert "copy.safetensors is the same set" in caplog.text


def test_the_floor_alone_is_nothing_to_compare() -> None:
    with pytest.raises(ConfigError, match="nothing to compare with real:random"):
        compared([read("real:random")])


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Axes]]:
    """The panels of every picture that is saved, by its file's name."""
    found: dict[str, list[Axes]] = {}
    save = plots.save_picture

    def spy(figure: Figure, path: Path, *rest: object) -> None:
        found[path.name] = [axes for axes in figure.axes if axes.get_visible()]
        save(figure, path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(plots, "save_picture", spy)
    return found


def curve(axes: Axes, colour: str, dashes: str = "-") -> list[list[tuple[float, float]]]:
    """Marked curves of one colour."""
    lines = [line for line in axes.lines if line.get_marker() == "o" and line.get_linestyle() == dashes]
    return [list(zip(*line.get_data(), strict=True)) for line in lines if line.get_color() == colour]


def test_pictures(row: Row, drawn: dict[str, list[Axes]], tmp_path: Path) -> None:
    def both(source: str, accuracy: float, **fields: object) -> list[Row]:
        rows = scored(row, source, [accuracy] * 3, **fields)
        return [*rows, *(dataclasses.replace(row, arch="mlp-w8", accuracy=row.accuracy + 1) for row in rows)]

    generator = [row for ipc in (1, 10) for row in both("skd", 40.0 + ipc, kind="generator", ipc=ipc)]
    generator = [dataclasses.replace(row, generator_seconds=9.0) for row in generator]
    rows = [
        *(row for ipc in (1, 10) for row in both("floor", 10.0 + ipc, kind="real:random", ipc=ipc)),
        *both("dc", 33.0, generator_seconds=100.0),
        *both("dc, iteration 1", 31.0, generator_seconds=1.0),
        *both("dc, iteration 10", 32.0, generator_seconds=10.0),
        *both("theirs", 20.0, generator_seconds=None),
        *generator,
        *[dataclasses.replace(row, protocol="stream", accuracy=row.accuracy + 5) for row in generator],
    ]
    rows = [dataclasses.replace(r, generator_seconds=None) if r.kind == "real:random" else r for r in rows]
    labels = dict.fromkeys(row.source for row in rows)
    sources = [Compared(Source(label, "set", ""), label.split(", ")[0]) for label in labels]
    paths = compare.write_comparison(tmp_path, rows, sources, COMMAND, [28.25])
    assert [path.name for path in paths] == [
        "rows.csv",
        "compare.md",
        "compare.json",
        "accuracy-ipc.png",
        "accuracy-seconds.png",
    ]
    assert all(path.exists() for path in paths)

    panels = drawn["accuracy-ipc.png"]
    assert [axes.get_title(loc="left") for axes in panels] == ["mlp-w16", "mlp-w8"]
    colours = plots.palette({row.source: row.kind for row in rows if ", " not in row.source})
    for index, axes in enumerate(panels):
        heights = {name: [[y for _, y in line] for line in curve(axes, colour)] for name, colour in colours.items()}
        expected = {"floor": [[11, 20]], "dc": [[33]], "theirs": [[20]], "skd": [[41, 50]]}
        assert heights == {name: [[y + index for y in line] for line in lines] for name, lines in expected.items()}
        (stream,) = curve(axes, colours["skd"], "--")
        assert [y for _, y in stream] == [46 + index, 55 + index]
        assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "10"]

    colours = plots.palette({row.source: row.kind for row in rows if row.source in ("floor", "dc", "skd")})
    axes = drawn["accuracy-seconds.png"][0]
    assert curve(axes, colours["dc"]) == [[(1, 31), (10, 32), (100, 33)]]
    assert curve(axes, colours["skd"]) == [[(9, 41)], [(9, 50)]]
    level = [(line.get_color(), line.get_ydata()[0]) for line in axes.lines if line.get_marker() == "None"]
    for line in ((colours["floor"], 11), (colours["floor"], 20), ("black", 28.25)):
        assert line in level


def test_replicates_are_one_curve_with_whiskers_over_their_means(
    row: Row, drawn: dict[str, list[Axes]], tmp_path: Path
) -> None:
    made = {"kind": "generator", "stage": "refine"}
    rows = [
        dataclasses.replace(one, distillation_seed=of, source_hash=str(of), generator_seconds=10.0 + 4 * of)
        for ipc in (1, 10)
        for of, accuracies in enumerate([(50, 51, 52), (54, 55, 59)])
        for one in scored(row, "skd", accuracies, ipc=ipc, **made)
    ]
    source = Compared(Source("skd", "generator", ""), "skd")
    compare.write_comparison(tmp_path, rows, [source, source], COMMAND, [], replicates=True)
    # 51 and 56 have the variance 12.5, and 52, 53 and 55.5 by student 3.25, so V_d = 6.25 and V_s = 1.0833 (docstring
    # of `two_way_half_width`): h^2 = 3.8415 + .8523^2 (12.7062^2 - 3.8415) + .1477^2 (4.3027^2 - 3.8415) = 118.65.
    reach = (118.6524 * (6.25 + 3.25 / 3)) ** 0.5
    for name, at in (("accuracy-ipc.png", [1, 10]), ("accuracy-seconds.png", [12, 12])):
        (axes,) = drawn[name]
        points = [point for line in curve(axes, plots.palette({"skd": "generator"})["skd"]) for point in line]
        assert points == [(x, 53.5) for x in at]
        whiskers = [segment[:, 1] for bars in axes.collections for segment in bars.get_segments()]
        assert [*map(list, whiskers)] == [pytest.approx([53.5 - reach, 53.5 + reach], abs=1e-2)] * 2
    assert "| skd | 1 | 53.5 ± 29.5 |" in (tmp_path / "compare.md").read_text()


def test_a_ceiling_that_was_added_is_in_the_picture_under_its_name(
    row: Row, drawn: dict[str, list[Axes]], tmp_path: Path
) -> None:
    generator = scored(row, "skd", [50.0] * 3, kind="generator", protocol="stream", generator_seconds=9.0)
    fresh = scored(row, "fresh real", [90.0] * 3, kind="real:stream", protocol="stream", generator_seconds=None)
    compare.write_comparison(
        tmp_path, [*generator, *fresh], [Compared(Source("skd", "generator", ""), "skd")], COMMAND, []
    )
    (axes,) = drawn["accuracy-ipc.png"]
    colour = plots.palette({"skd": "generator", "fresh real": "real:stream"})["fresh real"]
    assert [[y for _, y in line] for line in curve(axes, colour, "--")] == [[90]]
    for panels in drawn.values():
        (legend,) = panels[0].figure.legends
        assert "nan" not in " ".join(text.get_text() for text in legend.get_texts())


@pytest.mark.parametrize("seconds", [None, 0.0])  # 0 has no place on a logarithmic axis
def test_no_picture_of_seconds_that_nobody_knows_or_that_are_none(seconds, row: Row, tmp_path: Path) -> None:
    rows = scored(row, "theirs", (1, 2, 3), generator_seconds=seconds)
    compare.write_comparison(tmp_path, rows, [Compared(Source("theirs", "set", ""), "theirs")], COMMAND, [])
    assert {path.name for path in tmp_path.iterdir()} == {"rows.csv", "compare.md", "compare.json", "accuracy-ipc.png"}


def test_what_failed_is_in_the_table_and_in_no_picture(row: Row, drawn: dict[str, list[Axes]], tmp_path: Path) -> None:
    floor = scored(row, "floor", (10, 11, 12), kind="real:random", stage=None, generator_seconds=None)
    good, bad = scored(row, "good", (50, 51, 52)), scored(row, "bad", (0, 0, 0))
    bad = [dataclasses.replace(row, accuracy=None, failure="why") for row in bad]
    some = [*floor, *good[:2], dataclasses.replace(good[2], accuracy=None, failure="why"), *bad]
    found = cells(some, "good")
    assert found["bad", "1"][:2] == ["failed", "failed"]
    assert found["good", "1"][0] == "50.5 ± 6.4, 1 of 3 failed"
    assert found["floor (floor)", "1"][1] == "-40.0 ± 0.0, 1 of 3 failed"
    sources = [Compared(Source(label, "set", ""), label) for label in ("good", "floor", "bad")]
    compare.write_comparison(tmp_path, some, sources, COMMAND, [])
    heights = [y for axes in drawn["accuracy-ipc.png"] for line in axes.lines for y in line.get_ydata()]
    assert 50.5 in heights
    assert not any(math.isnan(height) for height in heights)


def test_nothing_but_failures_has_a_table_and_no_picture(row: Row, tmp_path: Path) -> None:
    bad = [dataclasses.replace(row, accuracy=None, failure="why") for row in scored(row, "bad", (0, 0, 0))]
    compare.write_comparison(tmp_path, bad, [Compared(Source("bad", "set", ""), "bad")], COMMAND, [])
    assert {path.name for path in tmp_path.iterdir()} == {"rows.csv", "compare.md", "compare.json"}

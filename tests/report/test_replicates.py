"""Seeds of the distillation and seeds of students: estimates with known answers, and who is whose replicate."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from generators import PETS

from gdd.config import (
    Config,
    ConfigError,
    DataConfig,
    MatchingConfig,
    RefineConfig,
    RefinePoolConfig,
    RunConfig,
    to_plain,
)
from gdd.evaluation.row import Row
from gdd.evaluation.sources import Source, read
from gdd.report import compare, statistics, tables
from gdd.report.compare import compared
from gdd.report.replicates import groups
from gdd.sampling.generator_file import LoadedGenerator
from gdd.sampling.set_file import SyntheticSet

T1 = 12.706205  # of Student's t with one degree of freedom, at 0.975
T2 = 4.302653  # with two
Z = 1.959964  # of the normal distribution


def half(by_distillation: float, by_student: float, *t: float) -> float:
    """The half width from both variances of a mean and their quantiles, as `intervals.two_way_half_width` says."""
    total = by_distillation + by_student
    shares = (by_distillation / total, by_student / total)
    return math.sqrt(total * (Z**2 + sum(share**2 * (of**2 - Z**2) for share, of in zip(shares, t, strict=True))))


def scored(row: Row, source: str, accuracies: dict[int | None, Sequence[float]], **fields: Any) -> list[Row]:
    """A row per seed of the distillation and, beginning at 0, of the student."""
    made = replace(row, source=source, **{"kind": "generator", "stage": "refine", **fields})
    return [
        replace(made, source_hash=f"{source} {of}", distillation_seed=of, seed=seed, accuracy=accuracy)
        for of, values in accuracies.items()
        for seed, accuracy in enumerate(values)
    ]


def real(row: Row, accuracies: Sequence[float], **fields: Any) -> list[Row]:
    given = {"kind": "real:random", "method": "real", "stage": None, "generator_seconds": None, **fields}
    return scored(row, given["kind"], {None: accuracies}, **given)


def estimates(table: Any, column: str) -> list[tuple[float, float, int]]:
    return [(found.mean, found.half_width, found.n) for found in table[column]]


ONE = {0: (50, 51, 52), 1: (54, 55, 59)}
# Means 51 and 56, whose variance is 12.5, and by student 52, 53 and 55.5, whose variance is 3.25.
OF_ONE = half(12.5 / 2, 3.25 / 3, T1, T2)


@pytest.mark.parametrize(
    ("accuracies", "over_distillations", "over_students"),
    [
        (ONE, (53.5, OF_ONE, 2), [(51, T2 / math.sqrt(3), 3), (56, T2 * math.sqrt(7 / 3), 3)]),
        ({0: (50,) * 3, 1: (60,) * 3}, (55, T1 * 5, 2), [(50, 0, 3), (60, 0, 3)]),  # students agree
        ({0: (40, 50, 60), 1: (60, 50, 40)}, (50, 0, 2), [(50, T2 * 10 / math.sqrt(3), 3)] * 2),  # distillations do
        ({None: (50, 51, 52)}, (51, math.nan, 1), [(51, T2 / math.sqrt(3), 3)]),
    ],
)
def test_each_interval_is_over_its_own_seeds(accuracies, over_distillations, over_students, row: Row) -> None:
    table = statistics.frame(scored(row, "skd", accuracies))
    (found,) = estimates(statistics.summarise(table, replicates=True), "accuracy")
    assert found == pytest.approx(over_distillations, nan_ok=True)
    for found, expected in zip(estimates(statistics.summarise(table), "accuracy"), over_students, strict=True):
        assert found == pytest.approx(expected)


def test_real_images_keep_their_student_seeds(row: Row) -> None:
    table = statistics.frame(real(row, (10, 20, 30)))
    (found,) = estimates(statistics.summarise(table, replicates=True), "accuracy")
    assert found == pytest.approx((20, T2 * 10 / math.sqrt(3), 3))


def test_seconds_to_distil_are_those_of_all_replicates(row: Row) -> None:
    rows = [replace(one, generator_seconds=10.0 + 4 * one.distillation_seed) for one in scored(row, "skd", ONE)]
    (seconds,) = statistics.summarise(statistics.frame(rows), replicates=True)["generator_seconds"]
    assert seconds == 12


def differences(rows: Sequence[Row], others: Sequence[Row]) -> list[tuple[float, float, int]]:
    return estimates(
        statistics.differences(statistics.frame(rows), statistics.frame(others), replicates=True), "points"
    )


def test_differences_are_paired_by_either_seed(row: Row) -> None:
    one = scored(row, "one", ONE)
    # 10 and 9 less on average, by students who differ as much as they like.
    other = scored(row, "other", {0: (39, 41, 43), 1: (46, 46, 49)})
    (found,) = differences(one, other)
    assert found == pytest.approx((9.5, T1 * 0.5, 2))
    # Only the distillation seeds of both, and of them only the student seeds of both.
    (found,) = differences(one, scored(row, "other", {1: (50, 50), 2: (0, 0)}))
    assert found == pytest.approx((4.5, math.nan, 1), nan_ok=True)
    assert differences(one, scored(row, "other", {2: (0, 0, 0)})) == []


def test_a_difference_to_what_has_no_seed_is_one_for_each_distillation(row: Row) -> None:
    one = scored(row, "one", ONE)
    for other in (real(row, (10, 20)), scored(row, "theirs", {None: (10, 20)}, kind="set", stage=None)):
        # 40 and 31 of one distillation, 44 and 35 of the other: 35.5 and 39.5, of variance 8, and by student 42 and 33,
        # of variance 40.5: what the two students of the other vary by counts.
        expected = half(8 / 2, 40.5 / 2, T1, T1)
        assert differences(one, other) == [pytest.approx((37.5, expected, 2))]
        assert differences(other, one) == [pytest.approx((-37.5, expected, 2))]
    theirs = scored(row, "theirs", {None: (11, 23)}, kind="set", stage=None)
    assert differences(theirs, real(row, (10, 20))) == [pytest.approx((2, math.nan, 1), nan_ok=True)]
    # Nothing of either is distilled, so that student seeds count: 1 and 3.
    assert differences(real(row, (11, 23), kind="real:stream"), real(row, (10, 20))) == [pytest.approx((2, T1, 2))]


def test_one_student_leaves_no_interval_against_real_images_and_the_table_says_so(row: Row) -> None:
    rows = [
        *scored(row, "one", {0: (50,), 1: (56,)}),
        *scored(row, "other", {0: (40,), 1: (47,)}),
        *real(row, (20,)),
    ]
    cells, notes = table_of(rows)
    # Between distilled sources differences stay paired: -10 and -9.
    assert cells == {
        "one": ["53.0 ± 38.1", ""],
        "other": ["43.5 ± 44.5", "-9.5 ± 6.4"],
        "real:random (floor)": ["20.0, n = 1", "-33.0"],
    }
    assert "what compares with real images has none" in notes
    stream = {"protocol": "stream"}
    streams = [*scored(row, "one", {0: (50,), 1: (60,)}, **stream), *real(row, (80,), kind="real:stream", **stream)]
    (section,) = tables.share_sections(statistics.frame(streams), "stream", replicates=True)
    assert section.lines == [["one", "1", "3", "68.8"]]
    assert "what compares with real images has none" in section.notes[0]


def test_shares_are_over_distillations_and_students_of_the_ratio_of_each(row: Row) -> None:
    stream = {"protocol": "stream"}
    rows = [
        *scored(row, "skd", {0: (40, 15), 1: (60, 45)}, **stream),  # 50 and 25 percent; 75 and 75
        *real(row, (80, 60), kind="real:stream", **stream),
    ]
    assert estimates(statistics.shares(statistics.frame(rows), replicates=True), "share") == [
        # 37.5 and 75, of variance 703.125, and by student 62.5 and 50, of variance 78.125.
        pytest.approx((56.25, expected := half(703.125 / 2, 78.125 / 2, T1, T1), 2))
    ]
    (section,) = tables.share_sections(statistics.frame(rows), "stream", replicates=True)
    assert section.lines == [["skd", "1", "3", f"56.2 ± {expected:.1f}"]]
    assert "± counts the chance of both" in section.notes[0]


def table_of(rows: Sequence[Row], replicates: bool = True) -> tuple[dict[str, list[str]], str]:
    """The cells of the first table by method, accuracy and difference, and its notes."""
    section = compare.comparison_sections(rows, rows[0].source, brief=False, replicates=replicates)[0]
    return {line[0]: line[2:4] for line in section.lines}, " ".join(section.notes)


def test_a_table_says_which_seeds_it_counts(row: Row) -> None:
    rows = [
        *scored(row, "one", ONE),
        *scored(row, "other", {0: (39, 41, 43), 1: (46, 46, 49)}),
        *scored(row, "single", {1: (45, 46, 50)}),
        *real(row, (10, 20, 30)),
    ]
    cells, notes = table_of(rows)
    assert cells == {
        "one": [f"53.5 ± {OF_ONE:.1f}", ""],
        # 41 and 47, of variance 18, and by student 42.5, 43.5 and 46, of variance 3.25; differences: 9.5 by each.
        "other": [f"44.0 ± {half(18 / 2, 3.25 / 3, T1, T2):.1f}", "-9.5 ± 6.4"],
        "single": ["47.0, n = 1", "-9.0, n = 1"],
        # -31 and -36, of variance 12.5, and by student -42, -33 and -25.5, of variance 68.25.
        "real:random (floor)": ["20.0 ± 24.8, n = 3", f"-33.5 ± {half(12.5 / 2, 68.25 / 3, T1, T2):.1f}"],
    }
    assert "mean ± half width" in notes
    assert "n = 2 distillation seeds (0, 1), each with 3 student seeds (0, 1, 2)," in notes
    assert "by the mean over its student seeds, and ± counts the chance of both, with the draws" in notes
    assert "paired by the seeds of distillation and student" in notes
    cells, notes = table_of(rows[-6:], replicates=False)
    assert cells == {"single": ["47.0 ± 6.6", ""], "real:random (floor)": ["20.0 ± 24.8", "-27.0 ± 18.8"]}
    assert "n = 3 student seeds (0, 1, 2)," in notes
    assert "over student seeds of one distillation, so it says nothing about another distillation" in notes


def test_one_distillation_seed_has_no_interval_and_says_so(row: Row) -> None:
    cells, notes = table_of([*scored(row, "one", {4: (50, 51, 52)}), *scored(row, "other", {4: (40, 41, 45)})])
    assert cells == {"one": ["51.0", ""], "other": ["42.0", "-9.0"]}
    assert "n = 1 distillation seed (4), each with 3 student seeds" in notes
    assert "nothing can be said about another distillation" in notes


def test_distillations_of_one_student_each_have_an_interval(row: Row) -> None:
    cells, notes = table_of(scored(row, "one", {0: (50,), 1: (60,)}))
    assert cells["one"][0] == "55.0 ± 63.5"
    assert "mean ± half width" in notes
    assert "n = 2 distillation seeds (0, 1), each with 1 student seed (0)," in notes


def test_methods_of_other_seeds_than_each_other(row: Row) -> None:
    rows = [*scored(row, "one", {0: (50,), 1: (60,)}), *scored(row, "other", {2: (50,), 3: (60,)})]
    assert "n = 2 distillation seeds (among 0, 1, 2, 3)" in table_of(rows)[1]
    assert "n = 1 distillation seed (unknown)" in table_of(scored(row, "one", {None: (50,)}))[1]


def test_nothing_but_real_images_is_not_distilled(row: Row) -> None:
    rows = real(row, (10, 20, 30))
    for replicates in (False, True):
        cells, notes = table_of(rows, replicates)
        assert cells["real:random (floor)"][0] == "20.0 ± 24.8"
        assert "n = 3 student seeds (0, 1, 2)" in notes
        assert "distillation" not in notes


def test_old_rows_have_no_distillation_seed(row: Row) -> None:
    values = row.to_dict()
    del values["distillation_seed"]
    assert Row.from_dict(values).distillation_seed is None
    assert Row.from_dict(replace(row, distillation_seed=3).to_dict()).distillation_seed == 3


def test_old_rows_of_a_refined_generator_do_not_say_by_which_loss(row: Row) -> None:
    values = replace(row, stage="refine").to_dict() | {"method": "skd"}
    assert Row.from_dict(values).method is None
    assert Row.from_dict(values | {"stage": None}).method == "skd"  # of another's set, called so by its user


hashes = iter(range(1000))


def generator(seed: int, stage: str = "refine", /, **config: Any) -> Source:
    """A generator that says how it was made."""
    name = f"{next(hashes)}"
    provenance = {
        "method": "gan + skd" if stage == "refine" else "gan",
        "stage": stage,
        "seed": seed,
        "config": to_plain(Config(seed=seed, **config)),
    }
    made = LoadedGenerator(None, PETS, name, 1, provenance)  # type: ignore[arg-type]
    return Source(f"runs/{name}/{stage}", "generator", name, generator=made)


def labels(sources: Sequence[Source]) -> list[str]:
    return [one.source.label for one in compared(sources, replicates=True)][:-1]


SKD, GAN = "refined generator (SKD)", "pretrained generator"


def test_replicates_share_a_name_and_stand_together() -> None:
    sources = [generator(0), generator(0, "pretrain"), generator(1), generator(1, "pretrain"), read("real:all")]
    found = compared(sources, replicates=True)
    assert [one.source.label for one in found] == [SKD, SKD, GAN, GAN, "all real", "random real"]
    assert [one.source.distillation_seed for one in found] == [0, 1, 0, 1, None, None]
    assert [one.line for one in found] == [one.source.label for one in found]


def test_what_has_no_effect_tells_nobody_apart() -> None:
    run, data = RunConfig(save_every=7, threads=1), DataConfig(root=Path("elsewhere"), download=True)
    assert labels([generator(0), generator(1, name="other", run=run, data=data)]) == [SKD, SKD]
    # A section that plays no part in a stage does not count either, nor does how students are trained.
    assert labels([generator(0), generator(1, matching=MatchingConfig(iterations=3))]) == [SKD, SKD]
    refined = RefineConfig(steps=7)
    assert labels([generator(0, "pretrain"), generator(1, "pretrain", refine=refined)]) == [GAN, GAN]


def test_arms_are_called_by_the_settings_in_which_they_differ() -> None:
    nearest = RefineConfig(balance=0.5, pairing="optimal", steps=900)
    off = RefineConfig(weight=0.5, steps=900)
    sources = [generator(seed, refine=refine) for seed in (0, 1) for refine in (off, nearest)]
    expected = [f"{SKD}, refine.weight 0.5", f"{SKD}, refine.balance 0.5, refine.pairing optimal"]
    # What both have, refine.steps, tells nothing; defaults do not stand there.
    assert labels(sources) == [name for name in expected for _ in (0, 1)]
    plain = generator(0, refine=RefineConfig(steps=900))
    assert labels([*sources, plain])[-1] == SKD
    steps = [generator(0), generator(0, data=DataConfig(val_fraction=0.25), run=RunConfig(tf32=False))]
    assert labels([*steps, generator(2)]) == [SKD, SKD, f"{SKD}, data.val_fraction 0.25, run.tf32 false"]
    said = generator(1, refine=RefineConfig(weight=0.01, steps=900))  # as it is if nothing is said
    assert labels([plain, said]) == [SKD, SKD]
    pools = [RefineConfig(pool=RefinePoolConfig(members=members)) for members in (("mlp",), ("mlp", "lenet"))]
    names = [f"{SKD}, refine.pool.members {members}" for members in ("[mlp]", "[mlp, lenet]")]
    assert labels([generator(0, refine=pool) for pool in pools]) == names


def test_a_second_content_of_one_seed_is_refused() -> None:
    one, other = generator(3), generator(3)
    with pytest.raises(ConfigError, match=rf"^{other.label} has the .* the seed 3 of {one.label} but other content"):
        labels([one, generator(4), other])
    assert labels([one, one, generator(4)]) == [SKD, SKD]  # the same content is scored once


@pytest.fixture
def stored(dataset):
    """Return a function that gives a set of its own content."""

    def call(seed: int | None, iterations: int = 1000, ipc: int = 1, planned: int = 1000, **facts: Any) -> Source:
        matching = MatchingConfig(ipc=ipc, iterations=planned)
        config = to_plain(Config(seed=seed or 0, method="matching", matching=matching))
        provenance = {"method": "dc", "stage": "matching", "seed": seed, "iterations": iterations, "config": config}
        images = dataset.test().images_u8[: 10 * ipc]
        labels = dataset.test().labels.new_tensor(range(10)).repeat(ipc)
        made = SyntheticSet(images, labels, dataset.spec, ipc, {**provenance, **facts})
        name = f"{next(hashes)}"
        path = Path(f"/sets/{name}.safetensors")
        return Source(str(path), "set", name, path, synthetic=made)

    return call


def test_sets_of_another_ipc_or_iteration_are_no_replicates(stored) -> None:
    sources = [stored(seed, iterations) for iterations in (1000, 10) for seed in (0, 1)]
    larger = stored(0, ipc=10)
    found = compared([*sources, larger], replicates=True)[:-1]
    assert [one.source.label for one in found] == ["dc", "dc", *["dc, iteration 10"] * 2, "dc"]
    assert {one.line for one in found} == {"dc"}
    assert labels([sources[2], sources[3]]) == ["dc, iteration 10"] * 2  # their ends need not be there


@pytest.mark.parametrize(
    "facts",
    [
        {"seed": None},
        {"config": {}},
        {"config": {"refine": {"steps": "many"}}},
        {"config": {"match": {"ipc": 1}}},  # of 0.1.0, whose settings have other names
    ],
    ids=str,
)
def test_what_does_not_say_its_settings_is_alone(facts, stored, caplog: pytest.LogCaptureFixture) -> None:
    one, other = (stored(**{"seed": seed, **facts}) for seed in (0, 1))
    with caplog.at_level("INFO"):
        assert labels([one, other]) == [f"dc ({source.hash})" for source in (one, other)]
    assert f"{one.label} has no replicates" in caplog.text


def test_a_failed_student_leaves_its_distillation_to_the_others(row: Row) -> None:
    rows = scored(row, "skd", {0: (50, 51, 52), 1: (54, 55, 59)})
    failed = {4: replace(rows[4], accuracy=None, failure="not finite")}
    rows = [failed.get(index, made) for index, made in enumerate(rows)]
    table = statistics.summarise(statistics.frame(rows), replicates=True)
    # 51 and 56.5, of variance 15.125, and by student 52, 51 and 55.5, of variance 67 / 12.
    assert estimates(table, "accuracy") == [pytest.approx((53.75, half(15.125 / 2, 67 / 36, T1, T2), 2))]
    cells, notes = table_of([*rows, *real(row, (10, 20, 30))])
    assert cells["skd"][0].endswith(", 1 of 6 failed")
    assert cells["real:random (floor)"][1].endswith(", 1 of 6 failed")
    assert "1 of 9 students failed and are part of no mean" in notes
    every = [
        replace(made, accuracy=None, failure="not finite") if made.distillation_seed == 1 else made for made in rows
    ]
    (found,) = statistics.summarise(statistics.frame(every), replicates=True)["accuracy"]
    assert (found.mean, found.n, found.failed, found.students, found.lost) == (51, 1, 3, 6, 1)


def test_a_filtered_generator_is_no_replicate_of_a_plain_one() -> None:
    plain, filtered = generator(0), replace(generator(1), ensemble=SimpleNamespace(provenance={}))
    assert [len(group) for group in groups([plain, filtered])] == [1, 1]

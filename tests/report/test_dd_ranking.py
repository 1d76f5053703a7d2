"""DD-Ranking's scores: values computed by hand, bounds, and a table of rows that nobody had to train."""

import dataclasses
from collections.abc import Sequence

import pytest

from gdd.evaluation.row import Row
from gdd.report import dd_ranking
from gdd.report.dd_ranking import (
    augmentation_robust_score,
    hard_label_recovery,
    improvement_over_random,
    label_robust_score,
    normalised,
)


def test_scores_computed_by_hand() -> None:
    # Accuracies: all real .9, the set .6 with hard labels and .65 by the recipe, random real images .45 by the recipe.
    hlr, ior = hard_label_recovery(0.9, 0.6), improvement_over_random(0.65, 0.45)
    assert hlr == pytest.approx(0.3)  # .9 - .6
    assert ior == pytest.approx(0.2)  # .65 - .45
    # alpha = .5 * .2 - .5 * .3 = -.05; e^-.05 = .951229, e^-1 = .367879, e = 2.718282:
    # (.951229 - .367879) / (2.718282 - .367879) = .583350 / 2.350402 = .248191
    assert label_robust_score(hlr, ior) == pytest.approx(0.248191, abs=1e-6)
    # alpha = .8 * .2 - .2 * .3 = .1; e^.1 = 1.105171; .737292 / 2.350402 = .313687
    assert label_robust_score(hlr, ior, weight=0.8) == pytest.approx(0.313687, abs=1e-6)
    # beta = .5 * .2 + .5 * .1 = .15; e^.15 = 1.161834; .793955 / 2.350402 = .337795
    assert augmentation_robust_score(0.2, 0.1) == pytest.approx(0.337795, abs=1e-6)
    # beta = 1 * .2 + 0 * .1 = .2; e^.2 = 1.221403; .853524 / 2.350402 = .363139
    assert augmentation_robust_score(0.2, 0.1, weight=1) == pytest.approx(0.363139, abs=1e-6)


def test_bounds_and_what_random_images_get() -> None:
    assert label_robust_score(hlr=-1, ior=1) == augmentation_robust_score(1, 1) == 1
    assert label_robust_score(hlr=1, ior=-1) == augmentation_robust_score(-1, -1) == 0
    # (1 - 1/e) / (e - 1/e) = .632121 / 2.350402 = .268941, which is also 1 / (1 + e).
    assert normalised(0) == pytest.approx(0.268941, abs=1e-6)
    assert augmentation_robust_score(0, 0) == normalised(0)


def test_scores_rise_with_ior_and_fall_with_hlr() -> None:
    steps = [index / 10 for index in range(-10, 11)]
    by_ior = [label_robust_score(0.3, ior) for ior in steps]
    by_hlr = [label_robust_score(hlr, 0.2) for hlr in steps]
    by_augmented, by_plain = (
        [augmentation_robust_score(*pair) for pair in pairs]
        for pairs in ([(value, 0.1) for value in steps], [(0.1, value) for value in steps])
    )
    assert by_ior == sorted({*by_ior})
    assert by_hlr == sorted({*by_hlr}, reverse=True)
    assert by_augmented == sorted({*by_augmented})
    assert by_plain == sorted({*by_plain})


def scored(row: Row, accuracies: Sequence[float | None], **fields: object) -> list[Row]:
    failures = {True: "logits of 1 of 360 test images are not finite"}
    return [
        dataclasses.replace(row, seed=seed, accuracy=accuracy, failure=failures.get(accuracy is None), **fields)  # type: ignore[arg-type]
        for seed, accuracy in enumerate(accuracies)
    ]


FLOOR = {"source": "random real", "kind": "real:random", "method": "real", "stage": None}
FULL = {"source": "all real", "kind": "real:all", "method": "real", "stage": None, "ipc": None, "epochs": 20}


@pytest.fixture
def arms(row: Row) -> tuple[list[Row], list[Row], list[Row]]:
    """A set of soft labels at 60 and 64 %, random images at 50 and 50, with hard labels 55 and 57 of 90 and 94."""
    own = {"label_kind": "stored soft", "source_hash": "soft"}
    rows = [*scored(row, (50.0, 50.0), **FLOOR), *scored(row, (60.0, 64.0), **own)]
    other = [*scored(row, (40.0, 44.0), augment="crop", **FLOOR), *scored(row, (46.0, 54.0), augment="crop", **own)]
    hard = [*scored(row, (50.0, 50.0), **FLOOR), *scored(row, (55.0, 57.0)), *scored(row, (90.0, 94.0), **FULL)]
    return rows, other, hard


def test_the_table_pairs_students_by_seed(row: Row, arms: tuple[list[Row], list[Row], list[Row]]) -> None:
    # A stream and a fraction of the real images, at other accuracies, have no part in it.
    rows, other, hard = arms
    stream = scored(row, (1.0, 2.0), source="generator", kind="generator", protocol="stream")
    fraction = scored(row, (3.0, 4.0), source="5 % of real", kind="real:fraction")
    section = dd_ranking.section([*stream, *fraction, *rows], other, hard, brief=False)
    assert section.headers == ["method", "IPC", "student", "HLR", "IOR", "LRS", "ARS"]
    # Of two values the half width is t(.975, 1) / 2 = 6.3531 times their distance.
    # HLR: 90 - 55 = 35 and 94 - 57 = 37. IOR: 60 - 50 = 10 and 64 - 50 = 14, and augmented 46 - 40 = 6, 54 - 44 = 10.
    # LRS: alpha (.10 - .35) / 2 = -.125 and (.14 - .37) / 2 = -.115: .882497 and .891366 less .367879, over 2.350402:
    # 21.895 and 22.272, so 22.083 +- 2.397. ARS: beta .08 and .12: 1.083287 and 1.127497: 30.438 and 32.319, so
    # 31.378 +- 11.9497. Random: HLR 40 and 44, alpha -.2 and -.22: .818731 and .802519: 19.182 and 18.492.
    random = ["random real (floor)", "1", "mlp-w16", "42.0 ± 25.4", "0.0 ± 0.0", "18.8 ± 4.4", "26.9 ± 0.0"]
    own = ["set", "1", "mlp-w16", "36.0 ± 12.7", "12.0 ± 25.4", "22.1 ± 2.4", "31.4 ± 11.9"]
    assert section.lines == [random, own]
    notes = " ".join(section.notes)
    assert "n = 2 student seeds (0, 1)" in notes
    assert "all real images (20 epochs)" in notes
    assert "with augmentation crop and one without" in notes
    assert "of set also count what stored labels bring" in notes


def test_a_recipe_with_augmentation_gives_the_same_table(arms: tuple[list[Row], list[Row], list[Row]]) -> None:
    """ARS weighs both alike, and the note names the augmentation from whichever side has it."""
    rows, other, hard = arms
    swapped = dd_ranking.section(other, rows, hard, brief=False)
    assert [line[6] for line in swapped.lines] == ["26.9 ± 0.0", "31.4 ± 11.9"]
    assert "with augmentation crop and one without" in " ".join(swapped.notes)


def test_a_failed_student_is_part_of_no_score_that_needs_it(arms: tuple[list[Row], list[Row], list[Row]]) -> None:
    rows, other, hard = arms
    broken = [dataclasses.replace(one, accuracy=None, failure="broken") if one.seed else one for one in other]
    random, own = dd_ranking.section(rows, broken, hard, brief=True).lines
    assert own[3:6] == ["36.0 ± 12.7", "12.0 ± 25.4", "22.1 ± 2.4"]
    assert own[6] == "30.4, 1 of 2 failed"
    assert random[6] == "26.9, 1 of 2 failed"


def test_replicates_count_once_each(arms: tuple[list[Row], list[Row], list[Row]]) -> None:
    """Of two distillations, by the mean over their students; the floor, which is none, by its students."""
    rows, other, hard = arms

    def twice(part: list[Row], lower: float) -> list[Row]:
        sets = [dataclasses.replace(one, distillation_seed=0) for one in part if one.kind == "set"]
        again = [
            dataclasses.replace(one, distillation_seed=1, source_hash="other", accuracy=one.accuracy - lower)  # type: ignore[operator]
            for one in sets
        ]
        return [*(one for one in part if one.kind != "set"), *sets, *again]

    section = dd_ranking.section(twice(rows, 2), twice(other, 2), twice(hard, 4), brief=False, replicates=True)
    # HLR: mean 36, and 40 of the second, of variance 8, and 37 and 39 by student, of variance 2: V_d 4 and V_s 1.
    # IOR: 12 and 10, of variance 2, and 9 and 13, of variance 8: V_d 1 and V_s 4. With t(.975, 1) = 12.7062 for both,
    # h^2 = 1.96^2 + (.8^2 + .2^2) (12.7062^2 - 1.96^2) = 111.01, times 5: 23.560^2 of either.
    assert section.lines[1][3:5] == ["38.0 ± 23.6", "11.0 ± 23.6"]
    assert section.lines[0][3] == "42.0 ± 25.4"


def test_one_student_leaves_no_interval_of_replicates(arms: tuple[list[Row], list[Row], list[Row]]) -> None:
    """All scores but ARS of the same set hold one draw of real images, or one student of all of them."""
    rows, other, hard = ([one for one in arm if one.seed == 0] for arm in arms)
    first, second = (
        [
            [
                dataclasses.replace(one, distillation_seed=of, source_hash=f"{of}", accuracy=one.accuracy + of)  # type: ignore[operator]
                for one in arm
                if one.kind == "set"
            ]
            for arm in (rows, other, hard)
        ]
        for of in (0, 1)
    )
    both = [
        [*(one for one in arm if one.kind != "set"), *a, *b]
        for arm, a, b in zip((rows, other, hard), first, second, strict=True)
    ]
    section = dd_ranking.section(*both, brief=False, replicates=True)
    assert all("±" not in cell for line in section.lines for cell in line)
    assert "what compares with real images has none" in " ".join(section.notes)

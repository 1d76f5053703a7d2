"""Recipes as published, and which settings tell rows apart."""

import pytest

from gdd.config import ConfigError, EvaluateConfig
from gdd.data.readers import Dataset
from gdd.evaluation.recipe import Conditions, Recipe, published


def test_dc_divides_the_rate_by_ten_at_half() -> None:
    plain = published("dc", "none", flip=True)
    assert (plain.epochs, plain.batch_size, plain.augment) == (300, 256, "none")
    assert plain.lr_at(149, 300) == 0.01
    assert plain.lr_at(150, 300) == pytest.approx(0.001)


def test_dc_with_dsa_trains_longer_and_mirrors_only_where_allowed() -> None:
    mirrored, straight = published("dc", "dsa", flip=True), published("dc", "dsa", flip=False)
    assert (mirrored.epochs, mirrored.pick, mirrored.shared) == (1000, "one", False)
    assert mirrored.augment == "color_crop_cutout_flip_scale_rotate"
    assert straight.augment == "color_crop_cutout_scale_rotate"


def test_dim_keeps_its_rate() -> None:
    dim = published("dim", "none", flip=True)
    assert (dim.epochs, dim.batch_size, dim.augment, dim.pick) == (1000, 128, "color_crop", "all")
    assert {dim.lr_at(step, 1000) for step in range(1000)} == {0.01}


@pytest.mark.parametrize("values", [{"epochs": 0, "batch_size": 1}, {"epochs": 1, "batch_size": 0}])
def test_untrained_student_is_refused(values: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="untrained"):
        Recipe("test", 0.1, **values)


TEACHING = [
    {"teacher_arch": "mlp"},
    {"kd_recipe": "released"},
    {"alpha": 0.25},
    {"temperature": 3.0},
    {"select_alpha": (0.5,)},
    {"select_alpha": (0.25, 0.5)},
    {"select_temperature": (1.5, 3.0)},
    {"select_temperature": (3.0, 1.5)},
]


def hash_of(dataset: Dataset, **settings: object) -> str:
    return Conditions.of(EvaluateConfig(**settings), dataset.spec).hash  # type: ignore[arg-type]


def test_a_teachers_settings_count_only_with_a_teacher(dataset: Dataset) -> None:
    for teacher in ("set", "real"):
        hashes = [hash_of(dataset, teacher=teacher, **settings) for settings in ({}, *TEACHING)]
        assert len(set(hashes)) == len(hashes)
    alone = [settings for settings in TEACHING if not any(name.startswith("select") for name in settings)]
    assert {hash_of(dataset, **settings) for settings in alone} == {hash_of(dataset)}


def test_what_selection_replaces_does_not_count(dataset: Dataset) -> None:
    chosen = {"teacher": "set", "select_temperature": (1.0, 4.0)}
    assert hash_of(dataset, temperature=9.0, **chosen) == hash_of(dataset, **chosen)
    assert hash_of(dataset, alpha=0.9, **chosen) != hash_of(dataset, **chosen)


@pytest.mark.parametrize(("teacher", "counts"), [("none", False), ("set", False), ("real", True)])
def test_epochs_on_all_real_images_count_for_students_of_a_real_teacher(
    dataset: Dataset, teacher: str, counts: bool
) -> None:
    one, other = (hash_of(dataset, teacher=teacher, all_epochs=epochs) for epochs in (20, 30))
    assert (one != other) == counts

"""Recipes as published, and sources refused before anything is trained."""

import dataclasses
import re
from pathlib import Path

import pytest
import torch
from scoring import Evaluate

from gdd.config import ConfigError, EvaluateConfig
from gdd.data.readers import Dataset
from gdd.evaluation.protocol import FULL_DSA, Conditions, Recipe, open_source, open_sources, recipe
from gdd.sampling import generator_file, sample, set_file


def test_dc_divides_the_rate_by_ten_at_half() -> None:
    plain = recipe("dc", "none", flip=True)
    assert (plain.epochs, plain.batch_size, plain.augment) == (300, 256, "none")
    assert plain.lr_at(149, 300) == 0.01
    assert plain.lr_at(150, 300) == pytest.approx(0.001)


def test_dc_with_dsa_trains_longer_and_mirrors_only_where_allowed() -> None:
    mirrored, straight = recipe("dc", "dsa", flip=True), recipe("dc", "dsa", flip=False)
    assert (mirrored.epochs, mirrored.pick, mirrored.shared) == (1000, "one", False)
    assert mirrored.augment == FULL_DSA
    assert straight.augment == FULL_DSA.replace("_flip", "")


def test_dim_keeps_its_rate() -> None:
    chosen = recipe("dim", "none", flip=True)
    assert (chosen.epochs, chosen.batch_size, chosen.augment, chosen.pick) == (1000, 128, "color_crop", "all")
    assert {chosen.lr_at(step, 1000) for step in range(1000)} == {0.01}


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
        found = [hash_of(dataset, teacher=teacher, **settings) for settings in ({}, *TEACHING)]
        assert len(set(found)) == len(found)
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


def refused(text: str, evaluate: Evaluate, *sources: str, **settings: object) -> None:
    with pytest.raises(ConfigError, match=re.escape(text)):
        evaluate(*sources, **settings)


def test_user_mistakes_are_named(evaluate: Evaluate, dataset: Dataset, generator: Path, tmp_path: Path) -> None:
    refused("no-such-folder does not exist", evaluate, "no-such-folder")
    refused("source real:some is unknown, expected", evaluate, "real:some")
    refused("1000 images per class are asked for", evaluate, ipc=(1000,))
    refused("unknown network 'mpl'", evaluate, archs=("mpl",))
    refused("are the same generator", evaluate, str(generator), str(generator / generator_file.FILE))
    (tmp_path / "empty").mkdir()
    refused("holds neither generator.safetensors nor set.safetensors", evaluate, str(tmp_path / "empty"))
    (tmp_path / "text.safetensors").write_text("nonsense")
    refused("is damaged", evaluate, str(tmp_path / "text.safetensors"))


def test_set_of_other_classes_or_unequal_numbers_is_refused(
    evaluate: Evaluate, dataset: Dataset, generator: Path, tmp_path: Path
) -> None:
    made = sample.sample_set(generator_file.load(generator), 2, 0)
    other = dataclasses.replace(made.spec, class_names=tuple("abcdefghij"))
    set_file.save(tmp_path / "other.safetensors", dataclasses.replace(made, spec=other))
    refused("has the classes a, b", evaluate, str(tmp_path / "other.safetensors"))
    labels = torch.where(made.labels == 9, 8, made.labels)
    set_file.save(tmp_path / "unequal.safetensors", dataclasses.replace(made, labels=labels))
    refused("says 2 images per class but", evaluate, str(tmp_path / "unequal.safetensors"))


def test_run_folder_of_the_pixel_matcher_is_its_set(dataset: Dataset, generator: Path, tmp_path: Path) -> None:
    made = sample.sample_set(generator_file.load(generator), 2, 0)
    folder = tmp_path / "match"
    set_file.save(folder / set_file.FILE, dataclasses.replace(made, provenance={"method": "gradient matching"}))
    set_file.save(folder / "set-00000100.safetensors", sample.sample_set(generator_file.load(generator), 2, 1))
    opened = open_source("set", str(folder), dataset)
    assert (opened.kind, opened.hash, opened.stored_ipc) == ("set", made.hash, 2)
    assert open_source("generator", str(generator), dataset).kind == "generator"


def test_only_stored_sets_of_different_ipc_share_a_name(dataset: Dataset, generator: Path, tmp_path: Path) -> None:
    for ipc, seed in ((1, 0), (2, 0), (2, 1)):
        made = sample.sample_set(generator_file.load(generator), ipc, seed)
        set_file.save(tmp_path / f"{ipc}-{seed}.safetensors", made)
    one, two, other = (("set", str(tmp_path / f"{name}.safetensors")) for name in ("1-0", "2-0", "2-1"))
    assert [source.stored_ipc for source in open_sources([one, two], (5,), dataset)[0][1:3]] == [1, 2]
    for named in ([two, other], [one, ("set", str(generator))]):
        with pytest.raises(ConfigError, match="two sources are called 'set'"):
            open_sources(named, (5,), dataset)


def test_floors_are_where_something_is_scored(dataset: Dataset, generator: Path, tmp_path: Path) -> None:
    set_file.save(tmp_path / "set.safetensors", sample.sample_set(generator_file.load(generator), 2, 0))
    stored, drawn = ("set", str(tmp_path / "set.safetensors")), ("generator", str(generator))
    for named, expected in (([stored], (2,)), ([drawn], (5, 7)), ([stored, drawn], (2, 5, 7)), ([], (5, 7))):
        assert open_sources(named, (7, 5), dataset)[1] == expected


def test_ceiling_can_be_left_out_unless_named(dataset: Dataset) -> None:
    floor, everything = ("real:random", "real:all")
    for named, expected in (([], [floor]), ([("all", everything)], [floor, everything])):
        assert [source.kind for source in open_sources(named, (1,), dataset, ceiling=False)[0]] == expected

"""Recipes as published, and sources refused before anything is trained."""

import dataclasses
import re
from pathlib import Path

import pytest
import torch
from scoring import Evaluate

from gdd.config import ConfigError
from gdd.data.readers import Dataset
from gdd.evaluation.protocol import FULL_DSA, Recipe, recipe
from gdd.synth import artifact, sample, store


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


def refused(text: str, evaluate: Evaluate, *sources: str, **settings: object) -> None:
    with pytest.raises(ConfigError, match=re.escape(text)):
        evaluate(*sources, **settings)


def test_user_mistakes_are_named(evaluate: Evaluate, dataset: Dataset, generator: Path, tmp_path: Path) -> None:
    refused("no-such-folder, which does not exist", evaluate, "no-such-folder")
    refused("names real:some, expected", evaluate, "real:some")
    refused("1000 images per class are asked for", evaluate, ipc=(1000,))
    refused("unknown network 'mpl'", evaluate, archs=("mpl",))
    refused("are the same generator", evaluate, str(generator), str(generator / artifact.FILE))
    (tmp_path / "empty").mkdir()
    refused("holds no generator.safetensors", evaluate, str(tmp_path / "empty"))
    (tmp_path / "text.safetensors").write_text("nonsense")
    refused("is damaged", evaluate, str(tmp_path / "text.safetensors"))


def test_set_of_other_classes_or_unequal_numbers_is_refused(
    evaluate: Evaluate, dataset: Dataset, generator: Path, tmp_path: Path
) -> None:
    made = sample.sample_set(artifact.load(generator), 2, 0)
    other = dataclasses.replace(made.spec, class_names=tuple("abcdefghij"))
    store.save(tmp_path / "other.safetensors", dataclasses.replace(made, spec=other))
    refused("has the classes a, b", evaluate, str(tmp_path / "other.safetensors"))
    labels = torch.where(made.labels == 9, 8, made.labels)
    store.save(tmp_path / "unequal.safetensors", dataclasses.replace(made, labels=labels))
    refused("says 2 images per class but", evaluate, str(tmp_path / "unequal.safetensors"))

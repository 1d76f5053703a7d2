"""A set as a dataset of Hugging Face's datasets: what that library and gdd's own reader make of it."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import yaml
from generators import PETS

from gdd import rng
from gdd.data import places
from gdd.data.readers import open_dataset
from gdd.sampling import set_file
from gdd.sampling.set_file import SyntheticSet

# What the library answers, as JSON; it is told first to stay off the network, and where its cache may lie.
ASK = """
import json
import numpy

print(json.dumps({
    "columns": images.column_names,
    "names": images.features["label"].names,
    "pixels": [numpy.asarray(row["image"]).tolist() for row in images],
    "labels": images["label"][:],
    "soft": images["soft_label"][:] if "soft_label" in images.column_names else None,
    "length": getattr(images.features.get("soft_label"), "length", None),
}))
"""


@pytest.fixture
def some_set() -> SyntheticSet:
    images = torch.randint(256, (6, *PETS.shape), generator=rng.generator(0, "test"), dtype=torch.uint8)
    soft = torch.randn(6, 3, generator=rng.generator(1, "test")).half()
    return SyntheticSet(images, torch.tensor([2, 2, 0, 1, 1, 0]), PETS, 2, {"method": "test"}, soft)


@pytest.fixture
def export(done, tmp_path):
    """Return a function that stores a set and exports it into a folder, which it returns."""

    def call(synthetic, folder="pets-2"):
        set_file.save(tmp_path / "set.safetensors", synthetic)
        done("export", tmp_path / "set.safetensors", "--to", "hf", "--out", tmp_path / folder)
        return tmp_path / folder

    return call


def asked(folder):
    """Return what `datasets` answers after the code of the card."""
    (snippet,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder.parent / "cache")}
    command = [sys.executable, "-c", snippet + ASK]
    ended = subprocess.run(command, cwd=folder.parent, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_datasets_loads_it_as_the_card_says(export, some_set):
    found = asked(export(some_set))
    assert found["columns"] == ["image", "label", "soft_label"]
    assert found["names"] == ["cat", "dog", "eel"]
    assert found["labels"] == [2, 2, 0, 1, 1, 0]
    assert torch.equal(torch.tensor(found["pixels"]), some_set.images.permute(0, 2, 3, 1))
    assert found["length"] == 3
    assert torch.equal(torch.tensor(found["soft"]), some_set.soft_labels.float())


def test_gdd_reads_it_as_a_dataset(export, some_set):
    folder = export(replace(some_set, soft_labels=None))
    dataset = open_dataset(str(folder), val_fraction=0)
    assert (dataset.spec.name, dataset.spec.class_names) == ("pets-2", PETS.class_names)
    parts = [dataset.train, dataset.test()]
    read = [pair for part in parts for pair in zip(*part, strict=True)]
    held = zip(some_set.images, some_set.labels, strict=True)
    known, found = (sorted((int(label), image.tolist()) for image, label in pairs) for pairs in (held, read))
    assert found == known


def test_pixels_are_rounded_to_the_nearest_level_and_clipped(export, some_set):
    values = [-0.25, 0.0, 0.4 / 255, 0.6 / 255, 254.4 / 255, 1.75]
    images = torch.tensor(values).view(6, 1, 1, 1).expand(6, *PETS.shape).contiguous()
    folder = export(replace(some_set, images=images, soft_labels=None))
    part = open_dataset(str(folder), val_fraction=0)
    levels = {int(level) for split in (part.train, part.test()) for level in split.images_u8.unique()}
    assert levels == {0, 1, 254, 255}
    assert "rounded to the nearest of 256 levels and clipped to \\[0, 1\\]" in (folder / "README.md").read_text()


def test_the_front_matter_is_what_the_hub_reads(export, some_set):
    _, front, _ = (export(some_set) / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front) == {
        "license": "unknown",
        "pretty_name": "pets-2 (pets)",
        "task_categories": ["image-classification"],
        "size_categories": ["n<1K"],
        "tags": ["dataset-distillation", "gdd", "synthetic"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": "train", "path": "data/train-00000-of-00001.parquet"}],
            }
        ],
    }


def test_a_folder_with_files_is_refused(export, refused, some_set, tmp_path):
    folder = export(some_set)
    command = ["export", tmp_path / "set.safetensors", "--to", "hf", "--out"]
    refused(*command, folder, naming=f"{folder} is not an empty folder")


def test_without_pyarrow_the_extra_is_named(refused, some_set, tmp_path, monkeypatch):
    set_file.save(tmp_path / "set.safetensors", some_set)
    monkeypatch.setattr(places, "find_spec", lambda _: None)
    command = ["export", tmp_path / "set.safetensors", "--to", "hf", "--out", tmp_path / "out"]
    refused(*command, naming="needs pyarrow to be written: pip install 'gdd[hf]'")
    assert not (tmp_path / "out").exists()

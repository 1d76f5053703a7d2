"""Exported folders and .npz files are sets again: the same images, each of its own class."""

import dataclasses

import numpy as np
import pytest
import torch
from foreign_files import COLOUR, GREY, refusal

from gdd import rng
from gdd.data.spec import DatasetSpec
from gdd.evaluation.sources import read
from gdd.formats import plain
from gdd.sampling.set_file import SyntheticSet

WRITE = {"folder": plain.export_folder, "npz": plain.export_npz}
NAMES = {
    "sorted": ("cat", "dog", "eel"),
    "unsorted": ("eel", "cat", "dog"),
    "odd": ("T-shirt/top", ".hidden", "cat"),
    "numbers": ("2", "10", "1"),
}


def stored(spec: DatasetSpec, ipc: int = 2) -> SyntheticSet:
    labels = torch.arange(spec.num_classes).repeat_interleave(ipc)
    levels = torch.randint(256, (len(labels), *spec.shape), generator=rng.generator(0, "test"), dtype=torch.uint8)
    return SyntheticSet(levels, labels, spec, ipc)


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("spec", [GREY, COLOUR], ids=["grey", "colour"])
@pytest.mark.parametrize("layout", WRITE)
def test_what_was_exported_is_read_back(layout, spec, names, tmp_path):
    spec = dataclasses.replace(spec, class_names=names, height=8, width=10)
    original = stored(spec)
    place = tmp_path / ("out.npz" if layout == "npz" else "out")
    WRITE[layout](original, place)
    source = read(str(place))
    assert (source.kind, source.stored_ipc, source.path) == ("set", 2, place)
    found = plain.of_dataset(source.synthetic, spec)
    assert found.spec == spec
    assert found.hash == original.hash


def test_labels_without_names_are_numbers_of_the_classes(tmp_path):
    original = stored(dataclasses.replace(GREY, class_names=tuple("abcdefghijkl"), height=8, width=10))
    np.savez(tmp_path / "x.npz", x_train=original.images[:, 0].numpy(), y_train=original.labels.numpy())
    assert plain.of_dataset(plain.load(tmp_path / "x.npz"), original.spec).hash == original.hash


def test_a_folder_of_numbers_is_in_the_order_of_the_numbers(tmp_path):
    """As text, 10 comes before 2."""
    numbers = tuple(sorted(map(str, range(12))))
    written = stored(dataclasses.replace(GREY, class_names=numbers, height=8, width=10), ipc=1)
    plain.export_folder(written, tmp_path / "out")
    spec = dataclasses.replace(written.spec, class_names=tuple("abcdefghijkl"))
    found = plain.of_dataset(plain.load(tmp_path / "out"), spec)
    assert torch.equal(found.images[2], written.images[numbers.index("2")])


def test_other_classes_stay_what_they_are(tmp_path):
    plain.export_folder(stored(COLOUR), tmp_path / "out")
    found = plain.load(tmp_path / "out")
    for other in (dataclasses.replace(COLOUR, class_names=("cat", "dog", "fox")), GREY):
        assert plain.of_dataset(found, other) is found


def test_unequal_classes_and_sizes_are_refused(tmp_path):
    plain.export_folder(stored(COLOUR), tmp_path / "out")
    (tmp_path / "out/train/eel/000000.png").unlink()
    assert "has 1 images of class 'eel' but 2 of 'cat', expected the same" in refusal(plain.load, tmp_path / "out")
    larger = stored(dataclasses.replace(COLOUR, height=9, class_names=("eel", "fox")), ipc=1)
    plain.export_folder(larger, tmp_path / "larger")
    (tmp_path / "larger/train/eel/000000.png").rename(tmp_path / "out/train/eel/9.png")
    assert "holds images of 2 sizes, expected one" in refusal(plain.load, tmp_path / "out")


def test_the_folder_of_all_stages_is_no_set(tmp_path):
    (tmp_path / "run/refine").mkdir(parents=True)
    (tmp_path / "run/refine/config.json").write_text("{}")
    assert "holds neither generator.safetensors nor set.safetensors" in refusal(read, str(tmp_path / "run"))

"""A stored set from Python: a Dataset whose items are those of the file."""

import pytest
import torch
from generators import PETS
from torch.utils.data import DataLoader
from torchvision.transforms import v2

import gdd
from gdd.config import ConfigError
from gdd.data.pixels import Normalizer
from gdd.sampling import set_file
from gdd.sampling.set_file import SyntheticSet

LEVELS = torch.arange(6 * 3 * 16 * 24).remainder(256).to(torch.uint8).view(6, *PETS.shape)
LABELS = torch.tensor([0, 0, 1, 1, 2, 2])


def stored(images: torch.Tensor = LEVELS, soft: torch.Tensor | None = None) -> SyntheticSet:
    return SyntheticSet(images, LABELS, PETS, 2, {"method": "gm"}, soft)


def test_items_are_images_in_0_to_1_and_labels():
    images = gdd.ImageSet(stored())
    assert len(images) == 6
    for index, (image, label) in enumerate(images):
        assert image.dtype == torch.float32
        assert torch.equal((255 * image).round().to(torch.uint8), LEVELS[index])
        assert isinstance(label, int)
        assert label == LABELS[index]
    assert images[-1][1] == 2
    with pytest.raises(IndexError):
        images[6]


def test_optimised_pixels_keep_what_leaves_0_to_1_and_cannot_be_changed_by_a_transform():
    pixels = torch.linspace(-0.5, 1.5, LEVELS.numel()).view(LEVELS.shape)
    images = gdd.ImageSet(stored(pixels.clone()), lambda image: image.mul_(0))
    assert images[3][0].abs().max() == 0
    assert torch.equal(gdd.ImageSet(images.stored)[3][0], pixels[3])


def test_the_transform_of_the_docs_gives_what_students_see():
    images = gdd.ImageSet(stored(), v2.Normalize(PETS.mean, PETS.std))
    expected = Normalizer(PETS.mean, PETS.std).from_u8(LEVELS)
    batch, labels = next(iter(DataLoader(images, batch_size=6)))
    torch.testing.assert_close(batch, expected)
    assert torch.equal(labels, LABELS)


def test_facts_and_soft_labels_are_those_of_the_file(tmp_path):
    soft = torch.randn(6, 3)
    gdd.ImageSet(stored(soft=soft)).save(tmp_path / "pets.safetensors")
    assert 'gdd.load_set("pets.safetensors")' in (tmp_path / "pets.md").read_text()
    images = gdd.load_set(tmp_path / "pets.safetensors")
    assert (images.class_names, images.mean, images.std, images.ipc) == (PETS.class_names, PETS.mean, PETS.std, 2)
    assert images.provenance == {"method": "gm"}
    assert torch.equal(images.labels, LABELS)
    assert images.soft_labels is not None
    assert torch.equal(images.soft_labels, soft)
    assert gdd.ImageSet(stored()).soft_labels is None


def test_the_folder_of_a_run_stands_for_its_set(tmp_path):
    set_file.save(tmp_path / set_file.FILE, stored())
    assert gdd.load_set(tmp_path).stored.hash == stored().hash
    with pytest.raises(ConfigError, match=r"holds no set\.safetensors"):
        gdd.load_set(tmp_path.parent)

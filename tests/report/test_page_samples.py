"""Samples of the page: copies are told, and images have bounds."""

import base64
import io
import math
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gdd.data.readers import Dataset
from gdd.data.spec import DatasetSpec
from gdd.data.splits import Split
from gdd.evaluation.sources import Source
from gdd.report import samples
from gdd.report.samples import Gallery, Picture
from gdd.sampling.set_file import SyntheticSet


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def pixels_of(picture: Picture) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.data.removeprefix("data:image/png;base64,")))))


def source_of(images: Tensor, spec: DatasetSpec) -> Source:
    labels = torch.arange(spec.num_classes).repeat_interleave(len(images) // spec.num_classes)
    synthetic = SyntheticSet(images, labels, spec, len(images) // spec.num_classes)
    return Source("set", "set", synthetic.hash, synthetic=synthetic)


def images_of(gallery: Gallery) -> list[Picture]:
    pairs = [pair for one in gallery.classes for pair in one.pairs]
    real = [picture for one in gallery.classes for picture in one.real]
    return [*real, *(pair.synthetic for pair in pairs), *(pair.nearest for pair in pairs if pair.nearest is not None)]


def test_a_copy_is_told_and_shown_beside_its_original(dataset: Dataset) -> None:
    row = int(torch.nonzero(dataset.train.labels == 7)[20])
    images = noise(0, 20, 1, 16, 16)
    images[4] = dataset.train.images_u8[row]  # a seven that claims to be a two
    gallery = samples.gallery(source_of(images, dataset.spec), dataset, 10**6)
    pair = gallery.classes[2].pairs[0]
    assert (pair.distance, pair.nearest_class) == (0, "7")
    assert pair.nearest is not None
    assert np.array_equal(pixels_of(pair.nearest), pixels_of(pair.synthetic))
    assert "smallest 0.00, 1 exact copy." in gallery.notes[0]
    assert [len(one.pairs) for one in gallery.classes] == [2] * 10
    assert all(
        pair.distance > 0 for one in gallery.classes for pair in one.pairs if pair is not gallery.classes[2].pairs[0]
    )


def test_pictures_have_the_pixels_of_the_images(dataset: Dataset) -> None:
    images = noise(0, 10, 1, 16, 16)
    gallery = samples.gallery(source_of(images, dataset.spec), dataset, 10**6)
    for label, one in enumerate(gallery.classes):
        assert np.array_equal(pixels_of(one.pairs[0].synthetic), images[label, 0].numpy())
        first = dataset.train.images_u8[dataset.train.labels == label][:10, 0].numpy()
        assert np.array_equal([pixels_of(picture) for picture in one.real], first)


def test_pixels_outside_the_range_are_clipped(dataset: Dataset) -> None:
    images = torch.full((10, 1, 16, 16), 1.5)
    images[0] = -0.5
    shown = samples.gallery(source_of(images, dataset.spec), None, 10**6).classes
    assert [int(pixels_of(one.pairs[0].synthetic).max()) for one in shown] == [0] + [255] * 9
    assert {pair.nearest for one in shown for pair in one.pairs} == {None}


def colours(side: int, classes: int) -> tuple[Source, Dataset]:
    """Noise, which no file compresses."""
    names = tuple(map(str, range(classes)))
    spec = DatasetSpec("noise", 3, side, side, names, (0.5,) * 3, (0.2,) * 3, True)
    labels = torch.arange(classes).repeat_interleave(10)
    split = Split(noise(1, 10 * classes, 3, side, side), labels)
    return source_of(noise(0, 10 * classes, 3, side, side), spec), Dataset(spec, split, split, lambda: split)


def test_as_many_classes_as_have_room(monkeypatch):
    source, dataset = colours(side=32, classes=20)
    most = 1_000_000
    gallery = samples.gallery(source, dataset, most)
    size = sum(len(picture.data) for picture in images_of(gallery))
    assert most * 0.8 < size <= most
    assert 1 < len(gallery.classes) < 20
    assert f"Of the 20 classes the first {len(gallery.classes)} are shown." in gallery.notes
    assert len(samples.gallery(source, dataset, 1).classes) == 1
    assert len(samples.gallery(source, dataset, 10**8).more) == 10


def test_a_page_of_cifar_10_has_room_for_all_classes_of_three_galleries() -> None:
    source, dataset = colours(side=32, classes=10)
    gallery = samples.gallery(source, replace(dataset), samples.MOST_BYTES // 3)
    assert len(gallery.classes) == 10


def test_large_images_are_made_smaller_but_compared_as_they_are() -> None:
    source, dataset = colours(side=96, classes=2)
    gallery = samples.gallery(source, dataset, 10**7)
    assert {(picture.width, picture.height) for picture in images_of(gallery)} == {(64, 64)}
    assert any("at most 64 pixels" in note for note in gallery.notes)
    assert source.synthetic is not None
    least = (source.synthetic.images[:1].double() - dataset.train.images_u8.double()).flatten(1).norm(dim=1).min()
    assert math.isclose(gallery.classes[0].pairs[0].distance, least / 255, rel_tol=1e-9)

"""Synthetic images by class beside real ones, each with the real training image that is nearest to it."""

import base64
import io
import math
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from gdd.data.readers import Dataset
from gdd.evaluation.copies import nearest
from gdd.evaluation.sources import Source
from gdd.formats.plain import images_u8, to_arrays
from gdd.sampling.sample import sample_images

PER_CLASS = 10  # images that are shown
OPEN_CLASSES = 10  # that are shown before a reader asks for more
MOST_BYTES = 4_000_000  # of a page's images by class
_MOST_SIDE = 64  # pixels; larger images are made smaller
_SEED = 0  # of a generator's samples, that of gdd sample


@dataclass(frozen=True)
class Picture:
    """An image of the page."""

    data: str  # the PNG file as a data URI
    width: int  # pixels
    height: int  # pixels


@dataclass(frozen=True)
class Pair:
    """A synthetic image, and the real training image that is nearest to it if the data are there."""

    synthetic: Picture
    nearest: Picture | None = None
    distance: float = math.nan  # Euclidean, of pixels in [0, 1]
    nearest_class: str = ""


@dataclass(frozen=True)
class OfClass:
    """What is shown of a class."""

    name: str
    real: list[Picture]  # the first training images
    pairs: list[Pair]


@dataclass(frozen=True)
class Gallery:
    """What is shown of a generator or a set."""

    classes: list[OfClass]
    notes: list[str]

    @property
    def shown(self) -> list[OfClass]:
        return self.classes[:OPEN_CLASSES]

    @property
    def more(self) -> list[OfClass]:
        """The classes that are folded away."""
        return self.classes[OPEN_CLASSES:]


def gallery(source: Source, dataset: Dataset | None, most_bytes: int) -> Gallery:
    """Return the first images of each class, of as many classes as have room.

    Args:
        source: a set or a generator.
        dataset: what it was distilled from, if that is at hand.
        most_bytes: of all images together.
    """
    content = source.synthetic or source.generator
    assert content is not None
    spec = content.spec
    sides = [min(side, _MOST_SIDE) for side in (spec.height, spec.width)]
    # A PNG file has up to 200 bytes more than what it cannot compress, and base64 makes four bytes of three.
    each = (math.prod(sides) * spec.channels + 200) * 4 // 3
    count = max(1, min(spec.num_classes, most_bytes // (3 * PER_CLASS * each)))
    names = spec.class_names[:count]
    synthetic = [_synthetic(source, label) for label in range(count)]
    notes = [f"Of the {spec.num_classes} classes the first {count} are shown."] if count < spec.num_classes else []
    if max(spec.height, spec.width) > _MOST_SIDE:
        notes.append(f"Images are shown with at most {_MOST_SIDE} pixels a side; distances are those of the originals.")
    if dataset is None:
        return Gallery(
            [OfClass(name, [], [*map(Pair, _pictures(u8))]) for name, u8 in zip(names, synthetic, strict=True)], notes
        )
    train = dataset.train
    rows = [torch.nonzero(train.labels == label)[:PER_CLASS, 0] for label in range(count)]
    distances, neighbours = (of_nearest[:, 0] for of_nearest in nearest(torch.cat(synthetic), train.images_u8))
    among_real, _ = nearest(train.images_u8[torch.cat(rows)], train.images_u8, itself=torch.cat(rows))
    sizes = [len(images) for images in synthetic]
    of_classes = zip(names, synthetic, rows, distances.split(sizes), neighbours.split(sizes), strict=True)
    classes = []
    for name, images, real, far, beside in of_classes:
        labels = [spec.class_names[label] for label in train.labels[beside]]
        pairs = map(Pair, _pictures(images), _pictures(train.images_u8[beside]), far.tolist(), labels)
        classes.append(OfClass(name, _pictures(train.images_u8[real]), list(pairs)))
    return Gallery(classes, [_distances(distances, among_real), *notes])


def _synthetic(source: Source, label: int) -> Tensor:
    """Return the first images of a class, (N, C, H, W) uint8."""
    if source.generator is not None:
        return sample_images(source.generator, label, 0, PER_CLASS, _SEED, "cpu")
    assert source.synthetic is not None
    return images_u8(source.synthetic)[source.synthetic.labels == label][:PER_CLASS]


def _distances(synthetic: Tensor, real: Tensor) -> str:
    copies = int((synthetic == 0).sum())
    return (
        f"Euclidean distance to the nearest real training image, of pixels in [0, 1]: median "
        f"{synthetic.median():.2f}, smallest {synthetic.min():.2f}, {copies or 'no'} exact "
        f"{'copy' if copies == 1 else 'copies'}. Of the real images shown, to their nearest other one: median "
        f"{real.median():.2f}, smallest {real.min():.2f}."
    )


def _pictures(images_u8: Tensor) -> list[Picture]:
    return [_picture(Image.fromarray(pixels)) for pixels in to_arrays(images_u8)]


def _picture(image: Image.Image) -> Picture:
    image.thumbnail((_MOST_SIDE, _MOST_SIDE))
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return Picture(data_uri(file.getvalue()), *image.size)


def data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"

"""Images tiled from crops of real ones, of which an ensemble is surest (RDED: Sun et al., arXiv 2312.03526)."""

from typing import Any

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from gdd import rng
from gdd.config import ConfigError
from gdd.data.pixels import unit_to_u8
from gdd.data.spec import DatasetSpec
from gdd.data.splits import to_array
from gdd.sampling import sample
from gdd.sampling.curate import Real, logits_of
from gdd.sampling.ensemble_file import Ensemble
from gdd.sampling.set_file import SyntheticSet

# As in RDED's code: so many images of a class, so many crops of each, and the smallest share of it that one shows.
MOST_IMAGES, CROPS_EACH, LEAST_SHARE = 300, 5, 0.08
# Images of at most so many pixels a side are one crop, as their CIFAR's are; larger ones are tiled of 2 x 2.
_SMALL = 32


def factor_of(spec: DatasetSpec) -> int:
    """Return how many crops stand beside each other, and below each other, in an image."""
    return 1 if max(spec.height, spec.width) <= _SMALL else 2


def crop_set(
    real: Real, ensemble: Ensemble, ipc: int, device: torch.device | str = "cpu", *, soft_labels: bool = False
) -> SyntheticSet:
    """Return `ipc` images of every class, ordered by class, made of crops; a smaller IPC's are the first of them.

    Each real image gives the one of its random crops for which the ensemble's probability of its class is highest. The
    best of these, best first, fill image by image. RDED spreads them instead, so that its first image needs all others.

    Args:
        real: the images, whose seed decides the crops too.
        ensemble: of the same classes and shape.
        ipc: images per class.
        device: where the ensemble works.
        soft_labels: whether the ensemble's logits of the result are stored, as float16.

    Raises:
        ConfigError: a class has fewer images than the crops that are needed.
    """
    spec, factor = real.spec, factor_of(real.spec)
    ensemble.to(device)
    needed = ipc * factor**2
    parts = []
    for label in range(spec.num_classes):
        images = real.images(label, 0, max(MOST_IMAGES, needed))
        if len(images) < needed:
            name = spec.class_names[label]
            raise ConfigError(f"class {name!r} has {len(images):,} images, of which {needed:,} crops are asked for")
        crops = _random_crops(images, factor, rng.Draws(real.seed, rng.RANDOM_CROPS, label))  # (N, CROPS_EACH, C, h, w)
        logits = logits_of(ensemble, _padded(crops.flatten(0, 1), spec), device)
        sureness, best = logits.log_softmax(1)[:, label].view(len(images), CROPS_EACH).max(1)
        own = crops[torch.arange(len(images)), best]  # (N, C, h, w)
        chosen = own[sureness.argsort(descending=True, stable=True)[:needed]]
        tiled = rearrange(chosen, "(n i j) c h w -> n c (i h) (j w)", i=factor, j=factor)
        parts.append(tiled[..., : spec.height, : spec.width])
    images = torch.cat(parts)
    labels, _ = sample.balanced_labels(spec.num_classes, 0, ipc)
    soft = logits_of(ensemble, images, device).half() if soft_labels else None
    how: dict[str, Any] = {"ensemble": ensemble.hash, "crops": CROPS_EACH, "factor": factor}
    return SyntheticSet(images, labels, spec, ipc, {**real.origin(ensemble), "curated": how}, soft)


def _random_crops(images_u8: Tensor, factor: int, random: rng.Draws) -> Tensor:
    """Return crops (N, CROPS_EACH, C, h, w) of images (N, C, H, W), h and w being H and W over `factor`, rounded up.

    A crop has the image's proportions. Its share of the area is uniform, from LEAST_SHARE to 1, and so is its place.
    """
    count, channels, height, width = images_u8.shape
    share, top, left = random.uniform(count, CROPS_EACH, 3).unbind(-1)
    side = (LEAST_SHARE + (1 - LEAST_SHARE) * share).sqrt()
    heights, widths = ((side * full).round().clamp(min=1) for full in (height, width))
    tops, lefts = (
        (place * (full - size + 1)).floor() for place, full, size in ((top, height, heights), (left, width, widths))
    )
    boxes = torch.stack([lefts, tops, lefts + widths, tops + heights], -1).int().tolist()
    size = -(-height // factor), -(-width // factor)
    crops = np.empty((count, CROPS_EACH, channels, *size), np.uint8)
    for index, pixels in enumerate(rearrange(images_u8, "n c h w -> n h w c").numpy()):
        image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
        for place, box in enumerate(boxes[index]):
            crops[index, place] = to_array(image.crop(box), size, channels)
    return torch.from_numpy(crops)


def _padded(crops_u8: Tensor, spec: DatasetSpec) -> Tensor:
    """Return crops (N, C, h, w) in the middle of images of the dataset's size, of its mean colour elsewhere."""
    height, width = crops_u8.shape[2:]
    if (height, width) == (spec.height, spec.width):
        return crops_u8
    colour = unit_to_u8(torch.tensor(spec.mean)).view(1, -1, 1, 1)
    images = colour.repeat(len(crops_u8), 1, spec.height, spec.width)
    top, left = (spec.height - height) // 2, (spec.width - width) // 2
    images[..., top : top + height, left : left + width] = crops_u8
    return images

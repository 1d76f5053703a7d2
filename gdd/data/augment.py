"""The differentiable augmentations of DSA (Zhao & Bilen, 2021; DatasetCondensation, utils.py DiffAugment).

Drawing the parameters is apart from applying them, so "siamese" sharing is applying one `Augmentation` to
the real and to the synthetic batch.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from gdd import rng
from gdd.data import augment_dc
from gdd.data.batches import Batches, local_rows
from gdd.data.pixels import Normalizer
from gdd.data.spec import DC
from gdd.rng import Count

# Ranges at strength 1.
BRIGHTNESS = 1.0
SATURATION = 2.0
CONTRAST = 1.0
CROP = 0.125
CUTOUT = 0.5
FLIP = 0.5
SCALE = 1.2
ROTATE = 15.0


@dataclass(frozen=True)
class Augmentation:
    """Drawn operations, in the order of their application."""

    # pairs of an operation's name and its uniform draws in [0, 1), (1, k) if all images share them, (B, k) if each has
    # its own. They do not depend on the image size
    steps: tuple[tuple[str, Tensor], ...]
    strength: float  # factor on every range

    def first_rows(self, count: int) -> "Augmentation":
        """Return the parameters of the first images."""
        return Augmentation(tuple((name, u[:count]) for name, u in self.steps), self.strength)

    def local_rows(self, rank: int, world_size: int) -> "Augmentation":
        """Return the parameters of the images of process `rank`; those that all images share stay."""
        steps = ((name, u if len(u) == 1 else local_rows(u, rank, world_size)) for name, u in self.steps)
        return Augmentation(tuple(steps), self.strength)


def draw(
    strategy: tuple[str, ...],
    count: int,
    random: rng.Draws,
    *,
    shared: bool,
    pick: Literal["one", "two", "all"],
    strength: float = 1.0,
) -> Augmentation:
    """Draw what to do to a batch.

    Args:
        strategy: operations to choose from.
        count: images in the batch; without effect if `shared`.
        random: on the device of the images.
        shared: one parameter set for all images, which then fits any batch size.
        pick: `one` operation, uniformly (DSA), `two` different ones in random order (Zhong and Liu, arXiv 2309.04195),
            of a single one that alone, or `all` of them in the order color, flip, crop, scale,
            rotate, cutout (as DiffAugment does).
        strength: factor on every range (on flip's probability); 0 is the exact identity.
    """
    if strength < 0:
        raise ValueError(f"strength must not be negative, got {strength}")
    # Resampling on an undistorted grid would still round, hence no operation at all.
    if not strategy or strength == 0:
        return Augmentation((), strength)
    if pick == "one":
        chosen = [strategy[random.whole(len(strategy))]]
    elif pick == "two":
        first = random.whole(len(strategy))
        others = [*strategy[:first], *strategy[first + 1 :]]
        chosen = [strategy[first], *([others[random.whole(len(others))]] if others else [])]
    else:
        chosen = [name for name in _APPLY if name in strategy]
    sizes = [_APPLY[name][0] for name in chosen]
    drawn = random.uniform(1 if shared else count, sum(sizes)).flatten(0, -2)  # of all streams, one after another
    return Augmentation(tuple(zip(chosen, drawn.split(sizes, -1), strict=True)), strength)


def draw_each(strategy: tuple[str, ...], count: int, random: rng.Draws) -> list[Augmentation]:
    """Draw one operation for each of L streams: what `draw` does with pick one, but of all of them at once.

    Args:
        strategy: operations to choose from.
        count: images of each; 1 for numbers that all images share.
        random: L streams side by side, on the device of the images.
    """
    if not strategy:
        return [Augmentation((), 1.0) for _ in random.streams]
    chosen = [strategy[place] for place in random.wholes(len(strategy))]
    sizes = [_APPLY[name][0] for name in chosen]
    drawn = random.uniform(count * max(sizes))  # (L, ...): each takes as many as it needs
    rows = (numbers[: count * size].view(count, size) for numbers, size in zip(drawn, sizes, strict=True))
    return [Augmentation(((name, u),), 1.0) for name, u in zip(chosen, rows, strict=True)]


def apply(augmentation: Augmentation, images: Tensor) -> Tensor:
    """Augment float images (B, C, H, W) of any space, filling with zeros; differentiable in the images.

    Half precision is computed in float32 and returned as it came. ValueError if the parameters were drawn per image for
    another number of images.
    """
    dtype = torch.promote_types(images.dtype, torch.float32)
    output = images.to(dtype)
    for name, draws in augmentation.steps:
        if len(draws) not in (1, len(images)):
            raise ValueError(f"{name} was drawn for {len(draws)} images, the batch has {len(images)}")
        _, operation = _APPLY[name]
        output = operation(output, draws.to(images.device, dtype, non_blocking=True), augmentation.strength)
    return output.to(images.dtype)


def _color(images: Tensor, u: Tensor, strength: float) -> Tensor:
    """Brightness, saturation, contrast; saturation is the identity on one channel."""
    brightness, saturation, contrast = rearrange(u - 0.5, "n k -> k n 1 1 1")
    # The constants go to the factors, a number per image: each product with images is a pass over all pixels.
    images = images + brightness * (BRIGHTNESS * strength)
    images = images + (images - images.mean(1, keepdim=True)) * (saturation * (SATURATION * strength))
    return images + (images - images.mean((1, 2, 3), keepdim=True)) * (contrast * (CONTRAST * strength))


def _flip(images: Tensor, u: Tensor, strength: float) -> Tensor:
    flipped = (rearrange(u, "n 1 -> n 1 1 1") < FLIP * strength).to(images.dtype)
    # Weights of 0 and 1 give either end exactly, in a fifth of the time of `where` on CPUs.
    return torch.lerp(images, images.flip(3), flipped)


def _crop(images: Tensor, u: Tensor, strength: float) -> Tensor:
    """out[i, j] = images[i + ty, j + tx], integer shifts up to an eighth of the side."""
    down, right = (int(CROP * strength * side + 0.5) for side in images.shape[2:])  # the longest shifts
    padded = F.pad(images, (right, right, down, down))
    height, width = images.shape[2:]
    rows = torch.arange(height, device=images.device) + _integer(u[:, :1], 0, 2 * down)  # (n, H), of the padded image
    cols = torch.arange(width, device=images.device) + _integer(u[:, 1:], 0, 2 * right)  # (n, W)
    source = rows[:, :, None] * padded.shape[3] + cols[:, None, :]  # (n, H, W)
    index = source.flatten(1)[:, None].expand(*images.shape[:2], -1)
    return padded.flatten(2).gather(2, index).view_as(images)


def _scale(images: Tensor, u: Tensor, strength: float) -> Tensor:
    """Factors of the sampling grid, so below 1 enlarges."""
    most = 1 + (SCALE - 1) * strength
    factors = 1 / most + u * (most - 1 / most)  # (n, 2)
    return _affine(images, torch.diag_embed(factors))


def _rotate(images: Tensor, u: Tensor, strength: float) -> Tensor:
    angle = (2 * u[:, 0] - 1) * math.radians(ROTATE * strength)
    cos, sin = angle.cos(), angle.sin()
    # Grid coordinates run from -1 to 1 on both axes; the ratio keeps angles true off the square.
    ratio = (images.shape[2] - 1) / (images.shape[3] - 1)
    theta = torch.stack([torch.stack([cos, -sin * ratio], 1), torch.stack([sin / ratio, cos], 1)], 1)
    return _affine(images, theta)


def _cutout(images: Tensor, u: Tensor, strength: float) -> Tensor:
    """Zero a square of half the side, clipped at the border."""
    inside = []
    for side, part in zip(images.shape[2:], u.split(1, 1), strict=True):
        cut = int(CUTOUT * strength * side + 0.5)
        # An even square has no middle pixel: its centre lies between two, hence one more position.
        start = _integer(part, 0, side - cut % 2) - cut // 2
        index = torch.arange(side, device=images.device)
        inside.append(((index >= start) & (index < start + cut)).to(images.dtype))
    rows, cols = inside  # 1 inside the square: (n, H), (n, W)
    return images * (1 - rows[:, None, :, None] * cols[:, None, None, :])


def _dc(images: Tensor, u: Tensor, strength: float) -> Tensor:
    """DC's own, whose ranges have no strength but 1."""
    if strength != 1:
        raise ValueError(f"strength of {DC} is {strength}, expected 1")
    return augment_dc.one_of_three(images, u)


def _integer(u: Tensor, low: int, high: int) -> Tensor:
    """Map [0, 1) to the integers low..high, both included."""
    return (u * (high - low + 1)).long() + low


def _affine(images: Tensor, theta: Tensor) -> Tensor:
    """Sample bilinearly at theta (n, 2, 2) times the grid, zeros outside.

    align_corners=True is what the original ran with, the default of the torch 1.2 it pins. For a scale
    or a rotation about the centre of a square image False, today's default, gives the same, if it is given to
    both calls; the ratio in `_rotate` belongs to True.
    """
    y, x = (torch.linspace(-1, 1, side, dtype=images.dtype, device=images.device) for side in images.shape[2:])
    # F.affine_grid takes a small matrix product for each image instead, ten times as long or more on a CPU.
    grid = theta[:, :, 0, None, None] * x + theta[:, :, 1, None, None] * y[:, None]  # (n, 2, H, W)
    grid = grid.permute(0, 2, 3, 1).expand(len(images), -1, -1, -1)  # (B, H, W, 2)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=True)


# Number of draws and function of each operation, in the order of pick="all".
_APPLY: dict[str, tuple[int, Callable[[Tensor, Tensor, float], Tensor]]] = {
    "color": (3, _color),
    "flip": (1, _flip),
    "crop": (2, _crop),
    "scale": (2, _scale),
    "rotate": (1, _rotate),
    "cutout": (2, _cutout),
    DC: (augment_dc.DRAWS, _dc),
}


@dataclass(frozen=True, eq=False, repr=False)
class AugmentedBatches:
    """Map a step to a classifier's batch, each image augmented by itself."""

    batches: Batches  # of one process
    normalize: Normalizer  # to classifier space, on the images' device
    augmentations: tuple[str, ...]  # all of them
    stream: str  # name of the random stream of the augmentations

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Return images (B, C, H, W) in classifier space and labels (B,)."""
        images_u8, labels = self.batches(step)
        return self.prepare(step, images_u8), labels

    def prepare(self, step: Count, images_u8: Tensor) -> Tensor:
        """Return a step's images (B, C, H, W) in classifier space, augmented."""
        random = rng.Draws(self.batches.seed, self.stream, step, device=images_u8.device)
        change = draw(self.augmentations, len(images_u8), random, shared=False, pick="all")
        return apply(change, self.normalize.from_u8(images_u8))

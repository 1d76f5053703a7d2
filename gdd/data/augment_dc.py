"""The augmentation with which DC trains students on MNIST: a crop, a scale or a rotation, drawn for each image.

Zhao, Mopuri and Bilen 2021 (DatasetCondensation, utils.py, augment). Unlike DSA's operations of these names it rotates
by up to 45 degrees, resizes to the nearest pixel and fills with means.
"""

import math
from functools import cache

import torch
from einops import rearrange
from torch import Tensor

PADDING = 4  # pixels of padding
RESIZE = 0.2  # largest change of a side
DEGREES = 45  # largest angle in degrees
DRAWS = 4  # uniform numbers of an image: which operation, its two numbers, its angle


def one_of_three(images: Tensor, u: Tensor) -> Tensor:
    """Return float images (B, C, H, W), each changed by one operation; differentiable in the images.

    Args:
        images: of any space.
        u: (B, DRAWS) or (1, DRAWS), uniform in [0, 1).
    """
    u = u.expand(len(images), -1)
    means = images.mean((0, 2, 3))  # (C,), of the batch, which fill what comes from outside
    which = rearrange((u[:, 0] * 3).long(), "b -> b 1 1 1")
    changed = _crop(images, u[:, 1:3], means), _scale(images, u[:, 1:3])
    return torch.where(which == 0, changed[0], torch.where(which == 1, changed[1], _rotate(images, u[:, 3], means)))


def _crop(images: Tensor, u: Tensor, means: Tensor) -> Tensor:
    """out[i, j] = padded[i + down, j + right], with 0 <= down, right < 2 PADDING."""
    height, width = images.shape[2:]
    down, right = ((part * 2 * PADDING).long() - PADDING for part in u.split(1, 1))  # (B, 1)
    rows, cols = (torch.arange(side, device=images.device) + shift for side, shift in ((height, down), (width, right)))
    return _taken(images, rows, cols, rearrange(means, "c -> 1 c 1 1"))


def _scale(images: Tensor, u: Tensor) -> Tensor:
    """Resize each side to its nearest pixels, and cut or pad with zeros around the centre."""
    sides = images.shape[2:]
    new = [((1 - RESIZE + 2 * RESIZE * part) * side).long() for side, part in zip(sides, u.split(1, 1), strict=True)]
    largest = torch.maximum(*new).clamp(min=max(sides))  # (B, 1), of the square in which both lie at the centre
    places = []
    for side, resized in zip(sides, new, strict=True):
        at = torch.arange(side, device=images.device) + (largest - side) // 2 - (largest - resized) // 2
        outside = (at < 0) | (at >= resized)
        places.append((at * side // resized).masked_fill(outside, -1))
    rows, cols = places
    return _taken(images, rows, cols, torch.zeros((), dtype=images.dtype, device=images.device))


def _taken(images: Tensor, rows: Tensor, cols: Tensor, fill: Tensor) -> Tensor:
    """Return images[:, :, rows, cols] of rows (B, H) and columns (B, W), and `fill` where these lie outside."""
    height, width = images.shape[2:]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((cols >= 0) & (cols < width))[:, None, :]
    index = rows.clamp(0, height - 1)[:, :, None] * width + cols.clamp(0, width - 1)[:, None, :]
    taken = images.flatten(2).gather(2, index.flatten(1)[:, None].expand(-1, images.shape[1], -1))
    return torch.where(inside[:, None], taken.view_as(images), fill)


def _rotate(images: Tensor, u: Tensor, means: Tensor) -> Tensor:
    """Rotate by whole degrees through a cubic spline, as scipy.ndimage.rotate does, and cut out the centre."""
    height, width = images.shape[2:]
    # Places in float64, for a pixel on the border would else fall outside.
    angle = (((u * 2 * DEGREES).long() - DEGREES).double() * (math.pi / 180))[:, None, None]
    cos, sin = angle.cos(), angle.sin()
    # The rotated image is as large as holds it; its centre's even or odd size decides by half a pixel where it is cut.
    larger = [(a * cos.abs() + b * sin.abs() + 0.5).floor() for a, b in ((height, width), (width, height))]  # (B, 1, 1)
    y, x = (
        torch.arange(side, device=images.device, dtype=angle.dtype) + ((of - side) / 2).floor() - (of - 1) / 2
        for side, of in zip((height, width), larger, strict=True)
    )  # (B, 1, side), from the centre
    y = y.transpose(1, 2)
    at_y = (cos * y + sin * x + (height - 1) / 2).flatten(1)  # (B, H * W)
    at_x = (cos * x - sin * y + (width - 1) / 2).flatten(1)
    inside = (at_y >= 0) & (at_y <= height - 1) & (at_x >= 0) & (at_x <= width - 1)

    across = [_prefilter(side, images.device).to(images.dtype) for side in (height, width)]
    coefficients = (across[0] @ images @ across[1].T).flatten(2)  # (B, C, H * W)
    total = torch.zeros_like(coefficients)
    for row, weight_y in _taps(at_y, height):
        for col, weight_x in _taps(at_x, width):
            index = (row * width + col)[:, None].expand_as(coefficients)
            total = total + coefficients.gather(2, index) * (weight_y * weight_x).to(images.dtype)[:, None]
    return torch.where(inside[:, None], total, means.mean()).view_as(images)


def _taps(at: Tensor, side: int) -> list[tuple[Tensor, Tensor]]:
    """Return the four knots around each place, mirrored at the border, and the cubic B-spline's weights there."""
    first = at.floor()
    t = at - first
    weights = (1 - t) ** 3 / 6, (4 - 6 * t**2 + 3 * t**3) / 6, (4 - 6 * (1 - t) ** 2 + 3 * (1 - t) ** 3) / 6, t**3 / 6
    knots = (first.long() + offset for offset in (-1, 0, 1, 2))
    mirrored = ((side - 1 - (side - 1 - knot.abs()).abs()).clamp(0, side - 1) for knot in knots)
    return [*zip(mirrored, weights, strict=True)]


@cache
def _prefilter(side: int, device: torch.device) -> Tensor:
    """Return the matrix (side, side) from pixels to a cubic spline's coefficients, mirrored at the border."""
    # The spline through its knots: (c[i - 1] + 4 c[i] + c[i + 1]) / 6 = pixel[i].
    values = torch.eye(side, dtype=torch.float64) * 4
    for row in range(side):
        for neighbour in (row - 1, row + 1):
            values[row, side - 1 - abs(side - 1 - abs(neighbour))] += 1
    return torch.linalg.inv(values / 6).to(device)

"""The real images that are nearest to other images."""

import math

import torch
from torch import Tensor

_VALUES = 2**22  # pixels of either side that are compared at once, 32 MiB as float64
_PAIRS = 2**22  # distances that are held at once, 32 MiB as float64
_MOST_ROWS = 2**10  # images that are compared at once


def nearest(images_u8: Tensor, real_u8: Tensor, count: int = 1, own: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return each image's Euclidean distances to the real ones nearest to it, and the rows of those.

    By a matrix product of parts, so that beside the images less than 256 MiB are taken, whatever their number.

    Args:
        images_u8: (N, C, H, W) uint8.
        real_u8: (M, C, H, W) uint8.
        count: of real images for each, at most M.
        own: rows (N,) that are no neighbours, because they are the images themselves; at most M - 1 remain then.

    Returns:
        Distances (N, count) of pixels in [0, 1], ascending, 0 for a copy alone, and rows (N, count).
    """
    pixels = math.prod(images_u8.shape[1:])
    rows = min(max(1, _VALUES // pixels), _MOST_ROWS)
    found = [
        _nearest(part, real_u8, count, None if own is None else own[start : start + rows])
        for start, part in zip(range(0, len(images_u8), rows), images_u8.split(rows), strict=True)
    ]
    distances, places = zip(*found, strict=True)
    return torch.cat(distances), torch.cat(places)


def _nearest(images_u8: Tensor, real_u8: Tensor, count: int, own: Tensor | None) -> tuple[Tensor, Tensor]:
    # Sums of squares of whole numbers are exact in float64, and so is the distance of a copy.
    images = images_u8.flatten(1).double()
    lengths = images.square().sum(1, keepdim=True)
    squares, rows = torch.empty(len(images), 0).double(), torch.empty(len(images), 0).long()
    size = max(1, min(_VALUES // images.shape[1], _PAIRS // len(images)))
    for start in range(0, len(real_u8), size):
        real = real_u8[start : start + size].flatten(1).double()
        here = torch.addmm(real.square().sum(1), images, real.T, alpha=-2).add_(lengths)  # (N, size)
        if own is not None:
            here[own[:, None] == torch.arange(start, start + len(real))] = math.inf
        least, places = here.topk(min(count, len(real)), largest=False)
        squares, rows = torch.cat([squares, least], 1), torch.cat([rows, places + start], 1)
        squares, kept = squares.topk(min(count, squares.shape[1]), largest=False)
        rows = rows.gather(1, kept)
    return squares.sqrt() / 255, rows

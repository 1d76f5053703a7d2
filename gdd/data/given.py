"""Images and labels that a user has as arrays: what they may be, and how they become uint8 pixels and classes.

The arrays of an `.npz` file and those of a script pass the same checks.
"""

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from gdd.config import ConfigError
from gdd.data.pixels import unit_to_u8

# Resizing and subtracting leave [0, 1] by their rounding; what still rounds to a level of uint8 is taken for it.
_HALF_A_LEVEL = 0.5 / 255


def pixels(images: np.ndarray, what: str) -> Tensor:
    """Return images as (N, C, H, W) uint8.

    Args:
        images: (N, H, W), (N, H, W, C) or (N, C, H, W) with C of 1 or 3: uint8, bool, or floats in [0, 1].
        what: they are called in an error's sentence.

    Raises:
        ConfigError: another type, shape or range, or no pixel above level 1 of 255: black to any network, such as
            images of 0 and 1 that should be white on black.
    """
    images = np.require(images, requirements=("C", "W"))  # as torch takes them: neither mirrored nor read-only
    is_float = np.issubdtype(images.dtype, np.floating)
    if images.dtype not in (np.uint8, np.bool_) and not is_float:
        raise ConfigError(f"{what} is {images.dtype}, expected uint8, bool or float in [0, 1]")
    if images.size == 0:
        raise ConfigError(f"{what} has shape {images.shape}, expected at least one pixel")
    if is_float and not (images.min() >= -_HALF_A_LEVEL and images.max() <= 1 + _HALF_A_LEVEL):
        raise ConfigError(f"{what} is float in [{images.min():.4g}, {images.max():.4g}], expected [0, 1]")
    if images.dtype == np.bool_:
        images_u8 = torch.from_numpy(images.astype(np.uint8) * np.uint8(255))
    else:
        images_u8 = unit_to_u8(torch.from_numpy(images.astype(np.float32))) if is_float else torch.from_numpy(images)
    images_u8 = channels_first(images_u8, what)
    if images_u8.max() <= 1 and images.dtype != np.bool_:
        raise ConfigError(
            f"{what} has no pixel above {'1/255' if is_float else images.max()} and would be black, expected uint8 "
            "from 0 to 255, float from 0 to 1, or bool for black and white"
        )
    return images_u8


def channels_first(images: Tensor, what: str) -> Tensor:
    """Return images (N, H, W), (N, H, W, C) or (N, C, H, W) as the last; ConfigError if they may be of two of these."""
    if images.ndim == 3:
        return images.unsqueeze(1)
    if images.ndim == 4:
        first, last = images.shape[1] in (1, 3), images.shape[3] in (1, 3)
        if first != last:
            return images if first else rearrange(images, "n h w c -> n c h w").contiguous()
    raise ConfigError(
        f"{what} has shape {tuple(images.shape)}, expected (N, H, W), (N, H, W, C) or (N, C, H, W) with "
        "C of 1 or 3, and neither H nor W of 1 or 3"
    )


def classes(labels: np.ndarray, count: int, what: str) -> Tensor:
    """Return the labels of so many images as (N,) int64.

    Args:
        labels: whole numbers of shape (N,), or (N, 1) as MedMNIST and Keras have them.
        count: N.
        what: they are called in an error's sentence.

    Raises:
        ConfigError: another type or shape; a label that is no whole number is not cut to one.
    """
    whole = labels.dtype == np.bool_ or np.issubdtype(labels.dtype, np.integer)
    if not whole or labels.shape not in ((count,), (count, 1)):
        raise ConfigError(
            f"{what} is {labels.dtype} of shape {labels.shape}, expected integers of shape {(count,)}, one for each "
            "image"
        )
    return torch.from_numpy(labels.reshape(count).astype(np.int64))

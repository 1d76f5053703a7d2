"""Images and labels that a caller has in memory, as tensors."""

import logging
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from gdd.config import ConfigError
from gdd.data import arrays
from gdd.data.image_file import is_grey, pixels_of, size_of
from gdd.data.pixels import is_far_from_unit
from gdd.data.splits import Split

logger = logging.getLogger(__name__)

# (images, labels), a torch Dataset of such pairs, a dataset's name or place, or a mapping of the section `data`, whose
# name is one of these.
Data = Any
_ARRAYS = "a name, a path, (images, labels) or a torch Dataset of pairs"


def split_of(data: Data, what: str) -> Split:
    """Return images and labels that a caller gave as uint8 (N, C, H, W) and int64 (N,).

    Args:
        data: (images, labels), or a torch Dataset of such pairs; images are arrays, tensors or Pillow's.
        what: it is called in an error's sentence.

    Raises:
        ConfigError: it is none of that, or `gdd.data.arrays` refuses images or labels.
    """
    images, labels = _pairs(data, what)
    images_u8 = arrays.image_tensor(_images(images, what), f"the image array of {what}")
    return Split(images_u8, _classes(labels, len(images_u8), what))


def set_of(data: Data, what: str) -> tuple[Tensor, Tensor]:
    """Return a training set that a caller gave: images (N, C, H, W) and labels (N,) int64.

    As `split_of`, but floats stay what they are, float32 in [0, 1]-scale, for those that were optimised as pixels leave
    [0, 1].

    Raises:
        ConfigError: as of `split_of`, or floats are far from [0, 1], as levels from 0 to 255 are.
    """
    given_images, labels = _pairs(data, what)
    array = _images(given_images, what)
    if array.size == 0 or not np.issubdtype(array.dtype, np.floating):
        images = arrays.image_tensor(array, f"the image array of {what}")
    else:
        images = arrays.channels_first(torch.from_numpy(array.astype(np.float32)), f"the image array of {what}")
        low, high = (value.item() for value in images.aminmax())
        if is_far_from_unit(images):
            raise ConfigError(f"{what} has pixels from {low:.4g} to {high:.4g}, expected them on the scale of [0, 1]")
        if low < 0 or high > 1:
            logger.warning("%s has pixels from %.3g to %.3g: only optimised ones should leave [0, 1]", what, low, high)
    return images, _classes(labels, len(images), what)


def _classes(labels: Any, count: int, what: str) -> Tensor:
    return arrays.label_tensor(_labels(labels, what), count, f"the label array of {what}")


def _pairs(data: Data, what: str) -> tuple[Any, Any]:
    """Return all images and all labels."""
    if isinstance(data, tuple | list):
        if len(data) != 2:
            raise ConfigError(f"{what} is a {type(data).__name__} of {len(data)}, expected {_ARRAYS}")
        return data[0], data[1]
    has_items = hasattr(data, "__getitem__") and hasattr(data, "__len__")
    if not has_items or isinstance(data, IterableDataset):
        raise ConfigError(f"{what} is a {type(data).__name__}, expected {_ARRAYS}; what can only be iterated is none")
    images, labels = [], []
    for index in range(len(data)):
        pair = _item(data, index, what)
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise ConfigError(f"{what} is a {type(data).__name__} whose items are {_said(pair)}, expected {_ARRAYS}")
        # At once, for an image of a file may keep it open until it is decoded.
        images.append(_image(pair[0], what))
        labels.append(pair[1])
    if not images:
        raise ConfigError(f"{what} is a {type(data).__name__} of 0 items, expected {_ARRAYS}")
    return images, labels


def _item(data: Any, index: int, what: str) -> Any:
    try:
        return data[index]
    except (LookupError, TypeError) as error:
        if isinstance(data, Dataset):
            raise  # its own fault, and its author wants to see where
        raise ConfigError(f"{what} is a {type(data).__name__} without item {index}, expected {_ARRAYS}") from error


def _images(images: Any, what: str) -> np.ndarray:
    """Return images as one array, of the type and in the layout that they have."""
    if not isinstance(images, tuple | list):
        return _array(images, f"images of {what}")
    each = [_image(image, what) for image in images]
    if {image.shape[:1] for image in each if image.ndim == 3} == {(1,), (3,)}:  # grey ones of Pillow among coloured
        each = [image.repeat(3, 0) if image.shape[0] == 1 else image for image in each]
    kinds = sorted({f"{image.dtype} {image.shape}" for image in each})
    if len(kinds) != 1:
        several = f"of {len(kinds)} types or shapes, such as {' and '.join(kinds[:2])}" if kinds else "none"
        raise ConfigError(f"images of {what} are {several}, expected one type and shape")
    return np.stack(each)


def _image(image: Any, what: str) -> np.ndarray:
    """Return an image as an array; one of Pillow's as (C, H, W), converted as a file is, or as (H, W) of floats."""
    if not isinstance(image, Image.Image):
        return _array(image, f"an image of {what}")
    if image.mode == "F":
        return np.asarray(image)
    try:
        if image.mode == "I":  # 32 bits of memory, but a file has 16
            levels = np.asarray(image)
            if levels.min() < 0 or levels.max() >= 2**16:
                raise ValueError(f"levels are {levels.min()} to {levels.max()}, expected 0 to 65535")
            image = Image.fromarray(levels.astype(np.uint16))
        if image.mode == "La":  # Pillow makes no LA of it, but RGBA of RGBa
            raise ValueError("its colours are multiplied by its transparency; convert it to LA")
        return pixels_of(image, (1 if is_grey(image) else 3, *size_of(image)))
    except (OSError, ValueError) as error:  # a damaged file behind it, or a mode such as LAB
        raise ConfigError(f"an image of {what} of Pillow's mode {image.mode} cannot be read: {error}") from error


def _labels(labels: Any, what: str) -> np.ndarray:
    if not isinstance(labels, tuple | list):
        return _array(labels, f"labels of {what}")
    each = [_array(label, f"a label of {what}") for label in labels]
    kinds = sorted({f"{label.dtype} of shape {label.shape}" for label in each if label.dtype.kind not in "iub"})
    shapes = sorted({str(label.shape) for label in each})
    if kinds or len(shapes) > 1:
        wrong = kinds[0] if kinds else f"of shapes {' and '.join(shapes[:2])}"
        raise ConfigError(f"labels of {what} are {wrong}, expected whole numbers from 0, one for each image")
    return np.stack(each) if each else np.zeros(0, np.int64)


def _array(value: Any, what: str) -> np.ndarray:
    """Return an array, a tensor, a number or nested lists as an array of numbers; ConfigError if it is none."""
    try:
        if isinstance(value, Tensor):
            value = value.detach().cpu()
            value = (value.float() if value.is_floating_point() else value).numpy()
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:  # lists of several lengths, a sparse tensor
        raise ConfigError(f"{what} cannot be made an array: {str(error).splitlines()[0]}") from error
    if array.dtype.kind not in "biuf":
        raise ConfigError(f"{what} is {_said(value)}, expected numbers")
    return array


def _said(value: Any) -> str:
    """Name what a caller gave."""
    if isinstance(value, np.ndarray | Tensor):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"{value!r:.40}" if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"

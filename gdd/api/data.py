"""A caller's images in memory: as tensors, and as a file that a run can start and resume from."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

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
from gdd.runtime import checkpoint

logger = logging.getLogger(__name__)

# (images, labels), a torch Dataset of such pairs, a dataset's name or place, or a mapping of the section `data`, whose
# name is one of these.
Data = Any
_ARRAYS = "a name, a path, (images, labels) or a torch Dataset of pairs"


class Given(NamedTuple):
    """A caller's images, as they are kept."""

    train: Split
    test: Split | None  # none: a fifth of the others is held out
    class_names: tuple[str, ...]

    def same(self, other: "Given") -> bool:
        parts = zip((*self.train, *(self.test or ())), (*other.train, *(other.test or ())), strict=False)
        whole = self.class_names == other.class_names and (self.test is None) == (other.test is None)
        return whole and all(torch.equal(tensor, another) for tensor, another in parts)


def data_settings(data: Data, test: Data | None, folder: Path, overwrite: bool = False) -> dict[str, Any]:
    """Return the settings of the section `data` for what a caller gave.

    Images in memory are written to `folder/<name of the folder>.npz`, so that a run can be resumed, compared and scored
    anew, by any command.

    Args:
        data: the training images: see `Data`.
        test: test images of arrays or of a torch Dataset; none holds out a fifth of the others.
        folder: of the run.
        overwrite: whether other images that a stage of the run has used are replaced; those that none has always are.

    Raises:
        ConfigError: the images have another form, cannot be written, or differ from those stored before.
    """
    if isinstance(data, Mapping) and "name" in data:
        return {**data, **data_settings(data["name"], test, folder, overwrite)}
    if isinstance(data, Mapping | str | Path):
        if test is not None:
            where = "no images" if isinstance(data, Mapping) else f"data {str(data)!r}"
            raise ConfigError(f"test is given beside {where}, expected it beside images in memory alone")
        return {**data} if isinstance(data, Mapping) else {"name": str(data)}
    made = _given(data, test)
    path = folder / f"{folder.resolve().name}.npz"
    if not (path.exists() and _is_used(folder) and not overwrite):
        with checkpoint.creating(path):
            checkpoint.write_atomically(path, lambda temporary: _write(temporary, made))
    elif not made.same(_stored(path)):
        raise ConfigError(
            f"{path} holds other images than those that are given; choose another name, or set run.overwrite to "
            "replace them (a dataset that changes its images at random never gives the same ones twice)"
        )
    return {"name": str(path)}


def _is_used(folder: Path) -> bool:
    """Tell whether a stage has begun in a run's folder."""
    return any(folder.glob("*/config.json"))


def _given(data: Data, test: Data | None) -> Given:
    """Return a caller's images; ConfigError if they are no dataset."""
    train = split_of(data, "data")
    names = getattr(data, "classes", None)
    stated = np.array([str(name) for name in names]) if isinstance(names, list | tuple | np.ndarray) else None
    class_names = arrays.names_of(train.labels, stated, "the label array of data", "data.classes")
    tested = None if test is None else split_of(test, "test")
    if tested is not None and not 0 <= int(tested.labels.min()) <= int(tested.labels.max()) < len(class_names):
        raise ConfigError(
            f"test has labels {int(tested.labels.min())} to {int(tested.labels.max())}, expected 0 to "
            f"{len(class_names) - 1} as data has"
        )
    return Given(train, tested, class_names)


def _write(path: Path, made: Given) -> None:
    parts = {"train": made.train, "test": made.test}
    stored = {
        f"{name}_{part}": tensor[:].numpy()
        for part, split in parts.items()
        if split is not None
        for name, tensor in zip("xy", split, strict=True)
    }
    with path.open("wb") as file:
        np.savez(file, **stored, class_names=np.array(made.class_names))  # type: ignore[arg-type]


def _stored(path: Path) -> Given:
    train, class_names, read_test = arrays.npz_parts(path)
    return Given(train, None if read_test is None else read_test(), class_names)


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

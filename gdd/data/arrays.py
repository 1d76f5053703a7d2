"""Datasets that come as arrays: of scikit-learn, of torchvision, of .npz files, and what a script has in memory.

The arrays of an `.npz` file and those of a script pass the same checks: `image_tensor` and `label_tensor`.
"""

import zipfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from gdd.config import ConfigError
from gdd.data.pixels import unit_to_u8
from gdd.data.places import TORCHVISION, missing_file
from gdd.data.splits import RawDataset, Split, holdout, resized

# An array may always unpack to so many bytes, and to so many times its bytes in the file.
MOST_UNPACKED = 2**27
MOST_RATIO = 100
# Resizing and subtracting leave [0, 1] by their rounding; what still rounds to a level of uint8 is taken for it.
_HALF_A_LEVEL = 0.5 / 255

TEN_DIGITS = tuple(str(digit) for digit in range(10))


def open_digits(size: tuple[int, int] | None, channels: int | None) -> RawDataset:
    """Read the 1797 scans of 8x8 pixels that ship with scikit-learn, at 16x16 by default."""
    package = find_spec("sklearn")  # its file is found without importing it, which takes a second
    assert package is not None
    assert package.submodule_search_locations is not None
    table = np.loadtxt(Path(package.submodule_search_locations[0], "datasets/data/digits.csv.gz"), delimiter=",")
    *pixels, digits = torch.from_numpy(table).float().unbind(1)  # levels from 0 to 16, and the label
    images_u8 = unit_to_u8(rearrange(pixels, "(h w) n -> n 1 h w", h=8) / 16)
    labels = digits.long()
    whole = resized(Split(images_u8, labels), size or (16, 16), channels)
    train, test = holdout(labels, TEN_DIGITS, "digits")
    return RawDataset(TEN_DIGITS, whole.subset(train), lambda: whole.subset(test))


class _Class(NamedTuple):
    name: str  # in torchvision.datasets, which takes a second to import
    class_names: tuple[str, ...] | None = None


_CLASSES = {
    "mnist": _Class("MNIST", TEN_DIGITS),
    "fashion_mnist": _Class("FashionMNIST"),
    "cifar10": _Class("CIFAR10"),
    "cifar100": _Class("CIFAR100"),
    "svhn": _Class("SVHN", TEN_DIGITS),
}


def open_torchvision(name: str, root: Path, size: tuple[int, int] | None, channels: int | None) -> RawDataset:
    """Read one of torchvision's datasets from its usual files below `root`.

    Raises:
        ConfigError: a file is missing or damaged, or the download failed.
    """
    kind, missing = _CLASSES[name], missing_file(name, root)
    from torchvision import datasets

    def build(train: bool, download: bool = False) -> Any:
        part: dict[str, Any] = {"split": "train" if train else "test"} if name == "svhn" else {"train": train}
        return getattr(datasets, kind.name)(root, download=download, **part)

    def read(train: bool) -> tuple[Any, Split]:
        try:
            stored = build(train)
            labels = stored.labels if name == "svhn" else stored.targets
            images = channels_first(torch.as_tensor(stored.data), name)
            return stored, Split(images, torch.as_tensor(labels).long())
        except Exception as error:  # torchvision's parsers raise many types on damaged bytes
            raise ConfigError(
                f"{name} below {root / TORCHVISION[name].folder} is damaged ({error}): delete it and add "
                "--data.download true to fetch it again"
            ) from error

    if missing is not None:
        try:
            # Both parts now: a machine that can download before training may be offline after it.
            for train in (True, False):
                build(train, download=True)
        except Exception as error:
            raise ConfigError(f"{name} could not be downloaded to {root}: {error}") from error
    stored, split = read(train=True)
    read(train=False)  # to refuse a damaged file before training, not after
    train_split = resized(split, size, channels)
    channels = train_split.images_u8.shape[1]
    class_names = kind.class_names or tuple(stored.classes)
    return RawDataset(class_names, train_split, lambda: resized(read(train=False)[1], size, channels))


def open_npz(path: Path, size: tuple[int, int] | None, channels: int | None) -> RawDataset:
    """Read what `npz_parts` does as a dataset; without a test part, a fixed fifth of train is held out as test."""
    train, class_names, read_test = npz_parts(path)
    whole = resized(train, size, channels)
    if read_test is None:
        train_rows, test_rows = holdout(whole.labels, class_names, path)
        return RawDataset(class_names, whole.subset(train_rows), lambda: whole.subset(test_rows))
    return RawDataset(class_names, whole, lambda: resized(read_test(), size, whole.images_u8.shape[1]))


def npz_parts(path: Path) -> tuple[Split, tuple[str, ...], Callable[[], Split] | None]:
    """Return x_train and y_train, the names of the classes, and how x_test and y_test are read, if they are there.

    Images and labels are those that `image_tensor` and `label_tensor` take; each label 0..K-1 occurs in train. Texts
    class_names of shape (K,), if there, name the classes.

    Raises:
        ConfigError: the file or an array is missing, or of another type, shape or range.
    """
    names = _load_npz(path, None)
    train = _npz_part(path, "train", names)
    given_names = _load_npz(path, "class_names") if "class_names" in names else None
    class_names = names_of(train.labels, given_names, f"y_train of {path}", f"class_names of {path}")
    if "x_test" not in names and "y_test" not in names:
        return train, class_names, None
    for name in ("x_test", "y_test"):
        _require_array(path, name, names)
    return train, class_names, lambda: _npz_part(path, "test", names)


def names_of(labels: Tensor, given_names: np.ndarray | None, what: str, names: str) -> tuple[str, ...]:
    """Return the names of the classes of all training labels (N,): texts (K,) that are given, or their numbers.

    Errors call the labels `what` and their names `names`.

    Raises:
        ConfigError: a class has no image, or the names are not as many different texts.
    """
    present = labels.unique()
    count = len(present)
    if present[0] != 0 or present[-1] != count - 1:
        raise ConfigError(
            f"{what} holds {count} different labels from {present[0]} to {present[-1]}, expected 0 to {count - 1} with "
            "none left out"
        )
    if given_names is None:
        return tuple(map(str, range(count)))
    if given_names.dtype.kind != "U" or given_names.shape != (count,) or len(set(given_names.tolist())) != count:
        raise ConfigError(
            f"{names} is {given_names.dtype} of shape {given_names.shape}, expected {count} different texts, one for "
            "each label of train"
        )
    return tuple(given_names.tolist())


def _npz_part(path: Path, part: Literal["train", "test"], names: Sequence[str]) -> Split:
    """Return a part of an .npz file that holds arrays of these names; ConfigError as of `npz_parts`."""
    images, labels = (_load_npz(path, _require_array(path, f"{x}_{part}", names)) for x in "xy")
    images_u8 = image_tensor(images, f"x_{part} of {path}")
    return Split(images_u8, label_tensor(labels, len(images), f"y_{part} of {path}"))


def _require_array(path: Path, name: str, names: Sequence[str]) -> str:
    if name not in names:
        raise ConfigError(f"{path} holds no {name}, only {', '.join(names[:8]) or 'nothing'}")
    return name


def _load_npz(path: Path, name: str | None) -> Any:
    """Return one array, or the names of all without one."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            if name is None:
                return list(stored.files)
            _require_no_bomb(path, stored.zip.getinfo(f"{name}.npy"))
            array = stored[name]
            if not isinstance(array, np.ndarray):  # bytes of anything else
                raise ValueError(f"{name} is no array")
            return array
    except ConfigError:
        raise
    except Exception as error:  # numpy and zipfile raise many types on damaged bytes
        raise ConfigError(f"{path} is not a readable .npz file: {error}") from error


def _require_no_bomb(path: Path, part: zipfile.ZipInfo) -> None:
    """Refuse what unpacks to far more than it takes; of images, few drawings shrink more."""
    known = part.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    if not known or part.file_size > max(MOST_UNPACKED, MOST_RATIO * part.compress_size):
        raise ConfigError(
            f"{part.filename} of {path} unpacks from {part.compress_size:,} bytes to {part.file_size:,}, expected at "
            f"most {MOST_UNPACKED:,} or {MOST_RATIO} times as many, by deflate; if it is yours, write it with "
            "np.savez, which does not compress"
        )


def image_tensor(images: np.ndarray, what: str) -> Tensor:
    """Return images as (N, C, H, W) uint8; errors call them `what`.

    They may be (N, H, W), (N, H, W, C) or (N, C, H, W) with C of 1 or 3: uint8, bool, or floats in [0, 1].

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


def label_tensor(labels: np.ndarray, count: int, what: str) -> Tensor:
    """Return the labels of `count` images as (N,) int64; errors call them `what`.

    They may be (N,), or (N, 1) as MedMNIST and Keras have them. ConfigError if they have another shape or are no
    integers: a label that is no whole number is not cut to one.
    """
    whole = labels.dtype == np.bool_ or np.issubdtype(labels.dtype, np.integer)
    if not whole or labels.shape not in ((count,), (count, 1)):
        raise ConfigError(
            f"{what} is {labels.dtype} of shape {labels.shape}, expected integers of shape {(count,)}, one for each "
            "image"
        )
    return torch.from_numpy(labels.reshape(count).astype(np.int64))

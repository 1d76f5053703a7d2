"""Datasets that come as arrays: scikit-learn's digits, torchvision's classes, and .npz files."""

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
from gdd.data import given
from gdd.data.pixels import unit_to_u8
from gdd.data.places import TORCHVISION, missing_file
from gdd.data.splits import RawDataset, Split, holdout, resized

# An array may always unpack to so many bytes, and to so many times its bytes in the file.
MOST_UNPACKED = 2**27
MOST_RATIO = 100

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
            images = given.channels_first(torch.as_tensor(stored.data), name)
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
        kept, held_out = holdout(whole.labels, class_names, path)
        return RawDataset(class_names, whole.subset(kept), lambda: whole.subset(held_out))
    return RawDataset(class_names, whole, lambda: resized(read_test(), size, whole.images_u8.shape[1]))


def npz_parts(path: Path) -> tuple[Split, tuple[str, ...], Callable[[], Split] | None]:
    """Return x_train and y_train, the names of the classes, and how x_test and y_test are read, if they are there.

    Images and labels are those that `gdd.data.given` takes; each label 0..K-1 occurs in train. Texts class_names of
    shape (K,), if there, name the classes.

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
    """Return the names of the classes of all training labels: those that are given, or their numbers.

    Args:
        labels: (N,) int64.
        given_names: (K,) texts, if there are some.
        what: the labels are called in an error's sentence.
        names: what the names are called.

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
    images_u8 = given.pixels(images, f"x_{part} of {path}")
    return Split(images_u8, given.classes(labels, len(images), f"y_{part} of {path}"))


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

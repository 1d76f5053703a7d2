"""Datasets that come as arrays: scikit-learn's digits, torchvision's classes, and .npz files."""

import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from gdd.config import ConfigError
from gdd.data.pixels import unit_to_u8
from gdd.data.places import TORCHVISION, missing_file
from gdd.data.splits import RawDataset, Split, holdout, resized

# An array may always unpack to so many bytes, and to so many times its bytes in the file.
MOST_UNPACKED = 2**25
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
            images = _channels_first(torch.as_tensor(stored.data), name)
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
    train_split = resized(split, size, channels)
    channels = train_split.images_u8.shape[1]
    class_names = kind.class_names or tuple(stored.classes)
    return RawDataset(class_names, train_split, lambda: resized(read(train=False)[1], size, channels))


def open_npz(path: Path, size: tuple[int, int] | None, channels: int | None) -> RawDataset:
    """Read x_train, y_train, x_test, y_test; without x_test, a fixed fifth of train is held out as test.

    Images are uint8, or float in [0, 1], of shape (N, H, W), (N, H, W, C) or (N, C, H, W). Labels are
    integers 0..K-1 of shape (N,), each of which occurs in train. Texts class_names of shape (K,), if there,
    name the classes.

    Raises:
        ConfigError: the file or an array is missing, or of another type, shape or range.
    """
    names = _load_npz(path, None)
    whole = resized(_npz_split(path, "train", names), size, channels)
    present = whole.labels.unique()
    if present[0] != 0 or present[-1] != len(present) - 1:
        raise ConfigError(
            f"y_train of {path} holds {len(present)} different labels from {present[0]} to {present[-1]}, "
            f"expected 0 to {len(present) - 1} with none left out"
        )
    class_names = _class_names(path, len(present)) if "class_names" in names else tuple(map(str, present.tolist()))
    if "x_test" not in names and "y_test" not in names:
        train, test = holdout(whole.labels, class_names, path)
        return RawDataset(class_names, whole.subset(train), lambda: whole.subset(test))
    for name in ("x_test", "y_test"):
        _require_array(path, name, names)
    channels = whole.images_u8.shape[1]
    return RawDataset(class_names, whole, lambda: resized(_npz_split(path, "test", names), size, channels))


def _class_names(path: Path, count: int) -> tuple[str, ...]:
    class_names = _load_npz(path, "class_names")
    if class_names.dtype.kind != "U" or class_names.shape != (count,) or len(set(class_names.tolist())) != count:
        raise ConfigError(
            f"class_names of {path} is {class_names.dtype} of shape {class_names.shape}, expected {count} different "
            "texts, one for each label of y_train"
        )
    return tuple(class_names.tolist())


def _npz_split(path: Path, part: str, names: Any) -> Split:
    images, labels = (_load_npz(path, _require_array(path, f"{x}_{part}", names)) for x in "xy")
    where = f"x_{part} of {path}"
    if images.dtype != np.uint8 and not np.issubdtype(images.dtype, np.floating):
        raise ConfigError(f"{where} is {images.dtype}, expected uint8 or float in [0, 1]")
    if images.size == 0:
        raise ConfigError(f"{where} has shape {images.shape}, expected at least one pixel")
    if images.dtype != np.uint8 and not (images.min() >= 0 and images.max() <= 1):
        raise ConfigError(f"{where} is float in [{images.min():g}, {images.max():g}], expected [0, 1]")
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != images.shape[:1]:
        raise ConfigError(
            f"y_{part} of {path} is {labels.dtype} of shape {labels.shape}, expected integers of shape "
            f"{images.shape[:1]}, one for each image of x_{part}"
        )
    images_u8 = torch.from_numpy(images if images.dtype == np.uint8 else images.astype(np.float32))
    if images.dtype != np.uint8:
        images_u8 = unit_to_u8(images_u8)
    return Split(_channels_first(images_u8, where), torch.from_numpy(labels.astype(np.int64)))


def _require_array(path: Path, name: str, names: Any) -> str:
    if name not in names:
        raise ConfigError(f"{path} holds no {name}, only {', '.join(names[:8]) or 'nothing'}")
    return name


def _load_npz(path: Path, name: str | None) -> Any:
    """Return one array, or the names of all without one."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            if name is None:
                return list(stored.files)
            _require_no_bomb(stored.zip.getinfo(f"{name}.npy"))
            array = stored[name]
            if not isinstance(array, np.ndarray):  # bytes of anything else
                raise ValueError(f"{name} is no array")
            return array
    except Exception as error:  # numpy and zipfile raise many types on damaged bytes
        raise ConfigError(f"{path} is not a readable .npz file: {error}") from error


def _require_no_bomb(part: zipfile.ZipInfo) -> None:
    """Refuse what unpacks to far more than it takes; of images, even drawings shrink less."""
    known = part.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    if not known or part.file_size > max(MOST_UNPACKED, MOST_RATIO * part.compress_size):
        raise ValueError(f"{part.filename} unpacks from {part.compress_size} bytes to {part.file_size}")


def _channels_first(images_u8: Tensor, where: str) -> Tensor:
    if images_u8.ndim == 3:
        return images_u8.unsqueeze(1)
    if images_u8.ndim == 4:
        first, last = images_u8.shape[1] in (1, 3), images_u8.shape[3] in (1, 3)
        if first != last:
            return images_u8 if first else rearrange(images_u8, "n h w c -> n c h w").contiguous()
    raise ConfigError(
        f"{where} has shape {tuple(images_u8.shape)}, expected (N, H, W), (N, H, W, C) or (N, C, H, W) with "
        "C of 1 or 3, and neither H nor W of 1 or 3"
    )

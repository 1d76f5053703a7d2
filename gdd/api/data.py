"""A caller's images as a dataset that a run can be made from, and go on from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from gdd.config import ConfigError
from gdd.runtime import checkpoint

# (images, labels), a torch Dataset of such pairs, a dataset's name or place, or a mapping of the section `data`, whose
# name is one of these.
Data = Any
_ARRAYS = "a name, a path, (images, labels) or a torch Dataset of pairs"


def data_settings(data: Data, test: Data | None, folder: Path) -> dict[str, Any]:
    """Return the settings of the section `data` for what a caller gave.

    Images in memory are written to `folder/<name of the folder>.npz`, so that a run can be resumed, compared and scored
    anew, by any command.

    Args:
        data: the training images: see `Data`.
        test: test images of arrays or of a torch Dataset; none holds out a fifth of the others.
        folder: of the run.

    Raises:
        ConfigError: the images are none of that, or those that were written there before are others.
    """
    if isinstance(data, Mapping):
        return {**data, **(data_settings(data["name"], test, folder) if "name" in data else {})}
    if isinstance(data, str | Path):
        if test is not None:
            raise ConfigError(f"test is given beside data {str(data)!r}, expected it beside images in memory alone")
        return {"name": str(data)}
    images, labels = _arrays(data, "data")
    arrays = {"x_train": images, "y_train": labels}
    if test is not None:
        arrays["x_test"], arrays["y_test"] = _arrays(test, "test")
    names = getattr(data, "classes", None)
    if names is not None:
        arrays["class_names"] = np.array([str(name) for name in names])
    path = folder / f"{folder.resolve().name}.npz"
    if not path.exists():
        with checkpoint.creating(path):
            checkpoint.write_atomically(path, lambda temporary: _write(temporary, arrays))
    elif not _holds(path, arrays):
        raise ConfigError(f"{path} holds other images than those that are given; choose another name")
    return {"name": str(path)}


def _arrays(data: Data, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images and labels as arrays, (N, ...) and (N,)."""
    if isinstance(data, Dataset) or (hasattr(data, "__getitem__") and not isinstance(data, tuple | list)):
        pairs = [data[index] for index in range(len(data))]  # type: ignore[arg-type]
        if not pairs or not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs):
            raise ConfigError(f"{what} is a {type(data).__name__} of {len(pairs)} items, expected {_ARRAYS}")
        images = [np.asarray(image) for image, _ in pairs]
        shapes = {image.shape for image in images}
        if len(shapes) > 1:
            raise ConfigError(f"{what} has images of {len(shapes)} shapes, such as {sorted(shapes)[:2]}, expected one")
        return np.stack(images), np.array([int(label) for _, label in pairs])
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise ConfigError(f"{what} is a {type(data).__name__}, expected {_ARRAYS}")
    return np.asarray(data[0]), np.asarray(data[1])


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def _holds(path: Path, arrays: dict[str, np.ndarray]) -> bool:
    try:
        with np.load(path, allow_pickle=False) as stored:
            same = stored.files == [*arrays]
            return same and all(np.array_equal(stored[name], value) for name, value in arrays.items())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is not a readable .npz file: {error}") from error

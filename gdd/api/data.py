"""A caller's images as a dataset that a run can be made from, and go on from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from gdd.api.in_memory import Data, split_of
from gdd.config import ConfigError
from gdd.data import arrays
from gdd.data.splits import Split
from gdd.runtime import checkpoint


class Given(NamedTuple):
    """A caller's images, as they are kept."""

    train: Split
    test: Split | None  # none: a fifth of the others is held out
    class_names: tuple[str, ...]

    def same(self, other: "Given") -> bool:
        parts = zip((*self.train, *(self.test or ())), (*other.train, *(other.test or ())), strict=False)
        whole = self.class_names == other.class_names and (self.test is None) == (other.test is None)
        return whole and all(torch.equal(one, another) for one, another in parts)


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
        ConfigError: the images are none of that and are not written, or those that are there are others.
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
        f"{name}_{part}": tensor.numpy()
        for part, split in parts.items()
        if split is not None
        for name, tensor in zip("xy", split, strict=True)
    }
    with path.open("wb") as file:
        np.savez(file, **stored, class_names=np.array(made.class_names))  # type: ignore[arg-type]


def _stored(path: Path) -> Given:
    train, class_names, read_test = arrays.npz_parts(path)
    return Given(train, None if read_test is None else read_test(), class_names)

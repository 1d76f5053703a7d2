"""Image folders: one subfolder per class."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from gdd.config import ConfigError
from gdd.data.encoded import Listing, Part, survey
from gdd.data.image_file import SUFFIXES


class Files:
    """Image files by their paths; an `Encoded`."""

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths

    def name(self, index: int) -> str:
        return self.paths[index]

    def open(self, index: int) -> str:
        return self.paths[index]

    def files(self, rows: Sequence[int]) -> list[str]:
        return [self.paths[row] for row in rows]


def list_folder(folder: Path) -> Listing:
    """List `{train,test}/<class>/*.png|jpg|jpeg`, or `<class>/*` without a test part.

    Classes are sorted by name. Names that start with a dot are skipped.

    Raises:
        ConfigError: an empty class, fewer than two classes, other classes in test than in train.
    """
    class_names, train = _list_images(_train_folder(folder))
    if not (folder / "test").is_dir():
        return Listing(folder, class_names, train, None)
    test_names, test = _list_images(folder / "test")
    if test_names != class_names:
        differing = sorted(set(class_names) ^ set(test_names))
        raise ConfigError(f"train and test of {folder} hold different classes: {', '.join(differing)}")
    return Listing(folder, class_names, train, test)


def first_shape(folder: Path, size: tuple[int, int] | None, channels: int | None) -> tuple[tuple[int, int, int], int]:
    """Return (C, H, W) of a folder's first image, as it would be read alone, and how many classes there are.

    Raises:
        ConfigError: fewer than two classes, or the first is empty or its first image cannot be read.
    """
    train_folder = _train_folder(folder)
    names = _class_names(train_folder)
    files = _files_of(train_folder / names[0])[:1]
    found = survey(Part(Files(files), torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)))
    if found.broken:
        raise ConfigError(found.broken[0])
    return (channels or (1 if found.grey else 3), *(size or next(iter(found.sizes)))), len(names)


def _train_folder(folder: Path) -> Path:
    if (folder / "train").is_dir():
        return folder / "train"
    if (folder / "test").is_dir():
        raise ConfigError(f"{folder} holds a test folder but no train folder")
    return folder


def _class_names(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    if len(names) < 2:
        raise ConfigError(
            f"{folder} holds {len(names)} class folders, expected at least 2 with images directly inside each"
        )
    return names


def _files_of(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        files = sorted(
            entry.path for entry in entries if entry.name.lower().endswith(SUFFIXES) and not entry.name.startswith(".")
        )
    if not files:
        raise ConfigError(f"class folder {folder} holds no {', '.join(SUFFIXES)} file; add images or remove it")
    return files


def _list_images(folder: Path) -> tuple[tuple[str, ...], Part]:
    names = _class_names(folder)
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        class_files = _files_of(folder / name)
        files += class_files
        labels += [label] * len(class_files)
    return tuple(names), Part(Files(files), torch.arange(len(files)), torch.tensor(labels))

"""Tiny datasets with known answers, for the tests of every reader."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gdd.config import ConfigError
from gdd.data.readers import open_dataset
from gdd.data.splits import Split


def save_image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def constant(value: int, height: int = 8, width: int = 8, channels: int = 3) -> np.ndarray:
    return np.full((height, width, 3) if channels == 3 else (height, width), value, np.uint8)


def make_classes(folder: Path, counts: dict[str, int], start: int = 0, **shape: int) -> None:
    """Write images whose grey level is their running number, so each can be told from its pixels."""
    for name, count in counts.items():
        for index in range(count):
            save_image(folder / name / f"{index:03}.png", constant(start, **shape))
            start += 1


def make_dataset(root: Path, train: dict[str, int], test: dict[str, int], **shape: int) -> Path:
    make_classes(root / "train", train, **shape)
    make_classes(root / "test", test, start=200, **shape)
    return root


def levels(split: Split) -> set[int]:
    return set(split.images_u8[:, 0, 0, 0].tolist())


def same(a: Split, b: Split) -> bool:
    return torch.equal(a.images_u8, b.images_u8) and torch.equal(a.labels, b.labels)


def refuses(text: str, name: str | Path, root: Path | str = "nowhere", **options: object) -> None:
    with pytest.raises(ConfigError, match=re.escape(text)):
        open_dataset(str(name), Path(root), **options)  # type: ignore[arg-type]

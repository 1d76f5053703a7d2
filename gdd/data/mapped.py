"""Images that are too many for the memory: they stay in their file, and rows of them are read when they are asked for.

The file is one of safetensors with a single tensor, written here by hand, since its library wants all of it in memory.
"""

import json
import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

MAPPED_BYTES = 2**31  # images that take more stay in their file
_HEADER = 512  # bytes, those of the length included; of a fixed number since the checksum is known last
_AT_ONCE = 2**22  # bytes that are read at once


@dataclass(eq=False, repr=False)
class MappedImages:
    """Some rows of the images of a file: what a tensor (N, C, H, W) uint8 is to those who take rows of it."""

    path: Path  # of the file
    whole: Tensor  # (M, C, H, W) uint8, all its images
    rows: Tensor  # (N,) int64 on the CPU, which of them these are
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))  # where rows are put that are asked for

    def __reduce__(self) -> tuple[Any, ...]:
        """Let another process open the file itself, for torch would send it the images."""
        return _sent, (self.path, tuple(self.whole.shape), self.rows, self.device)

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self.rows), *self.whole.shape[1:]))

    def __len__(self) -> int:
        return len(self.rows)

    def numel(self) -> int:
        return self.shape.numel()

    def __getitem__(self, chosen: Tensor | slice) -> Tensor:
        """Return images (B, C, H, W) on the device."""
        images = self.whole[self.rows[chosen.cpu() if isinstance(chosen, Tensor) else chosen]]
        if self.device.type == "cuda":
            images = images.pin_memory()
        return images.to(self.device, non_blocking=True)

    def split(self, size: int) -> Iterator[Tensor]:
        """Return all images in parts (B, C, H, W) of `size`, of which the last may be smaller."""
        return (self[start : start + size] for start in range(0, len(self), size))

    def subset(self, indices: Tensor) -> "ImageRows":
        """Return images by their places (B,): read, unless they are too many for that too."""
        chosen = replace(self, rows=self.rows[indices.cpu()])
        return chosen if chosen.numel() > MAPPED_BYTES else chosen[:]

    def to(self, device: torch.device) -> "MappedImages":
        """Return the same images for work on a device, to which each row goes when it is asked for."""
        return replace(self, device=torch.device(device))


def _sent(path: Path, shape: tuple[int, ...], rows: Tensor, device: torch.device) -> MappedImages:
    return MappedImages(path, open_images(path, shape), rows, device)


ImageRows = Tensor | MappedImages  # (N, C, H, W) uint8


def subset(images_u8: ImageRows, indices: Tensor) -> ImageRows:
    """Return images by their places (B,)."""
    return images_u8.subset(indices) if isinstance(images_u8, MappedImages) else images_u8[indices]


def joined(one: ImageRows, other: ImageRows) -> ImageRows:
    """Return the images of both, which are of one file if they are of any."""
    if isinstance(one, MappedImages) and isinstance(other, MappedImages):
        return replace(one, rows=torch.cat([one.rows, other.rows]))
    return torch.cat([one[:], other[:]])


def parts_of(images_u8: ImageRows) -> Iterator[Tensor]:
    """Return all images in their order, in parts (B, C, H, W) that fit into memory."""
    return iter(images_u8.split(max(1, _AT_ONCE // images_u8.shape[1:].numel())))


def checksum(images_u8: ImageRows) -> str:
    """Return the CRC-32 of all bytes in their order."""
    value = 0
    for part in parts_of(images_u8):
        value = zlib.crc32(np.ascontiguousarray(part.numpy()).data, value)
    return str(value)


class ImageFile:
    """A file of images that are to be written, in any order."""

    def __init__(self, path: Path, shape: tuple[int, int, int, int]) -> None:
        """Make the file, as long as it will be; OSError where it cannot be.

        Its room is taken at once: a disk that is full while pages are written ends the process with SIGBUS.
        """
        self.path, self.shape = path, shape
        with path.open("wb") as file:
            size = _HEADER + int(np.prod(shape))
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
        self.images = np.memmap(path, np.uint8, "r+", _HEADER, shape)

    def finish(self) -> None:
        """Write the header, which makes it a file that can be read."""
        self.images.flush()
        described = {"dtype": "U8", "shape": self.shape, "data_offsets": [0, int(np.prod(self.shape))]}
        facts = {"__metadata__": {"crc32": checksum(_opened(self.path, self.shape))}, "images": described}
        text = json.dumps(facts).encode().ljust(_HEADER - 8)
        with self.path.open("r+b") as file:
            file.write(struct.pack("<Q", len(text)) + text)


def open_images(path: Path, shape: tuple[int, ...]) -> Tensor:
    """Return the images of a finished file, which nothing may write to; ValueError if it is not as long as they are.

    Args:
        path: of a file of safetensors with one tensor, which begins right after the header.
        shape: of the images, as the header says.
    """
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
    if path.stat().st_size != 8 + length + int(np.prod(shape)):
        raise ValueError(f"{path} holds more or less than {shape} bytes")
    return _opened(path, shape, 8 + length)


def _opened(path: Path, shape: tuple[int, ...], start: int = _HEADER) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(np.memmap(path, np.uint8, "r", start, shape))

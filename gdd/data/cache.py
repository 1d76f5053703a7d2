"""Decoded images beside the files that they come from, so that those are decoded once."""

import hashlib
import logging
import os
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gdd.data.spec import MAX_PIXELS

logger = logging.getLogger(__name__)

FOLDER = ".gdd-cache"
VERSION = 3  # raise it when the same files would decode to other bytes


def path_of(
    place: Path, files: Iterable[str], rows: Tensor, size: tuple[int, int] | None, channels: int | None
) -> Path:
    """Return where the images of a dataset are kept, a name that changes with the files and with the options.

    Args:
        place: the folder of the dataset, or its file.
        files: those that hold the images; name, size and time of change count.
        rows: (N,) which of the files' images are meant.
        size: (H, W) that was asked for, or None.
        channels: the same.
    """
    folder = place if place.is_dir() else place.parent
    digest = hashlib.sha256(repr((VERSION, size, channels)).encode())
    inside = f"{folder}{os.sep}"
    for file in files:
        facts = os.stat(file)
        relative = os.fsencode(file.removeprefix(inside))  # os.path.relpath takes longer than to ask for the file
        digest.update(b"%s\0%d\0%d\n" % (relative, facts.st_size, facts.st_mtime_ns))
    digest.update(rows.numpy().data)
    return folder / FOLDER / f"{digest.hexdigest()[:16]}.safetensors"


def load(cache: Path, count: int, size: tuple[int, int] | None, channels: int | None) -> Tensor | None:
    """Return the cached images, or None if there are none or they are damaged; the cache may be a stranger's."""
    try:
        if not cache.is_file():
            return None
        with safe_open(cache, "pt") as stored:
            images_u8 = stored.get_tensor("images")
            checksum = stored.metadata()["crc32"]
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        logger.warning("ignoring the damaged cache %s: %s", cache, error)
        return None
    valid = images_u8.dtype == torch.uint8 and images_u8.ndim == 4 and len(images_u8) == count
    valid = valid and images_u8.shape[1] in ((1, 3) if channels is None else (channels,))
    valid = valid and size in (None, tuple(images_u8.shape[2:])) and 0 < images_u8[0].numel() <= 3 * MAX_PIXELS
    if not valid or checksum != checksum_of(images_u8):
        logger.warning("ignoring the damaged cache %s: its content does not match its checksum", cache)
        return None
    return images_u8


def save(cache: Path, images_u8: Tensor) -> None:
    """Write the cache whole; a place that cannot be written to is a warning."""
    # Several processes may fill the cache at once: each writes its own file and the last rename wins.
    unfinished = cache.with_suffix(f".{os.getpid()}.tmp")
    try:
        cache.parent.mkdir(exist_ok=True)
        save_file({"images": images_u8}, unfinished, {"crc32": checksum_of(images_u8)})
        os.replace(unfinished, cache)
    except (OSError, SafetensorError) as error:
        logger.warning("decoded images are not cached, %s cannot be written: %s", cache, error)
        with suppress(OSError):
            unfinished.unlink()


def checksum_of(images_u8: Tensor) -> str:
    return str(zlib.crc32(images_u8.numpy().data))

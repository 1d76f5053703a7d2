"""Image folders: one subfolder per class, decoded once and then read from a cache."""

import hashlib
import logging
import math
import os
import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gdd.config import ConfigError
from gdd.data.spec import MAX_PIXELS
from gdd.data.splits import RawDataset, Split, holdout, require_memory, to_array
from gdd.runtime.run import progress_bar

logger = logging.getLogger(__name__)

SUFFIXES = (".png", ".jpg", ".jpeg")
CACHE_FOLDER = ".gdd-cache"
CACHE_VERSION = 1  # raise it when the same files would decode to other bytes
# Pillow decodes outside Python's lock but opens files within it: on 32-pixel images several threads took up to 1.7
# times as long as one. Each thread holds one decoded image, so their number bounds the memory.
_LARGE = 128 * 128  # pixels of an image from which on several threads decode; a round number, not a measured one
_MOST_THREADS = 8
_PART = 8  # images that a thread gets at once; Ctrl-C waits for those that are begun


def open_folder(folder: Path, size: tuple[int, int] | None, channels: int | None) -> RawDataset:
    """Read `{train,test}/<class>/*.png|jpg|jpeg`, or `<class>/*` and hold out a fixed, stratified test part.

    Classes are sorted by name. Names that start with a dot are skipped. Without `channels`, images are
    greyscale if every train image is.

    Raises:
        ConfigError: an empty class, fewer than two classes, other classes in test than in train, images of
            several sizes without `size`, an image that cannot be read or is too large.
    """
    class_names, train_files, train_labels = _list_images(_train_folder(folder))
    if (folder / "test").is_dir():
        test_names, test_files, test_labels = _list_images(folder / "test")
        if test_names != class_names:
            differing = sorted(set(class_names) ^ set(test_names))
            raise ConfigError(f"train and test of {folder} hold different classes: {', '.join(differing)}")
    else:
        logger.warning("%s has no test folder; a fixed fifth of every class is held out as test", folder)
        kept, held_out = holdout(train_labels, class_names, folder)
        test_files, test_labels = [train_files[i] for i in held_out.tolist()], train_labels[held_out]
        train_files, train_labels = [train_files[i] for i in kept.tolist()], train_labels[kept]

    train_u8 = _read_images(folder, train_files, size, channels, unread=test_files)

    def read_test() -> Split:
        return Split(_read_images(folder, test_files, size, train_u8.shape[1]), test_labels)

    return RawDataset(class_names, Split(train_u8, train_labels), read_test)


def first_shape(folder: Path, size: tuple[int, int] | None, channels: int | None) -> tuple[tuple[int, int, int], int]:
    """Return (C, H, W) of a folder's first image, as `open_folder` would read it alone, and how many classes there are.

    Raises:
        ConfigError: fewer than two classes, or the first is empty or its first image cannot be read.
    """
    train_folder = _train_folder(folder)
    names = _class_names(train_folder)
    sizes, grey = _inspect(_files_of(train_folder / names[0])[:1])
    return (channels or (1 if grey else 3), *(size or next(iter(sizes)))), len(names)


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
        raise ConfigError(f"class folder {folder} holds no {', '.join(SUFFIXES)} file")
    return files


def _list_images(folder: Path) -> tuple[tuple[str, ...], list[str], Tensor]:
    names = _class_names(folder)
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        class_files = _files_of(folder / name)
        files += class_files
        labels += [label] * len(class_files)
    return tuple(names), files, torch.tensor(labels)


def _read_images(
    folder: Path,
    files: list[str],
    size: tuple[int, int] | None,
    channels: int | None,
    unread: Sequence[str] = (),
) -> Tensor:
    """Return (N, C, H, W) uint8 from the cache, or decode and fill it.

    The headers of `unread` are checked along with those of `files`: a test image of the wrong size should
    stop a run before training, not after.
    """
    key = _content_key(folder, files, size, channels)
    cache = folder / CACHE_FOLDER / f"{key}.safetensors"
    images_u8 = _load_cache(cache, len(files), size, channels)
    if images_u8 is None:
        sizes, grey = _inspect(files)
        if size is None:
            sizes.update(_inspect(unread)[0])
            if len(sizes) > 1:
                raise ConfigError(_several_sizes(folder, sizes))
        height, width = size or next(iter(sizes))
        shape = (channels or (1 if grey else 3), height, width)
        several = max(map(math.prod, sizes)) >= _LARGE
        images_u8 = _decode(files, shape, min(_MOST_THREADS, os.cpu_count() or 1) if several else 1)
        _save_cache(cache, images_u8)
    return images_u8


def _several_sizes(folder: Path, sizes: Counter[tuple[int, int]]) -> str:
    shown = [f"{height}x{width}" for (height, width), _ in sizes.most_common(4)]
    more = ", ..." if len(sizes) > len(shown) else ""
    return (
        f"{folder} holds images of {len(sizes)} sizes (height x width: {', '.join(shown)}{more}): set "
        "data.size to resize them all, e.g. --data.size '[32, 32]'"
    )


def _inspect(files: Iterable[str]) -> tuple[Counter[tuple[int, int]], bool]:
    """Return how often each (H, W) occurs and whether all images are greyscale, from the headers alone."""
    sizes: Counter[tuple[int, int]] = Counter()
    modes = set()
    for file in files:
        with _open_image(file) as image:
            sizes[image.height, image.width] += 1
            modes.add(image.mode)
    return sizes, modes <= {"1", "L", "LA"}


@contextmanager
def _open_image(file: str) -> Iterator[Image.Image]:
    """Open without decoding; an error of Pillow's, here or in the body, becomes one naming the file."""
    try:
        if not os.path.isfile(file):
            raise OSError("it is no regular file")  # a pipe would be waited for without end
        with Image.open(file, formats=("PNG", "JPEG")) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            if image.mode in ("I", "F") or image.mode.startswith("I;16"):
                raise ConfigError(f"{file} has pixel mode {image.mode}, expected 8 bits per channel")
            yield image
    except ConfigError:
        raise
    except Image.DecompressionBombError as error:
        raise ConfigError(f"{file} has more than {MAX_PIXELS} pixels (4096x4096)") from error
    except Exception as error:  # Pillow's parsers raise many types on damaged bytes
        raise ConfigError(f"{file} is not a readable PNG or JPEG image: {error}") from error


def _decode(files: list[str], shape: tuple[int, int, int], threads: int) -> Tensor:
    require_memory((len(files), *shape), "the images")
    images = np.empty((len(files), *shape), np.uint8)

    def decode(start: int) -> int:
        part = files[start : start + _PART]
        for index, file in enumerate(part, start):
            with _open_image(file) as image:
                images[index] = to_array(image, shape[1:], shape[0])
        return len(part)

    shown = sys.stdout.isatty() and os.environ.get("LOCAL_RANK", "0") == "0"
    if not shown:
        logger.info("decoding %d images, once", len(files))
    with progress_bar(shown) as bar, ThreadPoolExecutor(threads) as pool:
        task = bar.add_task("decoding images", total=len(files))
        # In the order of the files, so that of several bad ones the first is named; the parts after it are cancelled.
        for count in pool.map(decode, range(0, len(files), _PART)):
            bar.advance(task, count)
    return torch.from_numpy(images)


def _content_key(folder: Path, files: list[str], size: tuple[int, int] | None, channels: int | None) -> str:
    digest = hashlib.sha256(repr((CACHE_VERSION, size, channels)).encode())
    inside = f"{folder}{os.sep}"
    for file in files:
        facts = os.stat(file)
        relative = os.fsencode(file.removeprefix(inside))  # os.path.relpath takes longer than to ask for the file
        digest.update(b"%s\0%d\0%d\n" % (relative, facts.st_size, facts.st_mtime_ns))
    return digest.hexdigest()[:16]


def _load_cache(cache: Path, count: int, size: tuple[int, int] | None, channels: int | None) -> Tensor | None:
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
    if not valid or checksum != _checksum(images_u8):
        logger.warning("ignoring the damaged cache %s: its content does not match its checksum", cache)
        return None
    return images_u8


def _save_cache(cache: Path, images_u8: Tensor) -> None:
    # Several processes may fill the cache at once: each writes its own file and the last rename wins.
    unfinished = cache.with_suffix(f".{os.getpid()}.tmp")
    try:
        cache.parent.mkdir(exist_ok=True)
        save_file({"images": images_u8}, unfinished, {"crc32": _checksum(images_u8)})
        os.replace(unfinished, cache)
    except (OSError, SafetensorError) as error:
        logger.warning("decoded images are not cached, %s cannot be written: %s", cache, error)
        with suppress(OSError):
            unfinished.unlink()


def _checksum(images_u8: Tensor) -> str:
    return str(zlib.crc32(images_u8.numpy().data))

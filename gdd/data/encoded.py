"""Datasets of image files, wherever they lie: listed first, then decoded once and kept in a cache beside the files."""

import hashlib
import logging
import math
import os
import platform
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gdd.config import ConfigError
from gdd.data import mapped
from gdd.data.image_file import is_grey, open_image, pixels_of, size_of
from gdd.data.mapped import ImageFile, ImageRows, MappedImages, checksum, open_images
from gdd.data.spec import MAX_PIXELS
from gdd.data.splits import RawDataset, Split, holdout, require_memory
from gdd.runtime.run import progress_bar

logger = logging.getLogger(__name__)

# Pillow decodes outside Python's lock but opens files within it: on 32-pixel images several threads took up to 1.7
# times as long as one. Each thread holds one decoded image, so their number bounds the memory.
_LARGE = 128 * 128  # pixels of an image from which on several threads decode; a round number, not a measured one
_MOST_THREADS = 8
_MOST_PIXELS_AT_ONCE = 2**27  # of all threads' images, at up to 4 bytes each
_PART = 8  # images that a thread gets at once; Ctrl-C waits for those that are begun

CACHE_FOLDER = ".gdd-cache"
CACHE_VERSION = 3  # raise it when the same files would decode to other bytes


class Encoded(Protocol):
    """Image files in a fixed order, of a folder or within other files."""

    def name(self, index: int) -> str:
        """Return what an error's sentence calls an image."""

    def open(self, index: int) -> str | bytes:
        """Return the path of an image's own file, or its bytes."""

    def files(self, rows: Sequence[int]) -> Iterable[str]:
        """Return the files that hold these images."""


class EncodedPart(NamedTuple):
    """Labelled images that are not decoded yet."""

    images: Encoded
    rows: Tensor  # (N,) int64, which of them
    labels: Tensor  # (N,) int64

    def subset(self, indices: Tensor) -> "EncodedPart":
        return EncodedPart(self.images, self.rows[indices], self.labels[indices])


class Listing(NamedTuple):
    """What a dataset of image files holds."""

    place: Path  # the folder or file
    class_names: tuple[str, ...]
    train: EncodedPart
    test: EncodedPart | None  # none: it is carved out of train
    notes: tuple[str, ...] = ()  # sentences: what is there and not used, and how to use it


class Survey(NamedTuple):
    """What the headers of images say."""

    sizes: Counter[tuple[int, int]]  # how many images have this height and width
    grey: int  # images without colour
    broken: list[str]  # a sentence for each that cannot be opened


def read_listing(
    listing: Listing, size: tuple[int, int] | None, channels: int | None, broken: list[str] | None = None
) -> RawDataset:
    """Decode the images of a listing, or read them from the cache of an earlier call with the same options.

    Args:
        listing: of a reader.
        size: (H, W) to resize to; None needs images of one size.
        channels: 1 or 3 to convert to; None is grey if every train image is.
        broken: takes a sentence for each image that cannot be decoded, instead of an error for the first.

    Raises:
        ConfigError: a class without train image, or with too few to carve a test part out; images of several sizes
            without `size`; an image that cannot be read or is too large.
    """
    place, class_names, train, test, _ = listing
    counts = train.labels.bincount(minlength=len(class_names))
    if counts.min() == 0:
        raise ConfigError(f"class {class_names[int(counts.argmin())]!r} of {place} has no train image")
    if test is None:
        train_rows, test_rows = holdout(train.labels, class_names, place)
        train, test = train.subset(train_rows), train.subset(test_rows)
    test_cache = _cache_path(place, test, size, channels)
    # A test image that is damaged or of another size should stop a run before training, not after.
    tested = Counter() if test_cache.is_file() else _sound(survey(test), broken).sizes
    train_u8 = _read(place, train, size, channels, broken, tested)
    shape = (int(train_u8.shape[2]), int(train_u8.shape[3]))
    if size is None and {*tested} - {shape}:
        _one_size(place, Counter({shape: len(train_u8)}) + tested)

    def read_test() -> Split:
        return Split(_read(place, test, size, train_u8.shape[1], broken, Counter()), test.labels)

    return RawDataset(class_names, Split(train_u8, train.labels), read_test)


def first_shape(
    listing: Listing, size: tuple[int, int] | None, channels: int | None
) -> tuple[tuple[int, int, int], int]:
    """Return (C, H, W) of a listing's first image, as it would be read alone, and how many classes there are.

    Raises:
        ConfigError: the image cannot be read.
    """
    first = survey(listing.train.subset(torch.zeros(1, dtype=torch.int64)))
    if first.broken:
        raise ConfigError(first.broken[0])
    return (channels or (1 if first.grey else 3), *(size or next(iter(first.sizes)))), len(listing.class_names)


def survey(*parts: EncodedPart) -> Survey:
    """Read the header of every image."""
    sizes: Counter[tuple[int, int]] = Counter()
    grey, broken = 0, []
    for images, rows, _ in parts:
        for index in rows.tolist():
            try:
                with open_image(images.open(index), images.name(index)) as image:
                    sizes[size_of(image)] += 1
                    grey += is_grey(image)
            except ConfigError as error:
                broken.append(str(error))
    return Survey(sizes, grey, broken)


def _read(
    place: Path,
    part: EncodedPart,
    size: tuple[int, int] | None,
    channels: int | None,
    broken: list[str] | None,
    others: Counter[tuple[int, int]],
) -> ImageRows:
    """Return (N, C, H, W) uint8 from the cache, or decode and fill it; others have sizes that have to be the same.

    Images that are too many for the memory are decoded into the cache and stay there.
    """
    cache = _cache_path(place, part, size, channels)
    images_u8 = _load_cache(cache, len(part.rows), size, channels)
    if images_u8 is None:
        surveyed = _sound(survey(part), broken)
        size = size or _one_size(place, surveyed.sizes + others)
        shape = (channels or (1 if surveyed.grey == surveyed.sizes.total() else 3), *size)
        known, threads = len(broken or ()), _threads(max(map(math.prod, surveyed.sizes), default=0))
        if len(part.rows) * math.prod(shape) > mapped.MAPPED_BYTES:
            return _decoded_into(cache, part, shape, threads, broken)
        images_u8 = decode(part, shape, threads, broken)
        if len(broken or ()) == known:
            _save_cache(cache, images_u8)
    return images_u8


def _decoded_into(
    cache: Path, part: EncodedPart, shape: tuple[int, int, int], threads: int, broken: list[str] | None
) -> ImageRows:
    """Decode images into the cache; into the memory, with a warning, where the cache cannot be written.

    Images that are not all sound leave no cache, as those that fit into the memory.
    """
    unfinished, known = _unfinished(cache), len(broken or ())
    try:
        cache.parent.mkdir(exist_ok=True)
        _remove_abandoned(cache)
        file = ImageFile(unfinished, (len(part.rows), *shape))
        decode(part, shape, threads, broken, file.images)
        file.finish()
        images_u8 = MappedImages(cache, open_images(unfinished, file.shape), torch.arange(len(part.rows)))
        if len(broken or ()) == known:
            os.replace(unfinished, cache)
        return images_u8
    except OSError as error:
        logger.warning("decoded images stay in memory, for %s cannot be written: %s", cache, error)
        del (broken or [])[known:]
        return decode(part, shape, threads, broken)
    finally:
        with suppress(OSError):
            unfinished.unlink()


def _unfinished(cache: Path) -> Path:
    """Return the name under which this process writes a cache: several may at once, and the last rename wins."""
    # Containers on several machines often have the same process numbers.
    return cache.with_suffix(f".{platform.node()}-{os.getpid()}.tmp")


def _remove_abandoned(cache: Path) -> None:
    """Remove what processes of this machine that are no more have left of the same cache."""
    for path in cache.parent.glob(f"{cache.stem}.{platform.node()}-*.tmp"):
        number = path.name.removesuffix(".tmp").rpartition("-")[2]
        if number.isdecimal() and not Path(f"/proc/{number}").exists() and Path("/proc/self").exists():
            with suppress(OSError):
                path.unlink()


def _threads(most_pixels: int) -> int:
    """Return how many threads should decode images of up to so many pixels."""
    if most_pixels < _LARGE:
        return 1
    return max(1, min(_MOST_THREADS, os.cpu_count() or 1, _MOST_PIXELS_AT_ONCE // most_pixels))


def _sound(surveyed: Survey, broken: list[str] | None) -> Survey:
    """Refuse broken images where they are not gathered; those that are will fail again when they are decoded."""
    if surveyed.broken and broken is None:
        raise ConfigError(surveyed.broken[0])
    return surveyed


def _one_size(place: Path, sizes: Counter[tuple[int, int]]) -> tuple[int, int]:
    shown = [f"{height}x{width}" for (height, width), _ in sizes.most_common(4)]
    remedy = "set data.size to resize them all, e.g. --data.size '[32, 32]'"
    if len(sizes) > 1:
        more = ", ..." if len(sizes) > len(shown) else ""
        listed = f"{len(sizes)} sizes (height x width: {', '.join(shown)}{more})"
        raise ConfigError(f"{place} holds images of {listed}: {remedy}")
    if math.prod(next(iter(sizes))) > MAX_PIXELS:
        raise ConfigError(f"{place} holds images of {shown[0]} pixels, too large to learn from: {remedy}")
    return next(iter(sizes))


def decode(
    part: EncodedPart,
    shape: tuple[int, int, int],
    threads: int,
    broken: list[str] | None = None,
    into: np.ndarray | None = None,
) -> Tensor:
    """Return images (N, C, H, W) uint8, converted and resized to `shape`; so many threads decode at once.

    An image that cannot be decoded is left black and `broken` gets a sentence about it; without `broken` that is a
    ConfigError, as it is where the machine has no memory for all. Images go into the memory, or `into` an array of 0.
    """
    rows = part.rows.tolist()
    if into is None:
        require_memory((len(rows), *shape), "the images")
    images = np.zeros((len(rows), *shape), np.uint8) if into is None else into

    def read(start: int) -> tuple[int, list[str]]:
        chosen, failed = rows[start : start + _PART], []
        for place, index in enumerate(chosen, start):
            try:
                with open_image(part.images.open(index), part.images.name(index)) as image:
                    images[place] = pixels_of(image, shape)
            except ConfigError as error:
                if broken is None:
                    raise
                failed.append(str(error))
        return len(chosen), failed

    shown = sys.stdout.isatty() and os.environ.get("LOCAL_RANK", "0") == "0"
    if not shown:
        logger.info("decoding %d images, once", len(rows))
    with progress_bar(shown) as bar, ThreadPoolExecutor(threads) as pool:
        task = bar.add_task("decoding images", total=len(rows))
        # In the order of the images, so that of several bad ones the first is named; the parts after it are cancelled.
        for count, failed in pool.map(read, range(0, len(rows), _PART)):
            bar.advance(task, count)
            if broken is not None:
                broken += failed
    return torch.from_numpy(images)


def _cache_path(place: Path, part: EncodedPart, size: tuple[int, int] | None, channels: int | None) -> Path:
    """Return where the decoded images of a part are kept.

    The name changes with the rows, with the options, and with name, size and time of change of the files.
    """
    folder = place if place.is_dir() else place.parent
    digest = hashlib.sha256(repr((CACHE_VERSION, size, channels)).encode())
    inside = f"{folder}{os.sep}"
    for file in part.images.files(part.rows.tolist()):
        facts = os.stat(file)
        relative = os.fsencode(file.removeprefix(inside))  # os.path.relpath takes longer than to ask for the file
        digest.update(b"%s\0%d\0%d\n" % (relative, facts.st_size, facts.st_mtime_ns))
    digest.update(part.rows.numpy().data)
    return folder / CACHE_FOLDER / f"{digest.hexdigest()[:16]}.safetensors"


def _load_cache(cache: Path, count: int, size: tuple[int, int] | None, channels: int | None) -> ImageRows | None:
    """Return the cached images, or None if there are none or they are damaged; the cache may be a stranger's."""
    try:
        if not cache.is_file():
            return None
        with safe_open(cache, "np") as stored:  # of "pt" the whole file would count as memory of the process
            described, expected = stored.get_slice("images"), stored.metadata()["crc32"]
            shape, kind = tuple(described.get_shape()), described.get_dtype()
        valid = kind == "U8" and len(shape) == 4 and shape[0] == count
        valid = valid and shape[1] in ((1, 3) if channels is None else (channels,))
        valid = valid and size in (None, shape[2:]) and 0 < math.prod(shape[1:]) <= 3 * MAX_PIXELS
        images_u8 = MappedImages(cache, open_images(cache, shape), torch.arange(count)) if valid else None
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        logger.warning("ignoring the damaged cache %s: %s", cache, error)
        return None
    if images_u8 is None or expected != checksum(images_u8):
        logger.warning("ignoring the damaged cache %s: its content does not match its checksum", cache)
        return None
    return images_u8.subset(images_u8.rows)


def _save_cache(cache: Path, images_u8: Tensor) -> None:
    """Write the cache whole; a place that cannot be written to is a warning."""
    unfinished = _unfinished(cache)
    try:
        cache.parent.mkdir(exist_ok=True)
        save_file({"images": images_u8}, unfinished, {"crc32": checksum(images_u8)})
        os.replace(unfinished, cache)
    except (OSError, SafetensorError) as error:
        logger.warning("decoded images are not cached, %s cannot be written: %s", cache, error)
        with suppress(OSError):
            unfinished.unlink()

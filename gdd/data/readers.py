"""Open a dataset by name: built in, public, or the user's own."""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from gdd import rng
from gdd.config import ConfigError
from gdd.data import encoded
from gdd.data.arrays import open_digits, open_npz, open_torchvision
from gdd.data.arrow import list_arrow
from gdd.data.encoded import Listing
from gdd.data.folder import list_folder
from gdd.data.mapped import ImageRows, parts_of
from gdd.data.places import TINY_IMAGENET, DataKind, locate, namesake
from gdd.data.shards import list_shards
from gdd.data.spec import KNOWN, DatasetSpec, Known
from gdd.data.splits import RawDataset, Split, require_two_each, stratified_split

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dataset:
    """One opened dataset, split for an experiment."""

    spec: DatasetSpec  # facts that do not depend on the seed
    train: Split  # the train part without the validation part
    val: Split  # a stratified part carved out of train; every selection is made on it
    read_test: Callable[[], Split]  # see `test`

    def test(self) -> Split:
        """Read the test part, which evaluation does once, at the end, and an audit may.

        Nothing else sees it: of arrays it is read once before, to be refused at the start if it does not fit.
        """
        split = self.read_test()
        _check(split, self.spec.class_names, f"test part of {self.spec.name}")
        if split.images_u8.shape[1:] != self.spec.shape:
            raise ConfigError(
                f"test images of {self.spec.name} have shape {tuple(split.images_u8.shape[1:])}, "
                f"train images have {self.spec.shape}: set data.size to resize them all, "
                "e.g. --data.size '[32, 32]'"
            )
        return split

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that change with any pixel or label of train and val, and with their division."""
        digest = hashlib.sha256()
        for images_u8, labels in (self.train, self.val):
            for shape, parts in ((images_u8.shape, parts_of(images_u8)), (labels.shape, iter([labels]))):
                digest.update(repr(tuple(shape)).encode())
                for part in parts:
                    digest.update(part.numpy().data)
        return digest.hexdigest()[:16]


def open_dataset(
    name: str,
    root: Path | str = "data",
    *,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    val_fraction: float = 0.1,
    seed: int = 0,
    download: bool = False,
    label: str | None = None,
) -> Dataset:
    """Read a dataset's train part and carve a validation part out of it.

    Public datasets carry the field's constants. For digits and a user's own data, mean and std are those of
    the train part before validation is carved out, so they are the same for every seed, and mirroring is
    taken to change the class.

    Args:
        name: one of `gdd.data.places.NAMES`, an existing folder of images or of shards, Parquet or Arrow files, or
            a file whose name ends in one of `gdd.data.places.CONTAINERS`.
        root: where torchvision's datasets lie (cifar10 may also be the folder cifar10/{train,test} there),
            or the image folder itself if `name` is "folder".
        size: (H, W) in pixels to resize to; None keeps the stored size, or 16x16 for digits.
        channels: 1 or 3 to convert to; None keeps what is stored.
        val_fraction: of every class, in [0, 0.5]; at least one image of each unless 0.
        seed: decides which images validate. A test part carved out of train does not depend on it.
        download: fetch a missing torchvision dataset.
        label: the column of labels, of Arrow and Parquet files and of tables beside images that have several.

    Raises:
        ConfigError: an unknown name, missing or damaged data, or data that cannot be split or shaped so.
    """
    if size is not None and not (len(size) == 2 and all(1 <= side <= 4096 for side in size)):
        raise ConfigError(f"data.size is {size}, expected [height, width], each between 1 and 4096 pixels")
    if channels not in (None, 1, 3):
        raise ConfigError(f"data.channels is {channels}, expected 1 or 3")
    if not 0 <= val_fraction <= 0.5:
        raise ConfigError(f"data.val_fraction is {val_fraction}, expected a number in [0, 0.5]")

    kind, place = locate(name, Path(root), download)
    same = namesake(name, Path(root))
    if same is not None:
        logger.warning(same)
    title, raw = _read(kind, place, name, size, channels, label)
    dataset = divided(name, title, raw, val_fraction, seed)
    if kind == "npz":
        dataset.test()  # an array's type does not tell its range: what is wrong with it is said before training
    return dataset


def divided(name: str, title: str, raw: RawDataset, val_fraction: float, seed: int) -> Dataset:
    """Carve the validation part out of what a reader returned; the arguments are those of `open_dataset`."""
    _check(raw.train, raw.class_names, f"train part of {title}")
    if val_fraction > 0:
        require_two_each(raw.train.labels, raw.class_names, title)
    train, val = stratified_split(raw.train.labels, val_fraction, seed, rng.SPLIT_VALIDATION)
    return Dataset(
        spec=_spec(title, raw, KNOWN.get(name)),
        train=raw.train.subset(train),
        val=raw.train.subset(val),
        read_test=raw.read_test,
    )


def _read(
    kind: DataKind, place: Path, name: str, size: tuple[int, int] | None, channels: int | None, label: str | None
) -> tuple[str, RawDataset]:
    """Return the name that the spec carries, and the data."""
    if kind == "digits":
        return name, open_digits(size, channels)
    if kind == "torchvision":
        return name, open_torchvision(name, place, size, channels)
    if kind == "npz":
        return place.stem, open_npz(place, size, channels)
    listing = list_images(kind, place, label)
    for note in listing.notes:
        logger.warning(note)
    if listing.test is None:
        logger.warning("%s has no test part; a fixed fifth of every class is held out as test", place)
    return title_of(name, place), encoded.read_listing(listing, size, channels)


def title_of(name: str, place: Path) -> str:
    """Return what a dataset of image files is called: by its folder or file, wherever that lies."""
    whole = place.resolve()
    return name if name in KNOWN else whole.stem if whole.is_file() else whole.name


def list_images(kind: DataKind, place: Path, label: str | None = None) -> Listing:
    """List a dataset of image files that `locate` has found; nothing is decoded.

    Of Tiny-ImageNet the validation part is the test part, as everywhere in the field: nobody has its test labels.
    """
    if kind == "shards":
        return list_shards(place)
    if kind == "arrow":
        return list_arrow(place, label)
    return list_folder(place, label, test="val" if kind == TINY_IMAGENET else None)


def _check(split: Split, class_names: tuple[str, ...], what: str) -> None:
    images_u8, labels = split
    if len(class_names) < 2:
        raise ConfigError(f"the {what} holds one class, expected at least 2")
    if len(images_u8) != len(labels):
        raise ConfigError(f"the {what} holds {len(images_u8)} images but {len(labels)} labels")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(class_names):
        raise ConfigError(f"the {what} has labels {low} to {high}, expected 0 to {len(class_names) - 1}")


def _spec(title: str, raw: RawDataset, known: Known | None) -> DatasetSpec:
    _, channels, height, width = raw.train.images_u8.shape
    if known is not None and len(known.mean) == channels:
        mean, std = known.mean, known.std
    else:
        mean, std = statistics(raw.train.images_u8)
    return DatasetSpec(
        title, channels, height, width, raw.class_names, mean, std, flip=known is not None and known.flip
    )


def statistics(images_u8: ImageRows) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and std per channel of pixels in [0, 1], exact to the 4 decimals they are rounded to."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    counts = torch.zeros(images_u8.shape[1], 256, dtype=torch.int64)
    for part in parts_of(images_u8):
        for count, channel in zip(counts, part.unbind(1), strict=True):
            count += channel.reshape(-1).bincount(minlength=256)
    for count in counts:
        share = count.double()
        share /= share.sum()
        mean = (share * levels).sum()
        means.append(round(mean.item(), 4))
        # A constant channel would divide by 0; one grey level is the least difference that data can show.
        stds.append(round(max((share * (levels - mean) ** 2).sum().sqrt().item(), 1 / 255), 4))
    return tuple(means), tuple(stds)

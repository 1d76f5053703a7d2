"""Sets without a word about themselves, as `gdd export` writes them: a folder of images by class, or an `.npz` file."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from gdd.config import ConfigError
from gdd.data.arrays import npz_parts
from gdd.data.encoded import decode, survey
from gdd.data.folder import list_folder
from gdd.data.readers import statistics
from gdd.data.spec import DatasetSpec
from gdd.data.splits import Split
from gdd.formats.export import folder_names
from gdd.sampling.set_file import SyntheticSet

_FORMAT = "plain"  # in the provenance


def is_plain(path: Path) -> bool:
    """Tell whether a path may be such a set: by its name, or by folders that are no stages of a run."""
    if not path.is_dir():
        return path.suffix == ".npz"
    with os.scandir(path) as entries:
        folders = [entry.path for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    return bool(folders) and not any(os.path.exists(f"{folder}/config.json") for folder in folders)


def load(path: Path) -> SyntheticSet:
    """Read the images of the train part; what they stand for is not known yet, see `of_dataset`.

    Raises:
        ConfigError: they are missing or damaged, of several sizes, or not as many of each class.
    """
    if path.is_dir():
        names, (images_u8, labels) = _read_folder(path)
    else:
        (images_u8, labels), names, _ = npz_parts(path)
    counts = labels.bincount(minlength=len(names)).tolist()
    if min(counts) != max(counts):
        least, most = counts.index(min(counts)), counts.index(max(counts))
        raise ConfigError(
            f"{path} has {min(counts)} images of class {names[least]!r} but {max(counts)} of {names[most]!r}, expected "
            "the same number of each"
        )
    (_, channels, height, width), (mean, std) = images_u8.shape, statistics(images_u8)
    spec = DatasetSpec(path.resolve().stem, channels, height, width, names, mean, std, flip=False)
    return SyntheticSet(images_u8, labels, spec, counts[0], {"method": None, "imported": path.name, "format": _FORMAT})


def _read_folder(path: Path) -> tuple[tuple[str, ...], Split]:
    listing = list_folder(path)
    sizes, grey, broken = survey(listing.train)
    if broken:
        raise ConfigError(broken[0])
    if len(sizes) > 1:
        raise ConfigError(f"{path} holds images of {len(sizes)} sizes, expected one, that of the real images")
    (size,) = sizes
    shape = (1 if grey == sizes.total() else 3, *size)
    return listing.class_names, Split(decode(listing.train, shape, threads=1), listing.train.labels)


def is_unnamed(provenance: dict[str, Any]) -> bool:
    """Tell whether a set is one that `load` has read, so that its dataset's name is only that of its file."""
    return provenance.get("format") == _FORMAT


def of_dataset(synthetic: SyntheticSet, spec: DatasetSpec) -> SyntheticSet:
    """Return a set that `load` has read as one of the dataset, whose classes it finds by their names.

    These are the dataset's own, what `gdd export` makes folder names of them, or the numbers of the labels; where they
    are none of that, or the images have another shape, the set is returned as it is.
    """
    if not is_unnamed(synthetic.provenance) or synthetic.spec.shape != spec.shape:
        return synthetic
    numbers = [str(label) for label in range(spec.num_classes)]
    for names in (spec.class_names, folder_names(spec.class_names), numbers):
        if sorted(names) == sorted(synthetic.spec.class_names):
            numbers_by_label = synthetic.labels.new_tensor([names.index(name) for name in synthetic.spec.class_names])
            labels = numbers_by_label[synthetic.labels]
            order = labels.argsort(stable=True)
            return replace(synthetic, images=synthetic.images[order], labels=labels[order], spec=spec)
    return synthetic

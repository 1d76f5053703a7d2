"""Images in files that say nothing else of them, written and read: folders of PNGs, .npz, a picture, a Parquet file."""

import io
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange, repeat
from PIL import Image
from torch import Tensor

from gdd.config import ConfigError
from gdd.data.arrays import npz_parts
from gdd.data.arrow import METADATA, USUAL
from gdd.data.encoded import Listing, decode, survey
from gdd.data.mapped import ImageRows
from gdd.data.pixels import unit_to_u8
from gdd.data.places import HUB_FOLDER, locate, require_hf
from gdd.data.readers import list_images, statistics
from gdd.data.spec import DatasetSpec
from gdd.data.splits import Split
from gdd.runtime.checkpoint import creating, write_atomically
from gdd.sampling.curate import MadeElsewhere
from gdd.sampling.set_file import SyntheticSet, check_matches

PLAIN = "plain"  # their format, in the provenance


def is_plain(path: Path) -> bool:
    """Tell whether a path may be such a set: by its name, or by folders that are no stages of a run."""
    if not path.is_dir():
        return path.suffix == ".npz"
    with os.scandir(path) as entries:
        folders = [entry.path for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    return bool(folders) and not any(os.path.exists(f"{folder}/config.json") for folder in folders)


def read_samples(path: Path) -> MadeElsewhere:
    """Read the images of the train part, in any layout of a user's own dataset; what they stand for is not known yet.

    Raises:
        ConfigError: they are missing or damaged, or of several sizes.
    """
    kind, place = locate(str(path.resolve()), path)
    if kind == "npz":
        (images_u8, labels), names, _ = npz_parts(path)
    else:
        names, (images_u8, labels) = _decoded(list_images(kind, place), path)
    spec = own_spec(path, names, images_u8)
    return MadeElsewhere(images_u8[:], labels, spec, {"method": None, "imported": path.name, "format": PLAIN})


def own_spec(path: Path, class_names: tuple[str, ...], images_u8: ImageRows) -> DatasetSpec:
    """Return what images of a file say of their dataset themselves; its name is that of the file."""
    (_, channels, height, width), (mean, std) = images_u8.shape, statistics(images_u8)
    return DatasetSpec(path.resolve().stem, channels, height, width, class_names, mean, std, flip=False)


def load(path: Path) -> SyntheticSet:
    """Read the same as a set, see `of_dataset`.

    Raises:
        ConfigError: as of `read_samples`, or there are not as many of each class.
    """
    made = read_samples(path)
    names = made.spec.class_names
    counts = made.labels.bincount(minlength=len(names)).tolist()
    if min(counts) != max(counts):
        least, most = counts.index(min(counts)), counts.index(max(counts))
        raise ConfigError(
            f"{path} has {min(counts)} images of class {names[least]!r} but {max(counts)} of {names[most]!r}, expected "
            "the same number of each"
        )
    return SyntheticSet(made.images_u8, made.labels, made.spec, counts[0], made.provenance)


def _decoded(listing: Listing, path: Path) -> tuple[tuple[str, ...], Split]:
    sizes, grey, broken = survey(listing.train)
    if broken:
        raise ConfigError(broken[0])
    if len(sizes) > 1:
        raise ConfigError(f"{path} holds images of {len(sizes)} sizes, expected one, that of the real images")
    (size,) = sizes
    shape = (1 if grey == sizes.total() else 3, *size)
    return listing.class_names, Split(decode(listing.train, shape, threads=1), listing.train.labels)


def samples_of(made: MadeElsewhere, spec: DatasetSpec, what: object) -> MadeElsewhere:
    """Return samples that `read_samples` has read as those of the dataset, as `of_dataset` finds them."""
    numbers = _numbers_of(made.spec.class_names, spec)
    check_matches(made.spec if numbers is None else replace(made.spec, class_names=spec.class_names), spec, what)
    labels = made.labels.new_tensor(numbers)[made.labels]
    provenance = {key: value for key, value in made.provenance.items() if key != "format"}
    return replace(made, labels=labels, spec=spec, provenance=provenance)


def is_unnamed(provenance: dict[str, Any]) -> bool:
    """Tell whether a set is one that `load` has read, so that its dataset's name is only that of its file."""
    return provenance.get("format") == PLAIN


def of_dataset(synthetic: SyntheticSet, spec: DatasetSpec) -> SyntheticSet:
    """Return a set that `load` has read as one of the dataset, whose classes it finds by their names.

    These are the dataset's own, what `gdd export` makes folder names of them, or the numbers of the labels; where they
    are none of that, or the images have another shape, the set is returned as it is.
    """
    if not is_unnamed(synthetic.provenance) or synthetic.spec.shape != spec.shape:
        return synthetic
    numbers = _numbers_of(synthetic.spec.class_names, spec)
    if numbers is None:
        return synthetic
    labels = synthetic.labels.new_tensor(numbers)[synthetic.labels]
    order = labels.argsort(stable=True)
    return replace(synthetic, images=synthetic.images[order], labels=labels[order], spec=spec)


def _numbers_of(class_names: Sequence[str], spec: DatasetSpec) -> list[int] | None:
    """Return which of the dataset's classes each one is; None if they are others."""
    numbers = [str(label) for label in range(spec.num_classes)]
    for names in (spec.class_names, folder_names(spec.class_names), numbers):
        if sorted(names) == sorted(class_names):
            return [names.index(name) for name in class_names]
    return None


# Level 6 takes 2 % off the size of CIFAR-10's images and 3 % off that of 224 pixels, for 1.1 and 2 times the time.
_COMPRESS_LEVEL = 1
_LARGE = 64  # height in pixels of images that a picture shows as they are
_UNFINISHED = ".unfinished.tmp"
# Of a dataset of Hugging Face: its file, its column of soft labels, and the rows of a group, which are decoded at once.
PARQUET = f"{HUB_FOLDER}/train-00000-of-00001.parquet"
SOFT_LABEL = "soft_label"
_GROUP = 1000


def images_u8(synthetic: SyntheticSet) -> Tensor:
    """Return the set's images as uint8; optimised pixels outside [0, 1] are clipped for showing."""
    return synthetic.images if synthetic.images.dtype == torch.uint8 else unit_to_u8(synthetic.images)


def to_arrays(images_u8: Tensor) -> np.ndarray:
    """Return images (N, C, H, W) as Pillow takes them: (N, H, W) if grey, else (N, H, W, 3)."""
    arrays = rearrange(images_u8, "n c h w -> n h w c").contiguous().numpy()
    return arrays[..., 0] if arrays.shape[3] == 1 else arrays


def png_files(images_u8: Tensor) -> Iterator[bytes]:
    """Yield images (N, C, H, W) uint8 as PNG files."""
    for pixels in to_arrays(images_u8):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, format="PNG", compress_level=_COMPRESS_LEVEL)
        yield file.getvalue()


@contextmanager
def filling(folder: Path) -> Iterator[Path]:
    """Give a place within a new or empty folder, whose content becomes the folder's when the block ends.

    If the block fails, for a full disk or Ctrl-C, the folder is as before; what a killed process left is removed.

    Raises:
        ConfigError: the folder holds anything else, or cannot be written.
    """
    unfinished = folder / _UNFINISHED
    if folder.exists() and (not folder.is_dir() or any(path != unfinished for path in folder.iterdir())):
        raise ConfigError(f"{folder} is not an empty folder; name a new one")
    place, is_new = unfinished / folder.resolve().name, not folder.exists()  # a card calls it by its name
    with creating(folder):
        try:
            shutil.rmtree(unfinished, ignore_errors=True)
            place.mkdir(parents=True)
            yield place
            for path in [*place.iterdir()]:
                path.rename(folder / path.name)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
            if is_new and not any(folder.iterdir()):
                folder.rmdir()


def folder_names(class_names: tuple[str, ...]) -> list[str]:
    """Return a folder name per class that stays inside its parent; their alphabetical order is that of the labels."""
    names = [re.sub(r"[/\\\0]", "_", name).lstrip(".") or "_" for name in class_names]
    if names != sorted(set(names)):
        digits = len(str(len(names) - 1))
        names = [f"{index:0{digits}d}_{name}" for index, name in enumerate(names)]
    return names


def export_folder(synthetic: SyntheticSet, folder: Path) -> None:
    """Write `folder/train/<class>/<number>.png`, which gdd and torchvision's ImageFolder read, into an empty folder."""
    names = folder_names(synthetic.spec.class_names)
    counts = [0] * len(names)
    for name in names:
        (folder / "train" / name).mkdir(parents=True)
    for pixels, label in zip(to_arrays(images_u8(synthetic)), synthetic.labels.tolist(), strict=True):
        Image.fromarray(pixels).save(folder / "train" / names[label] / f"{counts[label]:06d}.png")
        counts[label] += 1


def export_npz(synthetic: SyntheticSet, path: Path) -> None:
    """Write x_train (N, H, W, C) uint8, y_train (N,) and class_names."""
    arrays: dict[str, Any] = {
        "x_train": rearrange(images_u8(synthetic), "n c h w -> n h w c").numpy(),
        "y_train": synthetic.labels.numpy(),
        "class_names": np.array(synthetic.spec.class_names),
    }

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)

    with creating(path):
        write_atomically(path, write)


def preview(synthetic: SyntheticSet, path: Path, per_class: int = 10) -> None:
    """Write a PNG with a row per class of its first `per_class` images; a pixel of small ones is two wide."""
    from torchvision.utils import make_grid  # which takes a second to import

    images = images_u8(synthetic)
    rows = [images[synthetic.labels == label][:per_class] for label in range(synthetic.spec.num_classes)]
    grid = make_grid(torch.cat(rows), nrow=len(rows[0]), padding=1, pad_value=255)
    scale = 2 if synthetic.spec.height < _LARGE else 1
    pixels = repeat(grid, "c h w -> (h y) (w x) c", y=scale, x=scale).numpy()
    with creating(path):
        write_atomically(path, lambda temporary: Image.fromarray(pixels).save(temporary, format="PNG"))


def export_hugging_face(synthetic: SyntheticSet, folder: Path) -> None:
    """Write the train part into an empty folder: columns image (PNG), label, and any soft_label (K float32).

    The features of the columns stand in the file's schema, as `datasets` itself writes them, so that it finds images
    and classes without a card; `gdd.data.arrow` reads the same layout.

    Raises:
        ConfigError: pyarrow is missing, or the folder cannot be written.
    """
    require_hf("pyarrow", "a dataset of Hugging Face's datasets needs pyarrow to be written")
    import pyarrow as pa
    from pyarrow import parquet

    spec, soft = synthetic.spec, synthetic.soft_labels
    image, label = USUAL["Image"], USUAL["ClassLabel"]
    image_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    files = [{"bytes": content, "path": None} for content in png_files(images_u8(synthetic))]
    fields = [pa.field(image, image_type), pa.field(label, pa.int64())]
    columns = [pa.array(files, image_type), pa.array(synthetic.labels.numpy())]
    features: dict[str, Any] = {
        image: {"_type": "Image"},
        label: {"names": list(spec.class_names), "_type": "ClassLabel"},
    }
    if soft is not None:
        kind = pa.list_(pa.float32(), spec.num_classes)
        fields.append(pa.field(SOFT_LABEL, kind))
        values = pa.array(soft.float().flatten().numpy())
        columns.append(pa.FixedSizeListArray.from_arrays(values, type=kind))
        # Versions of datasets from 4 on write List, and read the older name as well.
        number = {"dtype": "float32", "_type": "Value"}
        features[SOFT_LABEL] = {"feature": number, "length": spec.num_classes, "_type": "Sequence"}
    schema = pa.schema(fields, {METADATA: json.dumps({"info": {"features": features}}).encode()})
    table = pa.table(columns, schema=schema)

    path = folder / PARQUET
    with creating(path):
        write_atomically(path, lambda temporary: parquet.write_table(table, temporary, row_group_size=_GROUP))

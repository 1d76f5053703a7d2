"""Where datasets lie, found without torch and without reading them, so that a missing one is refused at once."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

from gdd.config import ConfigError, nearest
from gdd.data.parts import folders, is_hidden, part_folders

Kind = Literal["digits", "torchvision", "npz", "folder", "arrow", "shards"]
# Files that hold many images each, by their names' ends.
CONTAINERS: dict[str, Kind] = {".npz": "npz", ".arrow": "arrow", ".parquet": "arrow", ".tar": "shards"}
# What `datasets.DatasetDict.save_to_disk` writes beside the folders of its parts.
DATASET_DICT = "dataset_dict.json"
# Where a dataset on the Hub has its Parquet files, below its card.
HUB_FOLDER = "data"


class Files(NamedTuple):
    folder: str  # below the root
    names: tuple[str, ...]


_IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_CIFAR10_FILES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta")
# torchvision's datasets, where it looks for them.
TORCHVISION = {
    "mnist": Files("MNIST/raw", _IDX_FILES),
    "fashion_mnist": Files("FashionMNIST/raw", _IDX_FILES),
    "cifar10": Files("cifar-10-batches-py", _CIFAR10_FILES),
    "cifar100": Files("cifar-100-python", ("train", "test", "meta")),
    "svhn": Files("", ("train_32x32.mat", "test_32x32.mat")),
}
NAMES = ("digits", *TORCHVISION, "folder")


def missing_file(name: str, root: Path) -> Path | None:
    """Return a file that one of torchvision's datasets lacks below `root`, or None."""
    folder, names = TORCHVISION[name]
    return next((path for path in (root / folder / file for file in names) if not path.is_file()), None)


def locate(name: str, root: Path, download: bool = False) -> tuple[Kind, Path]:
    """Return how a dataset is read, and its folder or file; of torchvision's, `root`.

    Args:
        name: as in `gdd.data.readers.open_dataset`, like the others.
        root: below which the named datasets lie.
        download: whether a dataset of torchvision may be missing.

    Raises:
        ConfigError: the name is unknown or not UTF-8, or nothing is there.
    """
    for text in (name, str(root)):
        require_utf8(text, "the dataset's path")
    if name == "digits":
        return "digits", root
    if name == "cifar10" and (root / name / "train").is_dir():
        return "folder", root / name
    if name in TORCHVISION:
        missing = missing_file(name, root)
        if missing is not None and not download:
            same = namesake(name, root)
            raise ConfigError(
                f"{name} was not found: looked for {missing}; add --data.download true to download it, "
                f"or set --data.root to the folder that holds it{'' if same is None else f'; {same}'}"
            )
        return "torchvision", root
    path = root if name == "folder" else Path(name)
    kind = CONTAINERS.get(path.suffix.lower())
    if kind is not None and name != "folder":
        if not path.exists():
            raise ConfigError(f"{name} was not found; set --data.name to an existing {path.suffix} file")
        if path.is_file():
            return _readable(kind, path)
    if name and path.is_dir():  # Path("") is the folder one stands in
        return _readable(_kind_of_folder(path), path)
    if name == "folder":
        raise ConfigError(f"the image folder was not found: looked for {root}; set --data.root to it")
    hint = nearest(name, NAMES)
    raise ConfigError(
        f"data.name is {name!r}, expected {', '.join(NAMES)}, an existing folder, or a file that ends in "
        f"{', '.join(CONTAINERS)}{hint}"
    )


def require_utf8(text: str, what: str) -> None:
    """Refuse a name that other files could not hold: those of gdd are UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(text).decode("utf-8", "backslashreplace")
        raise ConfigError(f"{what} {shown} is not UTF-8: rename it") from None


def namesake(name: str, root: Path) -> str | None:
    """Return what to know of a folder here that is called like a known dataset, which the name is taken for."""
    if name not in NAMES or name == "folder" or not Path(name).is_dir():
        return None
    if (root / name).is_dir() and Path(name).samefile(root / name):
        return None
    return f"{name} is the name of a known dataset and a folder here: write ./{name} for the folder"


def hub_folder(place: Path) -> Path:
    """Return where a clone of a dataset of the Hub has its Parquet files: `data`, or a folder of any name.

    Raises:
        ConfigError: it has several datasets.
    """
    if not place.is_dir() or any(place.glob("*.parquet")) or part_folders(place) is not None:
        return place
    found = [folder for folder in folders(place) if any(folder.glob("*.parquet"))]
    if len(found) > 1:
        listed = ", ".join(str(folder) for folder in found[:5])
        raise ConfigError(f"{place} holds {len(found)} datasets of Parquet files: name one of {listed}")
    return found[0] if found else place


def _kind_of_folder(folder: Path) -> Kind:
    """Return what a folder holds: classes of images, unless there are none but files of many images."""
    if (folder / DATASET_DICT).is_file() or hub_folder(folder) != folder:
        return "arrow"
    parts = part_folders(folder)
    part = folder if parts is None else parts.train
    if folders(part):
        return "folder"
    kinds = {CONTAINERS.get(path.suffix.lower()) for path in part.iterdir() if not is_hidden(path.name)}
    return next((kind for kind in ("arrow", "shards") if kind in kinds), "folder")


def _readable(kind: Kind, path: Path) -> tuple[Kind, Path]:
    if kind == "arrow":
        require_pyarrow(f"{path} needs pyarrow to be read")
    return kind, path


def require_pyarrow(sentence: str) -> None:
    """Refuse, with a sentence that says what needs it, where pyarrow is not installed."""
    if find_spec("pyarrow") is None:
        raise ConfigError(f"{sentence}: pip install 'gdd[hf]'")

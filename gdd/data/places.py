"""Where datasets lie, found without torch and without reading them, so that a missing one is refused at once."""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

from gdd.config import ConfigError, nearest

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
        ConfigError: the name is unknown, or nothing is there.
    """
    if name == "digits":
        return "digits", root
    if name == "cifar10" and (root / name / "train").is_dir():
        return "folder", root / name
    if name in TORCHVISION:
        missing = missing_file(name, root)
        if missing is not None and not download:
            raise ConfigError(
                f"{name} was not found: looked for {missing}; add --data.download true to download it, "
                "or set --data.root to the folder that holds it"
            )
        return "torchvision", root
    path = root if name == "folder" else Path(name)
    if path.suffix in CONTAINERS and name != "folder":
        if not path.exists():
            raise ConfigError(f"{name} was not found; set --data.name to an existing {path.suffix} file")
        if path.is_file():
            return _readable(CONTAINERS[path.suffix], path)
    if name and path.is_dir():  # Path("") is the folder one stands in
        return _readable(_kind_of_folder(path), path)
    if name == "folder":
        raise ConfigError(f"the image folder was not found: looked for {root}; set --data.root to it")
    hint = nearest(name, NAMES)
    raise ConfigError(
        f"data.name is {name!r}, expected {', '.join(NAMES)}, an existing folder, or a file that ends in "
        f"{', '.join(CONTAINERS)}{hint}"
    )


def part_files(place: Path, ends: tuple[str, ...]) -> tuple[list[Path], list[Path] | None]:
    """Return the files that hold a dataset's train part, and those of its test part if it has one.

    These are the files of the folders `train` and `test`, or those with that word in their names, such as
    `train-00000-of-00001.parquet`; without such names, all are of the train part, and so is a file on its own. A
    dataset of the Hub has them in its folder `data`.

    Args:
        place: the folder, or the file.
        ends: of the files' names.

    Raises:
        ConfigError: there is a test part, or another one, but no train part.
    """
    if place.is_file():
        return [place], None
    if _is_of_hub(place):
        place = place / HUB_FOLDER
    missing = f"{place} holds no train part: no {' or '.join(ends)} file of that name or in a folder train"
    if (place / "train").is_dir():
        train, test = (_files(place / part, ends) if (place / part).is_dir() else None for part in ("train", "test"))
        if not train:
            raise ConfigError(missing)
        return train, test
    files = _files(place, ends)
    named = {part: [path for path in files if part in re.split(r"[^a-z0-9]", path.name)] for part in ("train", "test")}
    if named["train"]:
        return named["train"], named["test"] or None
    if named["test"] or not files:
        raise ConfigError(missing)
    return files, None


def _files(folder: Path, ends: tuple[str, ...]) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in ends and not path.name.startswith("."))


def _is_of_hub(folder: Path) -> bool:
    return any((folder / HUB_FOLDER).glob("*.parquet"))


def _kind_of_folder(folder: Path) -> Kind:
    """Return what a folder holds: classes of images, unless there are none but files of many images."""
    if (folder / DATASET_DICT).is_file() or _is_of_hub(folder):
        return "arrow"
    part = folder / "train" if (folder / "train").is_dir() else folder
    entries = [path for path in part.iterdir() if not path.name.startswith(".")]
    if any(path.is_dir() for path in entries):
        return "folder"
    kinds = {CONTAINERS.get(path.suffix) for path in entries if path.suffix != ".npz"}
    return next((kind for kind in ("arrow", "shards") if kind in kinds), "folder")


def _readable(kind: Kind, path: Path) -> tuple[Kind, Path]:
    if kind == "arrow":
        require_pyarrow(f"{path} needs pyarrow to be read")
    return kind, path


def require_pyarrow(sentence: str) -> None:
    """Refuse, with a sentence that says what needs it, where pyarrow is not installed."""
    if find_spec("pyarrow") is None:
        raise ConfigError(f"{sentence}: pip install 'gdd[hf]'")

"""Where datasets lie and which part of one a file or folder is, told by names; without torch and without reading them.

So a dataset that is missing is refused at once. Whoever names files has a way of it: `train`, `Training`,
`test0000.tar`, `val2017`, `held-out`. Files whose names tell no part are not trained on beside others whose names do:
they are left out, and `note` tells of them.
"""

import os
import re
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

from gdd.config import ConfigError, did_you_mean

DataKind = Literal["digits", "torchvision", "npz", "folder", "tiny_imagenet", "arrow", "shards"]
LISTED: tuple[DataKind, ...] = ("folder", "tiny_imagenet", "arrow", "shards")  # of image files that are encoded
# Files that hold many images each, by their names' ends.
CONTAINERS: dict[str, DataKind] = {".npz": "npz", ".arrow": "arrow", ".parquet": "arrow", ".tar": "shards"}
# What `datasets.DatasetDict.save_to_disk` writes beside the folders of its parts.
DATASET_DICT = "dataset_dict.json"
# Where a dataset on the Hub has its Parquet files, below its card.
HUB_FOLDER = "data"


class _Files(NamedTuple):
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
    "mnist": _Files("MNIST/raw", _IDX_FILES),
    "fashion_mnist": _Files("FashionMNIST/raw", _IDX_FILES),
    "cifar10": _Files("cifar-10-batches-py", _CIFAR10_FILES),
    "cifar100": _Files("cifar-100-python", ("train", "test", "meta")),
    "svhn": _Files("", ("train_32x32.mat", "test_32x32.mat")),
}
TINY_IMAGENET: Literal["tiny_imagenet"] = "tiny_imagenet"
_TINY_IMAGENET = "tiny-imagenet-*"  # its folder: with 200 classes as published, or with some of them
NAMES = ("digits", *TORCHVISION, TINY_IMAGENET, "folder")


def missing_file(name: str, root: Path) -> Path | None:
    """Return a file that one of torchvision's datasets lacks below `root`, or None."""
    folder, names = TORCHVISION[name]
    return next((path for path in (root / folder / file for file in names) if not path.is_file()), None)


def locate(name: str, root: Path, download: bool = False) -> tuple[DataKind, Path]:
    """Return how a dataset is read, and its folder or file; of torchvision's, `root`.

    The arguments are those of `gdd.data.readers.open_dataset`; ConfigError if the name is unknown or not UTF-8, or
    nothing is there.
    """
    for text in (name, str(root)):
        require_utf8(text, "the dataset's path")
    if name == "digits":
        return "digits", root
    if name == "cifar10" and (root / name / "train").is_dir():
        return "folder", root / name
    if name == TINY_IMAGENET:
        return TINY_IMAGENET, _tiny_imagenet(root)
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
    hint = did_you_mean(name, NAMES)
    raise ConfigError(
        f"data.name is {name!r}, expected {', '.join(NAMES)}, an existing folder, or a file that ends in "
        f"{', '.join(CONTAINERS)}{hint}"
    )


def _tiny_imagenet(root: Path) -> Path:
    found = sorted(path for path in root.glob(_TINY_IMAGENET) if path.is_dir())
    if len(found) != 1:
        names = " and ".join(path.name for path in found) or "none"
        same = namesake(TINY_IMAGENET, root)
        raise ConfigError(
            f"{TINY_IMAGENET} was not found: looked for one folder {_TINY_IMAGENET} in {root}, found {names}; unpack "
            f"tiny-imagenet-200.zip there, or set --data.root{'' if same is None else f'; {same}'}"
        )
    return found[0]


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
    datasets = [folder for folder in folders(place) if any(folder.glob("*.parquet"))]
    if len(datasets) > 1:
        listed = ", ".join(str(folder) for folder in datasets[:5])
        raise ConfigError(f"{place} holds {len(datasets)} datasets of Parquet files: name one of {listed}")
    return datasets[0] if datasets else place


def _kind_of_folder(folder: Path) -> DataKind:
    """Return what a folder holds: classes of images, unless there are none but files of many images."""
    if (folder / DATASET_DICT).is_file() or hub_folder(folder) != folder:
        return "arrow"
    parts = part_folders(folder)
    part = folder if parts is None else parts.train
    if folders(part):
        return "folder"
    kinds = {CONTAINERS.get(path.suffix.lower()) for path in part.iterdir() if not is_hidden(path.name)}
    return next((kind for kind in ("arrow", "shards") if kind in kinds), "folder")


def _readable(kind: DataKind, path: Path) -> tuple[DataKind, Path]:
    if kind == "arrow":
        require_hf("pyarrow", f"{path} needs pyarrow to be read")
    return kind, path


def require_hf(package: str, sentence: str) -> None:
    """Refuse, with a sentence that says what needs it, where a package of the extra `hf` is not installed."""
    if find_spec(package) is None:
        raise ConfigError(f"{sentence}: pip install 'gdd[hf]'")


_TRAIN, _TEST = r"train(?:ing|set|val)?", r"test(?:ing|set)?"
_HELD = r"val(?:id(?:ation|ate)?|set)?|eval(?:uation)?|dev|h[eo]ld[-_. ]?out"
_WORDS = {"train": _TRAIN, "test": _TEST, "held": _HELD}
_FILLER = r"(?:sets?|images?|imgs?|pictures?|photos?|data|split|part|folder|[-_. 0-9])*"
_HIDDEN = ("__MACOSX",)  # what an archiver leaves beside the content


class PartFiles(NamedTuple):
    """The files of a dataset that has many images in each."""

    train: list[Path]
    test: list[Path] | None
    unused: dict[str, list[Path]]  # by what they are called: files of a validation part or of none that is known


class PartFolders(NamedTuple):
    """The folders of a dataset's parts."""

    train: Path
    test: Path | None
    unused: list[Path]


def is_hidden(name: str) -> bool:
    return name.startswith(".") or name in _HIDDEN


def folders(place: Path) -> list[Path]:
    """Return the folders within one, sorted by name, without hidden ones."""
    return sorted(path for path in place.iterdir() if path.is_dir() and not is_hidden(path.name))


def part_folders(place: Path) -> PartFolders | None:
    """Return which folders are a dataset's parts, or None if all of them are classes.

    A folder is a part if its whole name says so; if none is a train part, also those that have the word among others,
    such as `seg_train` beside `seg_test`. A folder `train` beside others that holds files alone is a class.

    Raises:
        ConfigError: two folders for one part, or one to test or validate without one to train.
    """
    inner = folders(place)
    named = {path: part for path in inner if (part := _whole(path.name))}
    lone = [path for path, part in named.items() if part == "train"]
    if len(named) == len(lone) == 1 < len(inner) and not folders(lone[0]):
        return None
    if "train" not in named.values():
        loose = {path: parts[0] for path in inner if len(parts := _words(path.name)) == 1 and folders(path)}
        named = loose if {"train"} < {*loose.values()} else named
    if not named:
        return None
    by_part = {part: [path for path, named_part in named.items() if named_part == part] for part in _WORDS}
    if not by_part["train"]:
        names = " and ".join(f"a {path.name} folder" for path in named)
        raise ConfigError(
            f"{place} holds no train part: {names} but no train folder; put the classes to train on in a folder train, "
            f"or rename {next(iter(named)).name} if it is a class"
        )
    for part in ("train", "test"):
        if len(by_part[part]) > 1:
            raise ConfigError(f"{place} holds {_names(by_part[part])}, expected one folder for the {part} part")
    unused = [path for path in inner if named.get(path) not in ("train", "test")]
    test = by_part["test"][0] if by_part["test"] else None
    if test is not None:  # a link that makes a test part of a validation part
        unused = [path for path in unused if not path.samefile(test)]
    return PartFolders(by_part["train"][0], test, unused)


def part_files(place: Path, ends: tuple[str, ...]) -> PartFiles:
    """Return the files that hold a dataset's train part, and those of its test part if it has one.

    These are the files of the folders of these parts, or those with such a word in their names, such as
    `train-00000-of-00001.parquet`; without such names, all are of the train part, and so is a file on its own.

    Raises:
        ConfigError: there is a test part, or another one, but no train part; a name tells two parts, or may tell one.
    """
    if place.is_file():
        return PartFiles([place], None, {})
    missing = f"{place} holds no train part: no {' or '.join(ends)} file of that name or in a folder train"
    parts, files = part_folders(place), _files(place, ends)
    if parts is not None:
        train, test = _files(parts.train, ends), None if parts.test is None else _files(parts.test, ends)
        if not train:
            raise ConfigError(missing)
        unused = {path.name: _files(path, ends) for path in parts.unused} | {path.name: [path] for path in files}
        return PartFiles(train, test, {name: held for name, held in unused.items() if held})
    told = {path: _words(path.stem) for path in files}
    unclear = [path for path, words in told.items() if len(words) > 1]
    if unclear:
        raise ConfigError(
            f"{place} holds {_names(unclear)}, whose part cannot be told: name each by train, test or val alone"
        )
    by_part = {part: [path for path, words in told.items() if words == [part]] for part in _WORDS}
    if by_part["train"]:
        untold = [path for path, words in told.items() if not words]
        return PartFiles(by_part["train"], by_part["test"] or None, _grouped(by_part["held"] + untold))
    if not files or any(by_part.values()):
        raise ConfigError(f"{missing}; it holds {_names(files) or 'none'}")
    stems = {re.sub(r"\d+", "", path.name) for path in files}
    hinting = [path for path in files if re.search("train|test|val|hold", path.name.lower())]
    if len(stems) > 1 and hinting:
        raise ConfigError(
            f"{place} holds {_names(hinting)}, whose part cannot be told: write train-, test- or val- before each"
        )
    return PartFiles(files, None, {})


def is_part(name: str, part: str) -> bool:
    """Return whether a file's name has the word of one part alone."""
    return _words(name) == [part]


def note(place: Path, name: str, images: int | None) -> str:
    """Return what to know of a part that is not used: its folder or files, and its images, None if untold."""
    count = "images that cannot be counted" if images is None else f"{images:,} images"
    if _words(name) == ["held"]:
        use = "validation images are carved out of train (data.val_fraction); to score on these, call them test"
    else:
        use = "its name tells no part; call it train or test to use it"
    return f"{place / name} ({count}) is not used: {use}"


def _words(name: str) -> list[str]:
    """Return the parts whose words stand in a name, apart from other letters or as a word of a CamelCase."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    return [part for part, word in _WORDS.items() if re.search(rf"(?<![a-z])(?:{word})(?![a-z])", apart)]


def _whole(name: str) -> str | None:
    """Return the part that a name says and nothing else, but for fillers and numbers."""
    matching = (part for part, word in _WORDS.items() if re.fullmatch(f"{_FILLER}(?:{word}){_FILLER}", name.lower()))
    return next(matching, None)


def _grouped(files: Iterable[Path]) -> dict[str, list[Path]]:
    """Group files by the beginning of their names, before the numbers of shards."""
    groups: dict[str, list[Path]] = {}
    for path in files:
        groups.setdefault(re.sub(r"[-_.]?\d+([-_]of[-_]\d+)?$", "", path.stem) or path.name, []).append(path)
    return groups


def _files(folder: Path, ends: tuple[str, ...]) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in ends and not is_hidden(path.name))


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(path.name for path in paths[:5]) + (", ..." if len(paths) > 5 else "")

"""Which part of a dataset a file or folder is, told by its name; without torch.

Whoever names files has a way of it: `train`, `Training`, `test0000.tar`, `val2017`, `held-out`. Files whose
names tell no part are not trained on beside others whose names do: they are left out, and `note` tells of them.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from gdd.config import ConfigError

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
    found = folders(place)
    named = {path: part for path in found if (part := _whole(path.name))}
    lone = [path for path, part in named.items() if part == "train"]
    if len(named) == len(lone) == 1 < len(found) and not folders(lone[0]):
        return None
    if "train" not in named.values():
        loose = {path: parts[0] for path in found if len(parts := _words(path.name)) == 1 and folders(path)}
        named = loose if {"train"} < {*loose.values()} else named
    if not named:
        return None
    by_part = {part: [path for path, its in named.items() if its == part] for part in _WORDS}
    if not by_part["train"]:
        names = " and ".join(f"a {path.name} folder" for path in named)
        raise ConfigError(
            f"{place} holds no train part: {names} but no train folder; put the classes to train on in a folder train, "
            f"or rename {next(iter(named)).name} if it is a class"
        )
    for part in ("train", "test"):
        if len(by_part[part]) > 1:
            raise ConfigError(f"{place} holds {_names(by_part[part])}, expected one folder for the {part} part")
    unused = [path for path in found if named.get(path) not in ("train", "test")]
    test = by_part["test"][0] if by_part["test"] else None
    if test is not None:  # a link that makes a test part of a validation part
        unused = [path for path in unused if not path.samefile(test)]
    return PartFolders(by_part["train"][0], test, unused)


def part_files(place: Path, ends: tuple[str, ...]) -> PartFiles:
    """Return the files that hold a dataset's train part, and those of its test part if it has one.

    These are the files of the folders of these parts, or those with such a word in their names, such as
    `train-00000-of-00001.parquet`; without such names, all are of the train part, and so is a file on its own.

    Args:
        place: the folder, or the file.
        ends: of the files' names.

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
    """Return what to know of a part that is not used.

    Args:
        place: the dataset's folder.
        name: of the part's folder, or of its files.
        images: how many it holds; None if that cannot be told.
    """
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

"""Image folders: one folder per class, to any depth, or images beside a table of their labels.

A table names files and their labels: `val_annotations.txt`, as Tiny-ImageNet has it, or a file of comma- or
tab-separated values. What it names is only looked up among the images that were found, so that it leads nowhere else.
"""

import csv
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from gdd.config import ConfigError
from gdd.data.encoded import EncodedPart, Listing
from gdd.data.image_file import SUFFIXES
from gdd.data.places import PartFolders, folders, is_hidden, is_part, note, part_folders, require_utf8

_DEEPEST = 200  # folders within one another; Python's stack bears some five times as many
_MOST_NAMED = 5  # extensions that a note lists

_ENDS = (".csv", ".tsv")
_TEXTS = ("annotations.txt", "labels.txt")
_MOST_BYTES = 2**28  # of a table; one of ImageNet's 1.3 million images takes 2**26
_LABELS = ("label", "class", "class_name", "classname", "label_name", "category", "target", "y")
_WORDS = "words.txt"  # WordNet's: an identifier and its words, comma-separated, in each line
_MOST_LETTERS = 255  # of a class name


class Files:
    """Image files by their paths; an `Encoded`."""

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths

    def name(self, index: int) -> str:
        return self.paths[index]

    def open(self, index: int) -> str:
        return self.paths[index]

    def files(self, rows: Sequence[int]) -> list[str]:
        return [self.paths[row] for row in rows]


class _Content(NamedTuple):
    """What lies below a folder."""

    images: list[str]
    others: list[str]


class _Images(NamedTuple):
    """The labelled images of a part."""

    classes: tuple[str, ...]  # in order; of a table, those that occur
    files: list[str]
    labels: list[str]  # of each file
    notes: list[str]


def list_folder(folder: Path, label: str | None = None, *, test: str | None = None) -> Listing:
    """List the parts of a folder, or the folder without parts; see `places.part_folders`.

    A part has a folder for each class with images to any depth, as torchvision's ImageFolder reads them, or images and
    a table of their labels within it or beside it. Classes are sorted by name, as texts in Unicode's composed form;
    labels of a table that are whole numbers as numbers. Names that start with a dot are skipped.
    `label` is the table's column of labels; None takes the only one that can be it. `test` is the folder of the test
    part where names tell another, such as the validation part of a dataset whose test labels nobody has.

    Raises:
        ConfigError: an empty class, fewer than two classes, other classes in test than in train, a class whose name is
            not UTF-8, labels that cannot be told.
    """
    parts = part_folders(folder) or PartFolders(folder, None, [])
    if test is not None:
        parts = PartFolders(parts.train, folder / test, [])
        if not (folder / test).is_dir():
            raise ConfigError(f"{folder} has no folder {test}, expected the images of its test part there")
    train = _read_part(parts.train, folder, "train", label)
    if train is None:
        names = [path.name for path in folders(parts.train)]
        raise ConfigError(
            f"{parts.train} holds {len(names)} class folders, expected at least 2 with images in each, or a table of "
            "labels beside the images (.csv, .tsv, annotations.txt)"
        )
    notes = list(train.notes)
    notes += [note(folder, path.name, len(_below(path).images)) for path in parts.unused]
    tested = None if parts.test is None else _read_part(parts.test, folder, "test", label, train.classes)
    if parts.test is not None and tested is None and test is not None:
        raise ConfigError(f"nothing tells the labels of the images in {parts.test}, expected a table of them there")
    if parts.test is not None and tested is None:
        count = len(_below(parts.test).images)
        notes.append(f"{parts.test} ({count:,} images) is not used: nothing tells the labels of its images")
    if tested is not None:
        notes += tested.notes
        differing = sorted({*train.classes} ^ {*tested.classes})
        if differing:
            raise ConfigError(f"train and test of {folder} hold different classes: {', '.join(differing[:20])}")
    if parts.train != folder:
        loose = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not is_hidden(path.name)]
        notes += [f"{len(loose):,} images of {folder} lie outside its parts and are not used"] if loose else []
    words = human_names(folder, train.classes)
    if words is not None:
        notes.append(f"classes are called as words.txt of {folder} calls them, in the order of their folders")
    return Listing(
        folder,
        words or train.classes,
        _part(train, train.classes),
        tested and _part(tested, train.classes),
        tuple(notes),
    )


def _part(images: _Images, classes: tuple[str, ...]) -> EncodedPart:
    numbers = {name: number for number, name in enumerate(classes)}
    labels = torch.tensor([numbers[name] for name in images.labels])
    return EncodedPart(Files(images.files), torch.arange(len(labels)), labels)


def _read_part(
    folder: Path, place: Path, part: str, label: str | None, classes: tuple[str, ...] | None = None
) -> _Images | None:
    """Return the images of a part; None if nothing tells their labels."""
    held = {path: _below(path) for path in folders(folder)}
    loose = _directly(folder)
    with_images = [path for path, content in held.items() if content.images]
    known = classes is not None and {_name_of(path) for path in held} & {*classes}
    if len(with_images) > 1 or known:
        return _by_folder(held, loose, folder)
    every = _Content(
        [*loose.images, *(image for content in held.values() for image in content.images)],
        [*loose.others, *(other for content in held.values() for other in content.others)],
    )
    return _by_table(every, folder, place, part, label, classes)


def _by_folder(held: dict[Path, _Content], loose: _Content, folder: Path) -> _Images:
    names: dict[str, Path] = {}
    files: list[str] = []
    labels: list[str] = []
    for path, content in held.items():
        require_utf8(str(path), "the name of class folder")
        name = _name_of(path)
        if name in names:
            raise ConfigError(f"{folder} holds two folders that are called {name}, in two forms of Unicode: merge them")
        if not content.images:
            raise ConfigError(f"class folder {path} holds no {', '.join(SUFFIXES)} file; add images or remove it")
        names[name] = path
        files += content.images
        labels += [name] * len(content.images)
    notes = _left_out(folder, [*loose.others, *(other for content in held.values() for other in content.others)])
    if loose.images:
        notes.append(f"{len(loose.images):,} images of {folder} lie outside its class folders and are not used")
    return _Images(tuple(sorted(names)), files, labels, notes)


def _by_table(
    content: _Content, folder: Path, place: Path, part: str, label: str | None, classes: tuple[str, ...] | None
) -> _Images | None:
    for tables in _tables(content, folder, place, part):
        labelled = labels_of(content.images, folder, tables, label)
        if labelled is not None:
            break
    else:
        return None
    table, label_of_image, unused = labelled
    labels = [unicodedata.normalize("NFC", text) for text in label_of_image if text is not None]
    different = in_order(labels)
    unknown = [] if classes is None else [text for text in different if text not in classes]
    if unknown:
        raise ConfigError(f"{table} has labels that train does not have: {', '.join(unknown[:_MOST_NAMED])}")
    if classes is None and len(different) < 2:
        raise ConfigError(f"{table} has the label {different[0]!r} alone, expected at least 2 classes")
    files = [image for image, text in zip(content.images, label_of_image, strict=True) if text is not None]
    notes = _left_out(folder, [other for other in content.others if other != str(table)])
    if len(files) < len(content.images):
        notes.append(f"{len(content.images) - len(files):,} images of {folder} are in no row of {table}: not used")
    if unused:
        notes.append(f"{unused:,} rows of {table} name no image of {folder}")
    return _Images(tuple(different) if classes is None else classes, files, labels, notes)


def _tables(content: _Content, folder: Path, place: Path, part: str) -> Iterator[list[Path]]:
    """Yield where a part's labels may stand: within it, beside it in a table of its name, in one for all parts."""
    yield [Path(other) for other in content.others if is_table(other)]
    if folder != place:
        beside = [Path(other) for other in _directly(place).others if is_table(other)]
        yield [path for path in beside if is_part(path.stem, part)]
        yield [path for path in beside if not any(is_part(path.stem, name) for name in ("train", "test", "held"))]


def _left_out(folder: Path, others: Iterable[str]) -> list[str]:
    """Return a note that counts files by their extension."""
    counts = Counter(os.path.splitext(other)[1].lower() or "without extension" for other in others)
    if not counts:
        return []
    shown = ", ".join(f"{count:,} {end}" for end, count in counts.most_common(_MOST_NAMED))
    more = ", ..." if len(counts) > _MOST_NAMED else ""
    return [f"{counts.total():,} files of {folder} are not used, which are no {', '.join(SUFFIXES)}: {shown}{more}"]


def _name_of(path: Path) -> str:
    """Return a class's name: macOS writes accents apart from their letters."""
    return unicodedata.normalize("NFC", path.name)


def _directly(folder: Path) -> _Content:
    with os.scandir(folder) as entries:
        files = (entry.path for entry in entries if not is_hidden(entry.name) and not _is_folder(entry))
        return _sorted_out(sorted(files))


def _below(folder: Path) -> _Content:
    return _sorted_out(_walk(str(folder), set()))


def _sorted_out(paths: Iterable[str]) -> _Content:
    content = _Content([], [])
    for path in paths:
        (content.images if path.lower().endswith(SUFFIXES) else content.others).append(path)
    return content


def _walk(folder: str, seen: set[tuple[int, int]]) -> Iterator[str]:
    """Yield the files below a folder, those of each folder before those of its folders; each folder once.

    Links would else lead up, or make a few folders billions.
    """
    facts = os.stat(folder)
    if (facts.st_dev, facts.st_ino) in seen:
        return
    seen.add((facts.st_dev, facts.st_ino))
    with os.scandir(folder) as entries:
        shown = sorted((entry for entry in entries if not is_hidden(entry.name)), key=lambda entry: entry.name)
    inner = [entry.path for entry in shown if _is_folder(entry)]
    yield from sorted({entry.path for entry in shown} - {*inner})
    for path in inner:
        if path.count(os.sep) > _DEEPEST:
            raise ConfigError(f"folders nest too deeply below {folder}, expected at most {_DEEPEST} within another")
        yield from _walk(path, seen)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads through too many others
        return False


class Labelled(NamedTuple):
    """Which label a table gives to each of some images."""

    table: Path
    labels: list[str | None]  # None: no row names the image
    unused: int  # rows that name none of the images


def is_table(name: str) -> bool:
    """Return whether a file may tell labels: not one that a competition wants filled in."""
    return name.lower().endswith((*_ENDS, *_TEXTS)) and "submission" not in name.lower()


def labels_of(images: Sequence[str], folder: Path, tables: Iterable[Path], label: str | None) -> Labelled | None:
    """Return the labels of images below a folder from the one table that names them; None if none does.

    A table names files by their place below the folder, or by their last part, with its extension or without. `label`
    is its column of labels; None takes the only one that can be it.

    Raises:
        ConfigError: several tables name images, or a table cannot be read or has several columns that can be labels.
    """
    places = _places(images, folder)
    read = (_read(table, places, len(images), label) for table in tables)
    naming = [labelled for labelled in read if labelled is not None]
    if len(naming) > 1:
        names = ", ".join(str(labelled.table) for labelled in naming[:5])
        raise ConfigError(f"{len(naming)} tables name images of {folder} ({names}), expected one: move the others away")
    return naming[0] if naming else None


def in_order(labels: Iterable[str]) -> list[str]:
    """Return the different labels in their order: of whole numbers that of numbers, else that of texts."""
    different = set(labels)
    return sorted(different, key=int) if all(text.isdecimal() for text in different) else sorted(different)


def human_names(place: Path, names: Sequence[str]) -> tuple[str, ...] | None:
    """Return what `words.txt` calls classes, each by its first word; None unless it has a different one for each."""
    try:
        path = place / _WORDS
        lines = path.read_text("utf-8").splitlines() if path.stat().st_size <= _MOST_BYTES else []
    except (OSError, UnicodeDecodeError):
        return None
    words = dict(line.split("\t", 1) for line in lines if "\t" in line)
    called = tuple(words.get(name, "").split(",")[0].strip() for name in names)
    clear = len({*called}) == len(called) and all(0 < len(word) <= _MOST_LETTERS for word in called)
    return called if clear else None


def _places(images: Sequence[str], folder: Path) -> dict[str, int]:
    """Return which image a name means; a name of several means none."""
    places: dict[str, int] = {}
    doubtful: set[str] = set()
    inside = f"{folder}/"
    for index, image in enumerate(images):
        relative = image.removeprefix(inside)
        last = relative.rpartition("/")[2]
        for name in {relative, f"{folder.name}/{relative}", last, last.rpartition(".")[0]}:
            if places.setdefault(name, index) != index:
                doubtful.add(name)
    return {name: index for name, index in places.items() if name not in doubtful}


def _read(table: Path, places: dict[str, int], count: int, wanted: str | None) -> Labelled | None:
    rows = _rows(table)
    if not rows:
        return None
    width = max(map(len, rows[:2]))
    columns = zip(*((row + [""] * width)[:width] for row in rows), strict=True)
    hits = [sum(cell.removeprefix("./") in places for cell in column) for column in columns]
    if max(hits, default=0) == 0:
        return None
    file = hits.index(max(hits))
    first = rows[0][file].removeprefix("./")
    headed = first not in places and not first.lower().endswith(SUFFIXES)
    column = _label_column(table, rows[0] if headed else None, file, len(hits), wanted)
    labels: list[str | None] = [None] * count
    unused = 0
    for number, row in enumerate(rows[headed:], 1 + headed):
        index = places.get(row[file].removeprefix("./")) if len(row) > file else None
        if index is None:
            unused += 1
            continue
        if len(row) <= column or not row[column]:
            raise ConfigError(f"line {number} of {table} has no label for {row[file]}")
        if labels[index] not in (None, row[column]):
            raise ConfigError(f"{table} gives {row[file]} two labels, {labels[index]} and {row[column]}")
        labels[index] = row[column]
    return Labelled(table, labels, unused)


def _rows(table: Path) -> list[list[str]]:
    """Return a table's cells without spaces around them; empty lines are left out."""
    try:
        if table.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it has more than {_MOST_BYTES:,} bytes")
        text = table.read_text("utf-8-sig")
        first = text.partition("\n")[0]
        separators = [separator for separator in ("\t", ",", ";") if separator in first]
        if separators:
            lines = csv.reader(text.splitlines(), delimiter=separators[0], strict=True)
        else:
            lines = (line.split(None, 1) for line in text.splitlines())  # type: ignore[assignment]
        return [cells for line in lines if any(cells := [cell.strip() for cell in line])]
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigError(f"{table} is not a readable table: {error}") from error


def _label_column(table: Path, header: list[str] | None, file: int, width: int, wanted: str | None) -> int:
    if header is None:
        if width < 2:
            raise ConfigError(f"{table} has one column, expected one of files and one of labels")
        return 1 if file == 0 else 0  # Tiny-ImageNet's has a box beside them
    others = [number for number in range(len(header)) if number != file]
    usual = _LABELS if wanted is None else (wanted.lower(),)
    named = [number for number in others if header[number].lower() in usual]
    if len(named) == 1:
        return named[0]
    if len(others) == 1 and wanted is None:
        return others[0]
    listed = ", ".join(header[number] for number in others[:8]) + (", ..." if len(others) > 8 else "")
    if wanted is not None:
        raise ConfigError(f"{table} has the columns {listed}, but data.label is {wanted!r}")
    choice = f"--data.label {header[others[0]]}" if others else "--data.label NAME"
    raise ConfigError(f"{table} has the columns {listed}, of which several may be labels: choose one, e.g. {choice}")

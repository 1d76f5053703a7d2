"""Labels from a table beside the images, as Tiny-ImageNet and many a competition have them.

A table names files and their labels: `val_annotations.txt`, or a file of comma- or tab-separated values. What it names
is only looked up among the images that were found, so that it leads nowhere else.
"""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from gdd.config import ConfigError
from gdd.data.image_file import SUFFIXES

_ENDS = (".csv", ".tsv")
_TEXTS = ("annotations.txt", "labels.txt")
_MOST_BYTES = 2**28  # of a table; one of ImageNet's 1.3 million images takes 2**26
_LABELS = ("label", "class", "class_name", "classname", "label_name", "category", "target", "y")
_WORDS = "words.txt"  # WordNet's: an identifier and its words, comma-separated, in each line
_MOST_LETTERS = 255  # of a class name


class Labelled(NamedTuple):
    """Which label a table gives to each of some images."""

    table: Path
    labels: list[str | None]  # None: no row names the image
    unused: int  # rows that name none of the images


def is_table(name: str) -> bool:
    """Return whether a file may tell labels: not one that a competition wants filled in."""
    return name.lower().endswith((*_ENDS, *_TEXTS)) and "submission" not in name.lower()


def labels_of(images: Sequence[str], folder: Path, tables: Iterable[Path], label: str | None) -> Labelled | None:
    """Return the labels of images from the one table that names them; None if none does.

    Args:
        images: paths of files below `folder`.
        folder: a table names files by their place below it, or by their last part, with its extension or without.
        tables: where to look.
        label: the column of labels; None takes the only one that can be it.

    Raises:
        ConfigError: several tables name images, or a table cannot be read or has several columns that can be labels.
    """
    places = _places(images, folder)
    found = [one for table in tables if (one := _read(table, places, len(images), label)) is not None]
    if len(found) > 1:
        names = ", ".join(str(one.table) for one in found[:5])
        raise ConfigError(f"{len(found)} tables name images of {folder} ({names}), expected one: move the others away")
    return found[0] if found else None


def in_order(labels: Iterable[str]) -> list[str]:
    """Return the different labels in their order: of whole numbers that of numbers, else that of texts."""
    different = set(labels)
    return sorted(different, key=int) if all(one.isdecimal() for one in different) else sorted(different)


def human_names(place: Path, names: Sequence[str]) -> tuple[str, ...] | None:
    """Return what `words.txt` calls classes, each by its first word; None unless it has a different one for each."""
    try:
        path = place / _WORDS
        lines = path.read_text("utf-8").splitlines() if path.stat().st_size <= _MOST_BYTES else []
    except (OSError, UnicodeDecodeError):
        return None
    words = dict(line.split("\t", 1) for line in lines if "\t" in line)
    found = tuple(words.get(name, "").split(",")[0].strip() for name in names)
    clear = len({*found}) == len(found) and all(0 < len(one) <= _MOST_LETTERS for one in found)
    return found if clear else None


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
    hits = [sum(cell.removeprefix("./") in places for cell in column) for column in zip(*_even(rows), strict=True)]
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
        separators = [one for one in ("\t", ",", ";") if one in first]
        if separators:
            lines = csv.reader(text.splitlines(), delimiter=separators[0], strict=True)
        else:
            lines = (line.split(None, 1) for line in text.splitlines())  # type: ignore[assignment]
        return [cells for line in lines if any(cells := [cell.strip() for cell in line])]
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigError(f"{table} is not a readable table: {error}") from error


def _even(rows: list[list[str]]) -> Iterable[list[str]]:
    width = max(map(len, rows[:2]))
    return ((row + [""] * width)[:width] for row in rows)


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

"""WebDataset shards: tar files in which a sample is `<key>.png` or `<key>.jpg` beside `<key>.cls`.

Archives may be hostile. Nothing is unpacked: members are found by their headers, which tarfile parses one by one
(its readers follow links and read extended headers of any size), and have to lie within the file.
"""

import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

import torch

from gdd.config import ConfigError
from gdd.data.encoded import EncodedPart, Listing
from gdd.data.image_file import SUFFIXES
from gdd.data.places import note, part_files

_LABEL = ".cls"
_MOST_DIGITS = 9  # of a label
_MOST_EXTENDED = 2**16  # bytes of an extended header; names are shorter
_END = bytes(tarfile.BLOCKSIZE)
_GNU_NAME, _PAX, _PAX_OF_ALL = tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE


class _Member(NamedTuple):
    """A file of an archive."""

    name: str
    start: int  # byte of the archive
    size: int  # bytes


class _Sample(NamedTuple):
    path: Path
    image: _Member


class Members:
    """Image files within tar files; an `Encoded`."""

    def __init__(self, samples: list[_Sample]) -> None:
        self.samples = samples

    def name(self, index: int) -> str:
        path, image = self.samples[index]
        return f"{image.name} of {path}"

    def open(self, index: int) -> bytes:
        path, image = self.samples[index]
        with path.open("rb") as file:
            return _content(file, image)

    def files(self, rows: Sequence[int]) -> list[str]:
        return [str(path) for path in dict.fromkeys(self.samples[row].path for row in rows)]


def list_shards(place: Path) -> Listing:
    """List a folder of shards, or a single one; see `places.part_files`. Classes are called by their numbers.

    Raises:
        ConfigError: no train part; a file is no tar file, or is cut off; a member leads out of the archive, or is a
            link; a sample without one image and one label; labels of train that are not 0 to K-1, each of them.
    """
    files = part_files(place, (".tar",))
    train = _part(files.train)
    present = train.labels.unique()
    if present[-1] != len(present) - 1:
        raise ConfigError(
            f"the train part of {place} holds {len(present)} different labels from {present[0]} to {present[-1]}, "
            f"expected 0 to {len(present) - 1} with none left out"
        )
    test = None if files.test is None else _part(files.test)
    if test is not None and test.labels.max() >= len(present):
        raise ConfigError(
            f"the test part of {place} has label {int(test.labels.max())}, expected 0 to {len(present) - 1}"
        )
    notes = tuple(note(place, name, _samples_of(paths)) for name, paths in files.unused.items())
    return Listing(place, tuple(map(str, range(len(present)))), train, test, notes)


def _samples_of(paths: list[Path]) -> int | None:
    """Return how many samples archives hold, None if they cannot be read."""
    try:
        return len(_part(paths).labels)
    except ConfigError:
        return None


def _part(paths: list[Path]) -> EncodedPart:
    samples: list[_Sample] = []
    labels: list[int] = []
    for path in paths:
        with path.open("rb") as file:
            for key, members in _samples(file, path):
                image, label = _image_and_label(members, key, path)
                samples.append(_Sample(path, image))
                labels.append(_number(file, label, path))
    if not samples:
        raise ConfigError(f"{paths[0] if paths else 'the test part'} holds no samples")
    return EncodedPart(Members(samples), torch.arange(len(samples)), torch.tensor(labels))


def _samples(file: BinaryIO, path: Path) -> Iterator[tuple[str, dict[str, _Member]]]:
    """Yield the members of each sample by their names' ends: those that follow one another and share a key."""
    key, members = "", dict[str, _Member]()
    for member in _members(file, path):
        place = PurePosixPath(member.name)
        stem, dot, end = place.name.partition(".")
        if not stem or not dot:  # hidden, or of no sample
            continue
        ours = str(place.parent / stem)
        if ours != key:
            if members:
                yield key, members
            key, members = ours, {}
        end = f".{end.lower()}"
        if end in members:
            raise ConfigError(f"{path} holds {member.name} twice")
        members[end] = member
    if members:
        yield key, members


def _image_and_label(members: dict[str, _Member], key: str, path: Path) -> tuple[_Member, _Member]:
    images = [end for end in members if end in SUFFIXES]
    if len(images) != 1 or _LABEL not in members:
        raise ConfigError(
            f"sample {key} of {path} has {', '.join(members)}, expected one of {', '.join(SUFFIXES)} and {_LABEL}"
        )
    return members[images[0]], members[_LABEL]


def _number(file: BinaryIO, label: _Member, path: Path) -> int:
    """Return the label that a member holds."""
    place = file.tell()
    text = _content(file, label)[: _MOST_DIGITS + 2].strip() if label.size <= _MOST_DIGITS + 2 else b""
    file.seek(place)
    if not re.fullmatch(rb"[0-9]{1,%d}" % _MOST_DIGITS, text):
        raise ConfigError(f"{label.name} of {path} is no label, expected a whole number of at least 0")
    return int(text)


def _content(file: BinaryIO, member: _Member) -> bytes:
    file.seek(member.start)
    return file.read(member.size)


def _members(file: BinaryIO, path: Path) -> Iterator[_Member]:
    """Yield the regular files of an archive in their order."""
    whole, place, extended = path.stat().st_size, 0, dict[str, str]()
    while True:
        file.seek(place)
        block = file.read(tarfile.BLOCKSIZE)
        if block == _END or (not block and place):  # some writers leave out the empty blocks of the end
            return
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise ConfigError(f"{path} is not a readable tar file: {error} at byte {place}") from error
        name = extended.pop("path", header.name)
        size = int(extended.pop("size", header.size))
        place += tarfile.BLOCKSIZE
        if not 0 <= size <= whole - place:
            raise ConfigError(f"{path} is cut off or damaged: {name} would take {size} of {whole - place} bytes")
        member = _Member(name, place, size)
        place += -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        if header.type in (_GNU_NAME, _PAX):
            if size > _MOST_EXTENDED:
                raise ConfigError(f"{path} has an extended header of {size} bytes, expected at most {_MOST_EXTENDED}")
            content = _content(file, member)
            extended |= _records(content) if header.type == _PAX else {"path": _text(content.rstrip(b"\0"))}
        elif header.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
            if name.startswith("/") or ".." in name.split("/"):
                raise ConfigError(f"{path} holds the name {name!r}, which leads out of the archive")
            yield member
        elif header.type not in (tarfile.DIRTYPE, _PAX_OF_ALL):
            raise ConfigError(f"{name} of {path} is a link or a special file, expected regular files")


def _records(content: bytes) -> dict[str, str]:
    """Return a member's path and size in a POSIX extended header: records of a length, a space, and KEY=VALUE."""
    records, rest = dict[str, str](), content
    while match := re.match(rb"([0-9]{1,6}) ([^=\n]+)=", rest):
        length = int(match[1])
        if length <= match.end() or length > len(rest):
            break
        key, value = match[2], rest[match.end() : length - 1]
        if key == b"path" or (key == b"size" and re.fullmatch(rb"[0-9]{1,18}", value)):
            records[key.decode()] = _text(value)
        rest = rest[length:]
    return records


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")

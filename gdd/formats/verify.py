"""Check a folder of shards against its manifest without unpacking or decoding anything: both may be hostile."""

import hashlib
import struct
import tarfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from gdd.config import ConfigError
from gdd.data.spec import DatasetSpec
from gdd.formats import webdataset
from gdd.formats.webdataset import BLOCK, MANIFEST, SETTINGS, Plan, Totals
from gdd.runtime import checkpoint


def verify(folder: Path) -> tuple[Plan, Totals]:
    """Return what a folder holds if its shards are those of its manifest; ConfigError names the first that is not."""
    path = folder / MANIFEST
    if not path.is_file():
        raise ConfigError(_unfinished(folder))
    values = checkpoint.read_json(path)
    plan = Plan.from_dict(values, path)
    entries = values.get("shards")
    if not isinstance(entries, list) or len(entries) != plan.shards:
        raise ConfigError(f"{path} does not list the {plan.shards} shards that its settings imply")
    for shard, entry in enumerate(entries):
        implied = {"name": webdataset.path_of(folder, shard).name, "samples": len(plan.samples(shard))}
        if not isinstance(entry, dict) or set(entry) != {*implied, "bytes", "sha256"} or {**entry, **implied} != entry:
            raise ConfigError(f"{path}: entry {shard} of shards is not {implied} with bytes and sha256")
        _check_shard(webdataset.path_of(folder, shard), plan, shard, entry)
    return plan, webdataset.totals(folder, plan)


def _unfinished(folder: Path) -> str:
    settings = folder / SETTINGS
    if not settings.is_file():
        return f"{folder} has no {MANIFEST}; a folder written by gdd sample --format webdataset was expected"
    plan = Plan.from_dict(checkpoint.read_json(settings), settings)
    there = webdataset.totals(folder, plan).shards
    return f"{folder} has no {MANIFEST}: sampling is not finished, {there} of {plan.shards} shards are there"


def _check_shard(path: Path, plan: Plan, shard: int, entry: dict[str, Any]) -> None:
    """Refuse a shard that is not what plan and manifest say; it is read once, in constant memory."""
    if not path.is_file():
        raise ConfigError(f"{path} is missing or no file")
    size = path.stat().st_size
    if size != entry["bytes"]:
        raise ConfigError(f"{path} has {size} bytes, its manifest says {entry['bytes']!r}")
    start, spec = _png_start(plan.spec), plan.spec
    most = 1024 + 2 * spec.height * (1 + spec.width * spec.channels)  # pixels that do not compress take half of it
    with path.open("rb") as file:
        reader = _Reader(path, file)
        for number in plan.samples(shard):
            key, label = plan.key(number), str(number % spec.num_classes).encode()
            reader.require_member(f"{key}.png", start, most)
            reader.require_member(f"{key}.cls", label, len(label))
        reader.require_end()
    if reader.digest.hexdigest() != entry["sha256"]:
        raise ConfigError(f"{path} does not match the checksum in its manifest; it was damaged or changed")


def _png_start(spec: DatasetSpec) -> bytes:
    """Return signature and header, 33 bytes, of every PNG file of this size with 8 bits per channel."""
    header = b"IHDR" + struct.pack(">IIBBBBB", spec.width, spec.height, 8, 0 if spec.channels == 1 else 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


def _parsed(header: bytes) -> tarfile.TarInfo:
    return tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")


class _Reader:
    """Read one shard in small pieces from its beginning to its end, summing up its checksum."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.file, self.digest = path, file, hashlib.sha256()

    def _read(self, count: int) -> bytes:
        found = self.file.read(count)
        self.digest.update(found)
        return found

    def _skip(self, count: int) -> None:
        while count > 0 and (found := self._read(min(count, 2**20))):
            count -= len(found)

    def require_member(self, member: str, begins: bytes, most: int) -> None:
        """Refuse anything but a plain file of this name, at most `most` bytes long, that begins with `begins`."""
        header = self._read(BLOCK)
        try:
            found = _parsed(header)
        except tarfile.HeaderError as error:
            raise ConfigError(f"{self.path} has no member where {member} was expected ({error})") from None
        if found.name != member:
            raise ConfigError(f"{self.path} has a member {found.name!r} where {member} was expected")
        if found.type != tarfile.REGTYPE:
            raise ConfigError(f"{self.path}: {member} is a link, device or folder, expected a plain file")
        if not len(begins) <= found.size <= most:
            raise ConfigError(f"{self.path}: {member} has {found.size} bytes, expected {len(begins)} to {most}")
        if header != webdataset.header(member, found.size):
            raise ConfigError(f"{self.path}: {member} has another owner, time or mode than gdd gives")
        if self._read(len(begins)) != begins:
            raise ConfigError(f"{self.path}: {member} does not begin like a file of this class and image size")
        self._skip(found.size - len(begins))
        if self._read(-found.size % BLOCK) != webdataset.padding(found.size):
            raise ConfigError(f"{self.path} is cut or changed after {member}")

    def require_end(self) -> None:
        rest = self._read(2 * BLOCK + 1)
        if rest == bytes(2 * BLOCK):
            return
        try:
            found = f"a member {_parsed(rest[:BLOCK]).name!r}"
        except tarfile.HeaderError:
            found = "something else"
        raise ConfigError(f"{self.path} has {found} where its end was expected")

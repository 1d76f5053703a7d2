"""Sampled sets of any size as WebDataset shards, made in any order by any number of jobs, and the check of a folder.

A folder holds `settings.json`, then `shard-000000.tar` and so on, and `manifest.json` once every shard is there.
Sample n is image n // K of class n % K; shard s holds samples s * size to (s + 1) * size - 1, each as `<key>.png` and
`<key>.cls` and, with a teacher, its answer `<key>.logits.npy`, float16 (K,). All bytes of a shard follow from
generator, teacher, seed, number and size (those of the PNG files also from the zlib that Pillow was built with); IPC
cuts only the last one.
"""

import hashlib
import io
import json
import logging
import re
import struct
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor

from gdd import __version__
from gdd.config import ConfigError, read_as, require
from gdd.data.spec import DatasetSpec
from gdd.formats.plain import png_files
from gdd.runtime import checkpoint
from gdd.runtime.run import progress_bar
from gdd.sampling import sample
from gdd.sampling.ensemble_file import Ensemble
from gdd.sampling.generator_file import LoadedGenerator
from gdd.sampling.origin import joint_origin, sample_origin
from gdd.sampling.set_file import check_matches

logger = logging.getLogger(__name__)

SETTINGS, MANIFEST = "settings.json", "manifest.json"
FORMAT = 1
BLOCK = tarfile.BLOCKSIZE
_LOGITS = "logits.npy"  # ends the name of a sample's
# What the names of samples and shards have digits for.
_MOST_CLASSES, _MOST_IPC, _MOST_SHARDS = 10**5, 10**8, 10**6


class Totals(NamedTuple):
    """How many of a plan's shards a folder holds, their images and their bytes."""

    shards: int
    images: int
    bytes: int


@dataclass(frozen=True)
class ShardPlan:
    """What decides the shards; ConfigError if a value is out of range."""

    generator: str  # hash of the generator
    seed: int  # root of the noise
    ipc: int  # images per class
    shard_size: int  # samples per shard, of all classes together
    spec: DatasetSpec  # the dataset that the generator imitates
    teacher: str | None = None  # hash of the ensemble whose logits are stored, if any are

    def __post_init__(self) -> None:
        require(self.seed >= 0, "seed", self.seed, "a whole number of at least 0")
        for key, value, low, high in (
            ("the number of classes", self.spec.num_classes, 1, _MOST_CLASSES),
            ("ipc", self.ipc, 1, _MOST_IPC),
            ("shard_size", self.shard_size, -(-self.total // _MOST_SHARDS), _MOST_CLASSES * _MOST_IPC),
        ):
            require(low <= value <= high, key, value, f"a whole number from {low} to {high}")

    @property
    def total(self) -> int:
        return self.ipc * self.spec.num_classes

    @property
    def shards(self) -> int:
        return -(-self.total // self.shard_size)

    def samples(self, shard: int) -> range:
        return range(shard * self.shard_size, min((shard + 1) * self.shard_size, self.total))

    def indices(self, shard: int, label: int) -> range:
        """Return which images of a class a shard holds: every i with i * K + label among its samples."""
        samples, classes = self.samples(shard), self.spec.num_classes
        return range(-((label - samples.start) // classes), -((label - samples.stop) // classes))

    def key(self, number: int) -> str:
        """Return the name of sample `number`, such as 00003-00000012: class and index."""
        index, label = divmod(number, self.spec.num_classes)
        return f"{label:05d}-{index:08d}"

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON values, with the versions of format and program."""
        values = json.loads(json.dumps({"format": FORMAT, "version": __version__, **asdict(self)}))
        if self.teacher is None:  # as before there were teachers
            del values["teacher"]
        return values


def read_plan(path: Path) -> tuple[ShardPlan, dict[str, Any]]:
    """Return the plan of a file of settings, or of a manifest, and all its values; ConfigError names the file."""
    values = checkpoint.read_json(path)
    try:
        version = values.get("format") if isinstance(values, dict) else None
        require(version == FORMAT, "format", version, str(FORMAT))
        return read_as(ShardPlan, values), values
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def shard_path(folder: Path, shard: int) -> Path:
    return folder / f"shard-{shard:06d}.tar"


def parse_range(text: str, shards: int) -> range:
    """Return the shards that `A:B` names, A to B - 1."""
    match = re.fullmatch(r"([0-9]{1,9}):([0-9]{1,9})", text)
    numbers = range(int(match[1]), int(match[2])) if match else range(0)
    if not numbers or numbers.stop > shards:
        raise ConfigError(f"--shards is {text!r}, expected A:B with 0 <= A < B <= {shards}, for shards A to B - 1")
    return numbers


def totals(folder: Path, plan: ShardPlan) -> Totals:
    present = [shard for shard in range(plan.shards) if shard_path(folder, shard).exists()]
    size = sum(shard_path(folder, shard).stat().st_size for shard in present)
    return Totals(len(present), sum(len(plan.samples(shard)) for shard in present), size)


# Writing


def header(member: str, size: int) -> bytes:
    """Return the tar header (POSIX ustar) of a plain file of mode 0644; time, owner and group are 0 and have no names.

    Written out because these are GNU tar's bytes, and tarfile leaves empty the device numbers that GNU tar sets to 0.
    """
    zero, time_zero, octal_size = b"0000000\0", b"00000000000\0", b"%011o\0" % size
    before = struct.pack("100s8s8s8s12s12s", member.encode(), b"0000644\0", zero, zero, octal_size, time_zero)
    after = struct.pack("1s100s8s32s32s8s8s167x", b"0", b"", b"ustar\x0000", b"", b"", zero, zero)
    checksum = sum(before) + 8 * ord(" ") + sum(after)
    return before + b"%06o\0 " % checksum + after


def padding(size: int) -> bytes:
    return bytes(-size % BLOCK)


def _write_shard(
    path: Path,
    plan: ShardPlan,
    shard: int,
    loaded: LoadedGenerator,
    device: torch.device,
    advance: Callable[[int], object],
    teacher: Ensemble | None,
) -> None:
    """Write one shard whole or not at all; `advance` gets the number of images of a class once they are sampled."""
    classes, pngs, answers = plan.spec.num_classes, dict[int, Iterator[bytes]](), dict[int, Iterator[bytes]]()
    for label in range(classes):
        if indices := plan.indices(shard, label):
            # Whole chunks, as they are made, so that IPC and size of the shards change no bit of an answer.
            first = indices.start // sample.CHUNK * sample.CHUNK
            last = -(-indices.stop // sample.CHUNK) * sample.CHUNK
            images_u8 = sample.sample_images(loaded, label, first, last, plan.seed, device)
            own = slice(indices.start - first, indices.stop - first)
            pngs[label] = iter(png_files(images_u8[own]))
            if teacher is not None:
                logits = [teacher.logits(chunk.to(device)).cpu() for chunk in images_u8.split(sample.CHUNK)]
                answers[label] = map(_npy, torch.cat(logits)[own])
            advance(len(indices))

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            for number in plan.samples(shard):
                key, label = plan.key(number), number % classes
                members = {f"{key}.png": next(pngs[label]), f"{key}.cls": str(label).encode()}
                if teacher is not None:
                    members[f"{key}.{_LOGITS}"] = next(answers[label])
                for member, content in members.items():
                    file.write(header(member, len(content)) + content + padding(len(content)))
            file.write(bytes(2 * BLOCK))

    with checkpoint.creating(path):
        checkpoint.write_atomically(path, write)


def _npy(logits: Tensor) -> bytes:
    """Return logits (K,) as a file of numpy's, in float16."""
    file = io.BytesIO()
    np.save(file, logits.half().numpy())
    return file.getvalue()


def _claim(folder: Path, plan: ShardPlan) -> None:
    """Write the settings into a new folder, or refuse one that has others."""
    path, settings = folder / SETTINGS, plan.to_dict()
    with checkpoint.creating(folder):
        folder.mkdir(parents=True, exist_ok=True)
        # Looked at first: a job that starts at the same time writes its settings before anything else.
        others = [file for file in folder.iterdir() if not file.name.startswith(f".{SETTINGS}.")]
    if not path.exists():
        if others:
            raise ConfigError(f"{folder} is not empty and has no {SETTINGS}; name a new folder")
        with checkpoint.creating(path):
            checkpoint.write_json(path, settings)
    stored = checkpoint.read_json(path)
    if not isinstance(stored, dict):
        raise ConfigError(f"{path} does not hold settings of shards; name a new folder")
    if stored != settings:
        keys = [key for key in {**settings, **stored} if settings.get(key) != stored.get(key)]
        facts = [key if key == "spec" else f"{key} {stored.get(key)!r}, now {settings.get(key)!r}" for key in keys]
        raise ConfigError(f"{folder} holds shards of other settings ({'; '.join(facts)}); name a new folder")


def _write_manifest(folder: Path, plan: ShardPlan, provenance: dict[str, Any]) -> None:
    """Write the sizes and checksums of all shards as they are on the disk."""
    entries = []
    for shard in range(plan.shards):
        path = shard_path(folder, shard)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            entry = {"name": path.name, "samples": len(plan.samples(shard)), "bytes": file.tell(), "sha256": digest}
        entries.append(entry)
    with checkpoint.creating(folder / MANIFEST):
        checkpoint.write_json(folder / MANIFEST, {**plan.to_dict(), "provenance": provenance, "shards": entries})


def _missing_shards(folder: Path, plan: ShardPlan, accelerator: Accelerator, shards: range) -> list[int]:
    """Claim the folder and return which of `shards` it lacks.

    The main process alone looks, and sends the others the list or its ConfigError: each looking for itself, they would
    not see the same while another job is at work.
    """
    message: list[Any] = [None]
    if accelerator.is_main_process:
        try:
            _claim(folder, plan)
            message = [[shard for shard in shards if not shard_path(folder, shard).exists()]]
        except ConfigError as error:
            message = [error]
    (missing,) = broadcast_object_list(message)
    if isinstance(missing, ConfigError):
        raise missing
    return missing


def write_shards(
    folder: Path,
    plan: ShardPlan,
    loaded: LoadedGenerator,
    accelerator: Accelerator,
    shards: range,
    teacher: Ensemble | None = None,
) -> None:
    """Write those of `shards` that are missing, and the manifest once every shard of the plan exists.

    All processes must call it; each writes whole shards. The `teacher` is the plan's.
    """
    started, device = time.monotonic(), accelerator.device
    if teacher is not None:  # before the folder is claimed for it
        check_matches(teacher.spec, plan.spec, "the ensemble")
    missing = _missing_shards(folder, plan, accelerator, shards)
    local = missing[accelerator.process_index :: accelerator.num_processes]
    loaded.generator.to(device)
    if teacher is not None:
        teacher.to(device)
    with progress_bar(accelerator.is_main_process) as progress:
        task = progress.add_task("sample", total=sum(len(plan.samples(shard)) for shard in local))
        for shard in local:
            path = shard_path(folder, shard)
            _write_shard(path, plan, shard, loaded, device, lambda count: progress.advance(task, count), teacher)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        images_written = sum(len(plan.samples(shard)) for shard in missing)
        origin = sample_origin(loaded, plan.seed)
        if teacher is not None:
            origin |= joint_origin(loaded, teacher)
        _finish(folder, plan, origin, images_written, time.monotonic() - started)


def _finish(folder: Path, plan: ShardPlan, origin: dict[str, Any], images_written: int, seconds: float) -> None:
    """Write the manifest if every shard exists, and log what the folder holds."""
    present = totals(folder, plan)
    if present.shards == plan.shards:
        # The manifest stays if nothing was written: it says what the shards were, should they be damaged since.
        if images_written or not (folder / MANIFEST).exists():
            _write_manifest(folder, plan, origin)
        with checkpoint.creating(folder):
            checkpoint.remove_unfinished(folder)
    logger.info(
        "%s: %d of %d shards, %d images, %.1f MB; %d images made now, %.0f images/s",
        *(folder, present.shards, plan.shards, present.images, present.bytes / 1e6),
        *(images_written, images_written / seconds),
    )


# Verifying: manifest and shards may be hostile. Nothing is unpacked or decoded, and memory is constant: tarfile parses
# single headers only, since its readers follow links and read extended headers of any size.


def verify(folder: Path) -> tuple[ShardPlan, Totals]:
    """Return what a folder holds if its shards are those of its manifest; ConfigError names the first that is not."""
    path = folder / MANIFEST
    if not path.is_file():
        raise ConfigError(f"{folder} has no {MANIFEST}{_why_no_manifest(folder)}")
    plan, values = read_plan(path)
    entries = values.get("shards")
    if not isinstance(entries, list) or len(entries) != plan.shards:
        raise ConfigError(f"{path} does not list the {plan.shards} shards that its settings imply")
    for shard, entry in enumerate(entries):
        implied = {"name": shard_path(folder, shard).name, "samples": len(plan.samples(shard))}
        if not isinstance(entry, dict) or set(entry) != {*implied, "bytes", "sha256"} or {**entry, **implied} != entry:
            raise ConfigError(f"{path}: entry {shard} of shards is not {implied} with bytes and sha256")
        _check_shard(shard_path(folder, shard), plan, shard, entry)
    return plan, totals(folder, plan)


def _why_no_manifest(folder: Path) -> str:
    path = folder / SETTINGS
    if not path.is_file():
        return "; a folder written by gdd sample --format webdataset was expected"
    plan, _ = read_plan(path)
    present = totals(folder, plan).shards
    return f": sampling is not finished, {present} of {plan.shards} shards are there"


def _check_shard(path: Path, plan: ShardPlan, shard: int, entry: dict[str, Any]) -> None:
    """Refuse a shard that is not what plan and manifest say."""
    if not path.is_file():
        raise ConfigError(f"{path} is missing or no file")
    size = path.stat().st_size
    if size != entry["bytes"]:
        raise ConfigError(f"{path} has {size} bytes, its manifest says {entry['bytes']!r}")
    start, spec, npy = _png_start(plan.spec), plan.spec, _npy(torch.zeros(plan.spec.num_classes))
    most = 1024 + 2 * spec.height * (1 + spec.width * spec.channels)  # pixels that do not compress take half of it
    with path.open("rb") as file:
        for number in plan.samples(shard):
            key, label = plan.key(number), str(number % spec.num_classes).encode()
            _check_member(file, path, f"{key}.png", start, most)
            _check_member(file, path, f"{key}.cls", label, len(label))
            if plan.teacher is not None:
                _check_member(file, path, f"{key}.{_LOGITS}", npy[: -2 * spec.num_classes], len(npy))
        if file.read(2 * BLOCK + 1) != bytes(2 * BLOCK):
            raise ConfigError(f"{path} does not end where its last member does")
        file.seek(0)
        if hashlib.file_digest(file, "sha256").hexdigest() != entry["sha256"]:
            raise ConfigError(f"{path} does not match the checksum in its manifest; it was damaged or changed")


def _png_start(spec: DatasetSpec) -> bytes:
    """Return signature and header, 33 bytes, of every PNG file of this size with 8 bits per channel."""
    ihdr = b"IHDR" + struct.pack(">IIBBBBB", spec.width, spec.height, 8, 0 if spec.channels == 1 else 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + ihdr + struct.pack(">I", zlib.crc32(ihdr))


def _check_member(file: BinaryIO, path: Path, member: str, start: bytes, most: int) -> None:
    """Move past a member, a plain file named `member` that begins with `start` and has at most `most` bytes."""
    block = file.read(BLOCK)
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise ConfigError(f"{path} has no member where {member} was expected ({error})") from None
    if not len(start) <= info.size <= most or block != header(member, info.size):
        actual = f"{info.name!r} of type {info.type!r} with {info.size} bytes"
        facts = f"a plain file of {len(start)} to {most} bytes with the owner, time and mode that gdd writes"
        raise ConfigError(f"{path} has {actual} where {member} was expected, {facts}")
    if file.read(len(start)) != start:
        raise ConfigError(f"{path}: {member} does not begin like a file of this class and image size")
    file.seek(info.size - len(start), io.SEEK_CUR)
    if file.read(-info.size % BLOCK) != padding(info.size):
        raise ConfigError(f"{path} is cut or changed after {member}")

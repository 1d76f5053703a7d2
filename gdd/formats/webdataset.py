"""Sampled sets of any size as WebDataset shards, made in any order by any number of jobs.

A folder holds `settings.json`, then `shard-000000.tar` and so on, and `manifest.json` once every shard is there.
Sample n is image n // K of class n % K; shard s holds samples s * size to (s + 1) * size - 1, each as `<key>.png` and
`<key>.cls`. All bytes of a shard follow from generator, seed, number and size (those of the PNG files also from the
zlib that Pillow was built with); IPC cuts only the last one.
"""

import hashlib
import io
import json
import logging
import re
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from PIL import Image
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from gdd import __version__
from gdd.config import ConfigError, require
from gdd.data.spec import DatasetSpec
from gdd.runtime import checkpoint
from gdd.sampling import sample
from gdd.sampling.generator_file import Artifact

logger = logging.getLogger(__name__)

SETTINGS, MANIFEST = "settings.json", "manifest.json"
FORMAT = 1
BLOCK = 512  # what tar pads to
# What the digits in the names of samples and shards hold.
_MOST_CLASSES, _MOST_IPC, _MOST_SHARDS = 10**5, 10**8, 10**6
# Level 6 takes 2 % off the size of CIFAR-10's images and 3 % off that of 224 pixels, for 1.1 and 2 times the time.
_COMPRESS_LEVEL = 1


class Totals(NamedTuple):
    """The shards of a folder that are there, their images and their bytes."""

    shards: int
    images: int
    bytes: int


@dataclass(frozen=True)
class Plan:
    """What decides the shards; ConfigError if a value has the wrong type or is out of range.

    Args:
        generator: hash of the generator.
        seed: root of the noise.
        ipc: images per class.
        shard_size: samples per shard, of all classes together.
        spec: the dataset that the generator imitates.
    """

    generator: str
    seed: int
    ipc: int
    shard_size: int
    spec: DatasetSpec

    def __post_init__(self) -> None:
        def within(key: str, value: object, low: int, high: int) -> None:
            inside = type(value) is int and low <= value <= high
            require(inside, key, value, f"a whole number from {low} to {high}")

        require(type(self.seed) is int and self.seed >= 0, "seed", self.seed, "a whole number of at least 0")
        within("the number of classes", self.spec.num_classes, 1, _MOST_CLASSES)
        within("ipc", self.ipc, 1, _MOST_IPC)
        within("shard_size", self.shard_size, -(-self.total // _MOST_SHARDS), _MOST_CLASSES * _MOST_IPC)

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
        return json.loads(json.dumps({"format": FORMAT, "version": __version__, **asdict(self)}))

    @classmethod
    def from_dict(cls, values: Any, path: Path) -> "Plan":
        """Rebuild a plan from the JSON value of the file `path`; ConfigError names the file."""
        try:
            require(values["format"] == FORMAT, "format", values["format"], str(FORMAT))
            spec = DatasetSpec.from_dict(values["spec"])
            return cls(values["generator"], values["seed"], values["ipc"], values["shard_size"], spec)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{path} lacks or misstates {error}") from error


def path_of(folder: Path, shard: int) -> Path:
    return folder / f"shard-{shard:06d}.tar"


def chosen(text: str, shards: int) -> range:
    """Return the shards that `A:B` names, A to B - 1."""
    match = re.fullmatch(r"([0-9]{1,9}):([0-9]{1,9})", text)
    found = range(int(match[1]), int(match[2])) if match else range(0)
    if not found or found.stop > shards:
        raise ConfigError(f"--shards is {text!r}, expected A:B with 0 <= A < B <= {shards}, for shards A to B - 1")
    return found


def header(member: str, size: int) -> bytes:
    """Return the tar header of a plain file of mode 0644; time, owner and group are 0 and have no names.

    POSIX ustar, written out because tarfile's bytes differ with Python's version: some leave the device empty.
    """
    zero, time_zero, octal_size = b"0000000\0", b"00000000000\0", b"%011o\0" % size
    before = struct.pack("100s8s8s8s12s12s", member.encode(), b"0000644\0", zero, zero, octal_size, time_zero)
    after = struct.pack("1s100s8s32s32s8s8s167x", b"0", b"", b"ustar\x0000", b"", b"", zero, zero)
    checksum = sum(before) + 8 * ord(" ") + sum(after)
    return before + b"%06o\0 " % checksum + after


def padding(size: int) -> bytes:
    return bytes(-size % BLOCK)


def totals(folder: Path, plan: Plan) -> Totals:
    """Count what is there."""
    there = [shard for shard in range(plan.shards) if path_of(folder, shard).exists()]
    size = sum(path_of(folder, shard).stat().st_size for shard in there)
    return Totals(len(there), sum(len(plan.samples(shard)) for shard in there), size)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror})") from error


def _encode(images: Tensor) -> Iterator[bytes]:
    """Yield images (N, C, H, W) uint8 as PNG files."""
    arrays = images.permute(0, 2, 3, 1).contiguous().numpy()
    for array in arrays[..., 0] if arrays.shape[3] == 1 else arrays:
        file = io.BytesIO()
        Image.fromarray(array).save(file, format="PNG", compress_level=_COMPRESS_LEVEL)
        yield file.getvalue()


def write_shard(
    path: Path, plan: Plan, shard: int, artifact: Artifact, device: torch.device, tell: Callable[[int], object]
) -> None:
    """Write one shard whole or not at all; `tell` gets the number of images whenever a class's are made."""
    classes, images = plan.spec.num_classes, {}
    for label in range(classes):
        if indices := plan.indices(shard, label):
            made = sample.sample_images(artifact, label, indices.start, indices.stop, plan.seed, device)
            images[label] = _encode(made)
            tell(len(made))

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            for number in plan.samples(shard):
                key, label = plan.key(number), number % classes
                for member, content in ((f"{key}.png", next(images[label])), (f"{key}.cls", str(label).encode())):
                    file.write(header(member, len(content)) + content + padding(len(content)))
            file.write(bytes(2 * BLOCK))

    with _writing(path):
        checkpoint.write_atomically(path, write)


def _claim(folder: Path, plan: Plan) -> None:
    """Write the settings into a new folder, or refuse one that has others."""
    path, wanted = folder / SETTINGS, plan.to_dict()
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        # Looked at first: a job that starts at the same time writes its settings before anything else.
        others = [found for found in folder.iterdir() if not found.name.startswith(f".{SETTINGS}.")]
    if not path.exists():
        if others:
            raise ConfigError(f"{folder} is not empty and has no {SETTINGS}; name a new folder")
        with _writing(path):
            checkpoint.write_json(path, wanted)
    there = checkpoint.read_json(path)
    if not isinstance(there, dict):
        raise ConfigError(f"{path} does not hold settings of shards; name a new folder")
    if there != wanted:
        keys = [key for key in {**wanted, **there} if wanted.get(key) != there.get(key)]
        facts = [key if key == "spec" else f"{key} {there.get(key)!r}, now {wanted.get(key)!r}" for key in keys]
        raise ConfigError(f"{folder} holds shards of other settings ({'; '.join(facts)}); name a new folder")


def _write_manifest(folder: Path, plan: Plan, provenance: dict[str, Any]) -> None:
    """Write the sizes and checksums of all shards as they are on the disk."""
    entries = []
    for shard in range(plan.shards):
        path = path_of(folder, shard)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            entry = {"name": path.name, "samples": len(plan.samples(shard)), "bytes": file.tell(), "sha256": digest}
        entries.append(entry)
    with _writing(folder / MANIFEST):
        checkpoint.write_json(folder / MANIFEST, {**plan.to_dict(), "provenance": provenance, "shards": entries})


def _begin(folder: Path, plan: Plan, accelerator: Accelerator, wanted: range) -> list[int]:
    """Claim the folder and return which of the shards `wanted` it lacks.

    The main process alone looks, and tells the others, also of its ConfigError: each looking for itself, they would
    not find the same while another job is at work.
    """
    found: list[Any] = [None]
    if accelerator.is_main_process:
        try:
            _claim(folder, plan)
            found = [[shard for shard in wanted if not path_of(folder, shard).exists()]]
        except ConfigError as error:
            found = [error]
    (told,) = broadcast_object_list(found)
    if isinstance(told, ConfigError):
        raise told
    return told


def make(folder: Path, plan: Plan, artifact: Artifact, accelerator: Accelerator, wanted: range) -> None:
    """Make those of the shards `wanted` that are missing, and the manifest if then all are there; all must call it.

    Whole shards are dealt to the processes.
    """
    begun, device = time.monotonic(), accelerator.device
    missing = _begin(folder, plan, accelerator, wanted)
    mine = missing[accelerator.process_index :: accelerator.num_processes]
    artifact.generator.to(device)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not accelerator.is_main_process) as progress:
        task = progress.add_task("sample", total=sum(len(plan.samples(shard)) for shard in mine))
        for shard in mine:
            path = path_of(folder, shard)
            write_shard(path, plan, shard, artifact, device, lambda count: progress.advance(task, count))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        made = sum(len(plan.samples(shard)) for shard in missing)
        _sum_up(folder, plan, artifact, made, time.monotonic() - begun)


def _sum_up(folder: Path, plan: Plan, artifact: Artifact, made: int, seconds: float) -> None:
    there = totals(folder, plan)
    # A manifest stays if nothing was made: it tells what the shards were, should they be damaged since.
    if there.shards == plan.shards:
        if made or not (folder / MANIFEST).exists():
            _write_manifest(folder, plan, sample.provenance(artifact, plan.seed))
        with _writing(folder):
            checkpoint.remove_unfinished(folder)
    logger.info(
        "%s: %d of %d shards, %d images, %.1f MB; %d images made now, %.0f images/s",
        *(folder, there.shards, plan.shards, there.images, there.bytes / 1e6, made, made / seconds),
    )

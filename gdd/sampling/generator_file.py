"""The distilled artefact: a generator in one .safetensors file that says how to build it and where it is from.

Weights of two or more dimensions are stored in float16, which halves the file: of the generators that come with gdd it
moves 1 to 3 % of the pixels, by one of 256 levels. Networks compute in float32.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gdd import __version__, hub, zoo
from gdd.config import ConfigError, GanConfig, earlier, read_as
from gdd.config.stages import ENSEMBLE, MATCHING, PRETRAIN, REFINE
from gdd.data.spec import DatasetSpec
from gdd.models.gan import Generator, make_generator, width_of
from gdd.runtime import checkpoint

FILE = zoo.FILE  # named there, where torch is not imported
# The stages of a run that end in such a file, in their order.
_STAGES = {FILE: (PRETRAIN, REFINE), zoo.SET: (MATCHING,), zoo.ENSEMBLE: (ENSEMBLE,)}


@dataclass
class _Provenance:
    """What gdd itself reads of a provenance; its makers may add more."""

    @dataclass
    class Settings:
        @dataclass
        class Matching:
            iterations: int = 0

        data: dict[str, Any] = field(default_factory=dict)
        gan: dict[str, Any] = field(default_factory=dict)
        matching: Matching = field(default_factory=Matching)

    method: str | None = None
    stage: str | None = None
    seed: int | None = None
    config: Settings = field(default_factory=Settings)
    data: str = ""
    seconds: float | None = None
    iterations: int = 0
    curated: dict[str, Any] = field(default_factory=dict)
    validation_accuracy: dict[str, float | None] = field(default_factory=dict)  # of an ensemble


def tensor_hash(tensors: dict[str, Tensor]) -> str:
    """Return 16 hex digits of SHA-256 over names, types, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()[:16]


class LoadedGenerator(NamedTuple):
    """A generator in eval mode, the dataset it imitates, its hash, its size, and its provenance."""

    generator: Generator
    spec: DatasetSpec
    hash: str
    bytes: int
    provenance: dict[str, Any]


def save_described(
    path: Path, kind: str, tensors: dict[str, Tensor], spec: DatasetSpec, provenance: dict[str, Any], **facts: Any
) -> None:
    """Write tensors with a header that says what they are; provenance and facts are JSON."""
    header = {"kind": kind, "version": __version__, "spec": spec.to_dict(), "provenance": provenance}
    checkpoint.save_tensors(path, tensors, {**header, "hash": tensor_hash(tensors), **facts})


def save(folder: Path, generator: Generator, spec: DatasetSpec, provenance: dict[str, Any]) -> Path:
    """Write `folder/generator.safetensors`; `provenance` is JSON (method, stage, config, seconds, ...)."""
    build = {"arch": generator.arch, "width": generator.width, "noise_dim": generator.noise_dim}
    save_described(folder / FILE, "generator", compact(generator.state_dict()), spec, provenance, build=build)
    return folder / FILE


def compact(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a network's state as files hold it: matrices and kernels in float16 unless they exceed its range."""
    stored = {}
    for name, values in state.items():
        half = values.half() if values.ndim > 1 and values.dtype == torch.float32 else values
        stored[name] = half if half.isfinite().all() or not values.isfinite().all() else values
    return stored


def load(path: Path | str) -> LoadedGenerator:
    """Read a generator from its file, a run folder, zoo:NAME or hub:USER/NAME.

    Raises:
        ConfigError: it is missing, damaged or none.
    """
    path = result_file(hub.local_path(path), FILE, "gdd train-gan or gdd distill")
    return from_tensors(path, *checkpoint.load_tensors(path))


def result_file(path: Path, name: str, maker: str) -> Path:
    """Return a file, or that of a stage's or a run's folder; ConfigError if the folder of its `maker` holds none."""
    if not path.is_dir():
        return path
    folder = last_stage(path, name)
    if not (folder / name).exists():
        raise ConfigError(f"{folder} holds no {name}; a finished run of {maker} was expected")
    return folder / name


def last_stage(path: Path, *names: str) -> Path:
    """Return where a file of one of these names is to be looked for: the last stage of a run's folder, or the path.

    Raises:
        ConfigError: the folder has stages of several methods that end in such files.
    """
    if any((path / name).exists() for name in names):
        return path
    begun = [
        [path / stage for stage in stages if (path / stage / "config.json").exists()]
        for name, stages in _STAGES.items()
        if name in names
    ]
    last = [stages[-1] for stages in begun if stages]
    if len(last) > 1:
        raise ConfigError(f"{path} holds several results, expected one of {' and '.join(map(str, last))}")
    return last[0] if last else path


def from_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> LoadedGenerator:
    """Return the generator that `path` was found to hold; ConfigError as of `load`."""
    with header_of(path, metadata, "generator") as (spec, provenance):
        sizes = read_as(GanConfig, {"arch": "dim", **metadata["build"]}, "build")
        with torch.device("meta"):  # the header of a small file may describe any size
            width = width_of(sizes, spec.shape)
            generator = make_generator(sizes.arch, spec.shape, spec.num_classes, width, sizes.noise_dim)
    fill(path, generator, tensors, metadata)
    return LoadedGenerator(generator, spec, metadata["hash"], path.stat().st_size, provenance)


def fill(path: Path, network: nn.Module, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Give a network on the meta device the weights of its file, in eval mode; ConfigError if they are not its own."""
    # Kernels of earlier versions, and those beyond float16, are float32.
    whole = {name: values.float() if values.dtype == torch.float16 else values for name, values in tensors.items()}
    if _types_and_shapes(whole) != _types_and_shapes(network.state_dict()):
        raise ConfigError(f"{path}: the weights do not fit the {metadata['kind']} that its header describes")
    if tensor_hash(tensors) != metadata.get("hash"):
        raise ConfigError(f"{path}: the weights do not match the hash in its header; the file was changed")
    network.load_state_dict(whole, assign=True)
    network.eval().requires_grad_(False)


@contextmanager
def header_of(path: Path, metadata: dict[str, Any], kind: str) -> Iterator[tuple[DatasetSpec, dict[str, Any]]]:
    """Give the dataset and the provenance of a file's header; what the block finds wrong with it names the file.

    Raises:
        ConfigError: the file does not hold a generator, a set or an ensemble as `kind` says, or its header lacks or
            misstates something.
    """
    if metadata.get("kind") != kind:
        article = "an" if kind == "ensemble" else "a"
        raise ConfigError(f"{path} holds a {metadata.get('kind')}, expected {article} {kind}")
    try:
        yield read_as(DatasetSpec, metadata["spec"], "spec"), stored_provenance(metadata)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, RuntimeError) as error:  # the last of sizes beyond 64 bits
        raise ConfigError(f"{path}: its header lacks or misstates {error}") from error


def stored_provenance(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return the provenance of a header, by the names of now; KeyError or ConfigError if a part has another type."""
    read_as(_Provenance, metadata["provenance"], "provenance")
    return earlier.current_origin(metadata["provenance"])


def _types_and_shapes(tensors: dict[str, Tensor]) -> dict[str, tuple[torch.dtype, torch.Size]]:
    return {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}

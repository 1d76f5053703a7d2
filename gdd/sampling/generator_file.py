"""The distilled artefact: a generator in one .safetensors file that says how to build it and where it is from."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gdd import __version__
from gdd.config import ConfigError
from gdd.config.checks import fits, require, require_type
from gdd.data.spec import DatasetSpec
from gdd.models.gan import Generator
from gdd.runtime import checkpoint

FILE = "generator.safetensors"

# What gdd itself reads of a provenance, outer parts first; its makers may add more.
_PROVENANCE = {
    "method": str | None,
    "stage": str | None,
    "config": dict[str, Any],
    "config.data": dict[str, Any],
    "config.gan": dict[str, Any],
    "config.match": dict[str, Any],
    "config.match.iterations": int,
    "data": str,
    "seconds": float | None,
    "iterations": int,
}


def tensor_hash(tensors: dict[str, Tensor]) -> str:
    """Return 16 hex digits of SHA-256 over names, types, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()[:16]


class Artifact(NamedTuple):
    """A loaded generator in eval mode, the dataset it imitates, its hash, its size, and its provenance."""

    generator: Generator
    spec: DatasetSpec
    hash: str
    bytes: int
    provenance: dict[str, Any]


def save(folder: Path, generator: Generator, spec: DatasetSpec, width: int, provenance: dict[str, Any]) -> Path:
    """Write `folder/generator.safetensors`; `provenance` is JSON (method, stage, config, seconds, ...)."""
    tensors = generator.state_dict()
    build = {"width": width, "noise_dim": generator.noise_dim}
    metadata = {
        "kind": "generator",
        "version": __version__,
        "build": build,
        "spec": spec.to_dict(),
        "hash": tensor_hash(tensors),
        "provenance": provenance,
    }
    path = folder / FILE
    checkpoint.save_tensors(path, tensors, metadata)
    return path


def load(path: Path) -> Artifact:
    """Read a generator from its file or from a run folder; ConfigError if it is missing, damaged or no generator."""
    if path.is_dir():
        if not (path / FILE).exists():
            raise ConfigError(f"{path} holds no {FILE}; a finished run of train_gan.py or distill.py was expected")
        path = path / FILE
    return from_tensors(path, *checkpoint.load_tensors(path))


def from_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> Artifact:
    """Return the generator that `path` was found to hold; ConfigError as of `load`."""
    if metadata.get("kind") != "generator":
        raise ConfigError(f"{path} holds a {metadata.get('kind')}, expected a generator")
    with described_by(path):
        spec, provenance = DatasetSpec.from_dict(metadata["spec"]), stored_provenance(metadata)
        generator = _described(spec, metadata["build"])
    expected = generator.state_dict()
    if _kinds(tensors) != _kinds(expected):
        raise ConfigError(f"{path}: the weights do not fit the generator that its header describes")
    if tensor_hash(tensors) != metadata.get("hash"):
        raise ConfigError(f"{path}: the weights do not match the hash in its header; the file was changed")
    generator.load_state_dict(tensors, assign=True)
    generator.eval().requires_grad_(False)
    return Artifact(generator, spec, metadata["hash"], path.stat().st_size, provenance)


@contextmanager
def described_by(path: Path) -> Iterator[None]:
    """Turn what is wrong with a header into a sentence that names its file."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: its header lacks or misstates {error}") from error


def stored_provenance(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return the provenance of a header; KeyError or ConfigError if what gdd reads of it has another type."""
    found = metadata["provenance"]
    require_type(found, dict[str, Any], "provenance")
    for place, hint in _PROVENANCE.items():
        part, (*outer, key) = found, place.split(".")
        for name in outer:
            part = part.get(name, {})
        if key in part:
            require_type(part[key], hint, f"provenance.{place}")
    return found


def _described(spec: DatasetSpec, build: dict[str, Any]) -> Generator:
    """Return the generator of a header without memory: the header of a small file may describe any size."""
    for key in ("width", "noise_dim"):
        require(fits(build[key], int) and 1 <= build[key] <= 2**20, key, build[key], "a whole number from 1 to 2^20")
    with torch.device("meta"):
        return Generator(spec.shape, spec.num_classes, build["width"], build["noise_dim"])


def _kinds(tensors: dict[str, Tensor]) -> dict[str, tuple[torch.dtype, torch.Size]]:
    return {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}

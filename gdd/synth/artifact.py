"""The distilled artefact: a generator in one .safetensors file that says how to build it and where it is from."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from gdd import __version__, checkpoint
from gdd.config import ConfigError
from gdd.data.spec import DatasetSpec
from gdd.models.gan import Generator

FILE = "generator.safetensors"


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
    tensors, metadata = checkpoint.load_tensors(path)
    if metadata.get("kind") != "generator":
        raise ConfigError(f"{path} holds a {metadata.get('kind')}, expected a generator")
    try:
        spec = DatasetSpec.from_dict(metadata["spec"])
        generator = Generator(spec.shape, spec.num_classes, **metadata["build"])
        stated, provenance = metadata["hash"], dict(metadata["provenance"])
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: its header lacks or misstates {error}") from error
    try:
        generator.load_state_dict(tensors)
    except RuntimeError as error:
        raise ConfigError(f"{path}: the weights do not fit the generator that its header describes") from error
    if tensor_hash(tensors) != stated:
        raise ConfigError(f"{path}: the weights do not match the hash in its header; the file was changed")
    generator.eval().requires_grad_(False)
    return Artifact(generator, spec, metadata["hash"], path.stat().st_size, provenance)

"""Named state objects in one file per step: written whole or not at all, read without running any code."""

import contextlib
import errno
import hashlib
import json
import os
import platform
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from gdd.config import ConfigError
from gdd.runtime.header import read_header

SCHEMA = 2
_NAME = re.compile(r"checkpoint-(\d{8})\.pt")


class Stateful(Protocol):
    """What can be checkpointed; its state holds only tensors, numbers, text, lists and dicts."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


class Damaged(ConfigError):
    """The file is no whole checkpoint: cut, changed, or of other content. An earlier one may still be whole."""


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` on a temporary neighbour, flush it to the disk, and rename it to `path`."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    # Containers on several machines often have the same process numbers.
    temporary = path.with_name(f".{path.name}.{platform.node()}-{os.getpid()}.tmp")
    try:
        try:
            write(temporary)
        except (RuntimeError, SafetensorError) as error:  # how torch and safetensors report a full disk
            raise OSError(errno.EIO, f"writing failed: {_reason(error)}", str(path)) from error
        _flush(temporary)
        temporary.replace(path)
        with contextlib.suppress(OSError):  # some file systems do not flush folders
            _flush(path.parent)  # a new name is safe from a power cut only when its folder is on the disk
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def creating(path: Path) -> Iterator[None]:
    """Make the folder that `path` shall lie in; ConfigError if it, or what the block does, cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror})") from error


def _reason(error: Exception) -> str:
    """Say in plain words what torch's writer reports as a position in the file."""
    if "unexpected pos" in str(error):
        return "the disk is full, or files may not be so large"
    return re.sub(r"^\[enforce fail at \S+\] \. ", "", str(error).partition("\n")[0])


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_unfinished(folder: Path) -> None:
    """Remove what killed writers left behind; nobody else may be writing to the folder."""
    for temporary in folder.glob(".*.tmp"):
        temporary.unlink(missing_ok=True)


def write_json(path: Path, values: object) -> None:
    write_atomically(path, lambda temporary: temporary.write_text(json.dumps(values, indent=2) + "\n"))


def read_json(path: Path) -> Any:
    """Return the JSON value in a file; ConfigError if there is none."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read as JSON ({error})") from error


def steps(folder: Path) -> list[int]:
    """Return the steps that have a checkpoint in `folder`, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(int(match[1]) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name)))


def path_at(folder: Path, step: int) -> Path:
    return folder / f"checkpoint-{step:08d}.pt"


def newest(folder: Path) -> Path:
    """Return the last checkpoint of a run folder; ConfigError if there is none."""
    if not (done := steps(folder)):
        raise ConfigError(f"{folder} holds no checkpoint, expected a finished run folder of gdd train-gan")
    return path_at(folder, done[-1])


def _tensors(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a nested state with their places, such as networks/0/head.bias."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _tensors(item, f"{name}/{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        yield from _tensors(dict(enumerate(value)), name)


def _digest(tensor: Tensor) -> str:
    values = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
    return hashlib.blake2b(values.numpy().tobytes(), digest_size=16).hexdigest()


def _manifest(state: Any) -> dict[str, list[Any]]:
    """Return type, shape and hash of every tensor of a state."""
    return {name: [str(t.dtype), list(t.shape), _digest(t)] for name, t in _tensors(state)}


def _network(state: Stateful) -> str | None:
    """Return the layers of a network as text: other activations or strides have weights of the same shapes."""
    return str(state) if isinstance(state, torch.nn.Module) else None


def save(folder: Path, step: int, states: Mapping[str, Stateful], keep: int) -> Path:
    """Write the states after `step` steps with their manifest, then remove all but the newest `keep` checkpoints."""
    path = path_at(folder, step)
    saved = {name: state.state_dict() for name, state in states.items()}
    manifest = {name: _manifest(state) for name, state in saved.items()}
    networks = {name: _network(state) for name, state in states.items()}
    content = {"schema": SCHEMA, "step": step, "states": saved, "manifest": manifest, "networks": networks}
    write_atomically(path, lambda temporary: torch.save(content, temporary))
    for old in steps(folder)[:-keep]:
        path_at(folder, old).unlink()
    return path


def _is_machine_failure(error: Exception) -> bool:
    """Return whether disk or memory failed, as opposed to a damaged file."""
    if isinstance(error, OSError):
        return error.errno not in (None, errno.EINVAL)  # EINVAL: an offset beyond the file's end
    return isinstance(error, MemoryError) or "allocate memory" in str(error)


def _read(path: Path) -> dict[str, Any]:
    """Return a checkpoint's content, compared with its checksums and its manifest."""
    try:
        with zipfile.ZipFile(path) as archive:
            if (damaged := archive.testzip()) is not None:  # torch's reader skips the checksums that its writer stored
                raise ValueError(f"wrong checksum of {damaged}")
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["schema"] == SCHEMA:
            for name in content["states"]:
                if _manifest(content["states"][name]) != content["manifest"][name]:
                    raise ValueError(f"{name!r} is not what its manifest says")
            if not isinstance(content["step"], int) or not isinstance(content["networks"], dict):
                raise ValueError("it lacks its step or its networks")
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; a checkpoint was expected there") from None
    except Exception as error:  # torch raises many kinds for a damaged file
        if _is_machine_failure(error):
            raise
        reason = " ".join(str(error).partition("\n")[0].split())[:200]
        raise Damaged(f"{path} is damaged or no checkpoint ({reason})") from error
    if content["schema"] != SCHEMA:
        raise ConfigError(f"{path} has checkpoint schema {content['schema']}, this version reads {SCHEMA}")
    return content


def load(path: Path, states: Mapping[str, Stateful]) -> int:
    """Put a checkpoint's content into `states`, wherever they live, and return its step.

    Raises:
        Damaged: the file is cut, was changed, or is no checkpoint.
        ConfigError: it is missing, of another schema, lacks a state, or was saved from other networks.
    """
    content = _read(path)
    for name, state in states.items():
        if name not in content["states"]:
            raise ConfigError(f"{path} holds no state named {name!r}, only {sorted(content['states'])}")
        if content["networks"].get(name) != _network(state):
            raise ConfigError(f"{path}: {name!r} does not fit this configuration (it was saved from another network)")
        try:
            state.load_state_dict(content["states"][name])
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ConfigError(f"{path}: {name!r} does not fit this configuration ({reason})") from error
    return int(content["step"])


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write a .safetensors file atomically; `metadata` is stored as JSON under one key."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = {"gdd": json.dumps(metadata, sort_keys=True)}
    write_atomically(path, lambda temporary: save_file(contiguous, temporary, metadata=text))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote; ConfigError if the file is missing, damaged or another program's."""
    metadata = read_header(path)
    try:
        return load_file(path), metadata
    except (SafetensorError, OSError, ValueError) as error:
        raise ConfigError(f"{path} is damaged or no .safetensors file ({error})") from error

"""Named state objects in one file per step: written whole or not at all, read without running any code."""

import errno
import json
import os
import re
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from gdd.config import ConfigError

SCHEMA = 1
_NAME = re.compile(r"checkpoint-(\d{8})\.pt")


class Stateful(Protocol):
    """What can be checkpointed; its state holds only tensors, numbers, text, lists and dicts."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` on a temporary neighbour, flush it to the disk, and rename it to `path`."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            write(temporary)
        except (RuntimeError, SafetensorError) as error:  # how torch and safetensors tell of a full disk
            reason = str(error).partition("\n")[0]
            raise OSError(errno.EIO, f"writing failed ({reason})", str(path)) from error
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, values: object) -> None:
    write_atomically(path, lambda temporary: temporary.write_text(json.dumps(values, indent=2) + "\n"))


def read_json(path: Path) -> Any:
    """Return the JSON value in a file; ConfigError if there is none."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as JSON ({error})") from error


def steps(folder: Path) -> list[int]:
    """Return the steps that have a checkpoint in `folder`, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(int(match[1]) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name)))


def path_of(folder: Path, step: int) -> Path:
    return folder / f"checkpoint-{step:08d}.pt"


def save(folder: Path, step: int, states: Mapping[str, Stateful], keep: int) -> Path:
    """Write the states after `step` steps, then remove all but the newest `keep` checkpoints."""
    path = path_of(folder, step)
    content = {"schema": SCHEMA, "step": step, "states": {name: s.state_dict() for name, s in states.items()}}
    write_atomically(path, lambda temporary: torch.save(content, temporary))
    for old in steps(folder)[:-keep]:
        path_of(folder, old).unlink()
    return path


def load(path: Path, states: Mapping[str, Stateful], device: torch.device | str = "cpu") -> int:
    """Put a checkpoint's content into `states` and return its step.

    Raises:
        ConfigError: the file is missing, damaged, of another schema, lacks a state, or fits other networks.
    """
    try:
        # Torch's reader skips the checksums that its writer stored.
        with zipfile.ZipFile(path) as archive:
            if (part := archive.testzip()) is not None:
                raise ValueError(f"wrong checksum of {part}")
        content = torch.load(path, map_location=device, weights_only=True)
        schema, step, saved = content["schema"], content["step"], content["states"]
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; a checkpoint was expected there") from None
    except Exception as error:  # torch raises many kinds for a damaged file
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f"{path} is damaged or no checkpoint ({reason}); delete it to go on from the one before"
        ) from error
    if schema != SCHEMA:
        raise ConfigError(f"{path} has checkpoint schema {schema}, this version reads {SCHEMA}")
    for name, state in states.items():
        if name not in saved:
            raise ConfigError(f"{path} holds no state named {name!r}, only {sorted(saved)}")
        try:
            state.load_state_dict(saved[name])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ConfigError(f"{path}: {name!r} does not fit this configuration ({reason})") from error
    return int(step)


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write a .safetensors file atomically; `metadata` is stored as JSON under one key."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = {"gdd": json.dumps(metadata, sort_keys=True)}
    write_atomically(path, lambda temporary: save_file(contiguous, temporary, metadata=text))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote; ConfigError if the file is missing, damaged or another program's."""
    try:
        tensors = load_file(path)
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        metadata = json.loads(header["__metadata__"]["gdd"])
        if not isinstance(metadata, dict):
            raise KeyError("gdd")
        return tensors, metadata
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; a .safetensors file was expected there") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise ConfigError(f"{path} is damaged or no .safetensors file ({error})") from error
    except KeyError:
        raise ConfigError(f"{path} was not written by gdd: its header has no gdd metadata") from None

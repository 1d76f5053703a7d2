"""What a run that was killed left otherwise than one that was not: to the bit, but for clocks.

Files are read here without the package, whose own readers are among what is tested.
"""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file

# Where a run was put, and tables of what rows.jsonl holds, with the seconds of every student.
NOT_COMPARED = ("config.json", "rows.csv", "table.md")
# Clocks, what a student cost, and which commit the checkout was at: no part of a result. All else must agree, hashes
# of the configuration among it, for both runs name their sources by the same paths.
OF_THE_MOMENT = ("images_per_second", "lessons/share", "peak_memory_mb", "git_revision")
CARDS_CLOCK = "- **Time:** "


def between(reference: Path, killed: Path) -> list[str]:
    """Say which files of a finished folder are missing, left behind, incomplete or unlike those of the reference."""
    expected, present = _files(reference), _files(killed)
    said = [f"{name} is missing" for name in sorted(expected - present)]
    said += [f"{name} was left behind" for name in sorted(present - expected)]
    if (first := len(_checkpoints(reference))) != (second := len(_checkpoints(killed))):
        said.append(f"{second} checkpoints instead of {first}")
    said += [text for folder in (reference, killed) for text in _miscounted(folder)]
    older = {path.name for path in _checkpoints(reference)[:-1] if (killed / path.name).exists()}
    for name in sorted(((expected & present) | older).difference(NOT_COMPARED)):
        said += unequal(_content(reference / name), _content(killed / name), name)
    return said


def _files(folder: Path) -> set[str]:
    """Each start opens a new file for TensorBoard, whose pictures of the metrics are not compared.

    Of checkpoints the last counts: an end in order, such as a killed launcher's processes make, writes one more.
    """
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    older = [path.name for path in _checkpoints(folder)[:-1]]
    return {str(path) for path in paths if path.parts[0] != "tensorboard"}.difference(older)


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*.pt"))


def _content(path: Path) -> object:
    """Return what a file holds.

    Tensors and the hash that states them, states but the clock's, lines by their key, a card without its time.
    """
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            return {**load_file(path), "hash": json.loads(file.metadata()["gdd"])["hash"]}
    if path.suffix == ".pt":
        content = torch.load(path, weights_only=True)
        states = {name: state for name, state in content["states"].items() if name != "clock"}
        return {"step": content["step"], "states": states}
    if path.suffix == ".jsonl":
        return {str(_key(line)): _without_clocks(line) for line in _lines(path)}
    if path.name == "README.md":
        return [line for line in path.read_text().splitlines() if not line.startswith(CARDS_CLOCK)]
    return json.loads(path.read_bytes()) if path.suffix == ".json" else path.read_bytes()


def unequal(first: object, second: object, place: str) -> list[str]:
    """Return the places at which nested values differ: to the bit in tensors, by type and value elsewhere."""
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        first, second = dict(enumerate(first)), dict(enumerate(second))
    if isinstance(first, dict) and isinstance(second, dict):
        alone = [f"{place}: {key} is in one only" for key in first.keys() ^ second.keys()]
        shared = first.keys() & second.keys()
        return alone + [text for key in shared for text in unequal(first[key], second[key], f"{place}/{key}")]
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        same = (first.dtype, first.shape) == (second.dtype, second.shape) and torch.equal(_bits(first), _bits(second))
    else:
        same = type(first) is type(second) and first == second
    return [] if same else [f"{place} differs"]


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """Zeros of either sign are told apart, and NaN equals itself."""
    return tensor.detach().contiguous().flatten().view(torch.uint8)


def _miscounted(folder: Path) -> list[str]:
    """Say which lines are not there exactly once: of metrics one for each step that is due, in order; of rows any."""
    said = []
    for path in folder.glob("*.jsonl"):
        keys = [_key(line) for line in _lines(path)]
        said += [f"{path.name}: {key} is there {n} times" for key, n in Counter(keys).items() if n > 1]
        if path.name == "metrics.jsonl":
            every = json.loads((folder / "config.json").read_text())["config"]["run"]["log_every"]
            total = max(keys, default=0)
            due = [step for step in range(1, total + 1) if step % every == 0 or step == total]
            said += [f"{path.name}: step {step} is missing" for step in due if step not in keys]
            if keys != sorted(keys):
                said.append(f"{path.name} is not in order")
    return said


def _key(line: dict[str, Any]) -> Any:
    """Return the step of a line of metrics.jsonl, or the student of one of rows.jsonl."""
    return (
        line["step"] if "step" in line else tuple(line[name] for name in ("source", "protocol", "arch", "seed", "ipc"))
    )


def _lines(path: Path) -> Iterable[dict[str, Any]]:
    return map(json.loads, path.read_text().splitlines())


def _without_clocks(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name not in OF_THE_MOMENT and not name.startswith("seconds")}

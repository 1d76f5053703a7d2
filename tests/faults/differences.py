"""What a run that was killed left otherwise than one that was not: to the bit, but for clocks.

Files are read here without the package, whose own readers are among what is tested.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file

# What a student cost, and which commit the checkout was at: neither is part of its score. All else must agree, hashes
# of the configuration among it, for both runs name their sources by the same paths.
OF_THE_MOMENT = ("peak_memory_mb", "git_revision")


def of_stage(reference: Path, found: Path) -> list[str]:
    """Compare run folders of a training stage."""
    return [
        *of_files(reference, found),
        *of_tensors(reference, found),
        *of_checkpoints(reference, found),
        *of_metrics(reference, found),
        *of_bytes(reference, found, "grid.png"),
    ]


def of_evaluation(reference: Path, found: Path) -> list[str]:
    """Compare run folders of an evaluation."""
    return [*of_files(reference, found), *of_rows(reference, found)]


def of_shards(reference: Path, found: Path) -> list[str]:
    """Compare folders of shards: their bytes, the manifests, and the checksums in them."""
    first, second = (json.loads((folder / "manifest.json").read_text()) for folder in (reference, found))
    differing = [f"manifest.json: {place}" for place in unequal(first, second)]
    for entry in second["shards"]:
        if _sha256(found / entry["name"]) != entry["sha256"]:
            differing.append(f"{entry['name']} is not what its manifest says")
    names = sorted(path.name for path in reference.glob("shard-*.tar"))
    return [*of_files(reference, found), *differing, *(x for name in names for x in of_bytes(reference, found, name))]


def of_files(reference: Path, found: Path) -> list[str]:
    """Compare which files there are; a temporary file of a killed writer must be gone."""
    expected, have = _files(reference), _files(found)
    lacking = [f"{name} is missing" for name in sorted(expected - have)]
    return lacking + [f"{name} was left behind" for name in sorted(have - expected)]


def _files(folder: Path) -> set[str]:
    """Each start opens a new file for TensorBoard, whose pictures of the metrics are not compared.

    Of checkpoints the last counts: an end in order, such as a killed launcher's processes make, writes one more.
    """
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    older = [path.name for path in _checkpoints(folder)[:-1]]
    return {str(path) for path in paths if path.parts[0] != "tensorboard"}.difference(older)


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*.pt"))


def of_bytes(reference: Path, found: Path, name: str) -> list[str]:
    first, second = (_sha256(folder / name) for folder in (reference, found))
    return [] if first == second else [f"{name} differs"]


def _sha256(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def of_tensors(reference: Path, found: Path) -> list[str]:
    """Compare the tensors, and the hash that states them, of all .safetensors files."""
    differing = []
    for path in sorted(reference.glob("*.safetensors")):
        other = found / path.name
        if not other.exists():
            differing.append(f"{path.name} is missing")
            continue
        differing += [f"{path.name}: {place}" for place in unequal(load_file(path), load_file(other))]
        if _hash(path) != _hash(other):
            differing.append(f"{path.name}: its hash")
    return differing


def _hash(path: Path) -> str:
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["gdd"])["hash"]


def of_checkpoints(reference: Path, found: Path) -> list[str]:
    """Compare the number of checkpoints, and step and states, the clock's apart, of those that both kept."""
    first, second = _checkpoints(reference), _checkpoints(found)
    differing = [] if len(first) == len(second) else [f"{len(second)} checkpoints instead of {len(first)}"]
    for path in first:
        other = found / path.name
        where = unequal(_states(path), _states(other)) if other.exists() else []
        differing += [f"{path.name}: {place}" for place in where]
    return differing


def _states(path: Path) -> dict[str, Any]:
    content = torch.load(path, weights_only=True)
    states = {name: state for name, state in content["states"].items() if name != "clock"}
    return {"step": content["step"], "states": states}


def unequal(first: object, second: object, place: str = "") -> list[str]:
    """Return the places at which nested states differ: to the bit in tensors, by type and value elsewhere."""
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        same = (first.dtype, first.shape) == (second.dtype, second.shape) and torch.equal(_bits(first), _bits(second))
        return [] if same else [place]
    if isinstance(first, dict) and isinstance(second, dict):
        if first.keys() != second.keys():
            return [f"{place}, its names"]
        return [text for key in first for text in unequal(first[key], second[key], f"{place}/{key}".lstrip("/"))]
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        if len(first) != len(second):
            return [f"{place}, its length"]
        return unequal(dict(enumerate(first)), dict(enumerate(second)), place)
    return [] if type(first) is type(second) and first == second else [place]


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """Zeros of either sign are told apart, and NaN equals itself."""
    return tensor.detach().contiguous().flatten().view(torch.uint8)


def of_metrics(reference: Path, found: Path) -> list[str]:
    """Compare the lines of metrics.jsonl, of which there must be one for each step that is due."""
    first, second = (_lines(folder / "metrics.jsonl") for folder in (reference, found))
    every = json.loads((reference / "config.json").read_text())["config"]["run"]["log_every"]
    total = first[-1]["step"]
    due = [step for step in range(1, total + 1) if step % every == 0 or step == total]
    differing = []
    for folder, lines in ((reference, first), (found, second)):
        steps = [line["step"] for line in lines]
        differing += _counted(f"{folder.name}/metrics.jsonl: step", due, steps)
        if steps != sorted(steps):
            differing.append(f"{folder.name}/metrics.jsonl is not in order")
    values = [{line["step"]: _without(line, ("images_per_second",)) for line in lines} for lines in (first, second)]
    shared = sorted(values[0].keys() & values[1].keys())
    return differing + [f"metrics.jsonl: step {step} differs" for step in shared if values[0][step] != values[1][step]]


def of_rows(reference: Path, found: Path) -> list[str]:
    """Compare the rows of rows.jsonl, of which there must be one for each student, in any order."""
    first, second = (_lines(folder / "rows.jsonl") for folder in (reference, found))
    expected = dict.fromkeys(map(_student, first))
    differing = [text for rows in (first, second) for text in _counted("rows.jsonl:", expected, map(_student, rows))]
    left_out = {name for row in first for name in row if name.startswith("seconds")} | set(OF_THE_MOMENT)
    known = {_student(row): _without(row, left_out) for row in first}
    for row in second:
        own, other = known.get(_student(row), row), _without(row, left_out)
        names = [name for name in sorted(own.keys() | other.keys()) if own.get(name) != other.get(name)]
        if _student(row) in known and names:
            differing.append(f"rows.jsonl: {', '.join(names)} of {_student(row)}")
    return differing


def _student(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("source", "protocol", "arch", "seed", "ipc"))


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _without(values: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def _counted(what: str, expected: Iterable[Any], found: Iterable[Any]) -> list[str]:
    """Say what is not there exactly once."""
    counts = Counter(found)
    wanted = dict.fromkeys(expected)
    missing = [f"{what} {one} is missing" for one in wanted if not counts[one]]
    return missing + [f"{what} {one} is there {n} times" for one, n in counts.items() if n > 1 or one not in wanted]

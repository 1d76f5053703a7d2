"""The comparison of killed and undisturbed runs notices whatever a kill could lose, double or change."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import differences
import pytest
import torch
from safetensors.torch import save_file

STUDENT = {"protocol": "fixed", "arch": "mlp", "ipc": 2, "accuracy": 50.0, "seconds": 1.0, "peak_memory_mb": 9.0}


def _write_stage(folder: Path) -> None:
    weights = {"weight": torch.tensor([0.0, 1.0]), "count": torch.tensor(3)}
    (folder / "config.json").write_text(json.dumps({"config": {"run": {"log_every": 2}}}))
    save_file(weights, folder / "generator.safetensors", metadata={"gdd": json.dumps({"hash": "ab", "seconds": 1})})
    states = {"generator": weights, "pool": {"steps": [1, 2]}, "clock": {"seconds": 1.0}}
    for step in (4, 5):
        torch.save({"step": step, "states": states}, folder / f"checkpoint-{step:08d}.pt")
    lines = [{"step": step, "images_per_second": 1.0, "loss": 0.5 * step} for step in (2, 4, 5)]
    _write_lines(folder / "metrics.jsonl", lines)
    (folder / "grid.png").write_bytes(b"png")
    (folder / "tensorboard").mkdir()
    (folder / "tensorboard" / f"events.{folder.name}").touch()


def _write_evaluation(folder: Path) -> None:
    (folder / "config.json").touch()
    rows = [{**STUDENT, "source": source, "seed": seed} for source in ("a", "b") for seed in (0, 1)]
    _write_lines(folder / "rows.jsonl", rows)


def _write_shards(folder: Path) -> None:
    shards = []
    for number in range(2):
        content, name = bytes([number]) * 512, f"shard-{number:06d}.tar"
        (folder / name).write_bytes(content)
        shards.append({"name": name, "sha256": hashlib.sha256(content).hexdigest()})
    (folder / "manifest.json").write_text(json.dumps({"ipc": 2, "shards": shards}))


def _write_lines(path: Path, values: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(value) + "\n" for value in values))


def _edit_lines(name: str, change: Callable[[list[dict[str, Any]]], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        values = [json.loads(line) for line in (folder / name).read_text().splitlines()]
        change(values)
        _write_lines(folder / name, values)

    return edit


def _edit_weights(weight: torch.Tensor, stated: str = "ab") -> Callable[[Path], None]:
    weights = {"weight": weight, "count": torch.tensor(3)}
    metadata = {"gdd": json.dumps({"hash": stated, "seconds": 2})}
    return lambda folder: save_file(weights, folder / "generator.safetensors", metadata=metadata)


def _edit_checkpoint(change: Callable[[dict[str, Any]], object], step: int = 5) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / f"checkpoint-{step:08d}.pt"
        content = torch.load(path, weights_only=True)
        change(content)
        torch.save(content, path)

    return edit


def _edit_bytes(name: str, position: int = 0) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[position] ^= 1
        (folder / name).write_bytes(content)

    return edit


def _forge_shard(folder: Path) -> None:
    """Change a shard and its checksum alike."""
    _edit_bytes("shard-000001.tar")(folder)
    stated = json.loads((folder / "manifest.json").read_text())
    stated["shards"][1]["sha256"] = hashlib.sha256((folder / "shard-000001.tar").read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(stated))


KINDS = {
    "stage": (_write_stage, differences.of_stage),
    "evaluation": (_write_evaluation, differences.of_evaluation),
    "shards": (_write_shards, differences.of_shards),
}
# Kind, edit, and a word of what must be said.
CHANGES = {
    "a weight": ("stage", _edit_weights(torch.tensor([0.0, 1.0000001])), "generator.safetensors: weight"),
    "the sign of a zero": ("stage", _edit_weights(torch.tensor([-0.0, 1.0])), "generator.safetensors: weight"),
    "the type of a weight": ("stage", _edit_weights(torch.tensor([0.0, 1.0]).double()), "safetensors: weight"),
    "the stated hash": ("stage", _edit_weights(torch.tensor([0.0, 1.0]), "cd"), "generator.safetensors: its hash"),
    "no generator": ("stage", lambda folder: (folder / "generator.safetensors").unlink(), "is missing"),
    "a state": ("stage", _edit_checkpoint(lambda c: c["states"]["generator"]["count"].add_(1)), "generator/count"),
    "a number of a state": ("stage", _edit_checkpoint(lambda c: c["states"]["pool"]["steps"].append(3)), "pool/steps"),
    "a state less": ("stage", _edit_checkpoint(lambda c: c["states"].pop("pool")), "checkpoint-00000005.pt: states"),
    "an older state": ("stage", _edit_checkpoint(lambda c: c["states"]["pool"].clear(), 4), "checkpoint-00000004.pt"),
    "the step": ("stage", _edit_checkpoint(lambda c: c.update(step=4)), "checkpoint-00000005.pt: step"),
    "a lost checkpoint": ("stage", lambda folder: (folder / "checkpoint-00000005.pt").unlink(), "5.pt is missing"),
    "an older one lost": (
        "stage",
        lambda folder: (folder / "checkpoint-00000004.pt").unlink(),
        "1 checkpoints instead",
    ),
    "one checkpoint more": ("stage", lambda folder: (folder / "checkpoint-00000002.pt").touch(), "3 checkpoints"),
    "a lost line": ("stage", _edit_lines("metrics.jsonl", lambda lines: lines.pop(1)), "step 4 is missing"),
    "no line": ("stage", lambda folder: (folder / "metrics.jsonl").write_text(""), "step 2 is missing"),
    "a doubled line": ("stage", _edit_lines("metrics.jsonl", lambda v: v.insert(1, v[1])), "step 4 is there 2 times"),
    "lines in disorder": ("stage", _edit_lines("metrics.jsonl", lambda v: v.reverse()), "not in order"),
    "a metric": ("stage", _edit_lines("metrics.jsonl", lambda v: v[2].update(loss=2.5000001)), "step 5 differs"),
    "the picture": ("stage", _edit_bytes("grid.png"), "grid.png differs"),
    "a leftover": ("stage", lambda folder: (folder / ".checkpoint-00000005.pt.7.tmp").touch(), "left behind"),
    "a row's accuracy": ("evaluation", _edit_lines("rows.jsonl", lambda v: v[0].update(accuracy=51)), "accuracy of"),
    "a row's field less": ("evaluation", _edit_lines("rows.jsonl", lambda v: v[0].pop("accuracy")), "accuracy of"),
    "a lost row": (
        "evaluation",
        _edit_lines("rows.jsonl", lambda v: v.pop()),
        "('b', 'fixed', 'mlp', 1, 2) is missing",
    ),
    "a doubled row": ("evaluation", _edit_lines("rows.jsonl", lambda v: v.append(v[0])), "is there 2 times"),
    "a strange row": ("evaluation", _edit_lines("rows.jsonl", lambda v: v.append({**v[0], "seed": 9})), "1 times"),
    "a part that was not merged": ("evaluation", lambda folder: (folder / "rows-0.jsonl").touch(), "left behind"),
    "a shard": ("shards", _edit_bytes("shard-000001.tar", 100), "shard-000001.tar differs"),
    "a shard and its checksum": ("shards", _forge_shard, "shard-000001.tar differs"),
    "a lost shard": ("shards", lambda folder: (folder / "shard-000000.tar").unlink(), "shard-000000.tar is missing"),
    "a leftover shard": ("shards", lambda folder: (folder / ".shard-000000.tar.7.tmp").touch(), "left behind"),
    "the manifest": ("shards", _edit_bytes("manifest.json", 8), "manifest.json: ipc"),
}


def _pair(kind: str, root: Path) -> tuple[Path, Path]:
    """Write two equal folders."""
    folders = root / "reference", root / "found"
    for folder in folders:
        folder.mkdir()
        KINDS[kind][0](folder)
    return folders


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_equal_is_called_equal(kind, tmp_path):
    assert KINDS[kind][1](*_pair(kind, tmp_path)) == []


@pytest.mark.parametrize("change", CHANGES)
def test_what_differs_is_said(change, tmp_path):
    kind, edit, expected = CHANGES[change]
    reference, found = _pair(kind, tmp_path)
    edit(found)
    said = KINDS[kind][1](reference, found)
    assert any(expected in text for text in said), said


def test_clocks_may_differ(tmp_path):
    reference, found = _pair("stage", tmp_path)
    _edit_weights(torch.tensor([0.0, 1.0]))(found)  # with other seconds in its header
    _edit_checkpoint(lambda content: content["states"]["clock"].update(seconds=9.0))(found)
    _edit_lines("metrics.jsonl", lambda lines: lines[0].update(images_per_second=9.0))(found)
    assert differences.of_stage(reference, found) == []


def test_an_older_checkpoint_may_be_that_of_another_end(tmp_path):
    reference, found = _pair("stage", tmp_path)
    (found / "checkpoint-00000004.pt").rename(found / "checkpoint-00000003.pt")
    assert differences.of_stage(reference, found) == []


def test_cost_and_order_of_rows_may_differ(tmp_path):
    reference, found = _pair("evaluation", tmp_path)
    _edit_lines("rows.jsonl", lambda rows: rows[0].update(seconds=9.0, peak_memory_mb=1.0))(found)
    _edit_lines("rows.jsonl", lambda rows: rows.reverse())(found)
    assert differences.of_evaluation(reference, found) == []

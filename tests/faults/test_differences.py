"""The comparison of killed and undisturbed runs notices whatever a kill could lose, double or change."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import differences
import pytest
import torch
from safetensors.torch import save_file

STUDENT = {"protocol": "fixed", "arch": "mlp", "ipc": 2, "accuracy": 50.0, "seconds": 1.0, "peak_memory_mb": 9.0}


def _write(folder: Path) -> None:
    """Write what stages, an evaluation and a sampling leave."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"config": {"run": {"log_every": 2, "root": str(folder)}}}))
    _write_weights([0.0, 1.0])(folder)
    weights = {"weight": torch.tensor([0.0, 1.0]), "count": torch.tensor(3)}
    states = {"generator": weights, "pool": {"steps": [1, 2]}, "clock": {"seconds": 1.0}}
    for step in (4, 5):
        torch.save({"step": step, "states": states}, folder / f"checkpoint-{step:08d}.pt")
    lines = [{"step": step, "images_per_second": 1.0, "loss": 0.5 * step} for step in (2, 4, 5)]
    rows = [{**STUDENT, "source": source, "seed": seed} for source in ("a", "b") for seed in (0, 1)]
    for name, values in (("metrics", lines), ("rows", rows)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, values)))
    _card("- **Seed:** 0\n- **Time:** 1.0 seconds\n")(folder)
    for name in ("grid.png", "shard-000000.tar"):
        (folder / name).write_bytes(bytes(512))
    (folder / "manifest.json").write_text(json.dumps({"ipc": 2, "shards": [{"sha256": "ab"}]}))
    (folder / "tensorboard").mkdir()
    (folder / "tensorboard" / f"events.{folder.name}").touch()


def _write_weights(weight: Any, stated: str = "ab", seconds: int = 1) -> Callable[[Path], None]:
    tensors = {"weight": torch.as_tensor(weight), "count": torch.tensor(3)}
    metadata = {"gdd": json.dumps({"hash": stated, "seconds": seconds})}
    return lambda folder: save_file(tensors, folder / "generator.safetensors", metadata=metadata)


def _lines(name: str, change: Callable[[list[dict[str, Any]]], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        values = list(map(json.loads, (folder / name).read_text().splitlines()))
        change(values)
        (folder / name).write_text("\n".join(map(json.dumps, values)))

    return edit


def _checkpoint(change: Callable[[dict[str, Any]], object], step: int = 5) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / f"checkpoint-{step:08d}.pt"
        content = torch.load(path, weights_only=True)
        change(content)
        torch.save(content, path)

    return edit


def _flipped(name: str, position: int = 0) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[position] ^= 1
        (folder / name).write_bytes(content)

    return edit


def _lost(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _card(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "README.md").write_text(text)


def _new(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).touch()


# Edit, and a word of what must be said.
CHANGES = {
    "a weight": (_write_weights([0.0, 1.0000001]), "generator.safetensors/weight differs"),
    "the sign of a zero": (_write_weights([-0.0, 1.0]), "generator.safetensors/weight differs"),
    "the type of a weight": (_write_weights(torch.tensor([0.0, 1.0]).double()), "safetensors/weight differs"),
    "the stated hash": (_write_weights([0.0, 1.0], "cd"), "generator.safetensors/hash differs"),
    "no generator": (_lost("generator.safetensors"), "generator.safetensors is missing"),
    "a state": (_checkpoint(lambda c: c["states"]["generator"]["count"].add_(1)), "generator/count differs"),
    "a number of a state": (_checkpoint(lambda c: c["states"]["pool"]["steps"].append(3)), "pool/steps: 2 is in one"),
    "a state less": (_checkpoint(lambda c: c["states"].pop("pool")), "00000005.pt/states: pool is in one only"),
    "an older state": (_checkpoint(lambda c: c["states"]["pool"].clear(), 4), "checkpoint-00000004.pt/states/pool"),
    "the step": (_checkpoint(lambda c: c.update(step=4)), "checkpoint-00000005.pt/step differs"),
    "a lost checkpoint": (_lost("checkpoint-00000005.pt"), "5.pt is missing"),
    "an older one lost": (_lost("checkpoint-00000004.pt"), "1 checkpoints instead"),
    "one checkpoint more": (_new("checkpoint-00000002.pt"), "3 checkpoints"),
    "a lost line": (_lines("metrics.jsonl", lambda lines: lines.pop(1)), "step 4 is missing"),
    "the last line lost": (_lines("metrics.jsonl", lambda lines: lines.pop()), "metrics.jsonl: 5 is in one only"),
    "no line": (_lines("metrics.jsonl", lambda lines: lines.clear()), "metrics.jsonl: 2 is in one only"),
    "a doubled line": (_lines("metrics.jsonl", lambda v: v.insert(1, v[1])), "metrics.jsonl: 4 is there 2 times"),
    "lines in disorder": (_lines("metrics.jsonl", lambda v: v.reverse()), "not in order"),
    "a metric": (_lines("metrics.jsonl", lambda v: v[2].update(loss=2.5000001)), "metrics.jsonl/5/loss differs"),
    "the card": (_card("- **Seed:** 1\n- **Time:** 1.0 seconds\n"), "README.md/0 differs"),
    "the picture": (_flipped("grid.png"), "grid.png differs"),
    "a leftover": (_new(".checkpoint-00000005.pt.7.tmp"), "left behind"),
    "a row's accuracy": (_lines("rows.jsonl", lambda v: v[0].update(accuracy=51.0)), "/accuracy differs"),
    "a row's field less": (_lines("rows.jsonl", lambda v: v[0].pop("accuracy")), "accuracy is in one only"),
    "a lost row": (_lines("rows.jsonl", lambda v: v.pop()), "('b', 'fixed', 'mlp', 1, 2) is in one only"),
    "a doubled row": (_lines("rows.jsonl", lambda v: v.append(v[0])), "is there 2 times"),
    "a strange row": (_lines("rows.jsonl", lambda v: v.append({**v[0], "seed": 9})), "9, 2) is in one only"),
    "a part that was not merged": (_new("rows-0.jsonl"), "left behind"),
    "a shard": (_flipped("shard-000000.tar", 100), "shard-000000.tar differs"),
    "a lost shard": (_lost("shard-000000.tar"), "shard-000000.tar is missing"),
    "the manifest": (_lines("manifest.json", lambda v: v[0].update(ipc=3)), "manifest.json/ipc differs"),
    "a stated checksum": (_lines("manifest.json", lambda v: v[0]["shards"][0].update(sha256="")), "shards/0/sha256"),
}
MAY_DIFFER = {
    "nothing": lambda folder: None,
    "the seconds of a header": _write_weights([0.0, 1.0], seconds=2),
    "the clock's state": _checkpoint(lambda content: content["states"]["clock"].update(seconds=9.0)),
    "the speed": _lines("metrics.jsonl", lambda lines: lines[0].update(images_per_second=9.0)),
    "the time in the card": _card("- **Seed:** 0\n- **Time:** 2.0 seconds\n"),
    "an older checkpoint": lambda folder: (folder / "checkpoint-00000004.pt").rename(folder / "checkpoint-00000003.pt"),
    "cost of a row": _lines("rows.jsonl", lambda rows: rows[0].update(seconds=9.0, peak_memory_mb=1.0)),
    "order of rows": _lines("rows.jsonl", lambda rows: rows.reverse()),
}


def _said(edit: Callable[[Path], object], root: Path) -> list[str]:
    for name in ("reference", "killed"):
        _write(root / name)
    edit(root / "killed")
    return differences.between(root / "reference", root / "killed")


@pytest.mark.parametrize(("edit", "expected"), CHANGES.values(), ids=CHANGES)
def test_what_differs_is_said(edit, expected, tmp_path):
    said = _said(edit, tmp_path)
    assert any(expected in text for text in said), said


@pytest.mark.parametrize("edit", MAY_DIFFER.values(), ids=MAY_DIFFER)
def test_clocks_costs_and_order_may_differ(edit, tmp_path):
    assert _said(edit, tmp_path) == []


@pytest.mark.parametrize(("change", "expected"), [(lambda v: v.pop(1), "step 4"), (lambda v: v.append(v[0]), "2 t")])
def test_a_reference_that_is_wrong_itself_is_said(change, expected, tmp_path):
    _write(tmp_path / "reference")
    _lines("metrics.jsonl", change)(tmp_path / "reference")
    assert any(expected in text for text in differences.between(tmp_path / "reference", tmp_path / "reference"))

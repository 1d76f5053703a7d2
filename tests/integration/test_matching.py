"""Gradient matching through the commands: its tree and score, repeating, being killed, two processes, mistakes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from commands import TINY
from PIL import Image
from test_bad_input import _refused
from test_end_to_end import ROOT, _tree
from test_processes import LAUNCH

from gdd.runtime import checkpoint
from gdd.sampling import set_file

MATCHING = [
    *("--method", "matching", "--matching.pool.main", "convnet3-w4", "--matching.ipc", "2", "--matching.iterations", "3"),
    *("--matching.inner", "2", "--matching.batch_real", "16", "--matching.batch_train", "8"),
]
ALONE = ["--score", "false"]


@pytest.fixture
def matched(gdd, tiny, tmp_path) -> tuple[Path, str]:
    """The folder of a finished run and what it printed."""
    code, out, error = gdd("distill", *tiny, *MATCHING)
    assert code == 0, error
    return tmp_path / "runs/digits", out


def _rows(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "evaluate/rows.jsonl").read_text().splitlines()]


def test_it_writes_exactly_this_tree_and_scores_its_set(matched):
    folder, out = matched
    stage = {".lock", "config.json", "set.safetensors", "grid.png", "metrics.jsonl"}
    expected = {f"match/{name}" for name in stage | {"checkpoint-00000002.pt", "checkpoint-00000003.pt"}}
    scores = (".lock", "config.json", "rows.jsonl", "rows.csv", "table.md", "accuracy.png")
    assert _tree(folder) == expected | {f"evaluate/{name}" for name in scores}
    for word in ("random real", "gradient matching", "all real", "mlp-w4"):
        assert word in out
    made = set_file.load(folder / "match" / set_file.FILE)
    assert made.images.shape == (20, 1, 16, 16)
    assert made.labels.tolist() == [label for label in range(10) for _ in range(2)]
    rows = [row for row in _rows(folder) if row["source"] == "gradient matching"]
    assert sorted(row["seed"] for row in rows) == [0, 1]
    for row in rows:
        assert row["protocol"] == "fixed"
        assert row["images"] == 20
        assert 0 <= row["accuracy"] <= 100
    lines = [json.loads(line) for line in (folder / "match/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 3]
    assert all(line["loss/matching"] > 0 for line in lines)


def test_the_same_command_finds_it_finished(matched, gdd, tiny):
    folder, _ = matched
    before = {
        name: (folder / name).stat().st_mtime_ns for name in _tree(folder) if name.endswith((".pt", "set.safetensors"))
    }
    rows = _rows(folder)
    assert gdd("distill", *tiny, *MATCHING)[0] == 0
    assert {name: (folder / name).stat().st_mtime_ns for name in before} == before
    assert _rows(folder) == rows
    code, _, error = gdd("distill", *tiny, *MATCHING, "--matching.lr_image", "0.2")
    assert code == 2
    assert "run.overwrite" in error
    # A bare evaluation scores what lies there.
    assert gdd("evaluate", *tiny, *MATCHING)[0] == 0
    assert _rows(folder) == rows


def test_its_set_can_be_seen_and_exported(matched, gdd, tmp_path):
    folder, _ = matched
    path = folder / "match" / set_file.FILE
    assert gdd("preview", path, "--out", tmp_path / "a.png")[0] == 0
    assert Image.open(tmp_path / "a.png").width > 16
    assert gdd("export", path, "--to", "folder", "--out", tmp_path / "png")[0] == 0
    assert len(list((tmp_path / "png").rglob("*.png"))) == 20


def test_kill_9_then_the_same_command_gives_the_same_bits(gdd, tiny, tmp_path):
    flags = [*MATCHING, *ALONE, "--matching.iterations", "30", "--run.save_every", "5", "--run.snapshots", "[3]"]
    command = [sys.executable, str(ROOT / "distill.py"), *TINY, *flags, "--run.root", str(tmp_path / "runs")]
    folder = tmp_path / "runs/digits/matching"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300  # a busy machine takes minutes to import torch
    while not checkpoint.steps(folder) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (folder / set_file.FILE).exists()
    assert 0 < checkpoint.steps(folder)[-1] < 30
    assert gdd("distill", *tiny, *flags)[0] == 0
    assert gdd("distill", *tiny, *flags, "--run.root", tmp_path / "undisturbed")[0] == 0
    for name in (set_file.FILE, "set-00000003.safetensors"):
        killed, whole = (set_file.load(tmp_path / root / "digits/matching" / name) for root in ("runs", "undisturbed"))
        assert torch.equal(killed.images, whole.images)
        assert killed.hash == whole.hash


def test_two_processes_make_the_set_of_one(gdd, tiny, tmp_path):
    flags = [*MATCHING, *ALONE]
    assert gdd("distill", *tiny, *flags)[0] == 0
    command = [*LAUNCH, "--multi_gpu", "--num_processes", "2", "--main_process_port", "29657"]
    command += [str(ROOT / "distill.py"), *TINY, *flags, "--run.root", str(tmp_path / "two")]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    one, two = (set_file.load(tmp_path / root / "digits/matching" / set_file.FILE) for root in ("runs", "two"))
    assert torch.equal(one.images, two.images)
    assert one.hash == two.hash
    lines = [(tmp_path / root / "digits/matching/metrics.jsonl").read_text().splitlines() for root in ("runs", "two")]
    losses = [[json.loads(line)["loss/matching"] for line in found] for found in lines]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)


def test_max_minutes_stops_with_a_checkpoint_and_goes_on(gdd, tiny, tmp_path):
    code, out, _ = gdd("distill", *tiny, *MATCHING, "--run.max_minutes", "0.00001")
    folder = tmp_path / "runs/digits/matching"
    assert code == 0
    assert "goes on" in out
    assert checkpoint.steps(folder) == [1]
    assert gdd("distill", *tiny, *MATCHING, *ALONE)[0] == 0
    assert checkpoint.steps(folder)[-1] == 3
    assert (folder / set_file.FILE).exists()


@pytest.mark.parametrize(
    "flags",
    [
        ("--matching.augment", "dsa", "--matching.init", "real", "--matching.distance", "mse"),
        ("--matching.pool.kind", "main+similar", "--matching.pool.main_probability", "0.2", "--matching.pool.similar_depth", "1"),
        ("--matching.pool.kind", "total random", "--matching.pool.various", "[mlp-w4, resnet10-w4]", "--matching.pool.main_only", "1"),
        ("--matching.inner_first", "true", "--matching.pool.main", "convnet3-w4-bn"),
    ],
    ids=" ".join,
)
def test_every_switch_runs(flags, gdd, tiny):
    assert gdd("distill", *tiny, *MATCHING, *ALONE, *flags)[0] == 0


def test_it_starts_from_the_generator_of_another_run(gdd, tiny, tmp_path):
    assert gdd("train-gan", *tiny)[0] == 0
    start = ["--matching.init", "generator", "--matching.generator", str(tmp_path / "runs/digits/pretrain")]
    code, out, _ = gdd("distill", *tiny, *MATCHING, *start)
    assert code == 0
    for word in ("random real", "pretrained generator", "gradient matching", "all real"):
        assert word in out


def test_skd_refines_with_any_pool(gdd, tiny):
    kinds = ["--matching.pool.kind", "main+various", "--matching.pool.main", "convnet3-w4", "--matching.pool.various", "[mlp-w4]"]
    assert gdd("distill", *tiny, *ALONE, *kinds, "--matching.pool.main_probability", "0.5")[0] == 0


def test_dry_run_prints_its_networks_and_writes_nothing(gdd, tiny, tmp_path):
    code, out, _ = gdd("distill", *tiny, *MATCHING, "--dry_run")
    assert code == 0
    table = out[out.index("pool convnet3-w4") :]  # what comes before are the settings
    assert "student mlp-w4" in table
    assert "discriminator" not in table
    assert "generator" not in table
    assert not (tmp_path / "runs").exists()


MISTAKES = {
    "ipc 0": (["--matching.ipc", "0"], "matching.ipc"),
    "no iteration": (["--matching.iterations", "0"], "matching.iterations"),
    "generator without a path": (["--matching.init", "generator"], "matching.generator"),
    "path without init generator": (["--matching.generator", "runs/digits/refine"], "matching.generator"),
    "no such generator": (["--matching.init", "generator", "--matching.generator", "nowhere"], "nowhere"),
    "unknown main model": (["--matching.pool.main", "convnet33"], "did you mean 'convnet3'"),
    "unknown other model": (["--matching.pool.kind", "total random", "--matching.pool.various", "[lenett]"], "lenett"),
    "unknown kind": (["--matching.pool.kind", "main+some"], "matching.pool.kind"),
    "similar to a resnet": (["--matching.pool.kind", "main+similar", "--matching.pool.main", "resnet18-w4"], "matching.pool.main"),
    "similar ones too deep": (["--matching.pool.kind", "main+similar", "--matching.pool.similar_depth", "5"], "depth 5"),
    "unknown distance": (["--matching.distance", "cosine"], "matching.distance"),
    "distance of embeddings": (["--matching.objective", "embedding", "--matching.distance", "cos"], "match."),
    "more real images than there are": (["--matching.init", "real", "--matching.ipc", "500"], "matching.ipc is 500"),
    "snapshot before the start": (["--run.snapshots", "[-1]"], "run.snapshots"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_sentence(case, gdd, tiny):
    flags, expected = MISTAKES[case]
    _refused(gdd("distill", *tiny, *MATCHING, *ALONE, *flags), expected)

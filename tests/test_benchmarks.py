"""The benchmarks fit the package that they measure; what they measure is for their users."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import ROOT, TINY

from gdd.evaluation.row import Row
from gdd.report.statistics import read_rows
from gdd.sampling import generator_file

BENCHMARKS = sorted((Path(__file__).parents[1] / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.name)
def test_a_benchmark_finds_all_that_it_imports(path, monkeypatch):
    monkeypatch.syspath_prepend(path.parent)
    assert runpy.run_path(str(path))["__doc__"]


def toy(name: str) -> dict[str, object]:
    """Run a benchmark at its smallest sizes and return the JSON that it prints last."""
    path = BENCHMARKS[0].with_name(name)
    done = subprocess.run([sys.executable, path, "--toy"], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_the_peak_has_a_machine_and_rates():
    result = toy("peak.py")
    assert result["threads"] == 1
    rates = {key: rate for key, rate in result.items() if key.endswith("GFLOP/s")}
    assert {"float32 matrix product GFLOP/s", "float32 convolution GFLOP/s"} <= set(rates)
    assert min(rates.values()) > 0
    assert set(result) == {"device", "threads", *rates}


def test_sampling_has_a_rate_of_every_way():
    result = toy("sampling.py")
    facts = {"device", "threads", "shape", "width", "images"}
    rates = {"images/s", "share of the peak", "rate / plain"}
    assert set(result) == {*facts, *rates, "GFLOP per image", "peak GFLOP/s", "peak memory MB"}
    for figures in map(result.get, rates):
        assert set(figures) == {"set", "stream", "shards", "plain"}
    assert min(result["images/s"].values()) > 0
    assert result["rate / plain"]["plain"] == 1
    # Products of a generator of width 4 for 8x8 pixels: pixels times kernel times channels, of its maps in turn.
    into_base, channels = (100 + 10) * 4, 4 * 4
    upsampled = (1 + 4 + 16) * 16 * channels  # a transposed convolution spreads every pixel of the smaller map
    convolved = (3 * 4 + 16) * 9 * channels
    rendered = 64 * 9 * 4
    assert result["GFLOP per image"] == pytest.approx(2 * (into_base + upsampled + convolved + rendered) / 1e9)


@pytest.mark.slow
def test_all_parts_for_a_gpu_leave_their_figures_and_are_done_once(tmp_path):
    path = BENCHMARKS[0].with_name("gpu.py")
    parts = ("peak", "student", "gan", "refine", "matching", "together")

    def run(part: str) -> str:
        command = [sys.executable, path, part, "--out", tmp_path, "--toy"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert all(run(part) for part in parts)
    found = {file.stem: json.loads(file.read_text()) for file in tmp_path.glob("*.json")}
    assert {name.partition("-")[0] for name in found} == {*parts}
    for name, result in found.items():
        assert "cpu" in result["device"]
        shares = [figures for title, figures in result.items() if "share of the peak" in title]
        assert shares or name == "peak"
        assert all(0 < share < 10 for figures in shares for share in figures.values())
        memory = [figures for title, figures in result.items() if "peak memory" in title]
        assert len(memory) >= (name != "peak")
        assert all(figure > 0 for figures in memory for figure in figures.values())
        stands_in = name.startswith(("gan", "refine", "matching"))
        assert result.get("data") == ("random" if stands_in else None)
    assert found["together-convnet3"]["ratio"]["float32 eager"] > 0
    assert not any(run(part) for part in parts)


@pytest.mark.slow
def test_an_ablation_compares_its_arms_over_seeds_and_goes_on(tmp_path):
    command = [sys.executable, BENCHMARKS[0].with_name("ablation.py"), "--out", tmp_path, "--seeds", "0", "1"]
    command += ["--arms", "control", "features", *TINY, "--pretrain.steps", "2"]
    command += ["--refine.steps", "2", "--evaluate.seeds", "[0]", "--evaluate.protocols", "[stream]"]
    subprocess.run(command, check=True)
    page = (tmp_path / "compare/compare/compare.md").read_text()
    assert "refine.loss features" in page
    assert page.count("| refined generator") == 2 * 2  # of the stream and of its share
    rows = (tmp_path / "compare/compare/rows.jsonl").read_text()
    subprocess.run(command, check=True)
    assert (tmp_path / "compare/compare/rows.jsonl").read_text() == rows  # nothing was trained again


@pytest.mark.slow
def test_the_parts_of_robust_are_compared_at_equal_steps_and_fractions_are_drawn(tmp_path):
    command = [sys.executable, BENCHMARKS[0].with_name("overfitting.py"), "real:fraction=0.02", "real:fraction=0.1"]
    command += ["--out", tmp_path, "--archs", "mlp-w8", "resnet10-w4", "--steps", "3", "--arms", "shortcut", "DropPath"]
    command += ["--evaluate.seeds", "[0, 1]", "--run.threads", "1", "--run.workers", "1", "--run.precision", "float32"]
    subprocess.run(command, check=True)
    arms = ("plain", "shortcut", "DropPath")

    def rows(arm: str) -> list[Row]:
        return read_rows(tmp_path / arm / "evaluate")

    assert {row.arch for row in rows("plain")} == {"mlp-w8", "resnet10-in-w4"}
    assert {row.arch for row in rows("shortcut")} == {"resnet10-in-w4-pooled"}  # no shortcut in an MLP
    assert {row.arch for row in rows("DropPath")} == {"resnet10-in-w4"}
    assert {row.ipc for row in rows("plain")} == {3, 13}  # of 129.3 per class
    assert all((row.keep_rates is None) == (arm != "DropPath") for arm in arms for row in rows(arm))
    assert {row.optimizer_steps for arm in arms for row in rows(arm)} == {3}
    table = (tmp_path / "overfitting.md").read_text()
    assert table.count("| shortcut |  |  |") == 2  # one per source; the MLP's cells are empty
    dropped, plain = (
        [row.accuracy for row in rows(arm) if row.arch == "resnet10-in-w4" and row.ipc == 13]
        for arm in ("DropPath", "plain")
    )
    assert f"{sum(dropped) / 2 - sum(plain) / 2:+.1f} ±" in table.split("13 images per class")[1]
    assert (tmp_path / "fractions.png").read_bytes().startswith(b"\x89PNG")
    before = {path: path.read_bytes() for path in tmp_path.rglob("rows.jsonl")}
    subprocess.run(command, check=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("rows.jsonl")} == before  # nothing was trained again


@pytest.mark.slow
def test_pretraining_by_minutes_scores_the_checkpoints_that_it_is_asked_for(tmp_path):
    root = ["--run.root", str(tmp_path), "--name", "short", *TINY]
    flags = ["--pretrain.steps", "6", "--run.save_every", "1", "--run.keep", "9"]
    subprocess.run([sys.executable, "train_gan.py", *root, *flags], check=True, cwd=ROOT)
    command = [sys.executable, BENCHMARKS[0].with_name("minutes.py"), tmp_path / "short/pretrain", "--every", "4"]
    scored = ["--out", tmp_path / "out", *TINY, "--evaluate.seeds", "[0]"]
    done = subprocess.run([*command, *scored], check=True, capture_output=True, text=True)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [one["run"] for one in found] == ["short", "short"]
    assert 0 < found[0]["minutes"] <= found[1]["minutes"]
    rows = [json.loads(line) for line in (tmp_path / "out/scores/compare/rows.jsonl").read_text().splitlines()]
    (ceiling,) = (row["accuracy"] for row in rows if row["kind"] == "real:stream")
    generators = [row for row in rows if row["kind"] == "generator"]
    files = [generator_file.load(tmp_path / f"out/short-{step}") for step in (4, 6)]
    assert {row["source_hash"] for row in generators} == {file.hash for file in files}
    kept = generator_file.load(tmp_path / "short/pretrain").generator.state_dict()
    torch.testing.assert_close(files[-1].generator.state_dict(), kept, rtol=1e-3, atol=1e-4)  # of the last step
    early = files[0].generator.state_dict()
    assert any(not torch.allclose(early[name], kept[name], rtol=1e-3, atol=1e-4) for name in kept)
    (arch,) = {row["arch"] for row in rows}
    shares = {round(100 * row["accuracy"] / ceiling, 1) for row in generators}
    assert {one[arch] for one in found} == shares
    assert (tmp_path / "out/minutes.png").stat().st_size > 10_000

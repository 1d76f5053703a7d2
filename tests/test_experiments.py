"""The experiments of benchmarks/ compare what they name, at equal steps, and go on where they stopped."""

import json
import runpy
import subprocess
import sys
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch
from commands import ROOT, TINY

from gdd import rng
from gdd.evaluation.row import Row
from gdd.losses.logits import standardize
from gdd.report.statistics import require_rows
from gdd.sampling import generator_file

BENCHMARKS = ROOT / "benchmarks"


@pytest.mark.slow
def test_an_ablation_compares_its_arms_and_goes_on_in_tasks_or_without(tmp_path):
    in_tasks = ["--submit", "local", "--submitit", '{"timeout_min": 60}', "--tasks", "2"]
    command = [sys.executable, BENCHMARKS / "ablation.py", "--out", tmp_path, "--seeds", "0"]
    command += ["--arms", "control", "features", *TINY, "--pretrain.steps", "2"]
    command += ["--refine.steps", "2", "--evaluate.seeds", "[0]", "--evaluate.protocols", "[stream]"]
    subprocess.run([*command, *(in_tasks if find_spec("submitit") else [])], check=True)
    page = (tmp_path / "compare/compare/compare.md").read_text()
    assert all(f"| refined generator ({loss}) " in page for loss in ("no guiding loss", "features' moments"))
    assert page.count("| refined generator") == 2 * 2  # of the stream and of its share
    rows = (tmp_path / "compare/compare/rows.jsonl").read_text()
    subprocess.run(command, check=True)
    assert (tmp_path / "compare/compare/rows.jsonl").read_text() == rows  # nothing was trained again


def test_steps_double_until_fresh_real_images_gain_no_half_point(monkeypatch, capsys, tmp_path):
    """And they are scored on the validation part alone."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    module = runpy.run_path(str(BENCHMARKS / "converged.py"))
    asked, accuracies = [], {5: 50.0, 10: 60.0, 20: 60.5, 40: 60.9}

    def scores(steps, sources, out, flags):
        asked.append((steps, sources, flags))
        return [SimpleNamespace(arch="mlp", source="real:stream", accuracy=accuracies[steps])]

    monkeypatch.setitem(module["main"].__globals__, "scores", scores)
    flags = ["--data.name", "digits"]
    monkeypatch.setattr(sys, "argv", ["", "--first", "5", "--out", str(tmp_path), *flags])
    module["main"]()
    assert asked == [(steps, ["real:stream"], flags) for steps in (5, 10, 20, 40)]
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["accuracy"]["mlp"]["real:stream"] for line in lines] == [50.0, 60.0, 60.5, 60.9]

    accuracies |= {10: None}  # a student that failed gains nothing, however long it trains
    module["main"]()
    assert [steps for steps, *_ in asked[4:]] == [5, 10]

    monkeypatch.undo()
    monkeypatch.syspath_prepend(BENCHMARKS)
    tiny = [*TINY, "--evaluate.archs", "[mlp-w4]", "--evaluate.seeds", "[0]"]
    tiny = [flag for pair in zip(tiny[::2], tiny[1::2], strict=True) if "recipe" not in pair[0] for flag in pair]
    scores = runpy.run_path(str(BENCHMARKS / "converged.py"))["scores"]
    rows = scores(2, ["zoo:digits", "real:stream"], tmp_path, tiny)
    assert {row.total for row in rows} == {145}  # validation images, of which there are fewer than test images
    assert {row.source for row in rows} == {"zoo:digits", "real:stream"}


def test_each_teacher_answers_at_each_weight_and_hard_labels_have_none(monkeypatch, capsys, tmp_path):
    monkeypatch.syspath_prepend(BENCHMARKS)
    module, asked = runpy.run_path(str(BENCHMARKS / "teacher.py")), []

    def scores(steps, sources, out, flags):
        asked.append(flags)
        return [SimpleNamespace(arch="mlp", source=sources[0], accuracy=50.0 + len(asked))]

    monkeypatch.setitem(module["main"].__globals__, "scores", scores)
    flags = ["--teachers", "none", "here", "there", "--alphas", "0.5", "1", "--temperatures", "4", "--seed", "3"]
    monkeypatch.setattr(sys, "argv", ["", "zoo:digits", *flags, "--out", str(tmp_path)])
    module["main"]()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["teacher"], line.get("alpha"), line["accuracy"]["mlp"]["zoo:digits"]) for line in lines] == [
        ("none", None, 51), ("here", "0.5", 52), ("here", "1", 53), ("there", "0.5", 54), ("there", "1", 55)
    ]  # fmt: skip
    assert asked[0] == ["--seed", "3", "--evaluate.teacher", "none"]
    weights = ["--evaluate.alpha", "1", "--evaluate.temperature", "4"]
    assert asked[4] == ["--seed", "3", "--evaluate.teacher", "there", *weights]


def test_what_skd_asks_for_is_least_at_the_mean_answer(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    losses = runpy.run_path(str(BENCHMARKS / "skd_aims.py"))["losses"]
    real, fake = (torch.randn(40, 10, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    found = losses(real, fake, rng.Draws(0, "test"))
    answers = torch.softmax(standardize(real) / 2, 1)
    # The entropy of the mean less the mean entropy, and no other answer has less.
    entropy, mean = -(answers * answers.log()).sum(1).mean(), answers.mean(0)
    assert found["mean answer"] == pytest.approx(4 * float(-(mean * mean.log()).sum() - entropy), rel=1e-5)
    assert found["mean answer"] < min(found["other real"], found["samples"])
    same = losses(real[:1].expand(3, -1), real[:1], rng.Draws(0, "test"))
    assert all(value == pytest.approx(0, abs=1e-6) for value in same.values())


@pytest.mark.slow
def test_the_parts_of_robust_are_compared_at_equal_steps_and_fractions_are_drawn(tmp_path):
    command = [sys.executable, BENCHMARKS / "overfitting.py", "real:fraction=0.02", "real:fraction=0.1"]
    command += ["--out", tmp_path, "--archs", "mlp-w8", "resnet10-w4", "--steps", "3", "--arms", "shortcut", "DropPath"]
    command += ["--evaluate.seeds", "[0, 1]", "--run.threads", "1", "--run.workers", "1", "--run.precision", "float32"]
    subprocess.run(command, check=True)
    arms = ("plain", "shortcut", "DropPath")

    def rows(arm: str) -> list[Row]:
        return require_rows(tmp_path / arm / "evaluate")

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
    command = [sys.executable, BENCHMARKS / "minutes.py", tmp_path / "short/pretrain", "--every", "4"]
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

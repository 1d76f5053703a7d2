"""gdd compare on digits: two methods side by side, and nothing trained twice."""

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from gdd.evaluation import grid, sources
from gdd.evaluation.student import StudentTrainer
from gdd.report import commands, compare, statistics
from gdd.report.intervals import two_way_half_width
from gdd.sampling import generator_file, set_file

FILES = {".lock", "config.json", "rows.jsonl", "rows.csv", "compare.md", "compare.json"}
FILES |= {"accuracy-ipc.png", "accuracy-seconds.png"}


@pytest.fixture
def trained(done, tiny, tmp_path) -> tuple[Path, Path]:
    """The folders of a generator and of a pixel matcher's set, both of digits at 20 pixels."""
    done("train-gan", *tiny, "--data.size", "[20, 20]")
    generator = tmp_path / "runs/digits/pretrain"
    facts = generator_file.load(generator)
    images = torch.rand(20, 1, 20, 20, generator=torch.Generator().manual_seed(0)) * 1.2 - 0.1
    provenance = {"method": "gradient matching", "stage": "matching", "seconds": 123.4, "iterations": 1000, "seed": 0}
    provenance["config"] = facts.provenance["config"]
    stored = set_file.SyntheticSet(images, torch.arange(10).repeat(2), facts.spec, 2, provenance)
    set_file.save(tmp_path / "runs/dc/matching" / set_file.FILE, stored)
    return generator, tmp_path / "runs/dc/matching"


def test_the_command_of_a_comparison_makes_it_again(trained, done, tiny, tmp_path):
    generator, matched = trained
    done(
        "compare", matched, generator, *tiny, "--arch", "mlp-w4", "mlp-w8", "--ipc", "1", "2", "--evaluate.seeds", "[0]"
    )
    folder = tmp_path / "runs/compare/compare"
    points, rows = compare.read_points(folder), grid.read_rows(folder)
    (command,) = {point.commands[-1] for point in points}
    assert len(points) == 9 * 2
    shutil.rmtree(folder)
    done(*shlex.split(command)[1:], "--run.threads", "1", "--run.workers", "1", "--run.root", tmp_path / "runs")
    facts = ("source", "arch", "seed", "ipc", "protocol", "set_hash", "accuracy", "train_loss", "key")
    told, made = ([[getattr(row, fact) for fact in facts] for row in of] for of in (rows, grid.read_rows(folder)))
    assert told == made
    assert compare.read_points(folder) == points


def test_the_command_of_a_generator_makes_it_again(trained, done, tmp_path):
    generator, _ = trained
    source = sources.read(str(generator))
    shutil.rmtree(generator.parent)
    words = shlex.split(commands.distilling(source))[1:]
    done(*words, "--run.threads", "1", "--run.precision", "float32", "--run.root", tmp_path / "runs")
    assert sources.read(str(generator)).hash == source.hash


def test_compare_reads_the_data_settings_and_writes_tables_and_pictures(
    trained, done, refused, tiny, tmp_path, monkeypatch
):
    generator, matched = trained
    flags = ["--arch", "mlp-w4", "mlp-w8", "--ipc", "1", "2", "--mark", "30", "--evaluate.seeds", "[0]"]
    command = ["compare", matched, generator, *tiny, *flags]
    out = done(*command)
    for word in ("gradient matching", "pretrained generator", "random real", "anew: 123", "mlp-w8", "stream"):
        assert word in out
    folder = tmp_path / "runs/compare/compare"
    assert {path.name for path in folder.iterdir()} == FILES
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    cells = {(row["source"], row["ipc"], row["protocol"]) for row in rows}
    assert cells == {
        *(("random real", ipc, "fixed") for ipc in (1, 2)),
        *(("fresh real", ipc, "stream") for ipc in (1, 2)),
        ("gradient matching", 2, "fixed"),
        *(("pretrained generator", ipc, protocol) for ipc in (1, 2) for protocol in ("fixed", "stream")),
    }
    assert len(rows) == 9 * 2
    assert json.loads((folder / "config.json").read_text())["config"]["data"]["size"] == [20, 20]

    monkeypatch.setattr(StudentTrainer, "score", lambda *_: pytest.fail("a student was trained twice"))
    done(*command)
    # Settings of the user's own are kept, and then the sources do not fit.
    refused(*command, "--data.size", "[16, 16]", naming="expected (1, 16, 16)")


def test_a_copy_of_a_source_is_scored_once(trained, done, tiny, tmp_path):
    stored = trained[1] / set_file.FILE
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(stored.read_bytes())
    done("compare", stored, copy, *tiny, "--arch", "mlp-w4", "--evaluate.seeds", "[0]")
    rows = [json.loads(line) for line in (tmp_path / "runs/compare/compare/rows.jsonl").read_text().splitlines()]
    assert sorted(row["kind"] for row in rows) == ["real:random", "set"]


def test_replicates_are_one_line_over_the_seeds_of_their_distillation(done, refused, tiny, tmp_path, monkeypatch):
    # Each run carves its own validation images out of the training part.
    for seed in ("0", "1"):
        done("train-gan", *tiny, "--name", f"digits-{seed}", "--seed", seed)
    made = [tmp_path / f"runs/digits-{seed}/pretrain" for seed in "01"]
    command = ["compare", *made, *tiny, "--arch", "mlp-w16", "--ipc", "10"]
    command += ["--evaluate.recipe.epochs", "30", "--evaluate.recipe.lr", "0.1"]
    done(*command, "--replicates")
    folder = tmp_path / "runs/compare/compare"
    page, rows = (folder / "compare.md").read_text(), statistics.require_rows(folder)
    scores = np.array(
        [[row.accuracy for row in rows if row.protocol == "fixed" and row.distillation_seed == seed] for seed in (0, 1)]
    )
    assert scores.shape == (2, 2)
    assert scores[0].mean() != scores[1].mean()
    assert page.count("| pretrained generator | 10 | ") == 3  # fixed, stream, share
    assert f"| pretrained generator | 10 | {scores.mean():.1f} ± {two_way_half_width(scores):.1f} |" in page
    assert "n = 2 distillation seeds (0, 1), each with 2 student seeds (0, 1)" in page

    # Without, the same rows are two lines, over the seeds of students.
    monkeypatch.setattr(StudentTrainer, "score", lambda *_: pytest.fail("a student was trained twice"))
    done(*command)
    page = (folder / "compare.md").read_text()
    assert page.count("| pretrained generator (digits-0) | 10 | ") == 3
    assert "n = 2 student seeds (0, 1)" in page

    third = generator_file.load(made[1])
    generator_file.save(made[1], third.generator, third.spec, {**third.provenance, "seed": 0})
    refused(*command, "--replicates", naming="so it is no replicate of it")


@pytest.mark.parametrize(("key", "value"), [("val_fraction", 7), ("name", 5), ("size", [16])])
def test_data_settings_that_are_none_are_refused(key, value, trained, refused, tiny):
    path = trained[1] / set_file.FILE
    stored = set_file.load(path)
    stored.provenance["config"]["data"][key] = value
    set_file.save(path, stored)
    refused("compare", path, *tiny, naming=f"data.{key}")


def test_fractions_of_real_images_are_lines_of_their_own(done, tiny, tmp_path):
    done("compare", "real:fraction=0.05", "real:fraction=0.1", *tiny, "--arch", "mlp-w4", "--evaluate.seeds", "[0]")
    page = (tmp_path / "runs/compare/compare/compare.md").read_text()
    assert "| 5 % of real | 6 |" in page
    assert "| 10 % of real | 13 |" in page
    assert (tmp_path / "runs/compare/compare/accuracy-ipc.png").exists()

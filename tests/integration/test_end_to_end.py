"""The three scripts on a tiny run: what they write, that they repeat, and that a second start goes on."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import TINY
from PIL import Image

from gdd.data.readers import open_dataset
from gdd.sampling import generator_file, set_file

ROOT = Path(__file__).parents[2]


def _tree(folder: Path) -> set[str]:
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return {name for name in files if "tfevents" not in name}


@pytest.fixture
def distilled(gdd, tiny, tmp_path):
    code, out, _ = gdd("distill", *tiny)
    assert code == 0
    return tmp_path / "runs/digits", out


def test_distill_writes_exactly_this_tree_and_a_table(distilled):
    folder, out = distilled
    stage = {".lock", "config.json", "generator.safetensors", "grid.png", "metrics.jsonl"}
    expected = {f"pretrain/{name}" for name in stage | {"checkpoint-00000004.pt", "checkpoint-00000006.pt"}}
    expected |= {f"refine/{name}" for name in stage | {"checkpoint-00000002.pt", "checkpoint-00000004.pt"}}
    scores = (".lock", "config.json", "rows.jsonl", "rows.csv", "table.md", "accuracy.png")
    assert _tree(folder) == expected | {f"evaluate/{name}" for name in scores}
    names = ("random real", "pretrained generator", "refined generator (SKD)", "all real")
    for word in (*names, "fixed", "stream", "mlp-w4"):
        assert word in out
    events = list(folder.rglob("*tfevents*"))
    assert {path.parts[-3] for path in events} == {"pretrain", "refine"}


def test_a_second_start_trains_nothing_again(distilled, gdd, tiny):
    folder, _ = distilled
    before = {name: (folder / name).stat().st_mtime_ns for name in _tree(folder) if name.endswith((".pt", ".jsonl"))}
    rows = (folder / "evaluate/rows.jsonl").read_text()
    assert gdd("distill", *tiny)[0] == 0
    assert (folder / "evaluate/rows.jsonl").read_text() == rows
    stages = {name: time for name, time in before.items() if not name.startswith("evaluate")}
    assert stages == {name: (folder / name).stat().st_mtime_ns for name in stages}


def test_another_configuration_is_refused_until_told_to_overwrite(distilled, gdd, tiny):
    code, _, error = gdd("train-gan", *tiny, "--pretrain.lr", "0.1")
    assert code == 2
    assert "run.overwrite" in error
    assert gdd("train-gan", *tiny, "--pretrain.lr", "0.1", "--run.overwrite", "true")[0] == 0


def test_metrics_hold_losses_speed_and_diversity(distilled):
    folder, _ = distilled
    lines = [json.loads(line) for line in (folder / "refine/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    for key in ("loss/generator", "loss/discriminator", "loss/matching", "diversity/min", "images_per_second"):
        assert key in lines[-1]


def test_sample_export_preview(distilled, gdd, tmp_path):
    folder, _ = distilled
    for ipc in (3, 20):
        assert gdd("sample", folder / "refine", "--ipc", ipc, "--out", tmp_path / f"{ipc}.safetensors")[0] == 0
    small, large = set_file.load(tmp_path / "3.safetensors"), set_file.load(tmp_path / "20.safetensors")
    for label in range(10):
        assert torch.equal(small.images[small.labels == label], large.images[large.labels == label][:3])
    assert small.provenance["generator"] == generator_file.load(folder / "refine").hash
    assert gdd("export", tmp_path / "3.safetensors", "--to", "folder", "--out", tmp_path / "png")[0] == 0
    assert len(list((tmp_path / "png").rglob("*.png"))) == 30
    read_back = open_dataset(str(tmp_path / "png"), tmp_path, val_fraction=0.0)
    assert read_back.spec.class_names == small.spec.class_names
    assert gdd("export", tmp_path / "3.safetensors", "--to", "npz", "--out", tmp_path / "a.npz")[0] == 0
    assert gdd("preview", tmp_path / "3.safetensors", "--out", tmp_path / "a.png")[0] == 0
    assert Image.open(tmp_path / "a.png").size == (2 * (3 * 17 + 1), 2 * (10 * 17 + 1))


def test_evaluate_mixes_stored_sets_generators_and_real_images(distilled, gdd, tiny, tmp_path):
    folder, _ = distilled
    assert gdd("sample", folder / "refine", "--ipc", 2, "--out", tmp_path / "set.safetensors")[0] == 0
    sources = f"[{tmp_path / 'set.safetensors'}, {folder / 'pretrain'}, real:random]"
    code, out, _ = gdd("evaluate", *tiny, "--name", "mixed", "--evaluate.sources", sources)
    assert code == 0
    rows = [json.loads(line) for line in (tmp_path / "runs/mixed/evaluate/rows.jsonl").read_text().splitlines()]
    assert {row["protocol"] for row in rows} == {"fixed", "stream"}
    assert "set.safetensors" in out


def test_dry_run_prints_costs_and_writes_nothing(gdd, tiny, tmp_path):
    code, out, _ = gdd("distill", *tiny, "--dry_run")
    assert code == 0
    assert "discriminator" in out
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("loss", ["wgan-gp", "hinge", "ns"])
def test_every_adversarial_loss_runs(loss, gdd, tiny):
    assert gdd("train-gan", *tiny, "--gan.loss", loss, "--gan.augment", "color_crop_cutout")[0] == 0


@pytest.mark.parametrize(
    "flags",
    [
        ("--refine.loss", "log_mse"),
        ("--refine.tau_mode", "multiply", "--refine.standardize", "false"),
        ("--refine.discriminator", "frozen", "--refine.augment", "none"),
        ("--refine.pool.max_accuracy", "0.5", "--refine.pool.weights", "[0.2, 0.8]"),
        ("--evaluate.teacher", "set", "--evaluate.recipe", "dim", "--evaluate.teacher_arch", "mlp-w4"),
    ],
)
def test_every_switch_runs(flags, gdd, tiny):
    assert gdd("distill", *tiny, "--evaluate.seeds", "[0]", *flags)[0] == 0


def test_a_folder_of_ones_own_images_goes_through_all_three_scripts(tmp_path):
    generator = torch.Generator().manual_seed(0)
    for index, (name, count) in enumerate({"circle": 30, "square": 20, "star": 12}.items()):
        folder = tmp_path / "shapes" / "train" / name
        folder.mkdir(parents=True)
        for number in range(count):
            pixels = torch.randint(80 * index, 80 * index + 80, (24, 40, 3), generator=generator, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(folder / f"{number}.png")
    flags = [*TINY, "--data.name", str(tmp_path / "shapes"), "--name", "shapes", "--run.root", str(tmp_path / "runs")]
    for script in ("train_gan.py", "distill.py", "evaluate.py"):
        done = subprocess.run([sys.executable, ROOT / script, *flags], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert "3 classes, 3x24x40" in done.stderr
    assert generator_file.load(tmp_path / "runs/shapes/refine").spec.class_names == ("circle", "square", "star")

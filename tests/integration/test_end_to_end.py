"""The commands on tiny runs: what they write and say, and that a second start goes on."""

import json
import logging
import runpy
import sys
from pathlib import Path

import pytest
import torch
from commands import ALONE, MATCHING, ROOT, TINY
from PIL import Image

from gdd.data.readers import open_dataset
from gdd.sampling import generator_file, set_file

SCORES = {"evaluate/" + name for name in (".lock", "config.json", "rows.jsonl", "rows.csv", "table.md", "accuracy.png")}


def tree(folder: Path) -> set[str]:
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return {name for name in files if "tfevents" not in name}


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_distill_writes_exactly_this_tree_and_a_table(distilled):
    folder, out = distilled
    stage = {".lock", "README.md", "config.json", "generator.safetensors", "grid.png", "metrics.jsonl"}
    expected = {f"pretrain/{name}" for name in stage | {"checkpoint-00000004.pt", "checkpoint-00000006.pt"}}
    expected |= {f"refine/{name}" for name in stage | {"checkpoint-00000002.pt", "checkpoint-00000004.pt"}}
    assert tree(folder) == expected | SCORES
    for word in ("random real", "pretrained generator", "refined generator (SKD)", "all real", "fixed", "stream"):
        assert word in out
    assert {path.parts[-3] for path in folder.rglob("*tfevents*")} == {"pretrain", "refine"}
    card = (folder / "refine/README.md").read_text()
    for fact in (
        "**Method:** gan + skd",
        "pretrain.steps 6",
        "| this generator | 2 |",
        "n = 2 student seeds (0, 1)",
        "CC BY 4.0",
    ):
        assert fact in card
    assert "pretrained generator" not in card
    logged = lines(folder / "refine/metrics.jsonl")
    assert [line["step"] for line in logged] == [2, 4]
    keys = {"loss/generator", "loss/discriminator", "loss/skd", "diversity/min", "images_per_second"}
    assert keys <= logged[-1].keys()
    assert all(0 < line["loss/skd"] < float("inf") for line in logged)
    origin = generator_file.load(folder / "refine").provenance
    assert (origin["method"], origin["config"]["refine"]["loss"]) == ("gan + skd", "skd")
    assert {row["method"] for row in lines(folder / "evaluate/rows.jsonl")} == {"real", "gan", "gan + skd"}


def test_matching_writes_exactly_this_tree_and_scores_its_set(matched):
    folder, out = matched
    stage = {".lock", "README.md", "config.json", "set.safetensors", "grid.png", "metrics.jsonl"}
    stage |= {"checkpoint-00000002.pt", "checkpoint-00000003.pt"}
    assert tree(folder) == {f"matching/{name}" for name in stage} | SCORES
    for word in ("random real", "gradient matching", "all real", "mlp-w4"):
        assert word in out
    card = (folder / "matching/README.md").read_text()
    assert "| this set | 2 |" in card
    assert "pixels, which were optimised" in card
    synthetic = set_file.load(folder / "matching" / set_file.FILE)
    assert synthetic.images.shape == (20, 1, 16, 16)
    assert synthetic.labels.tolist() == [label for label in range(10) for _ in range(2)]
    rows = [row for row in lines(folder / "evaluate/rows.jsonl") if row["source"] == "gradient matching"]
    assert sorted((row["seed"], row["protocol"], row["images"]) for row in rows) == [(0, "fixed", 20), (1, "fixed", 20)]
    logged = lines(folder / "matching/metrics.jsonl")
    assert [line["step"] for line in logged] == [2, 3]
    assert all(line["loss/matching"] > 0 for line in logged)


@pytest.mark.parametrize(
    ("run", "method", "other"),
    [("distilled", [], ["--pretrain.lr", "0.1"]), ("matched", MATCHING, ["--matching.lr_image", "0.2"])],
)
def test_the_same_command_finds_it_finished_and_another_is_refused(run, method, other, request, done, refused, tiny):
    folder, _ = request.getfixturevalue(run)
    ends = (".pt", ".jsonl", ".safetensors")
    before = {
        name: (folder / name).stat().st_mtime_ns
        for name in tree(folder)
        if name.endswith(ends) and not name.startswith("evaluate")
    }
    rows = (folder / "evaluate/rows.jsonl").read_text()
    done("distill", *tiny, *method)
    done("evaluate", *tiny, *method)  # scores what lies there
    assert {name: (folder / name).stat().st_mtime_ns for name in before} == before
    assert (folder / "evaluate/rows.jsonl").read_text() == rows
    refused("distill", *tiny, *method, *other, naming="run.overwrite")
    done("distill", *tiny, *method, *other, *ALONE, "--run.overwrite", "true")


def test_sample_export_preview_and_report_say_what_they_wrote(distilled, done, tmp_path):
    folder, _ = distilled
    small, large = tmp_path / "3.safetensors", tmp_path / "20.safetensors"
    said = done("sample", folder / "refine", "--ipc", 3, "--out", small)
    assert said == f"wrote {small}: 30 images, 3 of each of 10 classes\n"
    done("sample", folder / "refine", "--ipc", 20, "--out", large)
    few, many = set_file.load(small), set_file.load(large)
    for label in range(10):
        assert torch.equal(few.images[few.labels == label], many.images[many.labels == label][:3])
    assert few.provenance["generator"] == generator_file.load(folder / "refine").hash

    for kind, name in (("folder", "png"), ("npz", "a.npz")):
        said = done("export", small, "--to", kind, "--out", tmp_path / name)
        assert said == f"wrote {tmp_path / name}: 30 images of 10 classes\n"
    assert len(list((tmp_path / "png").rglob("*.png"))) == 30
    assert open_dataset(str(tmp_path / "png"), tmp_path, val_fraction=0.0).spec.class_names == few.spec.class_names
    said = done("preview", small, "--out", tmp_path / "a.png")
    assert said == f"wrote {tmp_path / 'a.png'}: a row of images for each of 10 classes\n"
    assert Image.open(tmp_path / "a.png").size == (2 * (3 * 17 + 1), 2 * (10 * 17 + 1))
    said = done("report", folder / "evaluate").splitlines()[-1]
    written = [folder / "evaluate" / name for name in ("table.md", "rows.csv", "accuracy.png")]
    assert said.startswith("wrote ")
    assert set(said.removeprefix("wrote ").split(", ")) == set(map(str, written))


def test_a_matched_set_can_be_seen_and_exported(matched, done, refused, tmp_path):
    path = matched[0] / "matching" / set_file.FILE
    done("preview", path, "--out", tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").width > 16
    done("export", path, "--to", "folder", "--out", tmp_path / "png")
    assert len(list((tmp_path / "png").rglob("*.png"))) == 20
    refused("export", path, "--to", "dc", "--out", tmp_path, naming=tmp_path)  # a folder is no file


def test_evaluate_mixes_stored_sets_generators_and_real_images(distilled, done, tiny, tmp_path):
    folder, _ = distilled
    done("sample", folder / "refine", "--ipc", 2, "--out", tmp_path / "set.safetensors")
    sources = [tmp_path / "set.safetensors", folder / "pretrain", "real:random"]
    out = done("evaluate", *sources, *tiny, "--name", "mixed")
    rows = lines(tmp_path / "runs/mixed/evaluate/rows.jsonl")
    assert {row["protocol"] for row in rows} == {"fixed", "stream"}
    assert "set.safetensors" in out
    again = done("evaluate", *tiny, "--name", "mixed", "--evaluate.sources", f"[{', '.join(map(str, sources))}]")
    assert again.partition("\n\n")[2] == out.partition("\n\n")[2]  # all after the estimate of the time
    assert lines(tmp_path / "runs/mixed/evaluate/rows.jsonl") == rows


def test_a_student_has_a_line_of_its_own_if_asked_for(done, tiny, caplog, tmp_path):
    caplog.set_level(logging.INFO)
    caplog.handler.setLevel(logging.DEBUG)  # as that of a terminal, which shows what it gets
    for flags, own_lines in ((), 0), (("-v", "--name", "again"), 4):
        caplog.clear()
        done("evaluate", "real:random", *tiny, *flags)
        assert sum("mean of 2 students" in line for line in caplog.messages) == 2
        assert sum("mlp-w4 seed" in line for line in caplog.messages) == own_lines
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["again", "evaluate"]


@pytest.mark.parametrize(
    ("flags", "networks", "others"),
    [
        ([], ("generator", "discriminator", "pool resnet10-w4", "student mlp-w4"), ()),
        (MATCHING, ("pool convnet3-w4", "student mlp-w4"), ("discriminator", "generator")),
    ],
)
def test_dry_run_prints_costs_and_writes_nothing(flags, networks, others, done, tiny, tmp_path):
    out = done("distill", *tiny, *flags, "--dry-run")
    assert all(name in out for name in networks)
    assert not any(name in out for name in others)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("loss", ["wgan-gp", "hinge", "ns"])
def test_every_adversarial_loss_runs(loss, done, tiny):
    done("train-gan", *tiny, "--gan.loss", loss, "--gan.augment", "color_crop_cutout")


POOL = "--matching.pool."


@pytest.mark.parametrize(
    "flags",
    [
        ("--refine.loss", "log_mse"),
        ("--refine.tau_mode", "multiply", "--refine.standardize", "false"),
        ("--refine.discriminator", "frozen", "--refine.augment", "none"),
        ("--refine.pool.max_accuracy", "0.5", "--refine.pool.weights", "[0.2, 0.8]"),
    ],
    ids=" ".join,
)
def test_every_switch_of_refinement_runs(flags, pretrained, done, tiny):
    done("distill", *tiny, *ALONE, *flags)


@pytest.mark.parametrize(
    "flags",
    [
        ("--matching.augment", "dsa", "--matching.init", "real", "--matching.distance", "mse"),
        (POOL + "kind", "main+similar", POOL + "main_probability", "0.2", POOL + "similar_depth", "1"),
        (POOL + "kind", "main+various", POOL + "various", "[mlp-w4]", POOL + "main_probability", "0.5"),
        (POOL + "kind", "total random", POOL + "various", "[mlp-w4, resnet10-w4]", POOL + "main_only", "1"),
        ("--matching.inner_first", "true", POOL + "main", "convnet3-w4-bn"),
    ],
    ids=" ".join,
)
def test_every_switch_of_matching_runs(flags, done, tiny):
    done("distill", *tiny, *MATCHING, *ALONE, *flags)


def test_students_learn_from_a_teacher_by_another_recipe(distilled, done, tiny):
    teaching = ("--evaluate.teacher", "set", "--evaluate.recipe.name", "dim", "--evaluate.teacher_arch", "mlp-w4")
    assert "recipe dim" in " ".join(done("evaluate", *tiny, *teaching, "--run.overwrite", "true").split())


def test_matching_starts_from_the_generator_of_another_run(pretrained, done, tiny):
    start = ["--matching.init", "generator", "--matching.generator", pretrained]
    out = done("distill", *tiny, *MATCHING, *start)
    for word in ("random real", "pretrained generator", "gradient matching", "all real"):
        assert word in out


def test_evaluate_names_the_set_as_it_was_made(done, tiny):
    done("distill", *tiny, *MATCHING, *ALONE, "--matching.distance", "cos")
    assert "gradient matching, cos" in " ".join(done("evaluate", *tiny).split())


def test_nothing_is_selected_on_images_that_were_distilled(done, refused, tiny, tmp_path):
    done("distill", *tiny, *MATCHING, *ALONE, "--seed", "1")
    choose = ["--evaluate.teacher", "set", "--evaluate.teacher_arch", "mlp-w4", "--evaluate.select_temperature"]
    choose += ["[1.0, 2.0]", "--evaluate.sources", f"[{tmp_path / 'runs/digits/matching'}]"]
    refused("evaluate", *tiny, *choose, naming="another validation part")
    done("evaluate", *tiny, *choose, "--seed", "1", "--run.overwrite", "true")


def test_a_folder_of_ones_own_images_goes_through_all_three_scripts(tmp_path, monkeypatch, capsys):
    draw = torch.Generator().manual_seed(0)
    for index, (name, count) in enumerate({"circle": 30, "square": 20, "star": 12}.items()):
        folder = tmp_path / "shapes" / "train" / name
        folder.mkdir(parents=True)
        for number in range(count):
            pixels = torch.randint(80 * index, 80 * index + 80, (24, 40, 3), generator=draw, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(folder / f"{number}.png")
    flags = [*TINY, "--data.name", str(tmp_path / "shapes"), "--name", "shapes", "--run.root", str(tmp_path / "runs")]
    for script in ("train_gan.py", "distill.py", "evaluate.py"):
        monkeypatch.setattr(sys, "argv", [script, *flags])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        assert end.value.code == 0
        assert "3 classes of 24x40x3" in capsys.readouterr().out
    assert generator_file.load(tmp_path / "runs/shapes/refine").spec.class_names == ("circle", "square", "star")


def test_a_source_that_the_run_distils_anew_is_scored_as_it_is_then(distilled, done, tiny):
    folder, _ = distilled
    before = generator_file.load(folder / "refine").hash
    flags = ["--refine.steps", "2", "--run.overwrite", "true", "--evaluate.sources", f"[{folder / 'refine'}]"]
    done("distill", *tiny, *flags)
    after = generator_file.load(folder / "refine").hash
    sources = {row["source_hash"] for row in lines(folder / "evaluate/rows.jsonl") if row["kind"] == "generator"}
    assert before != after
    assert after in sources

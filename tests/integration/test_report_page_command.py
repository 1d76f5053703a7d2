"""gdd report --html of real runs: a page of all their stages, and folders that stay as they are."""

from pathlib import Path

import pytest


def files_below(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "new/page.html"


def test_a_run_of_a_generator_with_its_evaluation(distilled, done, out):
    folder, _ = distilled
    before = files_below(folder)
    said = done("report", folder, "--html", out)
    assert said == f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB)\n"
    text = out.read_text()
    for title in ("pretrain", "refine", "evaluate"):
        assert f">digits/{title}</h3>" in text
    assert text.count('class="distance"') == 2 * 100
    assert "10 classes, grey images of 16 × 16 pixels" in text
    assert "adversarial, non-saturating and 0.01 × skd, networks convnet3-w4, resnet10-w4" in text
    assert "refined generator (SKD) − pretrained generator" in text
    assert files_below(folder) == before


def test_a_run_with_its_audit(distilled, done, out):
    folder, _ = distilled
    done("audit", folder / "refine", "--ipc", "2")
    done("report", folder, "--html", out)
    text = out.read_text()
    assert ">digits/audit</h3>" in text
    assert "none of those shown here" not in text


def test_a_set_of_matching_and_a_comparison_with_it(matched, done, out, tmp_path):
    folder, _ = matched
    flags = ["--arch", "mlp-w4", "--evaluate.seeds", "[0]", "--evaluate.recipe.epochs", "1", "--run.root", tmp_path]
    done("compare", folder / "matching", *flags, "--run.threads", "1", "--run.workers", "1", "--name", "both")
    done("report", folder / "matching", tmp_path / "both/compare", "--html", out)
    text = out.read_text()
    assert text.count('class="distance"') == 20
    assert "2 images per class, 20.0 KiB" in text
    assert '<th scope="row"><span>random real (floor)</span></th>' in text


@pytest.mark.parametrize("name", ["", "digits/ensemble", "digits/pretrain/tensorboard"])
def test_a_folder_without_a_stage_is_refused(name, distilled, refused, out, tmp_path):
    (tmp_path / "runs/digits/ensemble").mkdir()
    folder = tmp_path / "runs" / name
    refused("report", folder, "--html", out, naming=f"{folder} holds no result of gdd train-gan, distill")
    assert not out.exists()


def test_a_missing_folder_and_an_impossible_place_are_refused(distilled, refused, out, tmp_path):
    refused("report", tmp_path / "runs/digit", "--html", out, naming="runs/digit is no folder")
    refused("report", tmp_path / "runs/digits", "--html", tmp_path, naming=tmp_path)


def test_damaged_files_are_named(distilled, refused, out):
    folder, _ = distilled
    for name in ("refine/generator.safetensors", "refine/config.json", "evaluate/rows.jsonl"):
        path = folder / name
        content = path.read_bytes()
        path.write_bytes(content[:20])
        refused("report", folder, "--html", out, naming=name.partition("/")[0])
        path.write_bytes(content)


def test_several_evaluations_are_written_again_without_a_page(distilled, done):
    folder, _ = distilled
    (folder / "evaluate/table.md").unlink()
    said = done("report", folder / "evaluate", folder / "evaluate")
    assert said.count("wrote ") == 2
    assert (folder / "evaluate/table.md").exists()

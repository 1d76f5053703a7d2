"""gdd audit on digits: of a run, of a lone file, and of a set that holds training images."""

import dataclasses
import json
import shutil

import pytest
import torch

from gdd.sampling import set_file
from gdd.sampling.set_file import SyntheticSet

FILES = {".lock", "config.json", "audit.json", "audit.png"}


@pytest.fixture
def run(distilled):
    return distilled[0]


def found_in(folder):
    return json.loads((folder / "audit.json").read_text())


def test_an_audit_goes_to_the_run_of_its_source(done, refused, run):
    out = done("audit", run, "--ipc", "5")  # of its last stage
    folder = run / "audit"
    found = found_in(folder)
    assert {path.name for path in folder.iterdir()} == FILES
    assert (found["n_samples"], found["n_training"], found["n_held_out"], found["held_out"]) == (50, 1293, 359, "test")
    assert found["near_copies"]["expected"] == 3 / 360
    assert f"AUC of {found['membership']['auc']:.3f}" in " ".join(out.split())
    assert f"{100 * found['near_copies']['share']:.1f} % (" in out
    assert "expected 0.8 %" in out
    assert f"AUC of {found['membership']['auc']:.3f}" in (run / "refine/README.md").read_text()
    assert "Not audited" in (run / "pretrain/README.md").read_text()

    # More samples are the same audit, another stage is another.
    done("audit", run / "refine/generator.safetensors", "--ipc", "6")
    assert found_in(folder)["n_samples"] == 60
    refused("audit", run / "pretrain", naming="holds a run of another configuration")
    done("audit", run / "pretrain", "--name", "other", "--run.root", run.parent)
    assert found_in(run.parent / "other/audit")["source"]["label"].endswith("pretrain")


def test_a_drawn_set_is_audited_as_its_generator_is(done, run, tmp_path):
    done("audit", run / "refine", "--ipc", "4")
    done("sample", run / "refine", "--ipc", "4", "--out", tmp_path / "drawn.safetensors")
    done("audit", tmp_path / "drawn.safetensors", "--run.root", tmp_path)
    of_generator, of_set = found_in(run / "audit"), found_in(tmp_path / "audit/audit")
    assert (of_generator.pop("source")["kind"], of_set.pop("source")["kind"]) == ("generator", "set")
    assert of_generator == of_set


def test_training_images_are_told(done, dataset, tmp_path):
    rows = torch.cat([torch.nonzero(dataset.train.labels == label)[:20, 0] for label in range(10)])
    kept = dataset.train.subset(rows)
    copies = SyntheticSet(kept.images_u8, kept.labels, dataset.spec, 20, {"data": dataset.fingerprint})
    set_file.save(tmp_path / "copies.safetensors", copies)
    out = done("audit", tmp_path / "copies.safetensors", "--run.root", tmp_path)
    assert "compare 200 samples with training and held-out images" in out
    found = found_in(tmp_path / "audit/audit")
    assert (found["copies"], found["near_copies"]["share"]) == (200, 1)
    assert "100.0 % (97.1 to 100.0) of the samples are nearer" in out


def test_a_lone_generator_brings_its_data_settings(done, run, tmp_path):
    shutil.copy(run / "pretrain/generator.safetensors", tmp_path / "lone.safetensors")
    done("audit", tmp_path / "lone.safetensors", "--ipc", "1", "--run.root", tmp_path)
    assert found_in(tmp_path / "audit/audit")["dataset"] == "digits"


def test_a_dry_run_measures_nothing(done, run):
    assert "compare 1,000 samples with training and held-out images" in done("audit", run / "refine", "--dry-run")
    assert not (run / "audit").exists()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--ipc", "0"], "evaluate.ipc"),
        (["--data.val_fraction", "0.2"], "distilled from other images than those of digits here"),
        (["--data.size", "[20, 20]"], "expected (1, 20, 20) of digits"),
        (["--evaluate.sources", "[real:all]"], "evaluate.sources"),
    ],
)
def test_a_mistake_is_named_and_claims_no_folder(refused, run, flags, sentence):
    refused("audit", run / "refine", *flags, naming=sentence)
    assert not (run / "audit").exists()


@pytest.mark.parametrize("source", ["real:all", "nowhere"])
def test_a_source_that_cannot_be_is_named(refused, source):
    refused("audit", source, naming=source)


def test_an_exported_set_is_audited_as_the_set_is(done, dataset, tmp_path):
    kept = dataset.train.subset(torch.cat([torch.nonzero(dataset.train.labels == label)[:2, 0] for label in range(10)]))
    set_file.save(tmp_path / "s.safetensors", SyntheticSet(kept.images_u8, kept.labels, dataset.spec, 2))
    done("audit", tmp_path / "s.safetensors", "--run.root", tmp_path / "runs")
    done("export", tmp_path / "s.safetensors", "--to", "folder", "--out", tmp_path / "out")
    done("audit", tmp_path / "out", "--run.root", tmp_path / "runs", "--name", "other")
    found, other = (found_in(tmp_path / f"runs/{name}/audit") for name in ("audit", "other"))
    assert found.pop("source")["hash"] == other.pop("source")["hash"]
    assert found == other


def test_a_set_of_other_images_asks_for_them(done, refused, dataset, tmp_path):
    """As an imported one, which does not say where its dataset lies; digits would fit by its classes and size."""
    spec = dataclasses.replace(dataset.spec, name="mnist16")
    images = dataset.train.images_u8[dataset.train.labels.argsort()][::130][:10]
    set_file.save(tmp_path / "s.safetensors", SyntheticSet(images, torch.arange(10), spec, 1, {"imported": "x.pt"}))
    flags = (tmp_path / "s.safetensors", "--run.root", tmp_path / "runs")
    expected = "stands for mnist16 and does not say where its images are; add --data.name"
    refused("audit", *flags, naming=expected)
    refused("compare", "real:random", *flags, naming=expected)
    done("audit", *flags, "--data.name", "digits", "--data.val_fraction", "0.2")

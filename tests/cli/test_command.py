"""No command writes over what it reads, or over a file that a run needs, by whatever name."""

import os
import shutil
from pathlib import Path

import pytest
import torch

from gdd.data.spec import DatasetSpec
from gdd.sampling import set_file


@pytest.fixture
def stored(tmp_path) -> Path:
    spec = DatasetSpec("pets", 1, 16, 16, ("cat", "dog"), (0.5,), (0.5,), False)
    images = torch.zeros(2, 1, 16, 16, dtype=torch.uint8)
    set_file.save(tmp_path / "s.safetensors", set_file.SyntheticSet(images, torch.arange(2), spec, 1))
    return tmp_path / "s.safetensors"


def other_names(path: Path) -> list[Path]:
    """Return the path, another spelling of it, a symbolic link and a hard link to it."""
    soft, hard = path.with_name("soft"), path.with_name("hard")
    soft.symlink_to(path)
    os.link(path, hard)
    return [path, path.parent / "." / ".." / path.parent.name / path.name, soft, hard]


def test_an_output_that_is_the_input_is_refused_by_all_its_names(refused, stored, tmp_path):
    before, missing = stored.read_bytes(), tmp_path / "labels.pt"
    for out in other_names(stored):
        for layout in ("npz", "dc"):
            refused("export", stored, "--to", layout, "--out", out, naming=f"--out is {out}, which is read as {stored}")
        refused("export", stored, "--to", "mtt", "--out", out, "--labels", missing, naming="--out is")
        refused("export", stored, "--to", "mtt", "--out", missing, "--labels", out, naming="--labels is")
        refused("preview", stored, "--out", out, naming="--out is")
    assert stored.read_bytes() == before
    assert not missing.exists()


@pytest.mark.parametrize("name", ["images.pt", "labels.pt", "lr.pt", "pets/train/cat/0.png"])
def test_import_keeps_all_that_it_reads(name, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pets/train/cat").mkdir(parents=True)
    for one in ("images.pt", "labels.pt", "lr.pt", "pets/train/cat/0.png"):
        (tmp_path / one).write_text(one)
    flags = ["--labels", "labels.pt", "--lr", "lr.pt", "--dataset", "pets"]
    refused("import", "images.pt", "--format", "mtt", *flags, "--out", name, naming=f"--out is {name}, which is read")
    refused("import", "images.pt", "--format", "dc", "--dataset", "pets", "--out", "images.pt", naming="--out is")
    assert (tmp_path / name).read_text() == name


def test_sample_keeps_its_generator_and_its_ensemble(refused, generator, tmp_path):
    file = generator / "generator.safetensors"
    before = file.read_bytes()
    for source in (generator, file):
        refused("sample", source, "--ipc", "1", "--out", file, naming=f"--out is {file}, which is read as {file}")
    judges = tmp_path / "judges.safetensors"
    shutil.copy(file, judges)
    flags = ["--ensemble", judges, "--filter", "--out", judges]
    refused("sample", generator, "--ipc", "1", *flags, naming=f"--out is {judges}, which is read")
    assert file.read_bytes() == judges.read_bytes() == before


@pytest.mark.parametrize("name", ["rows.jsonl", "config.json", "set.safetensors", "generator.safetensors"])
def test_a_file_of_a_run_is_kept_and_none_is_faked(name, refused, stored, tmp_path):
    """A stage of which one of these files is there counts as finished, or as one of other settings."""
    stage = tmp_path / "runs/x/refine"
    stage.mkdir(parents=True)
    (stage / "config.json").write_text("{}")
    (stage / "rows.jsonl").write_text("mine")
    link = tmp_path / "link"
    link.symlink_to(stage / name)
    for out in (stage / name, link):
        expected = f"is {out}, a file of the run in {stage}"
        refused("report", tmp_path / "runs/x", "--html", out, naming=f"--html {expected}")
        refused("preview", stored, "--out", out, naming=f"--out {expected}")
        refused("sample", "zoo:digits", "--ipc", "1", "--out", out, naming=f"--out {expected}")
    assert sorted(path.name for path in stage.iterdir()) == ["config.json", "rows.jsonl"]
    assert (stage / "rows.jsonl").read_text() == "mine"


def test_what_is_neither_may_be_written_again(done, stored, tmp_path):
    for _ in range(2):
        done("preview", stored, "--out", tmp_path / "s.png")
        done("export", stored, "--to", "npz", "--out", tmp_path / "s.npz")

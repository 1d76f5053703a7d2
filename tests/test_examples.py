"""The examples run as they stand, with fewer steps."""

import itertools
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import ROOT

from gdd.data.splits import Split

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
NOTEBOOK = ROOT / "examples/quickstart.ipynb"
OPTIONS = {"replay.py": ["--dataset", "digits", "--gan-steps", "3", "--gan-width", "4"]}


@pytest.fixture(scope="module")
def replay() -> dict:
    """The functions of examples/replay.py."""
    return runpy.run_path(str(ROOT / "examples/replay.py"))


def ran(path: Path, folder: Path, *options: str) -> str:
    """Run an example in a folder for three steps, and return what it printed."""
    command = [sys.executable, path, "3", *OPTIONS.get(path.name, []), *options]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs(path, tmp_path):
    if "datasets.MNIST" in path.read_text() and not (ROOT / "data/MNIST").is_dir():
        pytest.skip("MNIST is not in data/")
    if (ROOT / "data").is_dir():
        (tmp_path / "data").symlink_to(ROOT / "data")
    assert "accuracy" in ran(path, tmp_path)


def test_the_notebook_holds_nothing_that_running_it_leaves():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    left = [(cell["outputs"], cell["execution_count"]) for cell in cells if cell["cell_type"] == "code"]
    assert left == [([], None)] * len(left)
    assert left


@pytest.mark.slow
def test_the_notebook_runs(tmp_path):
    pytest.importorskip("ipykernel")
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    (steps,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    steps.source = "STEPS = 3"
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    told = "\n".join(output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in shown)
    assert sum("image/png" in output.get("data", {}) for output in shown) == 3  # samples, real images, accuracies
    assert "accuracy on 359 real test images" in told
    assert "random real" in told


@pytest.mark.slow
def test_replay_compares_memories_of_equal_bytes_and_does_nothing_twice(tmp_path):
    path = ROOT / "examples/replay.py"
    first, out = ran(path, tmp_path), tmp_path / "runs/replay-digits"
    table = (out / "table.md").read_text()
    assert table in first
    assert (out / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    found = {file.stem.removeprefix("seed0-"): json.loads(file.read_text()) for file in out.glob("*.json")}
    assert {*found} == {"generators", "random-real", "herded-real", "nothing", "all-real"}
    assert all([len(row) for row in result["accuracies"]] == [1, 2, 3, 4, 5] for result in found.values())
    files = [*(out / "generators").glob("*/refine/generator.safetensors")]
    assert len(files) == 4
    assert found["generators"]["bytes"] == sum(file.stat().st_size for file in files)
    assert found["nothing"]["bytes"] == 0
    for memory in ("random-real", "herded-real"):  # whole images of 16 x 16, as many of each of a task's two classes
        assert 0 <= found["generators"]["bytes"] - found[memory]["bytes"] < 4 * 2 * 256
    assert len(re.findall("after task [1-5]$", first, re.MULTILINE)) == 5 * 5
    again = ran(path, tmp_path)
    assert table in again
    assert not re.findall("after task [1-5]$", again, re.MULTILINE)


def test_forgetting_is_the_best_earlier_accuracy_minus_the_final_one(replay):
    assert replay["forgetting"]([[90.0], [95.0, 70.0], [60.0, 50.0, 40.0]]) == (35 + 20) / 2
    assert replay["forgetting"]([[50.0], [60.0, 80.0]]) == -10


def test_batches_of_replay_are_balanced_and_of_their_class(replay):
    labels = torch.tensor([3, 7, 7, 8, 3, 7])
    images = labels.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    drawn = list(itertools.islice(replay["batches"](Split(images, labels), torch.Generator().manual_seed(0)), 3))
    for batch, classes in drawn:
        assert torch.equal((255 * batch).round().long(), classes.view(-1, 1, 1, 1).expand_as(batch))
    assert torch.cat([classes for _, classes in drawn]).tolist() == [3, 7, 8] * replay["HALF"]

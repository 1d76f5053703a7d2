"""The examples run as they stand, with fewer steps."""

import json
import subprocess
import sys

import pytest
from commands import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
NOTEBOOK = ROOT / "examples/quickstart.ipynb"


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs(path, tmp_path):
    if "datasets.MNIST" in path.read_text() and not (ROOT / "data/MNIST").is_dir():
        pytest.skip("MNIST is not in data/")
    if (ROOT / "data").is_dir():
        (tmp_path / "data").symlink_to(ROOT / "data")
    ended = subprocess.run([sys.executable, path, "3"], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "accuracy" in ended.stdout


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

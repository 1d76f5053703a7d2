"""The examples run as they stand, with fewer steps."""

import subprocess
import sys

import pytest
from commands import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


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

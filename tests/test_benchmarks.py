"""The benchmarks fit the package that they measure; what they measure is for their users."""

import runpy
from pathlib import Path

import pytest

BENCHMARKS = sorted((Path(__file__).parents[1] / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.name)
def test_a_benchmark_finds_all_that_it_imports(path, monkeypatch):
    monkeypatch.syspath_prepend(path.parent)
    assert "main" in runpy.run_path(str(path))

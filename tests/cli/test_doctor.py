"""gdd doctor: its lines here, and on machines that lack something."""

import os
import shutil
from pathlib import Path

import pytest

import gdd
from gdd.runtime import environment, speed


@pytest.fixture(autouse=True)
def _small_products(monkeypatch):
    monkeypatch.setattr(speed, "matrix_product", lambda *_: 123.4)
    monkeypatch.setattr(speed, "convolution", lambda *_: 56.7)


def lines_of(text: str) -> dict[str, str]:
    return {line[:8].rstrip(): line[9:] for line in text.splitlines()}


def test_the_lines_of_this_machine(done, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = lines_of(done("doctor"))
    wanted = {"gdd", "with", "memory", "disk", "data", "cpu", "gpu", "networks", "speed", "time"}
    assert wanted <= set(lines) <= wanted | {"extra"}
    assert lines["gdd"].startswith(f"{gdd.__version__}, Python 3.")
    assert lines["data"].startswith("digits; not in data: mnist, ")
    assert lines["speed"] == "float32: matrix product 123, convolution 57 GFLOP/s"
    assert lines["time"].startswith("about ")


def test_a_machine_without_proc_git_and_sysconf(done, monkeypatch):
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: not str(path).startswith("/proc") and exists(path))
    monkeypatch.setattr(shutil, "which", lambda *_: None)
    monkeypatch.delattr(os, "sysconf_names")
    assert "memory" not in lines_of(done("doctor"))


def test_what_is_broken_is_one_sentence_after_what_could_be_told(gdd, monkeypatch):
    monkeypatch.setattr(environment, "broken", lambda _: "torchvision cannot be imported")
    code, out, error = gdd("doctor")
    assert (code, error) == (2, "gdd: torchvision cannot be imported\n")
    assert "disk" in lines_of(out)
    assert "speed" not in lines_of(out)

"""The wheel and the sdist: what they hold, and that the wheel works where there is no checkout."""

import email
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import numpy
import pytest
from commands import ROOT, TINY

import gdd

FOLDERS = (".ci", "benchmarks", "configs", "docs", "examples", "gdd", "tests")
FILES = [
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "LICENSE", "pyproject.toml", "mkdocs.yml"),
    *(".dockerignore", ".gitignore", ".pre-commit-config.yaml", "Dockerfile"),
    *("train_gan.py", "distill.py", "evaluate.py"),
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("uv") is None, reason="needs uv")]


def files_below(folder: Path) -> set[str]:
    """Return the folder's files, by their paths from the project's root."""
    paths = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(ROOT).as_posix() for path in paths}


def run(*command: object, folder: Path) -> str:
    """Run a command that has to succeed in a folder, without what leads to the checkout, and return its output."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    ended = subprocess.run([*map(str, command)], capture_output=True, text=True, cwd=folder, env=environment)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an sdist and of the wheel that was built from it, of a copy without .git but with data and runs."""
    home = tmp_path_factory.mktemp("built")
    source = home / "source"
    source.mkdir()
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, source / name)
    for name in ("data/MNIST/raw/images", "runs/digits/rows.jsonl", "notes/idea.txt", ".venv/bin/python"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("not to be given away")
    # hatchling is of the dev group, so nothing is fetched.
    offline = ["--offline", "--no-build-isolation", "--python", sys.executable]
    run("uv", "build", *offline, "--out-dir", home, folder=source)
    return home


def test_the_sdist_holds_what_building_and_testing_take(built):
    with tarfile.open(built / f"gdd-{gdd.__version__}.tar.gz") as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names == {*FILES, "PKG-INFO"}.union(*(files_below(ROOT / name) for name in FOLDERS))


def test_the_wheel_holds_the_package_alone_and_says_what_it_is(built):
    with zipfile.ZipFile(built / f"gdd-{gdd.__version__}-py3-none-any.whl") as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        told = {Path(name).name: archive.read(name).decode() for name in archive.namelist() if ".dist-info/" in name}
    assert names == files_below(ROOT / "gdd")
    assert told["LICENSE"] == (ROOT / "LICENSE").read_text()
    assert "gdd = gdd.cli:script" in told["entry_points.txt"]
    metadata = email.message_from_string(told["METADATA"])
    assert (metadata["Name"], metadata["Version"]) == ("gdd", gdd.__version__)
    assert (metadata["License-Expression"], metadata["License-File"]) == ("MIT", "LICENSE")
    extras = PROJECT.get("optional-dependencies", {})
    assert set(metadata.get_all("Provides-Extra", [])) == set(extras)
    needed = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    assert needed == PROJECT["dependencies"]


@pytest.fixture(scope="module")
def installed(built: Path) -> Path:
    """The programs of a new environment that has the wheel, and for the other packages looks into this one."""
    home = built / "venv"
    run("uv", "venv", "--offline", "--python", sys.executable, home, folder=built)
    (wheel,) = built.glob("*.whl")
    run("uv", "pip", "install", "--offline", "--no-deps", "--python", home, wheel, folder=built)
    (packages,) = home.glob("lib/python*/site-packages")
    # Such a line adds a folder, but not what that folder's own lines add: here, the checkout.
    (packages / "borrowed.pth").write_text(f"{Path(numpy.__file__).parents[1]}\n")
    return home / "bin"


def test_the_wheel_distils_and_samples_without_the_checkout(installed, tmp_path):
    found = Path(run(installed / "python", "-c", "import gdd.cli; print(gdd.__file__)", folder=tmp_path).strip())
    assert installed.parent in found.parents
    assert run(installed / "gdd", "--version", folder=tmp_path) == f"gdd {gdd.__version__}\n"
    assert "accuracy" in run(installed / "gdd", "distill", *TINY, folder=tmp_path)
    table = (tmp_path / "runs/digits/evaluate/table.md").read_text()
    assert "refined generator" in table
    rows = map(json.loads, (tmp_path / "runs/digits/evaluate/rows.jsonl").read_text().splitlines())
    assert {(row["git_revision"], row["versions"]["gdd"]) for row in rows} == {(None, gdd.__version__)}
    run(installed / "gdd", "sample", "runs/digits/refine", "--ipc", 2, "--out", "set.safetensors", folder=tmp_path)
    assert (tmp_path / "set.safetensors").stat().st_size > 0
    run(installed / "gdd", "sample", "zoo:mnist", "--ipc", 1, folder=tmp_path)
    assert (tmp_path / "mnist-1.safetensors").stat().st_size > 0

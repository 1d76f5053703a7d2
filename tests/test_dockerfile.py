"""The steps of the Dockerfile, without Docker: below a folder that stands for the image's root."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import pytest
from commands import ROOT
from packaging.specifiers import SpecifierSet

import gdd

LINES = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", "").splitlines()
STEPS = [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in LINES if line]
MACHINES = "useradd"  # a step with this program changes the machine's accounts


class Image(NamedTuple):
    """What the steps made."""

    root: Path  # of its files
    environment: dict[str, str]
    folder: Path  # the last WORKDIR
    command: list[str]


def sources(words: str) -> list[str]:
    """Return what a COPY takes from the checkout."""
    return [] if words.startswith("--from=") else words.split()[:-1]


def step_with(words: str) -> str:
    (found,) = [rest for name, rest in STEPS if name == "RUN" and words in rest]
    return found


def enters(path: str) -> bool:
    """Tell whether .dockerignore lets a path in: the last pattern that fits decides."""
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    fits = [pattern for pattern in patterns if fnmatch(path, pattern.lstrip("!"))]
    return not fits or fits[-1].startswith("!")


def test_what_is_copied_enters_and_nothing_else():
    copied = {name for step, words in STEPS if step == "COPY" for name in sources(words)}
    assert all((ROOT / name).exists() for name in copied)
    assert {path.name for path in ROOT.iterdir() if enters(path.name)} == copied
    assert not any(map(enters, ("data", "runs", ".venv", ".git", "uv.lock", "gdd/cli/__pycache__")))


def test_it_has_a_python_that_gdd_is_for_and_runs_as_nobody_special():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    images = {words.split(maxsplit=1)[0] for step, words in STEPS if step == "FROM"}
    (python,) = [words.removeprefix("PYTHON=python:") for step, words in STEPS if words.startswith("PYTHON=")]
    assert images == {"${PYTHON}"}
    assert python.removesuffix("-slim") in SpecifierSet(project["requires-python"])
    names = [step for step, _ in STEPS]
    (user,) = [words for step, words in STEPS if step == "USER"]
    assert f"{MACHINES} {user} " in step_with(MACHINES)
    assert names.index("USER") < names.index("CMD")


@pytest.mark.parametrize(("variant", "backend"), [("cpu", ["--torch-backend=cpu"]), ("cuda", [])])
def test_the_variant_decides_on_torch(variant, backend, tmp_path):
    ended = install_with(variant, tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == ["pip", "install", "--python", "/opt/gdd", *backend, "."]


def test_another_variant_is_refused(tmp_path):
    ended = install_with("rocm", tmp_path)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "VARIANT is rocm, expected cpu or cuda\n"


def install_with(variant: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the step that installs gdd with a uv that says how it was called."""
    uv = folder / "uv"
    uv.write_text('#!/bin/sh\necho "$@"\n')
    uv.chmod(uv.stat().st_mode | stat.S_IXUSR)
    environment = {"PATH": f"{folder}:{os.defpath}", "VARIANT": variant}
    return subprocess.run(
        ["sh", "-c", step_with("pip install --python")], capture_output=True, text=True, env=environment
    )


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """Run all steps; left out are those that change the machine, and torch is PyPI's, which uv has already fetched."""
    root = tmp_path_factory.mktemp("image")
    subprocess.run([sys.executable, "-m", "venv", root / "usr"], check=True)
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment = {**kept, "PATH": f"{root}/usr/bin:{os.environ['PATH']}", "VARIANT": "cuda"}
    folder, command = root, []

    def placed(words: str) -> str:
        return re.sub(r"(?<![\w./])/(?=(?:opt|source|work)\b)", f"{root}/", words)

    for step, words in STEPS:
        if step == "WORKDIR":
            folder = Path(placed(words))
            folder.mkdir(parents=True, exist_ok=True)
        elif step == "COPY":
            for name in sources(words):
                copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
                copy(ROOT / name, folder / words.split()[-1])
        elif step == "ENV":
            for name, value in (pair.split("=", 1) for pair in words.split()):
                environment[name] = placed(value).replace(f"${name}", environment.get(name, ""))
        elif step == "RUN" and MACHINES not in words:
            ended = subprocess.run(
                ["sh", "-c", placed(words)], cwd=folder, env=environment, capture_output=True, text=True
            )
            assert ended.returncode == 0, ended.stdout + ended.stderr
        elif step == "CMD":
            command = json.loads(words)
    return Image(root, environment, folder, command)


@pytest.mark.slow
@pytest.mark.parametrize("words", [None, "gdd distill --config configs/digits.yaml --dry-run"])
def test_its_steps_make_gdd_work(words, image):
    command = words.split() if words else image.command
    ended = subprocess.run(command, cwd=image.folder, env=image.environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert shutil.which("gdd", path=image.environment["PATH"]) == f"{image.root}/opt/gdd/bin/gdd"
    assert ("parameters" if words else f"gdd      {gdd.__version__}") in ended.stdout

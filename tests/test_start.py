"""What a command does before it works: refusals that read no data and import little, and the benchmark of starts."""

import json
import subprocess
import sys

import pytest
from commands import ROOT
from PIL import Image

import gdd
from gdd import pipeline

REFUSALS = {
    "range": ["--refine.tau", "0"],
    "student": ["--evaluate.archs", "[convent3]"],
    "pool member": ["--refine.pool.members", "[resnet19]"],
    "teacher": ["--evaluate.teacher", "set", "--evaluate.teacher_arch", "mlpp"],
    "main model": ["--method", "matching", "--matching.pool.main", "convnet33"],
    "augmentation": ["--gan.augment", "colour"],
    "source": ["--evaluate.sources", "[nowhere.safetensors]"],
    "zoo": ["--evaluate.sources", "[zoo:nothing]"],
    "start": ["--refine.pretrained", "nowhere"],
    "dataset": ["--data.name", "digit"],
    "folder": ["--data.name", "folder", "--data.root", "nowhere"],
}
# What takes longest to import; scikit-learn is asked for its file alone.
HEAVY = ("torch", "torchvision", "accelerate", "pandas", "matplotlib", "scipy", "sklearn")
PROBE = f"""
import sys
from gdd.cli import main
code = main(sys.argv[1:])
print(code, *(name for name in {HEAVY} if name in sys.modules))
"""


def imported_by(*arguments: str) -> str:
    """Return the exit code of a command and what it imported of HEAVY."""
    ended = subprocess.run([sys.executable, "-c", PROBE, *arguments], capture_output=True, text=True, check=True)
    return ended.stdout.splitlines()[-1]


@pytest.mark.parametrize("case", REFUSALS)
def test_a_setting_is_refused_without_torch_and_without_data(case, refused, monkeypatch):
    monkeypatch.setattr(pipeline.opening, "open_dataset", lambda *_, **__: pytest.fail("the data were read"))
    key, value = REFUSALS[case][-2:]
    line = refused("distill", *REFUSALS[case])
    assert key.removeprefix("--") in line or value.strip("[]") in line
    assert imported_by("distill", *REFUSALS[case]) == "2"


@pytest.mark.parametrize("source", ["nowhere", "real:all"])
def test_a_source_of_an_audit_is_refused_without_torch(source):
    assert imported_by("audit", source) == "2"


@pytest.mark.parametrize(
    "line", ["distill --help", "doctor --help", "--version", "zoo", "--print_completion shtab-bash"]
)
def test_what_asks_for_no_images_imports_no_torch(line):
    assert imported_by(*line.split()) == "0"


def test_the_version_is_that_of_the_package(done):
    assert done("--version") == f"gdd {gdd.__version__}\n"


def test_a_dry_run_imports_no_more_than_it_needs(tmp_path):
    assert imported_by("distill", "--dry_run", "--run.root", str(tmp_path)) == "0 torch accelerate"


def test_networks_that_the_first_image_does_not_allow_are_refused_before_decoding(refused, tmp_path, monkeypatch):

    monkeypatch.setattr(pipeline.opening, "open_dataset", lambda *_, **__: pytest.fail("the data were read"))
    for name in "ab":
        (tmp_path / name).mkdir()
        Image.new("L", (16, 16)).save(tmp_path / name / "0.png")
    flags = ["distill", "--data.name", tmp_path, "--evaluate.archs", "[convnet-d9]"]
    refused(*flags, naming="evaluate.archs: a convnet of depth 9")


@pytest.mark.slow
def test_the_benchmark_of_starts(tmp_path):
    command = [sys.executable, ROOT / "benchmarks/startup.py", "--files", "240", "--runs", "0"]
    printed = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert printed["machine"]
    assert printed["files"] == 240
    names = {"help", "refused range", "refused network", "refused size", "digits", "folder", "folder, cached"}
    assert printed["seconds"].keys() == names
    assert all(value > 0 for value in printed["seconds"].values())

"""What a row says about the machine and the program; what is missing, too old, or cannot be imported."""

import importlib

import pytest
import torch
from packaging.requirements import Requirement

from gdd.runtime import environment
from gdd.runtime.device import device_name, peak_memory_mb

DECLARED = [
    Requirement(line)
    for line in (
        "numpy>=1.26",
        "no-such-package>=2; sys_platform == 'nowhere'",
        "webdataset>=0.1; extra == 'shards'",
        "no-such-package>=2; extra == 'hub'",
    )
]


def test_extras_have_their_own_requirements_and_nothing_else():
    assert environment.extras(DECLARED) == ["hub", "shards"]
    assert environment.needed(DECLARED) == DECLARED[:1]
    assert environment.needed(DECLARED, "hub") == DECLARED[3:]
    assert environment.lacking(DECLARED[3]) == "missing"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("no-such-package>=2", "no-such-package is missing, expected no-such-package>=2"),
        ("numpy>=99", "numpy is version "),
    ],
)
def test_a_missing_and_an_old_package_are_named(line, sentence):
    assert environment.broken([Requirement(line)]).startswith(sentence)


def test_what_is_installed_here_fits():
    assert environment.declared()
    assert environment.broken(environment.declared()) is None


def test_nothing_is_asked_for_where_gdd_is_not_installed(monkeypatch):
    def missing(name: str) -> list[str]:
        raise environment.PackageNotFoundError(name)

    monkeypatch.setattr(environment, "requires", missing)
    assert environment.declared() == []


def test_a_torchvision_that_does_not_fit_torch_is_explained(monkeypatch):
    def refuse(name: str) -> object:
        if name == "torchvision":
            raise RuntimeError("operator torchvision::nms does not exist\nmore")
        return importlib.import_module(name)

    monkeypatch.setattr(environment, "import_module", refuse)
    said = environment.broken([])
    assert said.startswith("torchvision cannot be imported (RuntimeError: operator torchvision::nms does not exist)")
    assert "pip install --upgrade torch torchvision" in said


def test_facts_about_the_machine_are_known() -> None:
    assert peak_memory_mb(torch.device("cpu")) > 10
    assert device_name(torch.device("cpu")).startswith("cpu")
    assert environment.versions()["torch"] == torch.__version__
    revision = environment.git_revision()
    assert revision is None or len(revision.removesuffix("-dirty")) == 40

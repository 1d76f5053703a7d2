"""What is missing, too old, or cannot be imported, by requirements written out."""

import importlib

import pytest
from packaging.requirements import Requirement

from gdd.runtime import requirements

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
    assert requirements.extras(DECLARED) == ["hub", "shards"]
    assert requirements.needed(DECLARED) == DECLARED[:1]
    assert requirements.needed(DECLARED, "hub") == DECLARED[3:]
    assert requirements.lacking(DECLARED[3]) == "missing"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("no-such-package>=2", "no-such-package is missing, expected no-such-package>=2"),
        ("numpy>=99", "numpy is version "),
    ],
)
def test_a_missing_and_an_old_package_are_named(line, sentence):
    assert requirements.broken([Requirement(line)]).startswith(sentence)


def test_what_is_installed_here_fits():
    assert requirements.declared()
    assert requirements.broken(requirements.declared()) is None


def test_nothing_is_asked_for_where_gdd_is_not_installed(monkeypatch):
    def missing(name: str) -> list[str]:
        raise requirements.PackageNotFoundError(name)

    monkeypatch.setattr(requirements, "requires", missing)
    assert requirements.declared() == []


def test_a_torchvision_that_does_not_fit_torch_is_explained(monkeypatch):
    def refuse(name: str) -> object:
        if name == "torchvision":
            raise RuntimeError("operator torchvision::nms does not exist\nmore")
        return importlib.import_module(name)

    monkeypatch.setattr(requirements, "import_module", refuse)
    said = requirements.broken([])
    assert said.startswith("torchvision cannot be imported (RuntimeError: operator torchvision::nms does not exist)")
    assert "pip install --upgrade torch torchvision" in said

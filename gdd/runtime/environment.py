"""What gdd needs, whether it is there, and what a result was made with; imports none of it, for it may be broken."""

import platform
import subprocess
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

import gdd

# Those of other packages that break when they do not fit each other, in the order in which they import one another.
_FITTING = ("numpy", "scipy", "sklearn", "torch", "torchvision", "accelerate", "timm")


def declared() -> list[Requirement]:
    """Return what gdd's metadata ask for, that of extras included; nothing if gdd runs without being installed."""
    try:
        return [Requirement(line) for line in requires("gdd") or []]
    except PackageNotFoundError:
        return []


def lacking(requirement: Requirement) -> str | None:
    """Return what is wrong with an installed package: missing, or its version; None if nothing is."""
    try:
        installed = version(requirement.name)
    except PackageNotFoundError:
        return "missing"
    return None if requirement.specifier.contains(installed, prereleases=True) else f"version {installed}"


def needed(requirements: Sequence[Requirement], extra: str = "") -> list[Requirement]:
    """Return those of an extra alone, or those that gdd always needs on this machine."""
    always = [need for need in requirements if need.marker is None or need.marker.evaluate({"extra": ""})]
    if not extra:
        return always
    others = [need for need in requirements if need not in always]
    return [need for need in others if need.marker and need.marker.evaluate({"extra": extra})]


def extras(requirements: Sequence[Requirement]) -> list[str]:
    """Return the names of the extras, in order of the alphabet."""
    named = (str(need.marker).partition('extra == "')[2].partition('"')[0] for need in requirements)
    return sorted({*named} - {""})


def broken(requirements: Sequence[Requirement]) -> str | None:
    """Say in one sentence what is missing, too old, or cannot be imported beside the others; None if all is well."""
    for need in needed(requirements):
        if (wrong := lacking(need)) is not None:
            wanted = f"{need.name}{need.specifier}"
            return f"{need.name} is {wrong}, expected {wanted}: pip install '{wanted}'"
    for name in _FITTING:
        try:
            import_module(name)
        except Exception as error:  # every kind: torchvision raises RuntimeError where torch has another version
            reason = str(error).strip().partition("\n")[0][:200]
            fit = "; it has to fit torch: pip install --upgrade torch torchvision" if name == "torchvision" else ""
            return f"{name} cannot be imported ({type(error).__name__}: {reason}){fit}"
    return None


@cache
def git_revision() -> str | None:
    """Return the commit of the checkout that this runs from, `-dirty` if edited; none if installed."""
    home = Path(gdd.__file__).resolve().parents[1]

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(home), *arguments], capture_output=True, text=True, timeout=20)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        # An installed copy may lie in an environment inside somebody else's repository.
        if git("rev-parse", "--show-toplevel") != str(home):
            return None
        revision = git("rev-parse", "HEAD")
        return revision + ("-dirty" if git("status", "--porcelain", "--untracked-files=no") else "") or None
    except (OSError, subprocess.TimeoutExpired):
        return None


@cache
def versions() -> dict[str, str]:
    import accelerate
    import numpy as np
    import torch

    return {
        "gdd": gdd.__version__,
        "torch": torch.__version__,
        "accelerate": accelerate.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }

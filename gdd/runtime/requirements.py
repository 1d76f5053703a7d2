"""What gdd needs and whether it is installed; imports nothing of it, for it may be broken."""

from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

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
        found = version(requirement.name)
    except PackageNotFoundError:
        return "missing"
    return None if requirement.specifier.contains(found, prereleases=True) else f"version {found}"


def needed(requirements: Sequence[Requirement], extra: str = "") -> list[Requirement]:
    """Return those of an extra alone, or those that gdd always needs on this machine."""
    always = [one for one in requirements if one.marker is None or one.marker.evaluate({"extra": ""})]
    if not extra:
        return always
    return [one for one in requirements if one not in always and one.marker and one.marker.evaluate({"extra": extra})]


def extras(requirements: Sequence[Requirement]) -> list[str]:
    """Return the names of the extras, in order of the alphabet."""
    named = (str(one.marker).partition('extra == "')[2].partition('"')[0] for one in requirements)
    return sorted({*named} - {""})


def broken(requirements: Sequence[Requirement]) -> str | None:
    """Say in one sentence what is missing, too old, or cannot be imported beside the others; None if all is well."""
    for one in needed(requirements):
        if (wrong := lacking(one)) is not None:
            wanted = f"{one.name}{one.specifier}"
            return f"{one.name} is {wrong}, expected {wanted}: pip install '{wanted}'"
    for name in _FITTING:
        try:
            import_module(name)
        except Exception as error:  # every kind: torchvision raises RuntimeError where torch has another version
            reason = str(error).strip().partition("\n")[0][:200]
            fit = "; it has to fit torch: pip install --upgrade torch torchvision" if name == "torchvision" else ""
            return f"{name} cannot be imported ({type(error).__name__}: {reason}){fit}"
    return None

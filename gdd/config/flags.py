"""Settings as the flags of a command line."""

import json
from collections.abc import Collection, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from gdd.config import Config


def flags(config: Config, sections: Collection[str], without: Collection[str] = ()) -> list[str]:
    """Return the words that tell a command which settings differ from the defaults.

    Args:
        config: the settings.
        sections: those that the command reads; what stands in no section, and of `run` what decides a result or makes
            another, is told with them.
        without: dotted keys that are told otherwise.
    """
    words = list[str]()
    for key, value in _changed(config, Config(), ""):
        section, dot, _ = key.partition(".")
        if (not dot or section in (*sections, "run")) and key not in without:
            said = _said(value)
            words += [f"--{key}={said}"] if said.startswith("-") else [f"--{key}", said]
    return words


def _changed(settings: Any, default: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for part in fields(settings):
        key, value, usual = prefix + part.name, getattr(settings, part.name), getattr(default, part.name)
        if is_dataclass(value):
            yield from _changed(value, usual, f"{key}.")
        elif value != usual and (prefix != "run." or key == "run.snapshots" or part.metadata.get("effect", True)):
            yield key, value


def _said(value: Any) -> str:
    return str(value) if isinstance(value, str | Path) else json.dumps(value)

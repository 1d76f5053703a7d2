"""Every setting by its dotted key, found by introspection, so that a new field is tried as soon as it is there."""

from dataclasses import is_dataclass
from typing import Any, get_type_hints

from gdd.config import Config


def types_by_key(part: type = Config, prefix: str = "") -> dict[str, Any]:
    """Return the type of every setting, those of sections within sections included, without its range."""
    types: dict[str, Any] = {}
    for name, kind in get_type_hints(part).items():
        types |= types_by_key(kind, f"{prefix}{name}.") if is_dataclass(kind) else {prefix + name: kind}
    return types


def nested(values: dict[str, Any]) -> dict[str, Any]:
    """Return values by dotted key as a YAML file would nest them; a section takes the place of a value."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *sections, name = key.split(".")
        part = tree
        for section in sections:
            if not isinstance(part.get(section), dict):
                part[section] = {}
            part = part[section]
        part[name] = value
    return tree


def holds_only_differences(given: dict[str, Any], default: dict[str, Any]) -> None:
    """Fail for a value, such as a config file's, that is its default."""
    for key, value in given.items():
        if isinstance(value, dict):
            holds_only_differences(value, default[key])
        else:
            assert value != default[key], key

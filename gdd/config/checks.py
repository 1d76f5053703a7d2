"""The error of a user's mistake, and the checks that settings share."""

import difflib
import hashlib
import json
import math
import reprlib
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

_WORDS = {
    int: "a whole number of 64 bits",
    float: "a number",
    str: "text",
    bool: "true or false",
    Path: "a path",
    NoneType: "null",
    tuple: "a list",
    dict: "a mapping",
}


class ConfigError(ValueError):
    """A user's mistake, told in one sentence that names the key, file or value and what was expected."""


def nearest(value: str, names: Iterable[str]) -> str:
    """Return the end of an error's sentence: a known name much like `value`, if there is one."""
    near = difflib.get_close_matches(value.lower(), list(names), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def require(holds: bool, key: str, value: object, expected: str) -> None:
    if not holds:
        raise ConfigError(f"{key} is {reprlib.repr(value)}, expected {expected}")


def is_number(value: object) -> bool:
    # A YAML null reaches a field whatever its type; .inf and .nan pass as floats.
    return isinstance(value, int | float) and math.isfinite(value)


def require_at_least(part: object, section: str, low: float, *names: str) -> None:
    for name in names:
        value = getattr(part, name)
        require(is_number(value) and value >= low, f"{section}.{name}", value, f"a number of at least {low:g}")


def require_above_0(part: object, section: str, *names: str) -> None:
    for name in names:
        value = getattr(part, name)
        require(is_number(value) and value > 0, f"{section}.{name}", value, "a number above 0")


def fits(value: object, hint: Any) -> bool:
    """Tell whether a value is what an annotation asks for; a whole number may stand for a float."""
    kind, parts = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, UnionType):
        return any(fits(value, part) for part in parts)
    if kind is Literal:
        return any(value == part and type(value) is type(part) for part in parts)
    if kind is tuple:
        if not isinstance(value, tuple):
            return False
        wanted = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
        return len(value) == len(wanted) and all(map(fits, value, wanted))
    if kind is dict:
        return isinstance(value, dict) and all(fits(key, parts[0]) and fits(value[key], parts[1]) for key in value)
    if isinstance(value, bool):  # Python's bools are numbers
        return kind in (bool, Any)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:  # neither torch nor a float holds it
        return False
    return kind is Any or isinstance(value, int | float if kind is float else kind)


def _described(hint: Any) -> str:
    kind, parts = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, UnionType):
        return " or ".join(map(_described, parts))
    if kind is Literal:
        return f"one of {', '.join(map(str, parts))}"
    if kind is tuple and parts[-1] is not Ellipsis:
        return f"a list of {len(parts)}"
    return _WORDS.get(kind, "a mapping of settings")


def require_types(part: object, section: str = "") -> None:
    """Check every field against its annotation: null gets past the parser, which does compare choices."""
    for name, annotation in get_type_hints(type(part)).items():
        value, hint = getattr(part, name), str if get_origin(annotation) is Literal else annotation
        require_type(value, hint, f"{section}.{name}" if section else name)


def require_type(value: object, hint: Any, key: str) -> None:
    require(fits(value, hint), key, value, _described(hint))


def from_json(kind: type[T], values: dict[str, Any]) -> T:
    """Build a dataclass from JSON, whose lists stand for tuples.

    Raises:
        KeyError: a field is missing.
        ConfigError: one is of another type, or its class refuses the value.
    """
    found = {}
    for name, hint in get_type_hints(kind).items():
        value = values[name]
        found[name] = tuple(value) if isinstance(value, list) and get_origin(hint) is tuple else value
        require_type(found[name], hint, name)
    return kind(**found)


def to_plain(config: Any) -> dict[str, Any]:
    """Return a dataclass as JSON values: paths as text, tuples as lists."""
    return json.loads(json.dumps(asdict(config), default=str))


def stable_hash(*parts: Any) -> str:
    """Return 16 hex digits that change with any value of any part (dataclasses or JSON values)."""
    plain = [to_plain(part) if hasattr(part, "__dataclass_fields__") else part for part in parts]
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()[:16]

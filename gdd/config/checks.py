"""The error of a user's mistake, and the checks that settings share."""

import difflib
import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any


class ConfigError(ValueError):
    """A user's mistake, told in one sentence that names the key, file or value and what was expected."""


def nearest(value: str, names: Iterable[str]) -> str:
    """Return the end of an error's sentence: a known name much like `value`, if there is one."""
    near = difflib.get_close_matches(value.lower(), list(names), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def require(holds: bool, key: str, value: object, expected: str) -> None:
    if not holds:
        raise ConfigError(f"{key} is {value!r}, expected {expected}")


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


def to_plain(config: Any) -> dict[str, Any]:
    """Return a dataclass as JSON values: paths as text, tuples as lists."""
    return json.loads(json.dumps(asdict(config), default=str))


def config_hash(*parts: Any) -> str:
    """Return 16 hex digits that change with any value of any part (dataclasses or JSON values)."""
    plain = [to_plain(part) if hasattr(part, "__dataclass_fields__") else part for part in parts]
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()[:16]

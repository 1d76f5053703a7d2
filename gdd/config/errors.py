"""The error of a user's mistake, and its sentence."""

import difflib
import json
import reprlib
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")


class ConfigError(ValueError):
    """A user's mistake, told in one sentence that names the key, file or value and what was expected."""


def nearest(value: str, names: Iterable[str]) -> str:
    """Return the end of an error's sentence: a known name much like `value`, if there is one."""
    near = difflib.get_close_matches(value.lower(), list(names), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def require(holds: bool, key: str, value: object, expected: str) -> None:
    """Raise ConfigError unless a condition holds."""
    if not holds:
        raise ConfigError(f"{key} is {reprlib.repr(value)}, expected {expected}")


_adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)


def read_as(kind: type[T], values: Any, key: str = "") -> T:
    """Build a dataclass, its parts included, from JSON values; lists stand for tuples, text for paths.

    Args:
        kind: a dataclass, or any other type.
        values: keys that the dataclass does not have are ignored.
        key: name of the whole in an error's sentence.

    Raises:
        ConfigError: a field is missing, of another type or out of range; the sentence names it.
    """
    try:
        return _adapter(kind).validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        raise ConfigError(_sentence(error, key)) from None


_EXPECTED = {
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "a number of at least {ge:g}",
    "less_than": "a number below {lt:g}",
    "less_than_equal": "a number of at most {le:g}",
    "too_short": "at least {min_length} values",
    "literal_error": "{expected}",
    "value_error": "{error}",
}


def _sentence(invalid: ValidationError, whole: str) -> str:
    """Say what is wrong with the first field that is."""
    first = invalid.errors()[0]
    key, context = ".".join(filter(None, [whole, *map(str, first["loc"])])), first.get("ctx", {})
    if isinstance(context.get("error"), ConfigError):  # of a check of several fields, which names its keys
        return str(context["error"])
    if first["type"] == "missing":
        return f"{key} is missing"
    kind = _EXPECTED.get(first["type"])
    expected = kind.format(**context) if kind else first["msg"].removeprefix("Input should be ")
    return f"{key} is {reprlib.repr(first['input'])}, expected {expected}"

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


def did_you_mean(value: str, names: Iterable[str]) -> str:
    """Return the end of an error's sentence: a known name much like `value`, if there is one."""
    near = difflib.get_close_matches(value.lower(), list(names), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def require(holds: bool, key: str, value: object, expected: str) -> None:
    """Raise ConfigError unless a condition holds."""
    if not holds:
        raise ConfigError(f"{key} is {_shown(value)}, expected {expected}")


def _shown(value: object) -> str:
    """Return a value as its user wrote it, a long one shortened: null, a list for a tuple, text for a path."""
    return "null" if value is None else reprlib.repr(json.loads(json.dumps(value, default=str)))


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
    "bool_type": "true or false",
    "dataclass_type": "keys with their values",
    "float_type": "a number",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "int_type": "a whole number",
    "less_than": "a number below {lt}",
    "less_than_equal": "a number of at most {le}",
    "literal_error": "{expected}",
    "string_type": "a text",
    "too_long": "no more than {max_length} values",
    "too_short": "no fewer than {min_length} values",
    "tuple_type": "a list",
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
    if first["type"] == "json_invalid":  # bytes that are not UTF-8, or too deep a nesting
        return f"{whole or 'a value'} cannot be read ({first['msg']})"
    ends = {name: f"{end:g}" if isinstance(end, float) else end for name, end in context.items()}
    known = _EXPECTED.get(first["type"])
    expected = known.format(**ends) if known else first["msg"].removeprefix("Input should be ")
    return f"{key} is {_shown(first['input'])}, expected {expected}"

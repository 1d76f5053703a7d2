"""What the sections share: how they are declared, the ranges of their fields, and what a fingerprint counts.

A field counts in a run's fingerprint unless it is declared `without_effect`, so a new one cannot be forgotten.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import MISSING, asdict, field, fields, is_dataclass
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field

# Types are taken as they are (no text for a number), and no number may be infinite or NaN.
STRICT = ConfigDict(strict=True, allow_inf_nan=False)

_MOST = 2**63 - 1  # what torch and JSON readers hold
AtLeast0 = Annotated[int, Field(ge=0, le=_MOST)]
AtLeast1 = Annotated[int, Field(ge=1, le=_MOST)]
AtLeast2 = Annotated[int, Field(ge=2, le=_MOST)]
# The range stands outside the union: jsonargparse would else try it itself and tell of it at length.
AtLeast1OrNull = Annotated[int | None, Field(ge=1, le=_MOST)]
NotNegative = Annotated[float, Field(ge=0)]
NotNegativeOrNull = Annotated[float | None, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
PositiveOrNull = Annotated[float | None, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
ShareOrNull = Annotated[float | None, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Schedule = Literal["constant", "linear", "cosine"]


def each(low: float, high: float = _MOST) -> AfterValidator:
    """Return a validator of a list of numbers, or null, for `Annotated`."""
    return AfterValidator(partial(_check_each, low=low, high=high))


def _check_each(values: tuple[float, ...] | None, low: float, high: float) -> tuple[float, ...] | None:
    if any(value < low for value in values or ()):
        raise ValueError(f"numbers of at least {low}")
    if any(value > high for value in values or ()):
        raise ValueError(f"numbers of at most {high}")
    return values


def without_effect(default: Any = MISSING, default_factory: Callable[[], Any] | Any = MISSING) -> Any:
    """Declare a field that no result depends on, or whose content counts instead of it."""
    return field(default=default, default_factory=default_factory, metadata={"effect": False})


def to_plain(settings: Any) -> dict[str, Any]:
    """Return a dataclass as JSON values: paths as text, tuples as lists."""
    return json.loads(json.dumps(asdict(settings), default=str))


def stable_hash(*parts: Any) -> str:
    """Return 16 hex digits that change with any value of any part (dataclasses or JSON values)."""
    plain = [to_plain(part) if is_dataclass(part) else part for part in parts]
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()[:16]


def counted(settings: Any, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the fields of settings that count in a fingerprint, those of their sections included.

    Args:
        settings: a dataclass.
        without: its sections that have no part in the result.
    """
    names = [part.name for part in fields(settings) if part.metadata.get("effect", True) and part.name not in without]
    values = {name: getattr(settings, name) for name in names}
    return {name: counted(value) if is_dataclass(value) else value for name, value in values.items()}

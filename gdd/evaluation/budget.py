"""How many bytes the sources of a comparison may take; without torch."""

import re
from dataclasses import dataclass
from pathlib import Path

from gdd.config import ConfigError

_UNITS = {"": 1, "KiB": 2**10, "MiB": 2**20}
_IPC = "ipc"


@dataclass(frozen=True)
class Budget:
    """What each source of a comparison may take, and who chooses among images for it."""

    text: str  # as it was given
    bytes: int | None  # none: those of `ipc`
    ipc: int | None  # images per class, stored as uint8 with hard labels
    teacher: Path | None = None  # the ensemble that chooses and labels images; none until it is trained


def parse_budget(text: str) -> Budget:
    """Return the budget that a text tells: 25600, 25KiB, 1MiB or 10ipc.

    Raises:
        ConfigError: it tells none.
    """
    match = re.fullmatch(r"0*([1-9][0-9]{0,14})(KiB|MiB|ipc|)", text)
    if match is None:
        raise ConfigError(
            f"--budget is {text}, expected a whole number above 0 of bytes, KiB, MiB or images per class: 25600, "
            f"25KiB, 1MiB or 10{_IPC}"
        )
    count, unit = int(match[1]), match[2]
    return Budget(text, None, count) if unit == _IPC else Budget(text, count * _UNITS[unit], None)

"""What `evaluate.sources` may name, told without torch, so that a missing one is refused at once."""

from pathlib import Path
from typing import Literal

from gdd.config import ConfigError

FLOOR: Literal["real:random"] = "real:random"
CEILING: Literal["real:all"] = "real:all"  # of fixed sets
STREAM_CEILING: Literal["real:stream"] = "real:stream"  # of streams


def path_of(text: str) -> Path | None:
    """Return the file or folder that a source's text names; None for real images.

    Raises:
        ConfigError: there is none.
    """
    if text in (FLOOR, CEILING, STREAM_CEILING):
        return None
    if text.startswith("real:"):
        raise ConfigError(
            f"the source {text} is unknown, expected {FLOOR}, {CEILING}, {STREAM_CEILING}, a set or a run folder"
        )
    if not Path(text).exists():
        raise ConfigError(f"the source {text} does not exist; {FLOOR}, {CEILING} and {STREAM_CEILING} are built in")
    return Path(text)

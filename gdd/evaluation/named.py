"""What `evaluate.sources` may name, told without torch, so that a missing one is refused at once."""

from pathlib import Path
from typing import Literal

from gdd.config import ConfigError

FLOOR: Literal["real:random"] = "real:random"
CEILING: Literal["real:all"] = "real:all"  # of fixed sets
STREAM_CEILING: Literal["real:stream"] = "real:stream"  # of streams


FILTER = ",filter="  # stands between a generator's path and an ensemble's


def split_filter(text: str) -> tuple[str, str | None]:
    """Return the path of a source and that of the ensemble which filters its samples, if one is named."""
    path, separator, ensemble = text.partition(FILTER)
    return (text, None) if Path(text).exists() or not separator else (path, ensemble)


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
    text, ensemble = split_filter(text)
    if ensemble is not None and not Path(ensemble).exists():
        raise ConfigError(f"the ensemble {ensemble} does not exist, expected a run folder of gdd train-ensemble")
    if not Path(text).exists():
        raise ConfigError(f"the source {text} does not exist; {FLOOR}, {CEILING} and {STREAM_CEILING} are built in")
    return Path(text)

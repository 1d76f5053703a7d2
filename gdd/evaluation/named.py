"""What `evaluate.sources` may name, told without torch, so that a missing one is refused at once."""

from pathlib import Path
from typing import Literal

from gdd import zoo
from gdd.config import ConfigError

FLOOR: Literal["real:random"] = "real:random"
CEILING: Literal["real:all"] = "real:all"  # of fixed sets
STREAM_CEILING: Literal["real:stream"] = "real:stream"  # of streams
FRACTION: Literal["real:fraction"] = "real:fraction"  # followed by = and the share of all training images
_BUILT_IN = f"{FLOOR}, {FRACTION}=SHARE, {CEILING} and {STREAM_CEILING}"

FILTER = ",filter="  # stands between a generator's path and an ensemble's


def split_filter(text: str) -> tuple[str, str | None]:
    """Return the path of a source and that of the ensemble which filters its samples, if one is named."""
    path, separator, ensemble = text.partition(FILTER)
    return (text, None) if Path(text).exists() or not separator else (path, ensemble)


def fraction_of(text: str) -> float | None:
    """Return the share of all real images that a source's text names, in (0, 1]; None for anything else.

    Raises:
        ConfigError: it names no such share.
    """
    kind, _, share = text.partition("=")
    if kind != FRACTION:
        return None
    try:
        fraction = float(share)
    except ValueError:
        fraction = 0.0
    if not 0 < fraction <= 1:
        raise ConfigError(f"the source is {text}, expected a share above 0 and at most 1, such as {FRACTION}=0.05")
    return fraction


def source_path(text: str) -> Path | None:
    """Return the file or folder that a source's text names; None for real images.

    Raises:
        ConfigError: there is none.
    """
    if text in (FLOOR, CEILING, STREAM_CEILING) or fraction_of(text) is not None:
        return None
    if text.startswith("real:"):
        raise ConfigError(f"the source {text} is unknown, expected a set, a run folder, or one of {_BUILT_IN}")
    text, ensemble = split_filter(text)
    if ensemble is not None and not Path(ensemble).exists():
        raise ConfigError(f"the ensemble {ensemble} does not exist, expected a run folder of gdd train-ensemble")
    path = zoo.generator_path(text)
    if not path.exists():
        raise ConfigError(f"the source {text} does not exist; {_BUILT_IN} are built in")
    return path

"""What `evaluate.sources` may name, told without torch, so that a missing one is refused at once."""

from pathlib import Path
from typing import Literal

from gdd import hub, zoo
from gdd.config import ConfigError
from gdd.config.stages import ENSEMBLE, PRETRAIN, REFINE

FLOOR: Literal["real:random"] = "real:random"
CEILING: Literal["real:all"] = "real:all"  # of fixed sets
STREAM_CEILING: Literal["real:stream"] = "real:stream"  # of streams
FRACTION: Literal["real:fraction"] = "real:fraction"  # followed by = and the share of all training images
HERDED: Literal["real:herded"] = "real:herded"  # those whose mean comes closest to their class's
CROPS: Literal["real:crops"] = "real:crops"  # parts of images that are seen as their class
CHOSEN = (HERDED, CROPS)  # by `evaluate.teacher`
_BUILT_IN = f"{FLOOR}, {HERDED}, {CROPS}, {FRACTION}=SHARE, {CEILING} and {STREAM_CEILING}"

NO_TEACHER = "none"
TRAINED_TEACHERS = ("set", "real")  # what a teacher of `evaluate.teacher` is trained on for an evaluation

_ENSEMBLE = f"an ensemble of gdd train-ensemble, or a generator with {zoo.TEACHER} beside it"

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
    if text in (FLOOR, CEILING, STREAM_CEILING, *CHOSEN) or fraction_of(text) is not None:
        return None
    if text.startswith("real:"):
        raise ConfigError(f"the source {text} is unknown, expected a set, a run folder, or one of {_BUILT_IN}")
    text, ensemble = split_filter(text)
    if ensemble is not None and ensemble_path(ensemble) is None:
        raise ConfigError(f"no ensemble is at {ensemble}, expected {_ENSEMBLE}")
    path = hub.local_path(text)
    if not path.exists():
        raise ConfigError(f"the source {text} does not exist; {_BUILT_IN} are built in")
    return path


def teacher_path(text: str) -> Path | None:
    """Return the file that `evaluate.teacher` names; None for no teacher, or one that is trained for an evaluation.

    Args:
        text: an ensemble's file or its run folder; or zoo:NAME, hub:USER/NAME, or a generator's file or run folder,
            beside which a teacher lies.

    Raises:
        ConfigError: there is none.
    """
    if text in (NO_TEACHER, *TRAINED_TEACHERS):
        return None
    found = ensemble_path(text)
    if found is None:
        raise ConfigError(f"{text} is no teacher, expected none, set, real, {_ENSEMBLE}")
    return found


def chooser_path(text: str, teacher: str) -> Path | None:
    """Return the file of the teacher that chooses a source's images; None for a source that no teacher chooses.

    Args:
        text: that names the source.
        teacher: that of `evaluate.teacher`.

    Raises:
        ConfigError: there is none.
    """
    if text not in CHOSEN:
        return None
    if (path := teacher_path(teacher)) is None:
        raise ConfigError(f"evaluate.teacher is {teacher}, expected {_ENSEMBLE}, which chooses the images of {text}")
    return path


def ensemble_path(text: str) -> Path | None:
    """Return the file of an ensemble, which its file, its run folder or a generator names; None if there is none."""
    path = hub.local_path(text)
    if path.is_file() and path.name != zoo.FILE:
        return path
    home = path.parent if path.is_file() else path
    ensembles = (home / stage / zoo.ENSEMBLE for stage in ("", ENSEMBLE))
    return teacher_beside(path) or next((file for file in ensembles if file.is_file()), None)


def teacher_beside(path: Path) -> Path | None:
    """Return the teacher beside a generator, which is named by its file or its folder; none if it has none."""
    home = path.parent if path.is_file() else path
    return next((file for stage in ("", REFINE, PRETRAIN) if (file := home / stage / zoo.TEACHER).is_file()), None)

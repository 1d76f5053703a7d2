"""What a command may write to: neither what it reads, nor what a run needs."""

from collections.abc import Iterable
from pathlib import Path

from gdd import zoo
from gdd.config import ConfigError

# Files by which a stage tells that it is finished, or what it is; gdd.sampling, which has the names, imports torch.
_OF_A_STAGE = (zoo.FILE, "set.safetensors", "ensemble.safetensors", "config.json", "rows.jsonl", "metrics.jsonl")


def require_free(flag: str, out: Path, files: Iterable[Path | None] = (), folder: Path | None = None) -> None:
    """Refuse a file or folder that a command would write to the loss of another.

    Args:
        flag: that names it.
        out: the file or the folder.
        files: what the command reads.
        folder: of images, of which it reads everything.

    Raises:
        ConfigError: it is read, by whatever link or spelling; or it is a file in a stage's folder that is there already
            or that a stage would take for its own.
    """
    place = out.resolve()
    if out.exists():
        read = [str(one) for one in files if one is not None and one.exists() and one.samefile(out)]
        if folder is not None and folder.resolve() in (place, *place.parents):
            read.append(f"a part of {folder}")
        if read:
            raise ConfigError(f"{flag} is {out}, which is read as {read[0]}; expected another path")
    in_a_stage = (place.parent / "config.json").is_file()
    if in_a_stage and not place.is_dir() and (place.exists() or place.name in _OF_A_STAGE):
        raise ConfigError(f"{flag} is {out}, a file of the run in {place.parent}; expected another path")

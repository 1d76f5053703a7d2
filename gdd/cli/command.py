"""What the commands share: their form, their settings, opening their inputs, and guarding files from their output."""

import re
from argparse import SUPPRESS
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import PositiveInt
from rich.console import Console

from gdd import checks, zoo
from gdd.config import Config, ConfigError, read_as
from gdd.runtime.array import Array, require_submitit

if TYPE_CHECKING:
    from gdd.evaluation.budget import Budget
    from gdd.evaluation.sources import Source
    from gdd.pipeline import Inputs

# Files by which a stage tells that it is finished, or what it is; gdd.sampling, which has the names, imports torch.
_OF_A_STAGE = (zoo.FILE, zoo.TEACHER, zoo.ENSEMBLE, zoo.SET, "config.json", "rows.jsonl", "metrics.jsonl")


class Command(NamedTuple):
    """A subcommand of `gdd`.

    `run` imports torch and friends itself: they take seconds, for which --help need not wait.
    """

    name: str
    help: str  # one line
    add_arguments: Callable[[ArgumentParser], None]  # to the command's own parser
    run: Callable[[Namespace, Console], None]  # does the work; ConfigError tells of a user's mistake


def printable(text: str) -> str:
    """Return a text without the characters by which a stranger's file could steer a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)


def add_settings(parser: ArgumentParser) -> None:
    """Add a flag for every setting, and for a YAML file of them."""
    parser.add_argument("--config", action="config", help="YAML file of settings; flags after it win")
    dry = "say what would be done and what it costs, and stop"
    parser.add_argument("--dry-run", "--dry_run", action="store_true", help=dry)  # the second as up to 0.1.0
    # Without a default, so that --print_config leaves it out: it is no setting.
    parser.add_argument("-v", "--verbose", action="store_true", default=SUPPRESS, help="tell of each student's score")
    parser.add_class_arguments(Config, None, fail_untyped=True)


def add_array(parser: ArgumentParser) -> None:
    """Add the flags that share a command's students among the tasks of an array job; none is a setting."""
    submit = "train the students in tasks of an array job: of SLURM, or processes of this machine; waits for them"
    parser.add_argument("--submit", type=Literal["slurm", "local"], default=SUPPRESS, help=submit)
    parser.add_argument("--tasks", type=PositiveInt, default=SUPPRESS, help="so many at most; 4, if not given")
    parameters = "submitit's parameters of a task, such as --submitit.timeout_min 120 --submitit.slurm_partition gpu"
    parser.add_argument("--submitit", type=dict[str, Any], default=SUPPRESS, help=parameters)
    share = "train one share of the students only, such as 0/4, as the tasks of --submit do"
    parser.add_argument("--share", type=str, default=SUPPRESS, help=share)


def array_of(options: Namespace, config: Config) -> Array | None:
    """Return how a command's students are shared among tasks, if they are; ConfigError names a flag that is amiss."""
    share, cluster = options.get("share"), options.get("submit")
    if share is None and cluster is None:
        if given := [f"--{name}" for name in ("tasks", "submitit") if name in options]:
            raise ConfigError(f"{given[0]} is given, expected --submit beside it")
        return None
    if config.run.precision == "auto":
        raise ConfigError("run.precision is auto, expected float32 or bfloat16 in tasks: their machines may differ")
    if share is not None:
        numbers = re.fullmatch(r"(\d{1,9})/(\d{1,9})", share)
        if numbers is None or int(numbers[1]) >= int(numbers[2]):
            raise ConfigError(f"--share is {share}, expected one of so many, from 0/4 to 3/4")
        return Array(int(numbers[2]), int(numbers[1]))
    require_submitit()
    return Array(options.get("tasks", 4), cluster=cluster, parameters=options.get("submitit", {}))


def read_config(options: Namespace) -> Config:
    """Return the settings among a command's options; ConfigError names one that is out of its range."""
    settings = options.as_dict()
    return read_as(Config, {name: settings[name] for name in Config.__dataclass_fields__})


def checked_config(options: Namespace, distilled: bool = False, scored: bool = False) -> Config:
    """Return a command's settings, and check names and files without importing torch, which takes seconds.

    Args:
        options: of the command.
        distilled: require the generator that it starts from to exist.
        scored: require the sources that are named to exist.
    """
    config = read_config(options)
    checks.check_names(config)
    checks.check_files(config, distilled, scored)
    return config


@contextmanager
def opened(
    config: Config,
    dry_run: bool,
    console: Console,
    stages: Sequence[str],
    sources: "Sequence[Source]" = (),
    budget: "Budget | None" = None,
    array: Array | None = None,
) -> "Iterator[Inputs | None]":
    """Open the data and the sources, say what will be done, and yield what the stages work with.

    A dry run gets None, once the networks' costs are printed.
    """
    from gdd import pipeline
    from gdd.cli import summary
    from gdd.runtime.device import make_accelerator

    accelerator = make_accelerator(config.run)
    try:
        with pipeline.open_inputs(config, accelerator, stages, sources, budget, array) as inputs:
            console.print(summary.block(config, inputs.dataset, accelerator, stages, inputs.jobs), soft_wrap=True)
            if dry_run:
                console.print(summary.costs(config, inputs.dataset.spec, stages))
            yield None if dry_run else inputs
    finally:
        accelerator.end_training()


def require_free(flag: str, out: Path, files: Iterable[Path | None] = (), folder: Path | None = None) -> None:
    """Refuse an output path that would overwrite what the command reads or what a run needs.

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
        read = [str(file) for file in files if file is not None and file.exists() and file.samefile(out)]
        if folder is not None and folder.resolve() in (place, *place.parents):
            read.append(f"a part of {folder}")
        if read:
            raise ConfigError(f"{flag} is {out}, which is read as {read[0]}; expected another path")
    in_a_stage = (place.parent / "config.json").is_file()
    if in_a_stage and not place.is_dir() and (place.exists() or place.name in _OF_A_STAGE):
        raise ConfigError(f"{flag} is {out}, a file of the run in {place.parent}; expected another path")

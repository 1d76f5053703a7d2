"""What the commands share that take settings: their flags, the config, and the frame of their work."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from gdd import checks
from gdd.config import Config, read_as

if TYPE_CHECKING:
    from gdd.evaluation.sources import Source
    from gdd.pipeline import Inputs


def add_settings(parser: ArgumentParser) -> None:
    """Add a flag for every setting, and for a YAML file of them."""
    parser.add_argument("--config", action="config", help="YAML file of settings; flags after it win")
    parser.add_argument("--dry_run", action="store_true", help="say what would be done and what it costs, and stop")
    parser.add_class_arguments(Config, None, fail_untyped=True)


def read_config(options: Namespace) -> Config:
    """Return the settings among a command's options; ConfigError names one that is out of its range."""
    settings = options.as_dict()
    return read_as(Config, {name: settings[name] for name in Config.__dataclass_fields__})


def checked_config(options: Namespace, distilled: bool = False, scored: bool = False) -> Config:
    """Return a command's settings, their names and files checked: before torch is imported, so within a second.

    Args:
        options: of the command.
        distilled: whether it distils, so that what that starts from has to be there.
        scored: whether it scores the sources that are named.
    """
    config = read_config(options)
    checks.check_names(config)
    checks.check_files(config, distilled, scored)
    return config


@contextmanager
def opened(
    config: Config, dry_run: bool, console: Console, stages: Sequence[str], sources: "Sequence[Source]" = ()
) -> "Iterator[Inputs | None]":
    """Open what `pipeline.opened` does, say what will be done, and give the work.

    A dry run gets None, once the networks' costs are printed.
    """
    from gdd import pipeline
    from gdd.cli import dry_run as costs
    from gdd.cli import summary
    from gdd.runtime.device import make_accelerator

    accelerator = make_accelerator(config.run)
    try:
        with pipeline.open_inputs(config, accelerator, stages, sources) as work:
            console.print(summary.block(config, work.dataset, accelerator, stages, work.jobs), soft_wrap=True)
            if dry_run:
                console.print(costs.table(config, work.dataset.spec, stages))
            yield None if dry_run else work
    finally:
        accelerator.end_training()

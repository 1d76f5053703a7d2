"""`gdd compare`."""

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from gdd.cli.command import Command
from gdd.cli.settings import add_settings, open_data, read_config, session
from gdd.config import Config, ConfigError


def _add_arguments(parser: ArgumentParser) -> None:
    add_settings(parser)
    parser.add_argument("sources", type=str, nargs="+", help="run folders, stored sets, real:random, real:all")
    parser.add_argument("--arch", type=str, nargs="+", help="students, instead of evaluate.archs")
    parser.add_argument("--ipc", type=int, nargs="+", help="images per class to draw, instead of evaluate.ipc")
    parser.add_argument("--mark", type=float, nargs="*", default=[], help="published accuracies to draw, in percent")
    parser.set_defaults(name="compare")


def _config(options: Namespace) -> Config:
    """Return the settings with what stands on the command line beside them."""
    settings = options.evaluate
    if settings.sources:
        raise ConfigError(f"evaluate.sources is {settings.sources}, expected none beside those of gdd compare")
    settings.sources = options.sources
    settings.archs, settings.ipc = options.arch or settings.archs, options.ipc or settings.ipc
    return read_config(options)


def _compare(options: Namespace, console: Console) -> None:
    config = _config(options)
    from gdd import pipeline
    from gdd.cli import dry_run, summary
    from gdd.report import tables

    sources = pipeline.read_sources(config)
    config = pipeline.with_data_of_sources(config, sources)
    with session(config) as accelerator:
        dataset = open_data(config, accelerator)
        if options.dry_run:
            console.print(dry_run.table(config, dataset.spec))
            return
        console.print(summary.block(config, dataset, accelerator, ["compare"], sources), soft_wrap=True)
        sections = pipeline.compare(config, dataset, accelerator, sources, options.mark)
        console.print(tables.Terminal(sections))


COMMANDS = (Command("compare", "score methods beside each other and draw their curves", _add_arguments, _compare),)

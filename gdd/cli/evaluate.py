"""`gdd evaluate` and `gdd compare`."""

from typing import Literal

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from gdd.cli.command import Command
from gdd.cli.settings import add_settings, checked_config, opened
from gdd.config import Config, ConfigError


def _evaluate(options: Namespace, console: Console) -> None:
    config = checked_config(options, scored=True)
    from gdd import pipeline

    sources = pipeline.read_sources(config) or pipeline.own_sources(config)
    with opened(config, options.dry_run, console, ["evaluate"], sources) as work:
        if work is not None:
            from gdd.report import tables

            rows = pipeline.evaluate(config, *work)
            console.print(tables.Terminal(tables.sections(rows, brief=True)))


def _add_compare_arguments(parser: ArgumentParser) -> None:
    add_settings(parser)
    named = "run folders, stored sets, zoo:NAME, real:random, real:fraction=SHARE, real:all, real:stream"
    parser.add_argument("sources", type=str, nargs="+", help=named)
    parser.add_argument("--arch", type=str, nargs="+", help="students, instead of evaluate.archs")
    parser.add_argument("--ipc", type=int, nargs="+", help="images per class to draw, instead of evaluate.ipc")
    parser.add_argument("--mark", type=float, nargs="*", default=[], help="published accuracies to draw, in percent")
    replicates = "count sources of equal settings as one method, with intervals over their seeds and the students'"
    parser.add_argument("--replicates", action="store_true", help=replicates)
    scores = "add DD-Ranking's HLR, IOR, LRS and ARS, for which more students are trained"
    parser.add_argument("--scores", type=Literal["dd-ranking"] | None, default=None, help=scores)
    parser.set_defaults(name="compare")


def _comparison(options: Namespace) -> Config:
    """Return the settings with what stands on the command line beside them."""
    settings = options.evaluate
    if settings.sources:
        raise ConfigError(f"evaluate.sources is {settings.sources}, expected none beside those of gdd compare")
    settings.sources = options.sources
    settings.archs, settings.ipc = options.arch or settings.archs, options.ipc or settings.ipc
    if options.scores and "fixed" not in settings.protocols:
        raise ConfigError(f"evaluate.protocols is {settings.protocols}, expected fixed among them for --scores")
    return checked_config(options, scored=True)


def _compare(options: Namespace, console: Console) -> None:
    config = _comparison(options)
    from gdd import pipeline
    from gdd.report import compare as comparison
    from gdd.report import tables

    sources = pipeline.read_sources(config)
    config = pipeline.with_data_of_sources(config, sources)
    compared = comparison.compared(sources, options.replicates)
    stages = ["compare"] + ["dd-ranking"] * (options.scores is not None)
    with opened(config, options.dry_run, console, stages, [one.source for one in compared]) as work:
        if work is not None:
            wanted = options.replicates, options.scores is not None
            found = pipeline.compare(config, *work, compared, options.mark, *wanted)
            console.print(tables.Terminal(found))


COMMANDS = (
    Command("evaluate", "train fresh students on any sets and score them on real data", add_settings, _evaluate),
    Command("compare", "score methods beside each other and draw their curves", _add_compare_arguments, _compare),
)

"""`gdd landscape`."""

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from gdd.cli.command import Command
from gdd.cli.settings import add_settings, checked_config, opened
from gdd.config import Config, ConfigError
from gdd.evaluation.named import STREAM_CEILING


def _add_arguments(parser: ArgumentParser) -> None:
    add_settings(parser)
    source = "what the student is trained on: a run folder, a stored set, zoo:NAME, real:random, real:all"
    parser.add_argument("source", type=str, help=source)
    parser.add_argument("--arch", type=str, required=True, help="the student; its seed is the first of evaluate.seeds")
    parser.add_argument("--ipc", type=int, default=10, help="images per class to draw, where the source is no set")
    parser.add_argument("--eigenvalues", type=int, default=20, help="of the Hessian, the largest ones, at least 2")
    reach = "how far the surface goes along an eigenvector of length 1, above 0"
    parser.add_argument("--reach", type=float, default=0.25, help=reach)
    parser.set_defaults(name="landscape")


def _one_student(options: Namespace) -> Config:
    """Return the settings of the student that the command line names."""
    settings = options.evaluate
    if settings.sources:
        raise ConfigError(f"evaluate.sources is {settings.sources}, expected none beside that of gdd landscape")
    if settings.select_alpha or settings.select_temperature:
        raise ConfigError("evaluate.select_alpha or evaluate.select_temperature is set, expected neither here")
    if options.source == STREAM_CEILING:
        raise ConfigError(f"the source is {STREAM_CEILING}, expected images that stay the same")
    if options.eigenvalues < 2:
        raise ConfigError(f"--eigenvalues is {options.eigenvalues}, expected at least 2: the surface needs two")
    if not 0 < options.reach < float("inf"):
        raise ConfigError(f"--reach is {options.reach}, expected a number above 0")
    settings.sources, settings.archs, settings.ipc = [options.source], [options.arch], [options.ipc]
    settings.seeds, settings.protocols = settings.seeds[:1], ["fixed"]
    return checked_config(options, scored=True)


def _landscape(options: Namespace, console: Console) -> None:
    config = _one_student(options)
    from gdd import pipeline
    from gdd.report import measured

    sources = pipeline.read_sources(config)
    config = pipeline.with_data_of_sources(config, sources)
    with opened(config, options.dry_run, console, ["landscape"], sources) as work:
        if work is not None:
            found = pipeline.landscape(config, *work, options.eigenvalues, options.reach)
            console.print(measured.landscape_summary(found), soft_wrap=True)


COMMANDS = (
    Command("landscape", "measure how sharp the minimum is that a student has found", _add_arguments, _landscape),
)

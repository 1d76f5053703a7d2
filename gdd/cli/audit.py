"""`gdd audit`."""

from dataclasses import replace
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from gdd.cli.command import Command
from gdd.cli.settings import add_settings, checked_config, opened
from gdd.config import Config, ConfigError, RunConfig
from gdd.evaluation.named import source_path

_NAME = "audit"


def _add_arguments(parser: ArgumentParser) -> None:
    add_settings(parser)
    source = "what is audited: a run folder, a generator or a stored set; where it lies in a run, so does the audit"
    parser.add_argument("source", type=str, help=source)
    parser.add_argument("--ipc", type=int, default=100, help="samples per class to draw, where the source is no set")
    parser.set_defaults(name=_NAME)


def _settings(options: Namespace) -> Config:
    """Return the settings of the audit that the command line names."""
    settings = options.evaluate
    if settings.sources:
        raise ConfigError(f"evaluate.sources is {settings.sources}, expected none beside that of gdd audit")
    path = source_path(options.source)
    if path is None:
        raise ConfigError(f"the source is {options.source}, expected a generator or a stored set")
    run = _run_of(path)
    if (options.name, options.run.root) == (_NAME, RunConfig().root) and run is not None:
        options.name, options.run.root = run.name, run.parent
    settings.sources, settings.ipc = [options.source], [options.ipc]
    return checked_config(options, scored=True)


def _run_of(path: Path) -> Path | None:
    """Return the folder of the run that this is, or that a stage's folder or file lies in, if it lies in one."""
    if path.is_dir() and any(path.glob("*/config.json")):
        return path.resolve()
    stage = path.resolve() if path.is_dir() else path.resolve().parent
    return stage.parent if (stage / "config.json").exists() else None


def _audit(options: Namespace, console: Console) -> None:
    config = _settings(options)
    from gdd import pipeline
    from gdd.report import measured, tables

    sources = pipeline.read_sources(config)
    config = pipeline.with_data_of_sources(config, sources)
    if (stored := sources[0].stored_ipc) is not None:
        config = replace(config, evaluate=replace(config.evaluate, ipc=(stored,)))
    with opened(config, options.dry_run, console, ["audit"], sources) as work:
        if work is not None:
            found = pipeline.audit(config, work.dataset, work.accelerator, sources[0])
            console.print(tables.Terminal([measured.audit_section(found)]))


COMMANDS = (Command("audit", "tell whether a generator or a set copies its training images", _add_arguments, _audit),)

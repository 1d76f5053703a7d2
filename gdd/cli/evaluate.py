"""`gdd evaluate`."""

from jsonargparse import Namespace
from rich.console import Console

from gdd.cli.command import Command
from gdd.cli.settings import add_settings, open_data, read_config, session


def _evaluate(options: Namespace, console: Console) -> None:
    config = read_config(options)
    from gdd import pipeline
    from gdd.cli import dry_run, summary
    from gdd.report import tables

    sources = pipeline.read_sources(config) or pipeline.own_sources(config)
    with session(config) as accelerator:
        dataset = open_data(config, accelerator)
        pipeline.check_scoring(config, dataset, sources)
        if options.dry_run:
            console.print(dry_run.table(config, dataset.spec))
            return
        console.print(summary.block(config, dataset, accelerator, ["evaluate"], sources), soft_wrap=True)
        _, rows = pipeline.evaluate(config, dataset, accelerator, sources)
        console.print(tables.Terminal(tables.sections(rows, brief=True)))


COMMANDS = (
    Command("evaluate", "train fresh students on any sets and score them on real test images", add_settings, _evaluate),
)

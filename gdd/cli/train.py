"""`gdd train-gan` and `gdd distill`."""

from jsonargparse import Namespace
from rich.console import Console

from gdd.cli.command import Command
from gdd.cli.settings import add_settings, open_data, read_config, session


def _train_gan(options: Namespace, console: Console) -> None:
    config = read_config(options)
    from gdd import pipeline
    from gdd.cli import dry_run, summary

    with session(config) as accelerator:
        dataset = open_data(config, accelerator)
        if options.dry_run:
            console.print(dry_run.table(config, dataset.spec))
            return
        console.print(summary.block(config, dataset, accelerator, ["pretrain"]), soft_wrap=True)
        pipeline.train_gan(config, dataset, accelerator)


def _distill(options: Namespace, console: Console) -> None:
    config = read_config(options)
    from gdd import pipeline
    from gdd.cli import dry_run, summary
    from gdd.report import tables

    sources = pipeline.read_sources(config) if config.score else []
    with session(config) as accelerator:
        dataset = open_data(config, accelerator)
        if config.score:
            pipeline.check_scoring(config, dataset, sources)
        if options.dry_run:
            console.print(dry_run.table(config, dataset.spec))
            return
        stages = ["matching"] if config.method == "matching" else ["pretrain", "refine"]
        if config.refine.pretrained is not None:
            stages.remove("pretrain")
        stages += ["evaluate"] * config.score
        console.print(summary.block(config, dataset, accelerator, stages, sources), soft_wrap=True)
        pipeline.distill(config, dataset, accelerator)
        if config.score:
            _, rows = pipeline.evaluate(config, dataset, accelerator, sources)
            console.print(tables.Terminal(tables.sections(rows, brief=True)))


COMMANDS = (
    Command("train-gan", "stage 1: pretrain the conditional GAN", add_settings, _train_gan),
    Command("distill", "distil a dataset, by SKD or by matching, and score the result", add_settings, _distill),
)

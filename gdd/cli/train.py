"""`gdd train-gan` and `gdd distill`."""

from functools import partial
from typing import TYPE_CHECKING

from jsonargparse import Namespace
from rich.console import Console

from gdd.cli.command import Command
from gdd.cli.settings import add_settings, read_config, run_stages

if TYPE_CHECKING:
    from accelerate import Accelerator

    from gdd.data.readers import Dataset


def _train_gan(options: Namespace, console: Console) -> None:
    config = read_config(options)
    from gdd import pipeline

    run_stages(config, options.dry_run, console, ["pretrain"], [], partial(pipeline.train_gan, config))


def _distill(options: Namespace, console: Console) -> None:
    config = read_config(options)
    from gdd import pipeline
    from gdd.report import tables

    stages = ["pretrain"] * (config.refine.pretrained is None) + ["refine"]
    stages = ["matching"] if config.method == "matching" else stages
    stages += ["evaluate"] * config.score
    sources = pipeline.read_sources(config) if config.score else []

    def work(dataset: "Dataset", accelerator: "Accelerator") -> None:
        pipeline.distill(config, dataset, accelerator)
        if config.score:
            _, rows = pipeline.evaluate(config, dataset, accelerator, sources)
            console.print(tables.Terminal(tables.sections(rows, brief=True)))

    run_stages(config, options.dry_run, console, stages, sources, work)


COMMANDS = (
    Command("train-gan", "stage 1: pretrain the conditional GAN", add_settings, _train_gan),
    Command("distill", "distil a dataset, by SKD or by matching, and score the result", add_settings, _distill),
)

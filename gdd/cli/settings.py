"""What the commands share that take settings: their flags, the config, and the frame of their work."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from gdd.config import Config, read_as
from gdd.runtime.signals import on_signals

if TYPE_CHECKING:
    from accelerate import Accelerator

    from gdd.data.readers import Dataset
    from gdd.evaluation.sources import Source


def add_settings(parser: ArgumentParser) -> None:
    """Add a flag for every setting, and for a YAML file of them."""
    parser.add_argument("--config", action="config", help="YAML file of settings; flags after it win")
    parser.add_argument("--dry_run", action="store_true", help="say what would be done and what it costs, and stop")
    parser.add_class_arguments(Config, None, fail_untyped=True)


def read_config(options: Namespace) -> Config:
    """Return the settings among a command's options; ConfigError names one that is out of its range."""
    settings = options.as_dict()
    return read_as(Config, {name: settings[name] for name in Config.__dataclass_fields__})


def run_stages(
    config: Config,
    dry_run: bool,
    console: Console,
    stages: Sequence[str],
    sources: "Sequence[Source]",
    work: "Callable[[Dataset, Accelerator], object]",
) -> None:
    """Open the data, refuse what cannot be, say what will be done, and do it unless it is a dry run.

    Args:
        config: of the experiment.
        dry_run: whether to print what the networks cost instead.
        console: to print to.
        stages: what `work` does, of pretrain, refine, matching, evaluate and compare.
        sources: that are scored; empty for what the run itself distils.
        work: takes the dataset and the process's Accelerator.
    """
    from gdd import pipeline
    from gdd.cli import dry_run as costs
    from gdd.cli import summary
    from gdd.runtime.device import make_accelerator

    accelerator = make_accelerator(config.run)
    with on_signals():
        try:
            with accelerator.local_main_process_first():  # it downloads or decodes, the others find the result
                dataset = pipeline.open_data(config.data, config.seed)
            pipeline.check_networks(config, dataset.spec)
            if "evaluate" in stages:
                pipeline.check_scoring(config, dataset, sources)
            if dry_run:
                console.print(costs.table(config, dataset.spec))
                return
            console.print(summary.block(config, dataset, accelerator, stages, sources), soft_wrap=True)
            work(dataset, accelerator)
        finally:
            accelerator.end_training()

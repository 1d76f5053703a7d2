"""What the commands share that take settings: their flags, the config, and the frame of their work."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from gdd import checks
from gdd.config import Config, read_as
from gdd.runtime.signals import on_signals

if TYPE_CHECKING:
    from accelerate import Accelerator

    from gdd.data.readers import Dataset
    from gdd.evaluation.recipe import Job
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


class Work(NamedTuple):
    """What a command works with: the dataset, the process's Accelerator, and the students to score, if any."""

    dataset: "Dataset"
    accelerator: "Accelerator"
    jobs: "list[Job]"


@contextmanager
def opened(
    config: Config, dry_run: bool, console: Console, stages: Sequence[str], sources: "Sequence[Source]" = ()
) -> Iterator[Work | None]:
    """Open the data, refuse networks and sources that do not fit them, say what will be done, and give the work.

    A dry run gets None, once the networks' costs are printed. Signals end the work in order. The stages are those of
    pretrain, refine, matching, evaluate, compare and landscape that will be run; without `sources`, a run scores its
    own. A landscape has one student, that of its source.
    """
    from gdd import pipeline
    from gdd.cli import dry_run as costs
    from gdd.cli import summary
    from gdd.runtime.device import make_accelerator

    accelerator = make_accelerator(config.run)
    with on_signals():
        try:
            with accelerator.local_main_process_first():  # it downloads or decodes, the others find the result
                pipeline.check_networks_early(config)
                dataset = pipeline.open_data(config.data, config.seed)
            pipeline.check_networks(config, dataset.spec.shape, dataset.spec.num_classes)
            trained = {"evaluate", "compare", "landscape"} & {*stages}
            jobs = pipeline.plan(config, dataset, sources, ceiling="evaluate" in stages) if trained else []
            if "landscape" in stages:
                jobs = jobs[-1:]  # the floor stands before it
            console.print(summary.block(config, dataset, accelerator, stages, jobs), soft_wrap=True)
            if dry_run:
                console.print(costs.table(config, dataset.spec, stages))
            yield None if dry_run else Work(dataset, accelerator, jobs)
        finally:
            accelerator.end_training()

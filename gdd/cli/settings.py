"""What the commands share that take settings: their flags, the config, and the session of a process."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from gdd.config import Config, read_as
from gdd.runtime.signals import on_signals

if TYPE_CHECKING:
    from accelerate import Accelerator

    from gdd.data.readers import Dataset


def add_settings(parser: ArgumentParser) -> None:
    """Add a flag for every setting, and for a YAML file of them."""
    parser.add_argument("--config", action="config", help="YAML file of settings; flags after it win")
    parser.add_argument("--dry_run", action="store_true", help="say what would be done and what it costs, and stop")
    parser.add_class_arguments(Config, None, fail_untyped=True)


def read_config(options: Namespace) -> Config:
    """Return the settings among a command's options; ConfigError names one that is out of its range."""
    settings = options.as_dict()
    return read_as(Config, {name: settings[name] for name in Config.__dataclass_fields__})


@contextmanager
def session(config: Config) -> Iterator["Accelerator"]:
    """Give the process's Accelerator, and let signals end the work in order."""
    from gdd.runtime.device import make_accelerator

    accelerator = make_accelerator(config.run)
    with on_signals():
        try:
            yield accelerator
        finally:
            accelerator.end_training()


def open_data(config: Config, accelerator: "Accelerator") -> "Dataset":
    """Open the config's dataset and refuse networks that cannot be built for it."""
    from gdd import pipeline

    with accelerator.local_main_process_first():  # it downloads or decodes, the others find the result
        dataset = pipeline.open_data(config.data, config.seed)
    pipeline.check_networks(config, dataset.spec)
    return dataset

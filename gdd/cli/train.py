"""`gdd train-gan`, `gdd train-ensemble` and `gdd distill`."""

import shlex

from jsonargparse import Namespace
from rich.console import Console

from gdd.cli.command import Command, add_settings, checked_config, opened
from gdd.config import Config
from gdd.config.stages import ENSEMBLE, PRETRAIN
from gdd.data.places import NAMES


def _hint(config: Config, options: Namespace, console: Console) -> None:
    """Say so where somebody's own images would be distilled with settings that were chosen for digits."""
    is_own, default = config.data.name == "folder" or config.data.name not in NAMES, Config()
    is_configured = options.config or config.data.size or config.method != default.method
    if is_own and not is_configured and (config.gan, config.pretrain) == (default.gan, default.pretrain):
        place = config.data.root if config.data.name == "folder" else config.data.name
        command = f"gdd init {shlex.quote(str(place))}"
        console.print(f"warning: these are the settings for digits; {command} writes others for yours", soft_wrap=True)


def _train_gan(options: Namespace, console: Console) -> None:
    config = checked_config(options)
    _hint(config, options, console)
    from gdd import pipeline

    with opened(config, options.dry_run, console, [PRETRAIN]) as inputs:
        if inputs is not None:
            pipeline.train_gan(config, inputs.dataset, inputs.accelerator)


def _train_ensemble(options: Namespace, console: Console) -> None:
    config = checked_config(options)
    from gdd import pipeline

    with opened(config, options.dry_run, console, [ENSEMBLE]) as inputs:
        if inputs is not None:
            pipeline.check_ensemble(config, inputs.dataset)
            pipeline.train_ensemble(config, inputs.dataset, inputs.accelerator)


def _distill(options: Namespace, console: Console) -> None:
    config = checked_config(options, distilled=True, scored=options.score)
    _hint(config, options, console)
    from gdd import pipeline

    sources = pipeline.read_sources(config) if config.score else []
    with opened(config, options.dry_run, console, pipeline.stages_of(config), sources) as inputs:
        if inputs is not None:
            _, rows = pipeline.distill_and_score(config, inputs)
            if rows:
                from gdd.report import tables

                console.print(tables.Terminal(tables.sections(rows, brief=True)))


COMMANDS = (
    Command("train-gan", "pretrain the conditional GAN", add_settings, _train_gan),
    Command("train-ensemble", "train the classifiers that judge samples", add_settings, _train_ensemble),
    Command(
        "distill", "distil a dataset into a generator or, by matching, a set, and score it", add_settings, _distill
    ),
)

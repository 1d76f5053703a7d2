"""The stages that train, each in its run folder, done once."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from gdd.config import Config, ConfigError, counted, stable_hash, to_plain
from gdd.data.readers import Dataset
from gdd.models.gan import width_of
from gdd.runtime import checkpoint
from gdd.runtime.run import Run
from gdd.sampling import ensemble_file, generator_file, set_file
from gdd.training import ensemble, matching, pretrain, refine

logger = logging.getLogger(__name__)


def open_run(config: Config, stage: str, fingerprint: str, accelerator: Accelerator) -> Run:
    """Return the run in a stage's folder, to be entered."""
    folder = config.run.root / config.name / stage
    return Run(folder, config.run, to_plain(config), fingerprint, accelerator)


def _run_stage(
    config: Config,
    dataset: Dataset,
    accelerator: Accelerator,
    stage: str,
    without: tuple[str, ...],
    work: Callable[[Run], object],
    start: Path | None = None,
) -> Path:
    """Do a stage's work unless its folder holds the result already, and return the folder.

    The fingerprint counts every setting that has an effect, but for the sections `without`, which play no part in the
    stage, the content of the dataset, and the weights of the generator `start`.
    """
    start_hash = None if start is None else generator_file.load(start).hash
    parts = stage, _counted(config, without), dataset.spec.to_dict(), dataset.fingerprint, start_hash
    with open_run(config, stage, stable_hash(*parts), accelerator) as run:
        files = generator_file.FILE, set_file.FILE, ensemble_file.FILE
        if any((run.folder / name).exists() for name in files):
            logger.info("%s: finished before", run.folder)
        else:
            work(run)
        if run.is_main and stage != ensemble.STAGE:
            from gdd.report import card

            card.write(run.folder)
    return run.folder


def _counted(config: Config, without: tuple[str, ...]) -> dict[str, Any]:
    """Return the settings that count but for sections, by the names under which there are folders.

    Before refine.loss none there was, its weight was 0; and a weight that is null is the one that it stands for.
    """
    settings = counted(config, without)
    if "refine" in settings:
        loss = settings["refine"]["loss"] if config.refine.matches else "skd"
        settings["refine"] |= {"loss": loss, "weight": config.refine_weight}
    return settings


def stages_of(config: Config) -> list[str]:
    """Return the stages that distilling by the config runs."""
    generator = ["pretrain"] * (config.refine.pretrained is None) + ["refine"]
    return (["matching"] if config.method == "matching" else generator) + ["evaluate"] * config.score


def train_gan(config: Config, dataset: Dataset, accelerator: Accelerator) -> Path:
    """Pretrain the GAN, or find it done, and return the run folder."""
    without = ("refine", "matching", "ensemble", "evaluate")
    return _run_stage(
        config, dataset, accelerator, pretrain.STAGE, without, partial(pretrain.pretrain, config, dataset)
    )


def distill(config: Config, dataset: Dataset, accelerator: Accelerator) -> Path:
    """Distil by the config's method and return the run folder of the generator or the set."""
    if config.method == "matching":
        matching.check_first_images(config, dataset)  # a folder that is claimed would refuse other settings
        work, without = partial(matching.match, config, dataset), ("gan", "pretrain", "refine", "ensemble", "evaluate")
        return _run_stage(config, dataset, accelerator, matching.STAGE, without, work, config.matching.generator)
    refine.check_others(config, dataset)
    start = config.refine.pretrained or train_gan(config, dataset, accelerator)
    _check_start(config, dataset, start)
    work = partial(refine.refine, config, dataset, pretrained=start)
    return _run_stage(
        config, dataset, accelerator, refine.STAGE, ("pretrain", "matching", "ensemble", "evaluate"), work, start
    )


def _check_start(config: Config, dataset: Dataset, start: Path) -> None:
    """Refuse a pretrained GAN that is missing, is this run's refined one, or was made for other data or sizes."""
    what = f"refine.pretrained {start}"
    if not checkpoint.steps(start):
        raise ConfigError(f"{what} holds no checkpoint, expected a finished run folder of gdd train-gan")
    if start.resolve() == (config.run.root / config.name / refine.STAGE).resolve():
        raise ConfigError(f"refine.pretrained is {str(start)!r}, where this run would write; choose another --name")
    pretrained = generator_file.load(start)
    set_file.check_matches(pretrained.spec, dataset.spec, what)
    settings = pretrained.provenance.get("config", {}).get("gan", {})
    if not isinstance(pretrained.provenance.get("seconds"), int | float) or not settings:
        raise ConfigError(f"{what} does not say how it was made, expected one of gdd train-gan")
    gan, made = config.gan, pretrained.generator
    used: dict[str, object] = {
        "arch": made.arch,
        "width": made.width,
        "noise_dim": made.noise_dim,
        "loss": settings.get("loss"),
    }
    width = width_of(gan, dataset.spec.shape)
    wanted: dict[str, object] = {"arch": gan.arch, "width": width, "noise_dim": gan.noise_dim, "loss": gan.loss}
    decays = settings.get("ema_decays", gan.ema_decays)  # 0.1.0 had one, which may go on with another
    if len(decays) > 1 or len(gan.ema_decays) > 1:
        used["ema_decays"], wanted["ema_decays"] = list(decays), list(gan.ema_decays)
    for key, value in wanted.items():
        if used[key] != value:
            raise ConfigError(f"gan.{key} is {value!r}, but {what} was made with {used[key]!r}")


def train_ensemble(config: Config, dataset: Dataset, accelerator: Accelerator) -> Path:
    """Train the classifiers that judge samples, or find them done, and return the run folder."""
    without = ("gan", "pretrain", "refine", "matching", "evaluate")
    work = partial(ensemble.train_ensemble, config, dataset)
    return _run_stage(config, dataset, accelerator, ensemble.STAGE, without, work)

"""What both stages of the GAN share: its trainer, real batches, what is watched, and the file at the end."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from gdd import rng
from gdd.config import Config, ConfigError, GanConfig, PretrainConfig, RefineConfig, to_plain
from gdd.data.batches import Batches
from gdd.data.pixels import Normalizer
from gdd.data.readers import Dataset
from gdd.data.spec import DatasetSpec, parse_strategy
from gdd.models.cost import gan_flop, gan_step_flop
from gdd.models.gan import make_discriminator, make_generator, width_of
from gdd.runtime.device import device_name
from gdd.runtime.environment import versions
from gdd.runtime.execution import EAGER
from gdd.runtime.run import Run, Step
from gdd.sampling import generator_file
from gdd.training.averages import Choice
from gdd.training.gan import GanTrainer
from gdd.training.monitor import Monitor
from gdd.training.proxy import Proxy
from gdd.training.schedule import share


def gan_trainer(
    settings: GanConfig, steps: PretrainConfig | RefineConfig, spec: DatasetSpec, seed: int, stage: str, run: Run
) -> GanTrainer:
    """Build the networks, the same for one seed, and the trainer of a stage."""
    sizes = settings.arch, spec.shape, spec.num_classes, width_of(settings, spec.shape)
    with rng.seeded(seed, rng.INIT_GAN):
        generator, discriminator = make_generator(*sizes, settings.noise_dim), make_discriminator(*sizes)
    flop = steps.steps * steps.batch_size * gan_step_flop(*gan_flop(*sizes, settings.noise_dim), settings.penalties)
    at = partial(share, steps.schedule, steps=steps.steps, warmup=steps.warmup)
    return GanTrainer(
        generator,
        discriminator,
        loss=settings.loss,
        lr=lambda step: steps.lr * at(step),
        lr_discriminator=lambda step: (steps.lr_discriminator or steps.lr) * at(step),
        betas=(settings.beta1, settings.beta2),
        ema_decays=settings.ema_decays,
        aux_weight=settings.aux_weight,
        gradient_penalty=settings.gradient_penalty,
        r1=settings.r1_weight,
        r1_every=settings.r1_every,
        augmentations=parse_strategy(settings.augment, spec.flip),
        seed=seed,
        stage=stage,
        accelerator=run.accelerator,
        execution=run.execution((generator, discriminator), flop),
    )


def real_batches(dataset: Dataset, batch_size: int, seed: int, stream: str, run: Run) -> Batches:
    """Return this process's rows of the training batches, the images on its device."""
    size = min(batch_size, len(dataset.train.labels))
    if size % run.world_size:
        # Otherwise the weight of an image in the loss would depend on its process.
        raise ConfigError(f"{size} images per step cannot be divided evenly among {run.world_size} processes")
    images, labels = dataset.train.images_u8.to(run.device), dataset.train.labels.to(run.device)
    return Batches(images, labels, batch_size, seed, stream, run.rank, run.world_size)


def choice(config: Config, gan: GanTrainer, dataset: Dataset, run: Run) -> Choice:
    """Return what chooses the generator that a stage keeps."""
    settings, spec = config.gan.proxy, dataset.spec
    if not settings.every:
        return Choice(gan, config.seed)
    proxy = Proxy(
        dataset.val.to(run.device),
        Normalizer(spec.mean, spec.std, run.device),
        arch=settings.arch,
        steps=settings.steps,
        batch_size=settings.batch_size,
        seed=config.seed,
        execution=replace(EAGER, precision=run.precision),
    )
    return Choice(gan, config.seed, proxy, settings.every)


def observe(step: Step, gan: GanTrainer, monitor: Monitor, chosen: Choice) -> None:
    """Choose if that is due, and record diversity when a line is due and a grid when a picture is."""
    found = chosen.observe(step.done, step.total)
    step.record(found)
    step.log_due = step.log_due or bool(found)
    if not (step.log_due or step.grid_due):
        return
    images = monitor.sample(gan.average)
    if step.log_due:
        step.record(monitor.diversity(images))
    if step.grid_due:
        step.images = monitor.grid(images)


def provenance(run: Run, config: Config, dataset: Dataset, stage: str, method: str, seconds: float) -> dict[str, Any]:
    """Return what a generator's or a set's file says of its origin; `seconds` includes the stages before.

    Where results went, how the machine was used and what was scored are no part of it.
    """
    settings = {key: value for key, value in to_plain(config).items() if key not in ("run", "evaluate")}
    return {
        "method": method,
        "stage": stage,
        "seed": config.seed,
        "fingerprint": run.fingerprint,
        "data": dataset.fingerprint,
        "seconds": round(seconds, 1),
        "device": device_name(run.device),
        "versions": versions(),
        "config": settings,
    }


def save_generator(run: Run, dataset: Dataset, chosen: Choice, monitor: Monitor, origin: dict[str, Any]) -> Path:
    """Write the chosen generator with its `provenance` and its grid, and return the generator's path."""
    generator, how = chosen.generator()
    if run.is_main:
        from torchvision.utils import save_image  # takes a second to import, for which no start need wait

        save_image(monitor.grid(monitor.sample(generator)), run.folder / "grid.png")
        # Last, for its presence says that the stage is finished.
        generator_file.save(run.folder, generator, dataset.spec, {**origin, **how})
    run.accelerator.wait_for_everyone()
    return run.folder / generator_file.FILE

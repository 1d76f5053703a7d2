"""Stage 1: pretrain the conditional GAN."""

from pathlib import Path

from torchvision.utils import save_image

from gdd.config import Config, ConfigError, to_plain
from gdd.config.checks import stable_hash
from gdd.data.batches import Batches
from gdd.data.pixels import u8_to_pm1
from gdd.data.readers import Dataset
from gdd.runtime.device import device_name
from gdd.runtime.run import Run, Step
from gdd.sampling import generator_file
from gdd.training.gan import GanTrainer
from gdd.training.monitor import Monitor

STAGE = "pretrain"


def fingerprint(config: Config, dataset: Dataset) -> str:
    """Return the hash of all that decides stage 1's result."""
    return stable_hash(config.seed, config.gan, config.pretrain, dataset.spec.to_dict(), dataset.fingerprint)


def real_batches(dataset: Dataset, batch_size: int, seed: int, purpose: str, run: Run) -> Batches:
    """Return this process's share of training batches, the images on its device."""
    size = min(batch_size, len(dataset.train.labels))
    if size % run.world_size:
        # Otherwise an image's share of the loss would depend on its process.
        raise ConfigError(f"{size} images per step cannot be dealt evenly to {run.world_size} processes")
    images, labels = dataset.train.images_u8.to(run.device), dataset.train.labels.to(run.device)
    return Batches(images, labels, batch_size, seed, purpose, run.rank, run.world_size)


def observe(step: Step, gan: GanTrainer, monitor: Monitor) -> None:
    """Record diversity when a line is due and a grid when a picture is."""
    if not (step.log_due or step.grid_due):
        return
    images = monitor.sample(gan.average)
    if step.log_due:
        step.record(monitor.diversity(images))
    if step.grid_due:
        step.images = monitor.grid(images)


def finish(
    run: Run,
    config: Config,
    dataset: Dataset,
    gan: GanTrainer,
    monitor: Monitor,
    stage: str,
    seconds_before: float = 0.0,
) -> Path:
    """Write the averaged generator and its grid, and return the generator's path.

    The file's `seconds` are what it took from real images to this generator: `seconds_before` and this stage.
    """
    if run.is_main:
        provenance = {
            "method": "gan" if stage == STAGE else config.method,
            "stage": stage,
            "seed": config.seed,
            "fingerprint": run.fingerprint,
            "data": dataset.fingerprint,
            "seconds": round(seconds_before + run.seconds, 1),
            "device": device_name(run.device),
            "config": to_plain(config),
        }
        save_image(monitor.grid(monitor.sample(gan.average)), run.folder / "grid.png")
        # Last, for its presence says that the stage is finished.
        generator_file.save(run.folder, gan.averaged_generator, dataset.spec, config.gan.width, provenance)
    run.accelerator.wait_for_everyone()
    return run.folder / generator_file.FILE


def pretrain(config: Config, dataset: Dataset, run: Run) -> Path:
    """Train generator and discriminator for `pretrain.steps` steps; return the generator's file."""
    settings = config.pretrain
    gan = GanTrainer(config.gan, dataset.spec, settings.lr, config.seed, STAGE, run)
    batches = real_batches(dataset, settings.batch_size, config.seed, STAGE, run)
    monitor = Monitor(batches, dataset.spec.num_classes, config.gan.noise_dim, config.seed)
    for step in run.loop(gan.states(), settings.steps, batches.batch_size, "stage 1"):
        images_u8, labels = batches(step.index)
        step.record(gan.generator_step(step.index, labels))
        step.record(gan.discriminator_step(step.index, u8_to_pm1(images_u8), labels))
        observe(step, gan, monitor)
    return finish(run, config, dataset, gan, monitor, STAGE)

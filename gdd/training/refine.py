"""Stage 2: refine the generator so that pool networks answer real and synthetic images alike (SKD)."""

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from gdd import rng
from gdd.config import Config, ConfigError
from gdd.config.checks import stable_hash
from gdd.data import augment
from gdd.data.batches import Batches
from gdd.data.pixels import Normalizer, u8_to_pm1
from gdd.data.readers import Dataset
from gdd.losses import logits as logit_losses
from gdd.runtime import checkpoint
from gdd.runtime.run import Run
from gdd.sampling import generator_file
from gdd.training.gan import GanTrainer
from gdd.training.monitor import Monitor
from gdd.training.pool import Pool
from gdd.training.pretrain import finish, observe, real_batches

STAGE = "refine"


def fingerprint(config: Config, dataset: Dataset, pretrained: Path) -> str:
    """Return the hash of all that decides stage 2's result, the stage-1 generator among it."""
    start = generator_file.load(pretrained).hash
    settings = replace(config.refine, pretrained=None)  # a moved stage 1 is the same stage 1
    parts = (config.seed, config.gan, config.pool, settings, dataset.spec.to_dict(), dataset.fingerprint)
    return stable_hash(*parts, start)


def refine(config: Config, dataset: Dataset, run: Run, pretrained: Path) -> Path:
    """Refine the GAN of the stage-1 run folder `pretrained` for `refine.steps` steps; return the generator's file.

    total = L_GAN + lambda * tau^2 * L_SKD, on a real and a synthetic batch of the same classes that share one
    augmentation. The networks' answers to the real batch are constants.
    """
    settings, spec = config.refine, dataset.spec
    gan = GanTrainer(config.gan, spec, settings.lr, config.seed, STAGE, run)
    done = checkpoint.steps(pretrained)
    if not done:
        raise ConfigError(f"refine.pretrained is {str(pretrained)!r}, expected a run folder with checkpoints")
    try:
        checkpoint.load(checkpoint.path_of(pretrained, done[-1]), gan.states())
    except checkpoint.Damaged as error:  # an earlier one would be another stage 1
        raise ConfigError(f"{error}; remove {pretrained} to pretrain anew") from error
    gan.set_adam(settings.lr)

    normalize = Normalizer(spec.mean, spec.std, run.device)
    batches = real_batches(dataset, settings.batch_size, config.seed, STAGE, run)
    lessons = Batches(batches.images_u8, batches.labels, config.pool.batch_size, config.seed, "pool-batches")

    def lesson(step: int) -> tuple[Tensor, Tensor]:
        images_u8, labels = lessons(step)
        return normalize.from_u8(images_u8), labels

    pool = Pool(
        config.pool, config.pool_kind, settings.steps, spec.shape, spec.num_classes, config.seed, lesson, run.device
    )
    strategy = augment.parse_strategy(settings.augment, spec.flip)
    weight = settings.weight * (settings.tau**2 if settings.match == "kl" else 1.0)
    monitor = Monitor(batches, spec.num_classes, config.gan.noise_dim, config.seed)

    for step in run.loop({**gan.states(), "pool": pool}, settings.steps, batches.batch_size, "stage 2"):
        images_u8, labels = batches(step.index)
        _, network = pool.draw(step.index)
        draw = rng.generator(config.seed, "refine-augment", step.index, 0)
        change = augment.draw(strategy, len(labels), draw, shared=True, pick="all") if strategy else None

        def answer(images_std: Tensor, network=network, change=change) -> Tensor:  # type: ignore[no-untyped-def]
            if change is not None:
                images_std = augment.apply(change, images_std)
            with run.accelerator.autocast():
                return network(images_std).float()

        def matching(fake_pm1: Tensor, images_u8=images_u8, answer=answer, step=step) -> Tensor:  # type: ignore[no-untyped-def]
            real, fake = answer(normalize.from_u8(images_u8)), answer(normalize.from_pm1(fake_pm1))
            if settings.match == "kl":
                loss = logit_losses.skd(real, fake, settings.tau, settings.tau_mode, settings.standardize)
            else:
                loss = logit_losses.log_probability_mse(real, fake)
            step.record({"loss/matching": loss.detach()})
            return weight * loss

        step.record(gan.generator_step(step.index, labels, matching))
        if settings.discriminator == "trained":
            step.record(gan.discriminator_step(step.index, u8_to_pm1(images_u8), labels))
        observe(step, gan, monitor)
    return finish(run, config, dataset, gan, monitor, STAGE, generator_file.load(pretrained).provenance["seconds"])

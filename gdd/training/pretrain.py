"""Pretrain the conditional GAN."""

from pathlib import Path

import torch

from gdd import rng
from gdd.config import Config
from gdd.data.pixels import u8_to_pm1
from gdd.data.readers import Dataset
from gdd.runtime.run import Run
from gdd.training.monitor import Monitor
from gdd.training.stage import choice, gan_trainer, observe, provenance, real_batches, save_generator

STAGE = rng.PRETRAIN


def pretrain(config: Config, dataset: Dataset, run: Run) -> Path:
    """Train generator and discriminator for `pretrain.steps` steps; return the generator's file."""
    settings, spec = config.pretrain, dataset.spec
    gan = gan_trainer(config.gan, settings, spec, config.seed, STAGE, run)
    batches = real_batches(dataset, settings.batch_size, config.seed, STAGE, run)
    chosen = choice(config, gan, dataset, run)
    monitor = Monitor(batches, spec.num_classes, config.gan.noise_dim, config.seed)

    for step in run.loop({**gan.states(), "choice": chosen}, settings.steps, batches.batch_size, STAGE):
        images_u8, labels = batches(step.index)  # (B, C, H, W) uint8, (B,)

        # The generator's turn, on classes of the real batch.
        fake = gan.generate(step.index, labels)  # (B, C, H, W) in [-1, 1]
        loss = gan.adversarial_loss(step.index, fake, labels)
        gan.update_generator(step.index, fake, *torch.autograd.grad(loss, fake))

        # The discriminator's turn.
        scalars = gan.update_discriminator(step.index, u8_to_pm1(images_u8), labels)

        step.record({"loss/generator": loss.detach(), **scalars})
        observe(step, gan, monitor, chosen)
    origin = provenance(run, config, dataset, STAGE, "gan", run.seconds)
    return save_generator(run, dataset, chosen, monitor, origin)

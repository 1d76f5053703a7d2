"""Refine the generator so that pool networks answer real and synthetic images alike.

    L = L_GAN + lambda * L_SKD,    L_SKD = tau^2 * KL(d_real || d_synthetic),    d = softmax(standardize(logits) / tau)

In place of L_SKD stands what `refine.loss` names (refine_loss.py).

Self-knowledge distillation: Li et al., arXiv 2501.04202; docs/method.md says what the paper leaves open.
"""

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gdd import rng
from gdd.config import Config, ConfigError
from gdd.data import augment
from gdd.data.batches import Batches
from gdd.data.pixels import Normalizer, u8_to_pm1
from gdd.data.readers import Dataset
from gdd.data.spec import DatasetSpec
from gdd.data.strategy import parse_strategy
from gdd.runtime import checkpoint
from gdd.runtime.run import Run
from gdd.sampling import generator_file
from gdd.training.monitor import Monitor
from gdd.training.pool import Exam, LearningPool, Lessons, SnapshotPool, execution_of
from gdd.training.refine_loss import make_loss
from gdd.training.stage import choice, gan_trainer, observe, provenance, real_batches, save_generator

STAGE = rng.REFINE


class Balance:
    """Find the weight of a loss that makes its gradient a given share of another's, by running means of their norms."""

    DECAY = 0.9

    def __init__(self, wanted: float) -> None:
        """Take the wanted ratio of the weighted loss's gradient to the other's, above 0."""
        self.wanted = wanted
        self.norms = torch.zeros(2)

    def weight(self, norms: Tensor) -> Tensor:
        """Return the weight of this step, whose gradients have these norms (2,) before weighing: its own, the other's.

        Both means lack the same share at first, which their ratio does not.
        """
        self.norms = self.DECAY * self.norms.to(norms.device) + (1 - self.DECAY) * norms
        return self.wanted * self.norms[1] / self.norms[0]

    def state_dict(self) -> dict[str, Any]:
        return {"norms": self.norms}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.norms = state["norms"]


def _norms(run: Run, *gradients: Tensor) -> Tensor:
    """Return the norms, above 0, of gradients of whose rows each process has its own."""
    squares = torch.stack([gradient.square().sum() for gradient in gradients])
    return run.accelerator.reduce(squares, "sum").sqrt().clamp(min=1e-12)


def _pool(
    config: Config, batches: Batches, normalize: Normalizer, augmentations: tuple[str, ...], spec: DatasetSpec, run: Run
) -> LearningPool | SnapshotPool:
    refinement, settings = config.refine, config.refine.pool
    steps = len(settings.members) * max(settings.ages, default=0) or refinement.steps * settings.steps_between
    asked = 2 * refinement.steps * refinement.batch_size + steps * settings.batch_size
    lessons = Lessons(
        batches.images_u8,
        batches.labels,
        spec.num_classes,
        normalize,
        max_accuracy=settings.max_accuracy,
        batch_size=settings.batch_size,
        lr=settings.lr,
        augmentations=augmentations if settings.augmented else (),
        seed=config.seed,
        execution=execution_of(settings.members, spec.shape, spec.num_classes, asked, run),
    )
    if settings.ages:
        return SnapshotPool(lessons, settings.members, settings.weights, settings.ages)
    life = settings.redraw_every, settings.steps_before, settings.steps_between
    return LearningPool(lessons, settings.members, settings.weights, *life)


def refine(config: Config, dataset: Dataset, run: Run, pretrained: Path) -> Path:
    """Refine the GAN of the run folder `pretrained` for `refine.steps` steps; return the generator's file."""
    settings, spec, seed = config.refine, dataset.spec, config.seed
    gan = gan_trainer(config.gan, settings, spec, seed, STAGE, run)
    try:
        gan.start_from(checkpoint.newest(pretrained))
    except checkpoint.Damaged as error:  # an earlier one would be another GAN
        raise ConfigError(f"{error}; remove {pretrained} to pretrain anew") from error
    batches = real_batches(dataset, settings.batch_size, seed, STAGE, run)
    normalize = Normalizer(spec.mean, spec.std, run.device)
    augmentations = parse_strategy(settings.augment, spec.flip)
    pool = _pool(config, batches, normalize, augmentations, spec, run)
    match = make_loss(settings, pool.lessons.execution, run.accelerator)
    balance = Balance(settings.balance) if settings.balance else None
    if settings.discriminator == "frozen":
        gan.plain_discriminator.eval()  # or its spectral norms would go on
    exam = Exam(dataset.val, normalize, augmentations, seed)
    chosen = choice(config, gan, dataset, run)
    monitor = Monitor(batches, spec.num_classes, config.gan.noise_dim, seed)
    states = {**gan.states(), "choice": chosen, "pool": pool} | ({} if balance is None else {"balance": balance})

    began = time.perf_counter()
    for step in run.loop(states, settings.steps, batches.batch_size, STAGE):
        # Draw a real batch, a network, and one augmentation for real and synthetic images alike.
        images_u8, labels = batches(step.index)  # (B, C, H, W) uint8, (B,)
        network = pool.network(step.index)
        random = rng.generator(seed, rng.REFINE_AUGMENT, step.index, 0)
        augmentation = augment.draw(augmentations, len(labels), random, shared=True, pick="all")

        # Generate images of the same classes, and show the network both batches.
        fake = gan.generate(step.index, labels)  # (B, C, H, W) in [-1, 1]
        real_std = augment.apply(augmentation, normalize.from_u8(images_u8))  # (B, C, H, W) in classifier space
        fake_std = augment.apply(augmentation, normalize.from_pm1(fake))
        matching_loss = match(network, real_std, fake_std, labels)

        # What either loss asks of the images, and the generator's turn on both.
        adversarial_loss = gan.adversarial_loss(step.index, fake, labels)
        (adversarial,), (matching,) = (torch.autograd.grad(loss, fake) for loss in (adversarial_loss, matching_loss))
        norms = _norms(run, matching, adversarial)
        weight = settings.weight if balance is None else balance.weight(norms)
        gan.update_generator(step.index, fake, adversarial + weight * matching)
        step.record({"loss/generator": adversarial_loss.detach(), f"loss/{settings.loss}": matching_loss.detach()})
        step.record({"gradient/ratio": weight * norms[0] / norms[1]})

        # The discriminator's turn, unless it is a fixed critic.
        if settings.discriminator == "trained":
            step.record(gan.update_discriminator(step.index, u8_to_pm1(images_u8), labels))
        observe(step, gan, monitor, chosen)
        if step.log_due:
            step.record(
                {**exam.accuracies(pool), "lessons/share": pool.lessons.seconds / (time.perf_counter() - began)}
            )
    seconds = generator_file.load(pretrained).provenance["seconds"] + run.seconds
    origin = provenance(run, config, dataset, STAGE, config.method, seconds)
    return save_generator(run, dataset, chosen, monitor, origin)

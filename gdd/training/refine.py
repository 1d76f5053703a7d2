"""Refine the generator so that pool networks answer real and synthetic images alike.

    L = L_GAN + lambda * L_SKD,    L_SKD = tau^2 * KL(d_real || d_synthetic),    d = softmax(standardize(logits) / tau)

In place of L_SKD stands what `refine.loss` names (refine_loss.py).

Self-knowledge distillation: Li et al., arXiv 2501.04202; docs/method.md says what the paper leaves open.
"""

import time
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from gdd import rng
from gdd.config import Config, ConfigError
from gdd.data import augment
from gdd.data.batches import Batches
from gdd.data.pixels import Normalizer, u8_to_pm1
from gdd.data.readers import Dataset
from gdd.data.spec import parse_strategy
from gdd.runtime import checkpoint
from gdd.runtime.checkpoint import Stateful
from gdd.runtime.run import Run, Step
from gdd.sampling import generator_file
from gdd.training.monitor import Monitor
from gdd.training.pool import Exam, LearningPool, Lessons, SnapshotPool, execution_of
from gdd.training.refine_loss import BY_OTHERS, OF_ALL, RefineLoss, make_loss
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


@dataclass(eq=False, repr=False)
class Matching:
    """The refinement's own term: what a network of the pool asks of generated images beside real ones."""

    pool: LearningPool | SnapshotPool
    match: RefineLoss
    _: KW_ONLY
    name: str  # of the loss, for the metrics
    weight: float | Balance  # of the loss, or what finds it
    batches: Batches  # of real images
    normalize: Normalizer  # to classifier space
    augmentations: tuple[str, ...]  # of what the network is shown
    exam: Exam  # tells how much members know
    seed: int  # root seed
    accelerator: Accelerator  # adds up norms over processes

    def __post_init__(self) -> None:
        self.began = time.perf_counter()

    def states(self) -> dict[str, Stateful]:
        """Return what a checkpoint holds, by name."""
        return {"pool": self.pool} | ({"balance": self.weight} if isinstance(self.weight, Balance) else {})

    def gradient(self, step: Step, images_u8: Tensor, fake: Tensor, labels: Tensor, adversarial: Tensor) -> Tensor:
        """Return the weighted gradient at the generated images, and record what it is made of.

        Args:
            step: the stage's.
            images_u8: real images (B, C, H, W).
            fake: generated ones in [-1, 1], of the same classes.
            labels: (B,).
            adversarial: the other loss's gradient at the generated images.
        """
        # Draw a network, and one augmentation for real and synthetic images alike.
        network = self.pool.network(step.index)
        random = rng.generator(self.seed, rng.REFINE_AUGMENT, step.index, 0)
        augmentation = augment.draw(self.augmentations, len(labels), random, shared=True, pick="all")

        # Show it both batches.
        real_std = augment.apply(augmentation, self.normalize.from_u8(images_u8))  # (B, C, H, W) in classifier space
        fake_std = augment.apply(augmentation, self.normalize.from_pm1(fake))
        others_std = []
        if self.name in BY_OTHERS:
            others_u8 = self.batches.others(step.index)
            others_std = [augment.apply(augmentation, self.normalize.from_u8(others_u8))]
        loss = self.match(network, real_std, fake_std, labels, *others_std)

        # Weigh what it asks.
        (gradient,) = torch.autograd.grad(loss, fake)
        gradient = gradient * (self.accelerator.num_processes if self.name in OF_ALL else 1)
        norms = self._norms(gradient, adversarial)
        weight = self.weight.weight(norms) if isinstance(self.weight, Balance) else self.weight
        step.record({f"loss/{self.name}": loss.detach(), "gradient/ratio": weight * norms[0] / norms[1]})
        return weight * gradient

    def observe(self, step: Step) -> None:
        """Record what members know and what their lessons cost when a line is due."""
        if step.log_due:
            seconds = time.perf_counter() - self.began
            step.record({**self.exam.accuracies(self.pool), "lessons/share": self.pool.lessons.seconds / seconds})

    def _norms(self, *gradients: Tensor) -> Tensor:
        """Return the norms, above 0, of gradients of whose rows each process has its own."""
        squares = torch.stack([gradient.square().sum() for gradient in gradients])
        return self.accelerator.reduce(squares, "sum").sqrt().clamp(min=1e-12)


def _matching(config: Config, dataset: Dataset, batches: Batches, run: Run) -> Matching:
    """Build the term that the settings describe."""
    refinement, settings, spec = config.refine, config.refine.pool, dataset.spec
    normalize = Normalizer(spec.mean, spec.std, run.device)
    augmentations = parse_strategy(refinement.augment, spec.flip)
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
        execution=execution_of(settings.members, spec.shape, spec.num_classes, refinement.images_asked, run),
    )
    life = settings.redraw_every, settings.steps_before, settings.steps_between
    pool = (
        SnapshotPool(lessons, settings.members, settings.weights, settings.ages)
        if settings.ages
        else LearningPool(lessons, settings.members, settings.weights, *life)
    )
    return Matching(
        pool,
        make_loss(refinement, lessons.execution, run.accelerator),
        name=refinement.loss,
        weight=config.refine_weight if refinement.balance is None else Balance(refinement.balance),
        batches=batches,
        normalize=normalize,
        augmentations=augmentations,
        exam=Exam(dataset.val, normalize, augmentations, config.seed),
        seed=config.seed,
        accelerator=run.accelerator,
    )


def check_others(config: Config, dataset: Dataset) -> None:
    """Refuse a loss that takes statistics from as many other images as it compares where there are too few."""
    settings, count = config.refine, len(dataset.train.labels)
    if settings.loss in BY_OTHERS and 2 * settings.batch_size > count:
        raise ConfigError(
            f"refine.batch_size is {settings.batch_size}, expected at most half of the {count} training images: "
            f"refine.loss {settings.loss} takes its statistics from as many other images as it compares"
        )


def refine(config: Config, dataset: Dataset, run: Run, pretrained: Path) -> Path:
    """Refine the GAN of the run folder `pretrained` for `refine.steps` steps; return the generator's file."""
    settings, spec, seed = config.refine, dataset.spec, config.seed
    gan = gan_trainer(config.gan, settings, spec, seed, STAGE, run)
    try:
        gan.start_from(checkpoint.newest(pretrained))
    except checkpoint.Damaged as error:  # an earlier one would be another GAN
        raise ConfigError(f"{error}; remove {pretrained} to pretrain anew") from error
    batches = real_batches(dataset, settings.batch_size, seed, STAGE, run)
    matching = _matching(config, dataset, batches, run) if settings.matches else None
    if settings.discriminator == "frozen":
        gan.plain_discriminator.eval()  # or its spectral norms would go on
    chosen = choice(config, gan, dataset, run)
    monitor = Monitor(batches, spec.num_classes, config.gan.noise_dim, seed)
    states = {**gan.states(), "choice": chosen, **(matching.states() if matching else {})}

    for step in run.loop(states, settings.steps, batches.batch_size, STAGE):
        # Draw a real batch, and generate images of the same classes.
        images_u8, labels = batches(step.index)  # (B, C, H, W) uint8, (B,)
        fake = gan.generate(step.index, labels)  # (B, C, H, W) in [-1, 1]

        # What either loss asks of them, and the generator's turn on both.
        loss = gan.adversarial_loss(step.index, fake, labels)
        (gradient,) = torch.autograd.grad(loss, fake)
        step.record({"loss/generator": loss.detach()})
        if matching is not None:
            gradient = gradient + matching.gradient(step, images_u8, fake, labels, gradient)
            matching.observe(step)
        gan.update_generator(step.index, fake, gradient)

        # The discriminator's turn, unless it is a fixed critic.
        if settings.discriminator == "trained":
            step.record(gan.update_discriminator(step.index, u8_to_pm1(images_u8), labels))
        observe(step, gan, monitor, chosen)
    seconds = generator_file.load(pretrained).provenance["seconds"] + run.seconds
    origin = provenance(run, config, dataset, STAGE, settings.method, seconds)
    return save_generator(run, dataset, chosen, monitor, origin)

"""The adversarial game: generator, discriminator, their optimisers and the averaged generator."""

from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from gdd import rng
from gdd.data import augment
from gdd.data.batches import local_rows
from gdd.losses import adversarial
from gdd.models.gan import Discriminator, Generator
from gdd.rng import Count
from gdd.runtime import checkpoint
from gdd.runtime.checkpoint import Stateful
from gdd.runtime.execution import EAGER, Execution
from gdd.runtime.graphs import Rate, tensors_of
from gdd.training.average import Average
from gdd.training.optimizers import adam, set_lr


@dataclass(eq=False, repr=False)
class GanTrainer:
    """The adversarial game of one stage. Each method that takes a step draws what belongs to this step alone.

    Steps and learning rates may be tensors () on the device: a captured step is replayed with others.
    """

    generator: Generator  # maps noise and labels to images in [-1, 1]
    discriminator: Discriminator  # maps images to a score and class logits
    _: KW_ONLY
    # ns or hinge: the score is conditioned on the class by projection, R1 penalises; wgan-gp: the auxiliary class loss
    loss: Literal["ns", "hinge", "wgan-gp"]
    lr: Callable[[int], float]  # learning rate of the generator's Adam at a step
    lr_discriminator: Callable[[int], float]  # of the discriminator's
    betas: tuple[float, float]  # decays of both
    ema_decays: tuple[float, ...]  # of the averaged generators, per step
    aux_weight: float  # of the auxiliary class loss of wgan-gp
    gradient_penalty: float  # weight of the gradient penalty of wgan-gp
    r1: float  # weight gamma of the R1 penalty gamma/2 |grad D|^2 of ns and hinge
    r1_every: int  # discriminator steps from one R1 penalty to the next, which is scaled by as much
    augmentations: tuple[str, ...]  # operations of DiffAugment on what the discriminator sees
    seed: int  # root seed
    stage: str  # name before the stage's random streams
    accelerator: Accelerator  # prepares the networks and says which process this is
    execution: Execution = EAGER  # of both networks

    def __post_init__(self) -> None:
        networks = self.generator, self.discriminator
        for network in networks:
            self.execution.place(network)
        self.plain_generator, self.plain_discriminator = networks
        self.rank, self.world_size = self.accelerator.process_index, self.accelerator.num_processes
        for network in networks:
            network.to(self.accelerator.device)
        self.averages = {decay: Average(self.generator, decay) for decay in self.ema_decays}
        optimizers = [
            adam(network, lr(0), self.betas, self.execution.fused)
            for network, lr in zip(networks, (self.lr, self.lr_discriminator), strict=True)
        ]
        prepared = self.accelerator.prepare(*networks, *optimizers)
        self.generator, self.discriminator, self.opt_g, self.opt_d = prepared

    @property
    def average(self) -> Average:
        """The averaged generator that is watched: that of the first decay."""
        return self.averages[self.ema_decays[0]]

    def states(self) -> dict[str, Stateful]:
        """Return what a checkpoint holds, by name."""
        return {
            "generator": self.plain_generator,
            "discriminator": self.plain_discriminator,
            "average": self.average,
            **{f"average {decay}": average for decay, average in [*self.averages.items()][1:]},
            "opt_g": self.opt_g,
            "opt_d": self.opt_d,
        }

    def start_from(self, path: Path) -> None:
        """Load weights and moments of another stage's checkpoint."""
        checkpoint.load(path, self.states())

    def changed(self) -> Iterator[list[Tensor]]:
        """Yield all tensors that a step changes, those of each network and optimiser."""
        yield from tensors_of(self.plain_generator, self.plain_discriminator, *self.averages.values())
        yield from tensors_of(self.opt_g.optimizer, self.opt_d.optimizer)

    def penalises(self, step: int) -> bool:
        """Tell whether a step of the discriminator has the R1 penalty."""
        return self.loss != "wgan-gp" and self.r1 > 0 and step % self.r1_every == 0

    def generate(self, step: Count, labels: Tensor) -> Tensor:
        """Return images (B, C, H, W) in [-1, 1] of the given classes (B,), with the generator in their graph."""
        random = self._random(rng.NOISE_OF_GENERATOR_STEP, step)
        return self.execution(self.generator, self._noise(len(labels), random), labels)

    def adversarial_loss(self, step: Count, fake: Tensor, labels: Tensor) -> Tensor:
        """Return what the generator minimises for its images (B, C, H, W) of the given classes (B,)."""
        # Frozen and unwrapped: the discriminator's gradients would be thrown away, and DDP would reduce them first.
        self.plain_discriminator.requires_grad_(False)
        seen = self._augmented(fake, rng.AUGMENT_OF_GENERATOR_STEP, step)
        score, class_logits = self._score(self.plain_discriminator, seen, labels)
        self.plain_discriminator.requires_grad_(True)
        return adversarial.generator_loss(self.loss, score) + self._auxiliary(class_logits, labels)

    def update_generator(self, lr: Rate, fake: Tensor, gradient: Tensor) -> None:
        """Take one step of the generator, and one of its averages.

        By the chain rule: the gradient of sum(fake * gradient), the second held fixed, is that of the whole loss.

        Args:
            lr: learning rate of the step.
            fake: what `generate` returned, (B, C, H, W).
            gradient: of its whole loss at these images, (B, C, H, W).
        """
        self._descend(self.opt_g, lr, (fake * gradient).sum())
        for average in self.averages.values():
            average.update(self.plain_generator)

    def update_discriminator(
        self, step: Count, lr: Rate, real: Tensor, labels: Tensor, *, penalised: bool
    ) -> dict[str, Tensor]:
        """Take one step of the discriminator on a real batch (B, C, H, W) in [-1, 1] and as many generated images.

        Args:
            step: its number.
            lr: learning rate of the step.
            real: the batch.
            labels: its classes (B,).
            penalised: what `penalises` says of the step.

        Returns:
            Losses and mean scores, for the metrics.
        """
        # Draw: as many fake images, of random classes, without the generator's graph.
        random = self._random(rng.NOISE_OF_DISCRIMINATOR_STEP, step)
        noise = self._noise(len(labels), random)  # (B, noise_dim)
        classes = random.integers(self.plain_generator.num_classes, len(labels) * self.world_size)
        fake_labels = self._local(classes)  # (B,)
        with torch.no_grad():
            fake = self.execution(self.generator, noise, fake_labels)  # (B, C, H, W)

        # Compare: one forward pass over both halves. The penalty comes first: each pass moves the vectors of spectral
        # norms, and a compiled one keeps them themselves, not copies, for its backward pass.
        both = self._augmented(torch.cat([real, fake]), rng.AUGMENT_OF_DISCRIMINATOR_STEP, step)  # (2B, C, H, W)
        both_labels = torch.cat([labels, fake_labels])
        penalty = self._penalty(both, labels, random, penalised)
        score, class_logits = self._score(self.discriminator, both, both_labels)  # (2B,), (2B, K)
        real_score, fake_score = score.chunk(2)

        # The mean over both halves is half of DiM's sum of the two means, hence the 2.
        loss = adversarial.discriminator_loss(self.loss, real_score, fake_score)
        loss = loss + 2 * self._auxiliary(class_logits, both_labels)

        self._descend(self.opt_d, lr, loss if penalty is None else loss + penalty)
        scalars = {"loss/discriminator": loss, "score/real": real_score.mean(), "score/fake": fake_score.mean()}
        scalars |= {} if penalty is None else {"loss/penalty": penalty}
        return {name: value.detach() for name, value in scalars.items()}

    def _descend(self, optimizer: torch.optim.Optimizer, lr: Rate, loss: Tensor) -> None:
        set_lr(optimizer, lr)
        optimizer.zero_grad()
        self.accelerator.backward(loss)
        optimizer.step()

    def _penalty(self, both: Tensor, labels: Tensor, random: rng.Draws, penalised: bool) -> Tensor | None:
        """Return the weighted gradient penalty of this step at real images, or between real and fake ones.

        In float32 and not compiled: it is a derivative of a derivative.
        """
        real, fake = both.chunk(2)

        def score(images: Tensor) -> Tensor:
            critic, class_logits = self.discriminator(images)
            return self._conditioned(critic, class_logits, labels)

        if self.loss == "wgan-gp":
            mixing = self._local(random.uniform(len(real) * self.world_size, 1, 1, 1))
            return self.gradient_penalty * adversarial.gradient_penalty(score, real, fake, mixing)
        if penalised:
            return self.r1 * self.r1_every * adversarial.r1_penalty(score, real)
        return None

    def _score(self, discriminator: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores (B,) and class logits (B, K)."""
        critic, class_logits = self.execution(discriminator, images)
        return self._conditioned(critic, class_logits, labels), class_logits

    def _conditioned(self, critic: Tensor, class_logits: Tensor, labels: Tensor) -> Tensor:
        """Return the score (B,), which hinge and ns condition on the class by projection."""
        if self.loss == "wgan-gp":
            return critic
        return critic + class_logits.gather(1, labels[:, None]).squeeze(1)

    def _auxiliary(self, class_logits: Tensor, labels: Tensor) -> Tensor:
        if self.loss != "wgan-gp":
            return class_logits.new_zeros(())
        return self.aux_weight * F.cross_entropy(class_logits, labels)

    def _random(self, stream: str, step: Count) -> rng.Draws:
        """Return all processes' draws, of which each takes its rows."""
        return rng.Draws(self.seed, f"{self.stage}-{stream}", step, device=self.accelerator.device)

    def _local(self, rows: Tensor) -> Tensor:
        return local_rows(rows, self.rank, self.world_size)

    def _noise(self, count: int, random: rng.Draws) -> Tensor:
        return self._local(random.normal(count * self.world_size, self.plain_generator.noise_dim))

    def _augmented(self, images: Tensor, stream: str, step: Count) -> Tensor:
        count = len(images) * self.world_size
        random = self._random(stream, step)
        drawn = augment.draw(self.augmentations, count, random, shared=False, pick="all")
        return augment.apply(drawn.local_rows(self.rank, self.world_size), images)

"""Generator, discriminator, their optimisers and the averaged generator; one step of each. Both stages use it."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from gdd import rng
from gdd.config import GanConfig
from gdd.data import augment
from gdd.data.spec import DatasetSpec
from gdd.losses import adversarial
from gdd.models.gan import Discriminator, Generator
from gdd.runtime.checkpoint import Stateful
from gdd.runtime.run import Run


class GanTrainer:
    """The adversarial game of one stage.

    Args:
        settings: sizes and losses.
        spec: the dataset's shape and classes.
        lr: learning rate of both optimisers.
        seed: root seed.
        stage: names the stage's own noise streams.
        run: prepares the networks and says which process this is.
    """

    def __init__(self, settings: GanConfig, spec: DatasetSpec, lr: float, seed: int, stage: str, run: Run) -> None:
        self.settings, self.seed, self.stage, self.run = settings, seed, stage, run
        self.num_classes = spec.num_classes
        self.strategy = augment.parse_strategy(settings.augment, spec.flip)
        with rng.seeded(seed, "init-gan"):
            generator = Generator(spec.shape, spec.num_classes, settings.width, settings.noise_dim)
            discriminator = Discriminator(spec.shape, spec.num_classes, settings.width)
        decay = get_ema_multi_avg_fn(settings.ema_decay)
        self.average = AveragedModel(generator, multi_avg_fn=decay, use_buffers=True).to(run.device)
        betas = (settings.beta1, settings.beta2)
        opt_g = torch.optim.Adam(generator.parameters(), lr, betas)
        opt_d = torch.optim.Adam(discriminator.parameters(), lr, betas)
        prepared = run.accelerator.prepare(generator, discriminator, opt_g, opt_d)
        self.generator, self.discriminator, self.opt_g, self.opt_d = prepared
        unwrap = run.accelerator.unwrap_model
        averaged = self.average.module
        assert isinstance(averaged, Generator)
        self.averaged_generator = averaged
        self.plain_generator: Generator = unwrap(self.generator)
        self.plain_discriminator: Discriminator = unwrap(self.discriminator)

    def states(self) -> dict[str, Stateful]:
        """Return what a checkpoint holds, by name."""
        return {
            "generator": self.plain_generator,
            "discriminator": self.plain_discriminator,
            "average": self.average,
            "opt_g": self.opt_g,
            "opt_d": self.opt_d,
        }

    def set_adam(self, lr: float) -> None:
        """Set both optimisers' settings; loading a checkpoint of another stage has brought that stage's."""
        for optimizer in (self.opt_g, self.opt_d):
            for group in optimizer.param_groups:
                group.update(lr=lr, betas=(self.settings.beta1, self.settings.beta2))

    def _draw(self, purpose: str, step: int) -> torch.Generator:
        """Return the generator of all processes' draws; each takes its share of them."""
        return rng.generator(self.seed, f"{self.stage}-{purpose}", step, 0)

    def local_rows(self, drawn: Tensor) -> Tensor:
        """Return this process's rows, the counterparts of its real images in `data.batches`, on its device."""
        return drawn[self.run.rank :: self.run.world_size].to(self.run.device)

    def _augmented(self, images: Tensor, purpose: str, step: int) -> Tensor:
        if not self.strategy:
            return images
        count = len(images) * self.run.world_size
        change = augment.draw(self.strategy, count, self._draw(purpose, step), shared=False, pick="all")
        return augment.apply(change.take(self.run.rank, self.run.world_size), images)

    def _score(self, discriminator: Callable[..., Any], images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores (B,) that hinge and ns condition on the class by projection, and class logits (B, K)."""
        critic, classes = discriminator(images)
        if self.settings.loss == "wgan-gp":
            return critic, classes
        return critic + classes.gather(1, labels[:, None]).squeeze(1), classes

    def _auxiliary(self, classes: Tensor, labels: Tensor) -> Tensor:
        if self.settings.loss != "wgan-gp":
            return classes.new_zeros(())
        return self.settings.aux_weight * F.cross_entropy(classes, labels)

    def generator_step(
        self, step: int, labels: Tensor, extra: Callable[[Tensor], Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Update the generator (and its average) on one batch of its own images of the given classes.

        Args:
            step: number of this step within the stage.
            labels: (B,) classes to generate.
            extra: maps the images (B, C, H, W) in [-1, 1] to a loss that is added.
        """
        count = len(labels) * self.run.world_size
        noise = torch.randn(count, self.settings.noise_dim, generator=self._draw("noise-g", step))
        fake = self.generator(self.local_rows(noise), labels)
        # Frozen and unwrapped: the critic's gradients would be thrown away, and DDP would reduce them first.
        self.plain_discriminator.requires_grad_(False)
        score, classes = self._score(self.plain_discriminator, self._augmented(fake, "augment-g", step), labels)
        loss = adversarial.generator_loss(self.settings.loss, score) + self._auxiliary(classes, labels)
        scalars = {"loss/generator": loss.detach()}
        if extra is not None:
            loss = loss + extra(fake)
        self.opt_g.zero_grad()
        self.run.accelerator.backward(loss)
        self.opt_g.step()
        self.plain_discriminator.requires_grad_(True)
        self.average.update_parameters(self.plain_generator)
        return scalars

    def discriminator_step(self, step: int, real: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Update the discriminator on one real batch (B, C, H, W) in [-1, 1] and as many generated images."""
        kind, draw = self.settings.loss, self._draw("noise-d", step)
        count = len(labels) * self.run.world_size
        noise = self.local_rows(torch.randn(count, self.settings.noise_dim, generator=draw))
        fake_labels = self.local_rows(torch.randint(self.num_classes, (count,), generator=draw))
        with torch.no_grad():
            fake = self.generator(noise, fake_labels)
        both = self._augmented(torch.cat([real, fake]), "augment-d", step)
        both_labels = torch.cat([labels, fake_labels])
        score, classes = self._score(self.discriminator, both, both_labels)
        real_score, fake_score = score.chunk(2)
        loss = adversarial.discriminator_loss(kind, real_score, fake_score)
        # The mean over both halves is half of DiM's sum of the two means.
        loss = loss + 2 * self._auxiliary(classes, both_labels)
        scalars = {"loss/discriminator": loss.detach(), "score/real": real_score.mean().detach()}
        scalars["score/fake"] = fake_score.mean().detach()
        loss = loss + self._penalty(step, both, labels, draw, scalars)
        self.opt_d.zero_grad()
        self.run.accelerator.backward(loss)
        self.opt_d.step()
        return scalars

    def _penalty(
        self, step: int, both: Tensor, labels: Tensor, draw: torch.Generator, scalars: dict[str, Tensor]
    ) -> Tensor:
        real, fake = both.chunk(2)

        def score(images: Tensor) -> Tensor:
            return self._score(self.discriminator, images, labels)[0]

        if self.settings.loss == "wgan-gp":
            mixing = self.local_rows(torch.rand(len(real) * self.run.world_size, 1, 1, 1, generator=draw))
            penalty = self.settings.gradient_penalty * adversarial.gradient_penalty(score, real, fake, mixing)
        elif self.settings.r1 > 0 and step % self.settings.r1_every == 0:
            penalty = self.settings.r1 * self.settings.r1_every * adversarial.r1_penalty(score, real)
        else:
            return real.new_zeros(())
        scalars["loss/penalty"] = penalty.detach()
        return penalty

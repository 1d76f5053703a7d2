"""Settings of refinement, of its guiding loss, and of the pool that this asks."""

import math
from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator
from pydantic.dataclasses import dataclass

from gdd.config.errors import require
from gdd.config.fields import (
    STRICT,
    AtLeast0,
    AtLeast1,
    AtLeast2,
    Positive,
    PositiveOrNull,
    Schedule,
    each,
    without_effect,
)


@dataclass(frozen=True, config=STRICT)
class RefinePoolConfig:
    """The networks that answer real and synthetic images; they learn from real images as refinement goes."""

    members: Annotated[tuple[str, ...], Field(min_length=1)] = ("convnet3-w16", "resnet10-w8", "resnet18-w8")
    """Architectures, such as convnet3 or resnet18-bn-w32 (SKD: ConvNet3, ResNet10, ResNet18)."""
    weights: Annotated[tuple[float, ...], each(0)] = ()
    """Probability weight of each member, none below 0; empty means equal."""
    redraw_every: AtLeast1 = 200
    """Uses of a member after which it starts anew from random weights, at least 1 (DiM: 781, one epoch)."""
    steps_before: AtLeast0 = 16
    """Training steps on real images that a new member gets before its first use, at least 0 (DiM: 16)."""
    steps_between: AtLeast0 = 1
    """Training steps on real images before every further use, at least 0 (DiM: 16)."""
    ages: Annotated[tuple[int, ...], each(1)] = ()
    """Instead of all that, training steps after which a member is kept as it is, ascending, each at least 1: it is
    trained once, and each use draws one of its ages; empty: members live on."""
    max_accuracy: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Members stop learning while their accuracy on a fresh real batch is at least this, in (0, 1]."""
    batch_size: AtLeast2 = 64
    """Real images per training step of a member, at least 2 (DiM: 64)."""
    augmented: bool = False
    """Whether members learn images augmented by refine.augment, each by itself, as they are asked about (SKD: not)."""
    lr: Positive = 0.01
    """Learning rate of a member's SGD, above 0 (DiM: 0.01; momentum 0.9 and weight decay 5e-4 are fixed)."""

    @model_validator(mode="after")
    def _weights_fit(self) -> "RefinePoolConfig":
        fit = not self.weights or (len(self.weights) == len(self.members) and sum(self.weights) > 0)
        expected = f"{len(self.members)} numbers of at least 0 that are not all 0, one per member"
        require(fit, "refine.pool.weights", self.weights, expected)
        return self

    @model_validator(mode="after")
    def _ages_replace_a_life(self) -> "RefinePoolConfig":
        require(list(self.ages) == sorted({*self.ages}), "refine.pool.ages", self.ages, "different ascending numbers")
        for name, default in (("redraw_every", 200), ("steps_before", 16), ("steps_between", 1)):
            value = getattr(self, name)
            require(not self.ages or value == default, f"refine.pool.{name}", value, f"its default {default} with ages")
        return self

    def lessons(self, uses: int) -> int:
        """Return the training steps that members get in so many uses, each drawn as often as its weight says."""
        weights = self.weights or (1.0,) * len(self.members)
        drawn = [uses * weight / sum(weights) for weight in weights]
        if self.ages:
            return min(uses, sum(count > 0 for count in drawn)) * self.ages[-1]
        lives = min(uses, sum(math.ceil(count / self.redraw_every) for count in drawn))
        return lives * self.steps_before + (uses - lives) * self.steps_between


# Settings that one loss alone has, with their defaults.
_OF_SKD: tuple[tuple[str, object], ...] = (
    ("tau", 2.0),
    ("tau_mode", "divide"),
    ("standardize", True),
    ("standardize_over", "classes"),
)


def _above_0(weight: float | None) -> float | None:
    if weight is not None and weight <= 0:
        raise ValueError("a number above 0; refine.loss none goes on with the adversarial loss alone")
    return weight


@dataclass(frozen=True, config=STRICT)
class RefineConfig:
    """Refinement of the generator: the adversarial loss plus a guiding loss, self-knowledge distillation (SKD)."""

    pretrained: Path | None = without_effect(None)  # its generator's hash counts instead
    """Run folder of a finished pretraining; null pretrains first, beside the folder of the refinement."""
    steps: AtLeast1 = 500
    """Optimiser steps of the generator, at least 1 (DiM: 78,100, that is 100 epochs of CIFAR-10)."""
    batch_size: AtLeast2 = 32
    """Images per step over all processes, at least 2 (DiM: 64)."""
    lr: Positive = 5e-4
    """First learning rate of both Adam optimisers, above 0 (DiM: 5e-6)."""
    lr_discriminator: PositiveOrNull = None
    """Discriminator learning rate, above 0; null uses refine.lr."""
    schedule: Schedule = "constant"
    """How the rate goes on: constant (DiM), linear or by half a cosine to 0 after the last step."""
    warmup: AtLeast0 = 0
    """Steps in which the rate rises to its first value, at least 0 and fewer than all."""
    loss: Literal["none", "skd", "log_mse", "features", "gradient"] = "skd"
    """skd: KL divergence between (standardized) logits; log_mse: between log-probabilities (DiM, without tau);
    features: means and covariances of each class's features, layer by layer; gradient: the gradients that each class's
    images cause in the network, as gradient matching compares them (DC); none, the control, goes on with the
    adversarial loss alone and needs no pool: settings of losses and pool are without effect."""
    standardize: bool = True
    """Whether skd standardizes logits first (SKD)."""
    standardize_over: Literal["classes", "batch"] = "classes"
    """Over what: those of each sample over the classes (SKD), or those of each class over the batch of a process, as
    batch normalisation does."""
    tau: Positive = 2.0
    """Temperature of skd, above 0 (SKD: 2)."""
    tau_mode: Literal["divide", "multiply"] = "divide"
    """divide softens as the text of SKD means it; multiply is its printed formula."""
    weight: Annotated[float | None, AfterValidator(_above_0)] = None
    """Lambda, weight of the guiding loss, above 0; null is that of SKD: 0.001 on mnist, 0.01 on all other data."""
    balance: PositiveOrNull = None
    """Instead of a fixed weight the one that makes the guiding loss ask this much of the images beside the
    adversarial loss: the ratio of the norms of their gradients, above 0; null keeps refine.weight."""
    pairing: Literal["class", "optimal"] = "class"
    """Which real image each generated one is compared with: any of its class (SKD), or the one that an optimal
    assignment of standardized logits within the class gives it."""
    discriminator: Literal["trained", "frozen"] = "trained"
    """Whether the discriminator goes on learning (DiM) or is a fixed critic (SKD's text)."""
    augment: str = "color_crop_cutout"
    """Differentiable augmentation shared by the real and the synthetic batch; none switches it off."""
    pool: RefinePoolConfig = field(default_factory=RefinePoolConfig)

    @property
    def guided(self) -> bool:
        """Whether networks guide the generator besides the adversarial loss."""
        return self.loss != "none"

    @property
    def method(self) -> str:
        """What a generator that is refined so was made by."""
        return f"gan + {self.loss}" if self.guided else "gan"

    @property
    def images_asked(self) -> float:
        """Images that the pool's networks see, lessons included; one that needs no gradient is a third of an image."""
        asked = self.steps * self.batch_size * 4 / 3  # real and generated ones
        return asked + self.pool.lessons(self.steps) * self.pool.batch_size

    @model_validator(mode="after")
    def _warmup_ends(self) -> "RefineConfig":
        require(self.warmup < self.steps, "refine.warmup", self.warmup, f"fewer than refine.steps, {self.steps}")
        return self

    @model_validator(mode="after")
    def _one_weight(self) -> "RefineConfig":
        for name in ("weight", "balance"):
            value = getattr(self, name)
            require(self.guided or value is None, f"refine.{name}", value, "null with refine.loss none")
        require(self.balance is None or self.weight is None, "refine.weight", self.weight, "null with refine.balance")
        return self

    @model_validator(mode="after")
    def _loss_uses_its_settings(self) -> "RefineConfig":
        defaults = {"none": (), "skd": (), "log_mse": _OF_SKD}.get(self.loss, (*_OF_SKD, ("pairing", "class")))
        for name, default in defaults:
            value = getattr(self, name)
            require(value == default, f"refine.{name}", value, f"its default {default} with loss {self.loss}")
        over = self.standardize_over
        require(self.standardize or over == "classes", "refine.standardize_over", over, "classes without standardize")
        return self

"""Settings of the conditional GAN and of its pretraining."""

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from gdd.config.errors import require
from gdd.config.fields import (
    STRICT,
    AtLeast0,
    AtLeast1,
    AtLeast2,
    Decay,
    NotNegative,
    NotNegativeOrNull,
    Positive,
    PositiveOrNull,
    Schedule,
    each,
)


@dataclass(frozen=True, config=STRICT)
class ProxyConfig:
    """A short student of generated images, whose accuracy on the validation part says which generator is kept."""

    every: AtLeast0 = 0
    """Steps from one choice to the next, and one after the last step; 0 keeps the generator of the last step."""
    arch: str = "convnet3-w16"
    """Architecture of the student."""
    steps: AtLeast1 = 300
    """Steps of the student, each on new images, at least 1."""
    batch_size: AtLeast2 = 100
    """Images per step, at least 2; classes take turns."""


@dataclass(frozen=True, config=STRICT)
class GanConfig:
    """The conditional generator, its discriminator, and their adversarial loss; both stages use it."""

    arch: Literal["dim", "residual"] = "dim"
    """dim: DiM's plain networks; residual: residual ones that know the class in every block."""
    size: Literal["small", "medium", "large"] = "small"
    """How wide the networks are where gan.width is null: twice and four times small's channels (dim: 64 and 196)."""
    width: Annotated[int | None, Field(ge=4, le=2**20)] = None
    """Channels of residual's largest maps or of all maps of dim (DiM: 196), at least 4; null goes by size and images:
    small is 16 for residual and images of at most 16 pixels, else 24 for grey and 32 for colour ones; 32 for dim."""
    noise_dim: Annotated[int, Field(ge=1, le=2**20)] = 100
    """Length of the normal noise vector, at least 1; the class is concatenated to it (DiM: 100)."""
    loss: Literal["wgan-gp", "hinge", "ns"] = "ns"
    """wgan-gp with the auxiliary class loss (DiM), or hinge or non-saturating with R1, both class-conditional."""
    aux_weight: NotNegative = 1.0
    """Weight of the auxiliary class loss of either network, at least 0 (DiM: 1)."""
    gradient_penalty: NotNegative = 10.0
    """Weight of the gradient penalty of wgan-gp, at least 0 (DiM: 10)."""
    r1: NotNegativeOrNull = None
    """Weight gamma of the R1 penalty gamma/2 |grad D|^2 of ns and hinge, at least 0; 0 switches it off; null is 0.2 for
    dim and 0 for residual, which has spectral norms."""
    r1_every: AtLeast1 = 16
    """Discriminator steps from one R1 penalty to the next, which is scaled by as much; at least 1."""
    beta1: Decay = 0.0
    """First decay of both Adam optimisers, in [0, 1) (DiM: 0)."""
    beta2: Decay = 0.99
    """Second decay of both Adam optimisers, in [0, 1) (DiM: 0.9)."""
    ema_decays: Annotated[tuple[float, ...], Field(min_length=1), each(0, 1)] = (0.99,)
    """Decays per step of the averaged generators, each in [0, 1); of several, the proxy chooses (gan.proxy)."""
    augment: str = "none"
    """DiffAugment of what the discriminator sees, such as color_crop_cutout; none switches it off."""
    proxy: ProxyConfig = field(default_factory=ProxyConfig)

    @model_validator(mode="after")
    def _averages_can_be_told_apart(self) -> "GanConfig":
        require(max(self.ema_decays) < 1, "gan.ema_decays", self.ema_decays, "numbers below 1")
        several = len(self.ema_decays) > 1
        require(
            not several or self.proxy.every > 0, "gan.ema_decays", self.ema_decays, "one decay without gan.proxy.every"
        )
        require(len({*self.ema_decays}) == len(self.ema_decays), "gan.ema_decays", self.ema_decays, "different decays")
        return self

    @property
    def r1_weight(self) -> float:
        """The weight gamma of the R1 penalty."""
        if self.r1 is not None:
            return self.r1
        return 0.2 if self.arch == "dim" else 0.0

    @property
    def penalties(self) -> float:
        """Gradient penalties per step of the discriminator."""
        return 1.0 if self.loss == "wgan-gp" else (self.r1_weight > 0) / self.r1_every


@dataclass(frozen=True, config=STRICT)
class PretrainConfig:
    """Pretraining of the GAN: the adversarial loss alone."""

    steps: AtLeast1 = 1500
    """Optimiser steps of each network, at least 1 (DiM: 58,500, that is 150 epochs of CIFAR-10)."""
    batch_size: AtLeast2 = 32
    """Images per step over all processes, at least 2 (DiM: 128)."""
    lr: Positive = 1e-3
    """First learning rate of both Adam optimisers, above 0 (DiM: 1e-4)."""
    lr_discriminator: PositiveOrNull = None
    """Discriminator learning rate, above 0; null uses pretrain.lr."""
    schedule: Schedule = "constant"
    """How the rate goes on: constant (DiM), linear or by half a cosine to 0 after the last step."""
    warmup: AtLeast0 = 0
    """Steps in which the rate rises to its first value, at least 0 and fewer than all."""

    @model_validator(mode="after")
    def _warmup_ends(self) -> "PretrainConfig":
        require(self.warmup < self.steps, "pretrain.warmup", self.warmup, f"fewer than pretrain.steps, {self.steps}")
        return self

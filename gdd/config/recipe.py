"""Settings of how students are trained."""

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from gdd.config.errors import require
from gdd.config.fields import STRICT, AtLeast1OrNull, NotNegativeOrNull, PositiveOrNull, ShareOrNull

DROPPING = ("robust",)  # named recipes that drop paths


@dataclass(frozen=True, config=STRICT)
class RecipeConfig:
    """The students' recipe: a named one, and what differs from it; null keeps the named recipe's own value."""

    name: Literal["dc", "dsa", "dim", "long", "robust"] = "dc"
    """dc: 300 epochs of batches of 256, rate / 10 at half (DC); dsa: 1000, one operation of DSA per batch; dim: 1000
    epochs of batches of 64, constant rate, colour and crop (DiM); long: 10,000 steps of 10 images, cosine; all begin
    at rate .01. robust: 4000 epochs of batches of 100, Lion, a cyclic rate, two operations of DSA per batch, DropPath
    (Zhong and Liu, arXiv 2309.04195)."""
    epochs: AtLeast1OrNull = None
    """Passes over the images, at least 1 (dc: 300; dsa, dim: 1000; robust: 4000)."""
    steps: AtLeast1OrNull = None
    """Optimiser steps instead of epochs, at least 1 (long: 10,000)."""
    batch_size: AtLeast1OrNull = None
    """Images per step, at least 1; a smaller set is one batch (dc, dsa: 256; dim: 64; long: 10; robust: 100)."""
    lr: PositiveOrNull = None
    """First learning rate, or the highest of a cyclic one, above 0 (robust: 5e-5; others: 0.01)."""
    optimizer: Literal["sgd", "adamw", "lion"] | None = None
    """sgd with momentum 0.9, adamw with betas .9 and .999, or lion with betas .95 and .98 (robust)."""
    schedule: Literal["constant", "step", "cosine", "cyclic"] | None = None
    """How the rate goes on: constant (dim), step, a tenth from half of the steps on (dc, dsa), cosine to 0 (long),
    cyclic (robust): warmed up anew at each eighth of the steps, to .8 of the peak before, and in the last quarter to a
    tenth of it."""
    weight_decay: NotNegativeOrNull = None
    """Weight decay of the optimiser, at least 0 (robust: 5e-3; others: 5e-4)."""
    augment: str | None = None
    """Operations of DSA joined by underscores, flip only where mirroring keeps the class, or none (dc, long: none; dsa,
    robust: all; dim: color_crop)."""
    pick: Literal["one", "two", "all"] | None = None
    """How many of the operations, drawn for each batch, are applied (dsa: one; robust: two; dim: all)."""
    label_temperature: PositiveOrNull = None
    """What the logits of a set's soft labels are divided by, above 0 (all: 1)."""
    average: Annotated[float | None, Field(ge=0, lt=1)] = None
    """Decay per step of an average of the student's weights that is scored instead of the last ones, in [0, 1); 0 is
    none (all: 0)."""
    drop_path: Literal["off", "phases"] | None = None
    """Whether residual blocks, and pairs of convolutions of alexnet and vgg11, are skipped at random in training, at
    rates in three phases (robust: phases; others: off); a convnet, lenet or mlp has no such paths (Zhong and Liu, arXiv
    2309.04195)."""
    keep_period: Annotated[float | None, Field(gt=0, le=1)] = None
    """Share of all steps in which all paths are kept at first, and after which the rate falls again, in (0, 1] (phases:
    1/8)."""
    keep_decrement: ShareOrNull = None
    """By how much the rate of paths that are kept falls, in [0, 1] (phases: .1; resnet50: .13)."""
    keep_minimum: ShareOrNull = None
    """What it falls to, in [0, 1] (phases: .5; resnet50: .35)."""
    keep_final: ShareOrNull = None
    """The rate in the last quarter of the steps, in [0, 1] (phases: .8)."""

    @model_validator(mode="after")
    def _rates_of_phases(self) -> "RecipeConfig":
        drops = self.drop_path == "phases" or (self.drop_path is None and self.name in DROPPING)
        for key in ("keep_period", "keep_decrement", "keep_minimum", "keep_final"):
            value = getattr(self, key)
            expected = "null without evaluate.recipe.drop_path phases"
            require(drops or value is None, f"evaluate.recipe.{key}", value, expected)
        return self

    @model_validator(mode="after")
    def _one_length(self) -> "RecipeConfig":
        one = self.epochs is None or self.steps is None
        require(one, "evaluate.recipe.steps", self.steps, "null with evaluate.recipe.epochs: either decides the length")
        return self

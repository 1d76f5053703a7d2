"""Settings of how students are trained."""

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from gdd.config.errors import require
from gdd.config.fields import STRICT, AtLeast1OrNull, NotNegativeOrNull, PositiveOrNull


@dataclass(frozen=True, config=STRICT)
class RecipeConfig:
    """The students' recipe: a named one, and what differs from it; null keeps the named recipe's own value."""

    name: Literal["dc", "dsa", "dim", "long"] = "dc"
    """dc: 300 epochs of batches of 256, rate / 10 at half (DC); dsa: 1000, one operation of DSA per batch; dim: 1000
    epochs of batches of 64, constant rate, colour and crop (DiM); long: 10,000 steps of 10 images, cosine. All begin
    at rate .01."""
    epochs: AtLeast1OrNull = None
    """Passes over the images, at least 1 (dc: 300; dsa, dim: 1000)."""
    steps: AtLeast1OrNull = None
    """Optimiser steps instead of epochs, at least 1 (long: 10,000)."""
    batch_size: AtLeast1OrNull = None
    """Images per step, at least 1; a smaller set is one batch (dc, dsa: 256; dim: 64; long: 10)."""
    lr: PositiveOrNull = None
    """First learning rate of SGD with momentum 0.9, above 0 (all: 0.01)."""
    schedule: Literal["constant", "step", "cosine"] | None = None
    """How the rate goes on: constant (dim), step, a tenth from half of the steps on (dc, dsa), cosine to 0 (long)."""
    weight_decay: NotNegativeOrNull = None
    """Weight decay of SGD, at least 0 (all: 5e-4)."""
    augment: str | None = None
    """Operations of DSA joined by underscores, flip only where mirroring keeps the class, or none (dc, long: none; dsa:
    all; dim: color_crop)."""
    pick: Literal["one", "all"] | None = None
    """Whether one of the operations, drawn for each batch, is applied or all of them are (dsa: one; dim: all)."""
    average: Annotated[float | None, Field(ge=0, lt=1)] = None
    """Decay per step of an average of the student's weights that is scored instead of the last ones, in [0, 1); 0 is
    none (all: 0)."""

    @model_validator(mode="after")
    def _one_length(self) -> "RecipeConfig":
        one = self.epochs is None or self.steps is None
        require(one, "evaluate.recipe.steps", self.steps, "null with evaluate.recipe.epochs: either decides the length")
        return self

"""Settings of scoring: students and their recipes, and the classifiers that judge samples."""

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from gdd.config.errors import require
from gdd.config.fields import (
    STRICT,
    AtLeast1,
    AtLeast1OrNull,
    AtLeast2,
    NotNegative,
    NotNegativeOrNull,
    Positive,
    PositiveOrNull,
    Share,
    ShareOrNull,
    each,
    without_effect,
)

DROPPING = ("robust",)  # named recipes that drop paths


@dataclass(frozen=True, config=STRICT)
class RecipeConfig:
    """The students' recipe: a named one, and what differs from it; null keeps the named recipe's own value."""

    name: Literal["dc", "dsa", "dim", "long", "converged", "robust"] = "dc"
    """dc: 300 epochs of batches of 256, rate / 10 at half (DC); dsa: 1000, one operation of DSA per batch; dim: 1000
    epochs of batches of 64, constant rate, colour and crop (DiM); long: 10,000 steps of 10 images, cosine; these begin
    at rate .01. converged: 10,000 steps of 100 images, rate .1 and cosine, crops and mirrors. robust: 4000 epochs of
    batches of 100, Lion, a cyclic rate, two operations of DSA per batch, DropPath (Zhong and Liu, arXiv
    2309.04195)."""
    epochs: AtLeast1OrNull = None
    """Passes over the images, at least 1 (dc: 300; dsa, dim: 1000; robust: 4000)."""
    steps: AtLeast1OrNull = None
    """Optimiser steps instead of epochs, at least 1 (long, converged: 10,000)."""
    batch_size: AtLeast1OrNull = None
    """Images per step, at least 1; a smaller set is one batch (dc, dsa: 256; dim: 64; long: 10; converged, robust:
    100)."""
    lr: PositiveOrNull = None
    """First learning rate, or the highest of a cyclic one, above 0 (robust: 5e-5; converged: 0.1; others: 0.01)."""
    optimizer: Literal["sgd", "adamw", "lion"] | None = None
    """sgd with momentum 0.9, adamw with betas .9 and .999, or lion with betas .95 and .98 (robust)."""
    schedule: Literal["constant", "step", "cosine", "cyclic"] | None = None
    """How the rate goes on: constant (dim), step, a tenth from half of the steps on (dc, dsa), cosine to 0 (long,
    converged),
    cyclic (robust): warmed up anew at each eighth of the steps, to .8 of the peak before, and in the last quarter to a
    tenth of it."""
    weight_decay: NotNegativeOrNull = None
    """Weight decay of the optimiser, at least 0 (robust: 5e-3; others: 5e-4)."""
    augment: str | None = None
    """Operations of DSA joined by underscores, flip only where mirroring keeps the class; dc, which is that of DC for
    MNIST, a crop, a scale or a rotation of its own for each image; or none (dc, long: none; dsa, robust: all; dim:
    color_crop; converged: flip_crop)."""
    pick: Literal["one", "two", "all"] | None = None
    """How many of the operations, drawn for each batch, are applied (dsa: one; robust: two; dim,
    converged: all)."""
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
        has_one_length = self.epochs is None or self.steps is None
        require(
            has_one_length,
            "evaluate.recipe.steps",
            self.steps,
            "null with evaluate.recipe.epochs: either decides the length",
        )
        return self


@dataclass(frozen=True, config=STRICT)
class EnsembleConfig:
    """Classifiers trained on real images, which filter, choose and label samples."""

    archs: Annotated[tuple[str, ...], Field(min_length=1, max_length=64)] = ("convnet3-w32", "resnet10-bn-w16")
    """Their architectures; one that is named twice has two members of different seeds."""
    steps: AtLeast1 = 2000
    """Training steps of each, at least 1."""
    batch_size: AtLeast2 = 64
    """Real images per step, at least 2."""
    lr: Positive = 0.02
    """First learning rate of SGD, above 0; half a cosine takes it to 0."""
    augment: str = "crop"
    """Augmentation of each image by itself, such as color_crop; none switches it off."""
    teaches: bool = without_effect(False)
    """Whether gdd distill trains them after the generator and keeps them beside it, as teacher.safetensors: students
    learn more from their answers than from labels alone."""


@dataclass(frozen=True, config=STRICT)
class EvaluateConfig:
    """Scoring: which sets, which students, how they are trained."""

    sources: tuple[str, ...] = ()
    """Stored sets, run folders, zoo:NAME, hub:USER/NAME, hub:datasets/USER/NAME, real:random, real:fraction=SHARE,
    real:all, real:stream, or real:herded and real:crops, which the ensemble of evaluate.teacher chooses; empty means
    what this run distilled. Random real images, all of them (evaluate.ceiling) and, beside streams, fresh ones
    (real:stream) are added."""
    ipc: Annotated[tuple[int, ...], Field(min_length=1), each(1)] = (10,)
    """Images per class of sets drawn from generators and from real data, each at least 1."""
    protocols: Annotated[tuple[Literal["fixed", "stream"], ...], Field(min_length=1)] = ("fixed", "stream")
    """fixed reuses exactly IPC stored images per class; stream draws new ones at every step."""
    archs: Annotated[tuple[str, ...], Field(min_length=1)] = ("convnet3-w24", "resnet18-bn-w8", "alexnet-bn-w8", "mlp")
    """Student architectures."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1), each(0)] = (0, 1, 2)
    """One student per seed; a seed also draws its own set from a generator or from real data."""
    ceiling: bool = True
    """Whether students of all real images are trained beside others, which may take most of the time; the floor, random
    real images, and the ceiling of streams cost no more than what is scored and always stay."""
    all_epochs: AtLeast1OrNull = 20
    """Epochs on the whole real training part, at least 1; null uses the recipe's, which may take days."""
    teacher: str = "none"
    """Whose outputs the students also imitate: none; a network trained on the same set (set), or on all real images
    (real); or an ensemble by its path, or that beside a generator by the generator's (also zoo:NAME, hub:USER/NAME)."""
    teacher_arch: str = "convnet3-w32"
    """Architecture of a teacher that is trained for it, on the set or on all real images."""
    alpha: Share = 0.5
    """Share of the distillation term in the student's loss, in [0, 1]."""
    temperature: NotNegative = 1.5
    """Temperature T of the distillation term, above 0 (kd_recipe released: at least 0)."""
    kd_recipe: Literal["equation", "released"] = "equation"
    """equation: alpha T^2 KL of softened outputs + (1 - alpha) CE (Zhou et al. 2024, eq. 1); released: what their
    code computed, alpha T^3 KL without softening + (1 - alpha) CE."""
    select_alpha: Annotated[tuple[float, ...], each(0, 1)] = ()
    """Values of alpha among which each student's validation accuracy chooses, in [0, 1]; empty keeps alpha."""
    select_temperature: Annotated[tuple[float, ...], each(0)] = ()
    """Values of temperature among which each student's validation accuracy chooses; empty keeps temperature."""
    recipe: RecipeConfig = field(default_factory=RecipeConfig)

    @model_validator(mode="after")
    def _belong_together(self) -> "EvaluateConfig":
        for name, values in (("temperature", (self.temperature,)), ("select_temperature", self.select_temperature)):
            valid = self.kd_recipe == "released" or all(value > 0 for value in values)
            require(valid, f"evaluate.{name}", getattr(self, name), "numbers above 0 (or 0 with kd_recipe released)")
        for name in ("select_alpha", "select_temperature"):
            values = getattr(self, name)
            require(self.teacher != "none" or not values, f"evaluate.{name}", values, "empty without evaluate.teacher")
        return self

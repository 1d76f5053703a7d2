"""Settings of scoring."""

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from gdd.config.errors import require
from gdd.config.fields import STRICT, AtLeast1OrNull, NotNegative, Share, each
from gdd.config.recipe import RecipeConfig


@dataclass(frozen=True, config=STRICT)
class EvaluateConfig:
    """Scoring: which sets, which students, how they are trained."""

    sources: tuple[str, ...] = ()
    """Stored sets, run folders, zoo:NAME, real:random, real:fraction=SHARE, real:all, real:stream; empty means what
    this run distilled. Random real images, all of them (evaluate.ceiling) and, beside streams, fresh ones (real:stream)
    are added."""
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
    teacher: Literal["none", "set", "real"] = "none"
    """Network whose outputs the students also imitate: trained on the same set, or on all real images."""
    teacher_arch: str = "convnet3-w32"
    """Architecture of the teacher."""
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

"""How students are trained and compared: recipes, jobs, and the conditions that all of them share."""

import itertools
import math
from dataclasses import dataclass, replace
from typing import Any, Literal

from gdd.config import ConfigError, EvaluateConfig, stable_hash
from gdd.data.spec import DatasetSpec
from gdd.data.strategy import dsa
from gdd.evaluation.sources import CEILING, Kind, Protocol, Source
from gdd.runtime.execution import Precision


@dataclass(frozen=True)
class Recipe:
    """How a student is trained, whatever the set."""

    name: str  # dc or dim
    lr: float  # first learning rate of SGD with momentum 0.9 and weight decay 5e-4
    epochs: int  # passes over all images, at least 1
    batch_size: int  # images per step; a smaller set is one batch, and an epoch's last batch may be smaller
    augment: str = "none"  # DSA operations joined by underscores, or none
    pick: Literal["one", "all"] = "one"  # one operation for each batch, or all of them
    shared: bool = False  # whether the images of a batch share their augmentation's parameters
    drop_at: float = 1.0  # share of the steps after which the rate is a tenth; 1 keeps it

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise ConfigError(
                f"recipe {self.name} has {self.epochs} epochs of batches of {self.batch_size}, expected at "
                "least 1 of either: an untrained student has no score"
            )

    def lr_at(self, step: int, total: int) -> float:
        """Return the learning rate of step `step` of `total`."""
        return self.lr * (0.1 if step >= self.drop_at * total else 1.0)

    def steps_per_epoch(self, count: int) -> int:
        """Return the batches that hold each of `count` images once."""
        return math.ceil(count / self.batch_size)


def published(name: Literal["dc", "dim"], augmentation: Literal["none", "dsa"], flip: bool) -> Recipe:
    """Return DatasetCondensation's or DiM's recipe; DSA mirrors only if `flip` allows it."""
    if name == "dim":
        return Recipe("dim", lr=0.01, epochs=1000, batch_size=128, augment="color_crop", pick="all")
    if augmentation == "none":
        return Recipe("dc", lr=0.01, epochs=300, batch_size=256, drop_at=0.5)
    return Recipe("dc", lr=0.01, epochs=1000, batch_size=256, augment="_".join(dsa(flip)), drop_at=0.5)


@dataclass(frozen=True)
class Job:
    """One student: what it is trained on, its architecture, its seed."""

    source: Source
    ipc: int | None
    protocol: Protocol
    arch: str
    seed: int

    def key(self, conditions: "Conditions") -> tuple[Any, ...]:
        """Return what makes two rows the same measurement."""
        kind, epochs = self.source.kind, conditions.recipe_for(self.source.kind).epochs
        student = self.ipc, self.protocol, self.arch, self.seed
        return kind, self.source.hash, *student, epochs, conditions.hash, conditions.precision


@dataclass(frozen=True)
class Conditions:
    """What holds for all students of one evaluation; rows compare if their hash is equal."""

    recipe: Recipe  # of every student but the ceiling's
    all_epochs: int  # the ceiling's epochs, and those of a teacher on all real images
    teacher: Literal["none", "set", "real"] = "none"  # what it is trained on
    teacher_arch: str = ""  # its architecture
    # how its outputs are imitated: by equation 1, or as the released code did
    kd_recipe: Literal["equation", "released"] = "equation"
    candidates: tuple[tuple[float, float], ...] = ()  # pairs of alpha and temperature; more than one only if `selects`
    selects: bool = False  # whether validation data choose a pair for each student
    precision: Precision = "float32"  # of all networks

    @classmethod
    def of(cls, settings: EvaluateConfig, spec: DatasetSpec, recipe: Recipe | None = None) -> "Conditions":
        """Return the conditions that a config describes; `recipe` replaces the one it names."""
        recipe = recipe or published(settings.recipe, settings.augment, spec.flip)
        all_epochs = settings.all_epochs or recipe.epochs
        if settings.teacher == "none":
            # Without a teacher its settings decide nothing, so they must not tell rows apart.
            return cls(recipe, all_epochs)
        alphas = settings.select_alpha or (settings.alpha,)
        temperatures = settings.select_temperature or (settings.temperature,)
        pairs = tuple(dict.fromkeys(itertools.product(alphas, temperatures)))
        selects = bool(settings.select_alpha or settings.select_temperature)
        return cls(recipe, all_epochs, settings.teacher, settings.teacher_arch, settings.kd_recipe, pairs, selects)

    @property
    def hash(self) -> str:
        """The same for all rows of one table, whatever their precision and its ceiling's epochs, which rows state."""
        epochs = self.all_epochs if self.teacher == "real" else 0
        return stable_hash(replace(self, all_epochs=epochs, precision="float32"))

    def recipe_for(self, kind: Kind) -> Recipe:
        return replace(self.recipe, epochs=self.all_epochs) if kind == CEILING else self.recipe

    def label_kind(self, protocol: Protocol, labels: Literal["hard", "stored soft"]) -> str:
        """Say what students learn from; the same for all seeds, so a choice is told by its candidates."""
        if self.teacher == "none":
            return labels
        data = "all real images" if self.teacher == "real" else f"the same {protocol} set"
        if self.teacher == "set" and protocol == "stream":
            data = "the same stream"
        alpha, temperature = (
            " or ".join(dict.fromkeys(f"{value:g}" for value in values))
            for values in zip(*self.candidates, strict=True)
        )
        chosen = ", chosen on validation data" if self.selects else ""
        return (
            f"{labels} + online teacher {self.teacher_arch} on {data} "
            f"({self.kd_recipe}, alpha {alpha}, temperature {temperature}{chosen})"
        )

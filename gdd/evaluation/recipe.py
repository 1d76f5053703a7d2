"""How students are trained and compared: recipes, jobs, and the conditions that all of them share."""

import itertools
import math
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from gdd.config import ConfigError, EvaluateConfig, RecipeConfig, stable_hash, to_plain
from gdd.data.spec import OPERATIONS, DatasetSpec, parse_strategy
from gdd.evaluation.named import NO_TEACHER, teacher_path
from gdd.evaluation.sources import CEILING, Kind, Protocol, Source
from gdd.runtime.execution import Precision
from gdd.sampling import ensemble_file
from gdd.sampling.set_file import check_matches
from gdd.training import schedule
from gdd.training.schedule import KeepRate

_JOINED = " + "  # stands between the architectures of a teacher's members
# Zhong and Liu (train.py): a network of 50 layers keeps fewer of its paths than others do.
_KEEP_RATES = {"resnet50": KeepRate(decrement=0.13, minimum=0.35)}


@dataclass(frozen=True)
class Recipe:
    """How a student is trained, whatever the set; either its epochs or its steps are counted."""

    name: str  # of the recipe that it is, and what differs from that
    lr: float  # first, or highest, learning rate
    batch_size: int  # images per step; a smaller set is one batch, and an epoch's last batch may be smaller
    epochs: int | None = None  # passes over all images, at least 1
    steps: int | None = None  # optimiser steps, at least 1
    # sgd with momentum .9, adamw with betas .9 and .999, lion with betas .95 and .98
    optimizer: Literal["sgd", "adamw", "lion"] = "sgd"
    schedule: Literal["constant", "step", "cosine", "cyclic"] = "constant"  # how the rate goes on
    weight_decay: float = 5e-4  # of the optimiser
    augment: str = "none"  # DSA operations joined by underscores, or none; each image draws its own parameters
    pick: Literal["one", "two", "all"] = "one"  # so many operations for each batch
    label_temperature: float = 1.0  # that soft labels' logits are divided by, above 0
    average: float = 0.0  # decay per step of the average of the weights that is scored; 0 scores the last ones
    drop_path: Literal["off", "phases"] = "off"  # whether students drop paths, at rates in three phases
    # of `KeepRate`; none takes its architecture's
    keep_period: float | None = None
    keep_decrement: float | None = None
    keep_minimum: float | None = None
    keep_final: float | None = None

    def __post_init__(self) -> None:
        lengths = [length for length in (self.epochs, self.steps) if length is not None]
        if len(lengths) != 1 or lengths[0] < 1 or self.batch_size < 1:
            raise ConfigError(
                f"recipe {self.name} has {self.epochs} epochs or {self.steps} steps of batches of {self.batch_size}, "
                "expected at least 1 of one of them: an untrained student has no score"
            )

    def lr_at(self, step: int, total: int) -> float:
        """Return the learning rate of step `step` of `total`."""
        return self.lr * schedule.lr_factor(self.schedule, step, total)

    def keep_rate(self, arch: str) -> KeepRate | None:
        """Return the rates at which students of an architecture keep paths; none if they keep all."""
        if self.drop_path == "off":
            return None
        stated = {field.name: getattr(self, f"keep_{field.name}") for field in fields(KeepRate)}
        published = _KEEP_RATES.get(arch.partition("-")[0], KeepRate())
        return replace(published, **{name: value for name, value in stated.items() if value is not None})

    def steps_per_epoch(self, count: int) -> int:
        """Return the batches that hold each of `count` images once."""
        return math.ceil(count / self.batch_size)

    def total_steps(self, count: int) -> int:
        """Return the optimiser steps on `count` images."""
        return self.steps or (self.epochs or 0) * self.steps_per_epoch(count)

    def epochs_begun(self, count: int) -> int:
        """Return the passes over `count` images, of which the last may be left unfinished where steps are counted."""
        return math.ceil(self.total_steps(count) / self.steps_per_epoch(count))

    def images_seen(self, count: int) -> int:
        """Return the images of all steps together, those of a set of `count` once for each time that they come."""
        epochs, rest = divmod(self.total_steps(count), self.steps_per_epoch(count))
        return epochs * count + rest * self.batch_size


NAMED = {
    # DatasetCondensation (utils.py, evaluate_synset): it also starts a new optimiser at half, so without momentum.
    "dc": Recipe("dc", lr=0.01, batch_size=256, epochs=300, schedule="step"),
    "dsa": Recipe("dsa", lr=0.01, batch_size=256, epochs=1000, schedule="step", augment="_".join(OPERATIONS)),
    # DiM (gen_condense.py, pool_match.py): 10 IPC // 64 + 1 steps of 64 new images in an epoch. Here an epoch is 10 IPC
    # images, its last batch the rest: as many steps, but for one less where 64 divides 10 IPC. Classes are balanced,
    # theirs random; they report the best of five tests, in which batch norm used the test batch's statistics.
    "dim": Recipe("dim", lr=0.01, batch_size=64, epochs=1000, augment="color_crop", pick="all"),
    "long": Recipe("long", lr=0.01, batch_size=10, steps=10_000, schedule="cosine"),
    # Trained to the end; benchmarks/converged.py tells after how many steps that is so for data and student.
    "converged": Recipe(
        "converged", lr=0.1, batch_size=100, steps=10_000, schedule="cosine", augment="flip_crop", pick="all"
    ),
    # Zhong and Liu (arXiv 2309.04195; README.md, train.py). Their pooled shortcuts are an architecture's, and their
    # teacher, at alpha .5 and temperature 1.5, is of `evaluate.teacher`.
    "robust": Recipe(
        "robust",
        lr=5e-5,
        batch_size=100,
        epochs=4000,
        optimizer="lion",
        schedule="cyclic",
        weight_decay=5e-3,
        augment="_".join(OPERATIONS),
        pick="two",
        drop_path="phases",
    ),
}


def resolve_recipe(settings: RecipeConfig, flip: bool) -> Recipe:
    """Return the recipe that the settings name, with what they change, which its name tells.

    Args:
        settings: those of `evaluate.recipe`.
        flip: whether mirroring keeps the class; if not, no image is mirrored.
    """
    named = NAMED[settings.name]
    given = {key: value for key, value in to_plain(settings).items() if key != "name" and value is not None}
    changed = {key: value for key, value in given.items() if value != getattr(named, key)}
    length = {"epochs": None, "steps": None} if {"epochs", "steps"} & {*changed} else {}
    name = ", ".join([named.name, *(f"{key} {value}" for key, value in changed.items())])
    recipe = replace(named, **{**length, **changed, "name": name})
    return replace(recipe, augment="_".join(parse_strategy(recipe.augment, flip)) or "none")


@dataclass(frozen=True)
class Job:
    """One student: what it is trained on, its architecture, its seed."""

    source: Source
    ipc: int | None
    protocol: Protocol
    arch: str
    seed: int

    def images(self, spec: DatasetSpec, all_images: int) -> int:
        """Return how many images it is trained on, or in an epoch of a stream; all real ones are `all_images`."""
        return all_images if self.ipc is None else self.ipc * spec.num_classes

    def key(self, conditions: "Conditions", images: int) -> tuple[Any, ...]:
        """Return what makes two rows the same measurement; its set, or an epoch of its stream, has so many images."""
        kind, epochs = self.source.kind, conditions.recipe_for(self.source.kind).epochs_begun(images)
        student = self.ipc, self.protocol, self.arch, self.seed
        return kind, self.source.hash, *student, epochs, conditions.hash, conditions.precision


class TeacherFile(NamedTuple):
    """An ensemble that teaches all students."""

    path: Path
    hash: str  # of its weights
    bytes: int  # of its file


@dataclass(frozen=True)
class Conditions:
    """What holds for all students of one evaluation; rows compare if their hash is equal."""

    recipe: Recipe  # of every student but the ceiling's
    all_epochs: int | None  # the ceiling's epochs, and those of a teacher on all real images; none: the recipe's length
    teacher: str = NO_TEACHER  # or what it is trained on, set or real; or file, which is trained
    teacher_arch: str = ""  # its architecture; those of a file's members, joined
    teacher_file: TeacherFile | None = None  # one that is there
    # how its outputs are imitated: by equation 1, or as the released code did
    kd_recipe: Literal["equation", "released"] = "equation"
    candidates: tuple[tuple[float, float], ...] = ()  # pairs of alpha and temperature; more than one only if `selects`
    selects: bool = False  # whether validation data choose a pair for each student
    precision: Precision = "float32"  # of all networks

    @classmethod
    def of(cls, settings: EvaluateConfig, spec: DatasetSpec, recipe: Recipe | None = None) -> "Conditions":
        """Return the conditions that a config describes; `recipe` replaces the one it names."""
        recipe = recipe or resolve_recipe(settings.recipe, spec.flip)
        all_epochs = settings.all_epochs or recipe.epochs
        if settings.teacher == NO_TEACHER:
            # Without a teacher its settings decide nothing, so they must not tell rows apart.
            return cls(recipe, all_epochs)
        teacher, arch, file = settings.teacher, settings.teacher_arch, None
        if (path := teacher_path(settings.teacher)) is not None:
            ensemble = ensemble_file.load(path)
            check_matches(ensemble.spec, spec, f"the teacher {path}")
            if (ensemble.spec.mean, ensemble.spec.std) != (spec.mean, spec.std):  # it sees what students see
                raise ConfigError(
                    f"the teacher {path} has learned images with mean {ensemble.spec.mean} and std "
                    f"{ensemble.spec.std}, expected those of {spec.name}, {spec.mean} and {spec.std}"
                )
            teacher, arch = "file", _JOINED.join(ensemble.archs)
            file = TeacherFile(path, ensemble.hash, ensemble.bytes)
        alphas = settings.select_alpha or (settings.alpha,)
        temperatures = settings.select_temperature or (settings.temperature,)
        pairs = tuple(dict.fromkeys(itertools.product(alphas, temperatures)))
        selects = bool(settings.select_alpha or settings.select_temperature)
        return cls(recipe, all_epochs, teacher, arch, file, settings.kd_recipe, pairs, selects)

    @property
    def hash(self) -> str:
        """The same for all rows of one table, whatever their precision and its ceiling's epochs, which rows state."""
        epochs = self.all_epochs if self.teacher == "real" else 0
        facts = to_plain(replace(self, all_epochs=epochs, precision="float32", teacher_file=None))
        del facts["teacher_file"]
        return stable_hash(facts | ({} if self.teacher_file is None else {"teacher_hash": self.teacher_file.hash}))

    @property
    def teacher_archs(self) -> tuple[str, ...]:
        """The architectures of the teacher's members; none without one."""
        return tuple(self.teacher_arch.split(_JOINED)) if self.teacher != NO_TEACHER else ()

    @property
    def asks_teacher(self) -> bool:
        """Whether a teacher has any weight in the students' loss."""
        return any(alpha * temperature > 0 for alpha, temperature in self.candidates)

    def recipe_for(self, kind: Kind) -> Recipe:
        if kind != CEILING or self.all_epochs is None:
            return self.recipe
        return replace(self.recipe, epochs=self.all_epochs, steps=None)

    def label_kind(self, protocol: Protocol, labels: Literal["hard", "stored soft"]) -> str:
        """Say what students learn from. List the candidates of a choice, since the choice varies by seed."""
        if self.teacher == NO_TEACHER:
            return labels
        data = "all real images"
        if self.teacher == "set":
            data = "the same stream" if protocol == "stream" else f"the same {protocol} set"
        alpha, temperature = (
            " or ".join(dict.fromkeys(f"{value:g}" for value in values))
            for values in zip(*self.candidates, strict=True)
        )
        chosen = ", chosen on validation data" if self.selects else ""
        return (
            f"{labels} + {'kept' if self.teacher_file else 'online'} teacher {self.teacher_arch} on {data} "
            f"({self.kd_recipe}, alpha {alpha}, temperature {temperature}{chosen})"
        )

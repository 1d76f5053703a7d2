"""What is compared and how: recipes, sources, jobs, and the row that one trained student yields."""

import math
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from gdd import checkpoint
from gdd.config import ConfigError, EvaluateConfig, config_hash
from gdd.data import augment
from gdd.data.readers import Dataset
from gdd.data.spec import DatasetSpec
from gdd.synth import artifact, store
from gdd.synth.artifact import Artifact
from gdd.synth.store import SyntheticSet

Protocol = Literal["fixed", "stream"]
Kind = Literal["real:random", "real:all", "set", "generator"]
FLOOR: Literal["real:random"] = "real:random"
CEILING: Literal["real:all"] = "real:all"
FULL_DSA = "color_crop_cutout_flip_scale_rotate"


@dataclass(frozen=True)
class Recipe:
    """How a student is trained, whatever the set.

    Args:
        name: dc or dim.
        lr: first learning rate of SGD with momentum 0.9 and weight decay 5e-4.
        epochs: passes over all images, at least 1.
        batch_size: images per step; a smaller set is one batch, and an epoch's last batch may be smaller.
        augment: DSA operations joined by underscores, or none.
        pick: one operation for each batch, or all of them.
        shared: whether the images of a batch share their augmentation's parameters.
        drop_at: share of the steps after which the rate is a tenth; 1 keeps it.
    """

    name: str
    lr: float
    epochs: int
    batch_size: int
    augment: str = "none"
    pick: Literal["one", "all"] = "one"
    shared: bool = False
    drop_at: float = 1.0

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


def recipe(name: Literal["dc", "dim"], augmentation: Literal["none", "dsa"], flip: bool) -> Recipe:
    """Return DatasetCondensation's or DiM's way of training a student; mirrors only where `flip` holds."""
    if name == "dim":
        return Recipe("dim", lr=0.01, epochs=1000, batch_size=128, augment="color_crop", pick="all")
    if augmentation == "none":
        return Recipe("dc", lr=0.01, epochs=300, batch_size=256, drop_at=0.5)
    operations = "_".join(augment.parse_strategy(FULL_DSA, flip))
    return Recipe("dc", lr=0.01, epochs=1000, batch_size=256, augment=operations, drop_at=0.5)


@dataclass(frozen=True, eq=False)
class Source:
    """Where training images come from.

    Args:
        label: how tables call it.
        kind: real:random, real:all, set or generator.
        hash: of the generator, of the stored set, or of the real data.
        synthetic: of a stored set.
        artifact: of a generator.
    """

    label: str
    kind: Kind
    hash: str
    synthetic: SyntheticSet | None = None
    artifact: Artifact | None = None

    @cached_property
    def provenance(self) -> dict[str, Any]:
        if self.synthetic is not None:
            return self.synthetic.provenance
        return self.artifact.provenance if self.artifact is not None else {"method": "real", "stage": None}

    def ipcs(self, wanted: tuple[int, ...]) -> tuple[int | None, ...]:
        """Return the images per class to score it at; all real images have no such number."""
        if self.kind == CEILING:
            return (None,)
        return (self.synthetic.ipc,) if self.synthetic is not None else wanted

    def protocols(self, wanted: tuple[Protocol, ...]) -> tuple[Protocol, ...]:
        """Return how it can be scored: only a generator streams."""
        return wanted if self.kind == "generator" else ("fixed",)


def open_source(label: str, text: str, dataset: Dataset) -> Source:
    """Open `real:random`, `real:all`, a stored set, or a generator's file or run folder.

    Raises:
        ConfigError: there is nothing such, or it does not fit the dataset.
    """
    if text == FLOOR:
        return Source(label, FLOOR, dataset.fingerprint)
    if text == CEILING:
        return Source(label, CEILING, dataset.fingerprint)
    if text.startswith("real:"):
        raise ConfigError(f"evaluate.sources names {text}, expected {FLOOR}, {CEILING}, a set or a run folder")
    path = Path(text)
    if not path.exists():
        raise ConfigError(f"evaluate.sources names {text}, which does not exist; {FLOOR} and {CEILING} are built in")
    if path.is_dir() or checkpoint.load_tensors(path)[1].get("kind") == "generator":
        generator = artifact.load(path)
        store.check_matches(generator.spec, dataset.spec, text)
        return Source(label, "generator", generator.hash, artifact=generator)
    synthetic = store.load(path)
    store.check_matches(synthetic.spec, dataset.spec, text)
    _require_balanced(synthetic, text)
    return Source(label, "set", synthetic.hash, synthetic=synthetic)


def _require_balanced(synthetic: SyntheticSet, text: str) -> None:
    counts = synthetic.labels.bincount(minlength=synthetic.spec.num_classes).tolist()
    for name, count in zip(synthetic.spec.class_names, counts, strict=True):
        if count != synthetic.ipc:
            raise ConfigError(f"{text} says {synthetic.ipc} images per class but holds {count} of class {name!r}")


def open_sources(
    named: list[tuple[str, str]], ipc: tuple[int, ...], dataset: Dataset
) -> tuple[list[Source], tuple[int, ...]]:
    """Open everything before anything is trained; floor first, ceiling last, both there whether named or not.

    Returns:
        The sources, and the IPC that need a floor: those of `ipc` and those of stored sets.

    Raises:
        ConfigError: a source is missing, unfit or given twice, or a class is too small for the floor.
    """
    given = list(dict.fromkeys(named))
    texts = [text for _, text in given]
    given = [(text, text) for text in (FLOOR, CEILING) if text not in texts] + given
    sources = [open_source(label, text, dataset) for label, text in given]
    for index, source in enumerate(sources):
        for other in sources[:index]:
            if other.label == source.label:
                raise ConfigError(f"two sources are called {source.label!r}, expected different names")
            if (other.kind, other.hash) == (source.kind, source.hash):
                raise ConfigError(f"sources {other.label!r} and {source.label!r} are the same {source.kind}")
    place = {FLOOR: 0, CEILING: 2}
    sources.sort(key=lambda source: place.get(source.kind, 1))
    needed = tuple(sorted({*ipc, *(source.synthetic.ipc for source in sources if source.synthetic is not None)}))
    counts = dataset.train.labels.bincount(minlength=dataset.spec.num_classes)
    if needed[-1] > int(counts.min()):
        name = dataset.spec.class_names[int(counts.argmin())]
        raise ConfigError(
            f"{needed[-1]} images per class are asked for, but class {name!r} of {dataset.spec.name} has "
            f"{int(counts.min())} training images for {FLOOR}"
        )
    return sources, needed


@dataclass(frozen=True)
class Job:
    """One student: what it is trained on, its architecture, its seed."""

    source: Source
    ipc: int | None
    protocol: Protocol
    arch: str
    seed: int

    def key(self, recipe_hash: str) -> tuple[Any, ...]:
        """Return what makes two rows the same measurement."""
        return self.source.kind, self.source.hash, self.ipc, self.protocol, self.arch, self.seed, recipe_hash


@dataclass(frozen=True)
class Conditions:
    """What holds for all students of one evaluation; its hash tells comparable rows."""

    recipe: Recipe
    all_epochs: int
    teacher: Literal["none", "set", "real"]
    teacher_arch: str
    alpha: float
    temperature: float

    @classmethod
    def of(cls, settings: EvaluateConfig, spec: DatasetSpec, chosen: Recipe | None = None) -> "Conditions":
        """Read the config; `chosen` replaces the recipe it names."""
        chosen = chosen or recipe(settings.recipe, settings.augment, spec.flip)
        teaching = (settings.teacher, settings.teacher_arch, settings.alpha, settings.temperature)
        # Without a teacher its settings decide nothing, so they must not tell rows apart.
        teacher, arch, alpha, temperature = teaching if settings.teacher != "none" else ("none", "", 0.0, 1.0)
        return cls(chosen, settings.all_epochs or chosen.epochs, teacher, arch, alpha, temperature)

    @property
    def hash(self) -> str:
        return config_hash(self)

    def recipe_for(self, kind: Kind) -> Recipe:
        return replace(self.recipe, epochs=self.all_epochs) if kind == CEILING else self.recipe

    def label_kind(self, protocol: Protocol) -> str:
        if self.teacher == "none":
            return "hard"
        taught = "all real images" if self.teacher == "real" else f"the same {protocol} set"
        if self.teacher == "set" and protocol == "stream":
            taught = "the same stream"
        return (
            f"hard + online teacher {self.teacher_arch} on {taught} "
            f"(alpha {self.alpha:g}, temperature {self.temperature:g})"
        )


@dataclass(frozen=True)
class Row:
    """One student's score and everything needed to judge and repeat it.

    Args:
        source: the table's name of what it was trained on.
        kind: real:random (the floor), real:all (the ceiling), set or generator.
        method: how the set was distilled; none if its maker did not say.
        stage: stage of a generator's distillation.
        arch: canonical name of the student.
        seed: of the student, and of a set drawn for it.
        ipc: images per class; none for all real images.
        protocol: fixed: the same stored images every epoch; stream: new samples every epoch.
        accuracy: percent of the test images, after the last step.
        correct: test images classified correctly.
        total: test images, all of them.
        recipe: name of the recipe.
        augment: operations on the student's training images.
        label_kind: hard, or hard + online teacher and what that was trained on.
        epochs: passes over the images.
        images: images of the set; of one epoch if streamed.
        distinct_images_seen: samples over the whole training, augmentation not counted.
        bytes: of images and labels; of the generator's file if streamed.
        optimizer_steps: of the student.
        images_per_step: of the largest batch.
        train_loss: of the last step.
        seconds: wall clock of the student's training, generation included, its teacher's not.
        seconds_generating: share of it that streaming took; drawing a fixed set is in it once per student.
        seconds_teacher: training of the teacher, shared by all students that it teaches; 0 without.
        peak_memory_mb: GPU: allocated while training; CPU: the whole process so far (MiB).
        device: its name.
        generator_seconds: what distilling took, if known.
        set_hash: of the images really used if fixed; none if streamed.
        source_hash: of the generator, the stored set, or the real data.
        recipe_hash: rows of another one do not compare.
        config_hash: of the whole evaluation.
        git_revision: of this package's checkout, if it is one.
        versions: of libraries.
        dataset: its name.
    """

    source: str
    kind: Kind
    method: str | None
    stage: str | None
    arch: str
    seed: int
    ipc: int | None
    protocol: Protocol
    accuracy: float
    correct: int
    total: int
    recipe: str
    augment: str
    label_kind: str
    epochs: int
    images: int
    distinct_images_seen: int
    bytes: int
    optimizer_steps: int
    images_per_step: int
    train_loss: float
    seconds: float
    seconds_generating: float
    seconds_teacher: float
    peak_memory_mb: float
    device: str
    generator_seconds: float | None
    set_hash: str | None
    source_hash: str
    recipe_hash: str
    config_hash: str
    git_revision: str | None
    versions: dict[str, str]
    dataset: str

    @property
    def key(self) -> tuple[Any, ...]:
        """The key of the job that this row answers."""
        return self.kind, self.source_hash, self.ipc, self.protocol, self.arch, self.seed, self.recipe_hash

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Row":
        """Rebuild a row; KeyError if a field is missing, for instance in a row of another version."""
        return cls(**{field.name: values[field.name] for field in fields(cls)})

"""What is compared and how: recipes, sources, jobs."""

import itertools
import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from gdd.config import ConfigError, EvaluateConfig, stable_hash
from gdd.data import augment
from gdd.data.readers import Dataset
from gdd.data.spec import DatasetSpec
from gdd.runtime import checkpoint
from gdd.sampling import generator_file, set_file
from gdd.sampling.generator_file import LoadedGenerator
from gdd.sampling.set_file import SyntheticSet

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
    artifact: LoadedGenerator | None = None

    @cached_property
    def provenance(self) -> dict[str, Any]:
        if self.synthetic is not None:
            return self.synthetic.provenance
        return self.artifact.provenance if self.artifact is not None else {"method": "real", "stage": None}

    @property
    def stored_ipc(self) -> int | None:
        """Images per class of a stored set; none where any number can be drawn."""
        return None if self.synthetic is None else self.synthetic.ipc

    def ipcs(self, wanted: tuple[int, ...]) -> tuple[int | None, ...]:
        """Return the images per class to score it at; all real images have no such number."""
        if self.kind == CEILING:
            return (None,)
        return wanted if self.stored_ipc is None else (self.stored_ipc,)

    def protocols(self, wanted: tuple[Protocol, ...]) -> tuple[Protocol, ...]:
        """Return how it can be scored: only a generator streams."""
        return wanted if self.kind == "generator" else ("fixed",)


def file_of(text: str) -> Path:
    """Return the generator's or the set's file that a source's text names, itself or by its run folder."""
    path = Path(text)
    if text.startswith("real:"):
        raise ConfigError(f"the source {text} is unknown, expected {FLOOR}, {CEILING}, a set or a run folder")
    if not path.exists():
        raise ConfigError(f"the source {text} does not exist; {FLOOR} and {CEILING} are built in")
    if not path.is_dir():
        return path
    for name in (generator_file.FILE, set_file.FILE):
        if (path / name).exists():
            return path / name
    raise ConfigError(
        f"{text} holds neither {generator_file.FILE} nor {set_file.FILE}, expected the folder of a finished run of "
        "train_gan.py or distill.py"
    )


def read_source(label: str, text: str) -> Source:
    """Read a stored set or a generator from its file or run folder; ConfigError if there is neither."""
    path = file_of(text)
    if checkpoint.load_tensors(path)[1].get("kind") == "generator":
        generator = generator_file.load(path)
        return Source(label, "generator", generator.hash, artifact=generator)
    synthetic = set_file.load(path)
    return Source(label, "set", synthetic.hash, synthetic=synthetic)


def open_source(label: str, text: str, dataset: Dataset) -> Source:
    """Open `real:random`, `real:all`, or what `read_source` reads; ConfigError if it does not fit the dataset."""
    if text == FLOOR:
        return Source(label, FLOOR, dataset.fingerprint)
    if text == CEILING:
        return Source(label, CEILING, dataset.fingerprint)
    source = read_source(label, text)
    held = source.synthetic or source.artifact
    assert held is not None
    set_file.check_matches(held.spec, dataset.spec, text)
    return source


def open_sources(
    named: list[tuple[str, str]], ipc: tuple[int, ...], dataset: Dataset, ceiling: bool = True
) -> tuple[list[Source], tuple[int, ...]]:
    """Open everything before anything is trained; floor first, ceiling last.

    Args:
        named: labels and texts; only stored sets of different IPC share a label.
        ipc: at which generators are scored.
        dataset: what everything must fit.
        ceiling: whether it is added if it is not named; the floor always is.

    Returns:
        The sources, and the IPC that need a floor: those of stored sets, and `ipc` if anything is drawn at them.

    Raises:
        ConfigError: a source is missing, unfit or given twice, or a class is too small for the floor.
    """
    given = list(dict.fromkeys(named))
    texts = [text for _, text in given]
    added = (FLOOR, CEILING) if ceiling else (FLOOR,)
    given = [(text, text) for text in added if text not in texts] + given
    sources = [open_source(label, text, dataset) for label, text in given]
    for index, source in enumerate(sources):
        for other in sources[:index]:
            own = {source.stored_ipc, other.stored_ipc}
            if other.label == source.label and (None in own or len(own) == 1):
                raise ConfigError(f"two sources are called {source.label!r}, expected different names")
            if (other.kind, other.hash) == (source.kind, source.hash):
                raise ConfigError(f"sources {other.label!r} and {source.label!r} are the same {source.kind}")
    place = {FLOOR: 0, CEILING: 2}
    sources.sort(key=lambda source: place.get(source.kind, 1))
    stored = {source.stored_ipc for source in sources if source.stored_ipc is not None}
    drawn = not stored or any(source.kind == "generator" for source in sources)
    needed = tuple(sorted(stored | set(ipc if drawn else ())))
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

    def key(self, conditions: "Conditions") -> tuple[Any, ...]:
        """Return what makes two rows the same measurement."""
        kind, epochs = self.source.kind, conditions.recipe_for(self.source.kind).epochs
        return kind, self.source.hash, self.ipc, self.protocol, self.arch, self.seed, epochs, conditions.hash


@dataclass(frozen=True)
class Conditions:
    """What holds for all students of one evaluation; its hash tells comparable rows.

    Args:
        recipe: of every student but the ceiling's.
        all_epochs: the ceiling's epochs, and those of a teacher on all real images.
        teacher: what it is trained on.
        teacher_arch: its architecture.
        kd_recipe: how its outputs are imitated: by equation 1, or as the released code did.
        candidates: pairs of alpha and temperature; more than one only if `selects`.
        selects: whether validation data choose a pair for each student.
    """

    recipe: Recipe
    all_epochs: int
    teacher: Literal["none", "set", "real"] = "none"
    teacher_arch: str = ""
    kd_recipe: Literal["equation", "released"] = "equation"
    candidates: tuple[tuple[float, float], ...] = ()
    selects: bool = False

    @classmethod
    def of(cls, settings: EvaluateConfig, spec: DatasetSpec, chosen: Recipe | None = None) -> "Conditions":
        """Read the config; `chosen` replaces the recipe it names."""
        chosen = chosen or recipe(settings.recipe, settings.augment, spec.flip)
        all_epochs = settings.all_epochs or chosen.epochs
        if settings.teacher == "none":
            # Without a teacher its settings decide nothing, so they must not tell rows apart.
            return cls(chosen, all_epochs)
        alphas = settings.select_alpha or (settings.alpha,)
        temperatures = settings.select_temperature or (settings.temperature,)
        pairs = tuple(dict.fromkeys(itertools.product(alphas, temperatures)))
        selects = bool(settings.select_alpha or settings.select_temperature)
        return cls(chosen, all_epochs, settings.teacher, settings.teacher_arch, settings.kd_recipe, pairs, selects)

    @property
    def hash(self) -> str:
        """The same for all rows of one table, whatever the epochs of its ceiling, which that row itself states."""
        return stable_hash(self if self.teacher == "real" else replace(self, all_epochs=0))

    def recipe_for(self, kind: Kind) -> Recipe:
        return replace(self.recipe, epochs=self.all_epochs) if kind == CEILING else self.recipe

    def label_kind(self, protocol: Protocol, labels: Literal["hard", "stored soft"]) -> str:
        """Say what students learn from; the same for all seeds, so a choice is told by its candidates."""
        if self.teacher == "none":
            return labels
        taught = "all real images" if self.teacher == "real" else f"the same {protocol} set"
        if self.teacher == "set" and protocol == "stream":
            taught = "the same stream"
        alpha, temperature = (
            " or ".join(dict.fromkeys(f"{value:g}" for value in values))
            for values in zip(*self.candidates, strict=True)
        )
        chosen = ", chosen on validation data" if self.selects else ""
        return (
            f"{labels} + online teacher {self.teacher_arch} on {taught} "
            f"({self.kd_recipe}, alpha {alpha}, temperature {temperature}{chosen})"
        )

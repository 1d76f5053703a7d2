"""What students are trained on: random real images, all real images, a stored set, a generator."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from gdd import hub
from gdd.config import ConfigError, stable_hash
from gdd.data.readers import Dataset
from gdd.evaluation.named import (
    CEILING,
    CROPS,
    FILTER,
    FLOOR,
    FRACTION,
    HERDED,
    NO_TEACHER,
    STREAM_CEILING,
    chooser_path,
    ensemble_path,
    fraction_of,
    source_path,
    split_filter,
)
from gdd.formats import plain
from gdd.runtime import checkpoint
from gdd.sampling import ensemble_file, generator_file, set_file
from gdd.sampling.crops import factor_of
from gdd.sampling.curate import Selection
from gdd.sampling.ensemble_file import Ensemble
from gdd.sampling.generator_file import LoadedGenerator
from gdd.sampling.origin import joint_origin
from gdd.sampling.set_file import SyntheticSet

Protocol = Literal["fixed", "stream"]
Kind = Literal[
    "real:random", "real:herded", "real:crops", "real:fraction", "real:all", "real:stream", "set", "generator"
]
# Names in tables: of real images by their kind, of generators by their stage.
REAL_NAMES: dict[Kind, str] = {
    FLOOR: "random real",
    HERDED: "herded real",
    CROPS: "crops of real",
    FRACTION: "fraction of real",
    CEILING: "all real",
    STREAM_CEILING: "fresh real",
}
ROLES: dict[Kind, str] = {FLOOR: "floor", CEILING: "ceiling", STREAM_CEILING: "ceiling"}
FIXED_REAL: tuple[Kind, ...] = (FLOOR, CEILING)
GENERATOR_NAMES = {"pretrain": "pretrained generator", "refine": "refined generator"}
# Of the losses of refine.loss, which the name of a refined generator tells.
LOSS_NAMES = {
    "none": "no guiding loss",
    "skd": "SKD",
    "log_mse": "DiM's loss",
    "features": "features' moments",
    "gradient": "class gradients",
}


@dataclass(frozen=True, eq=False)
class Source:
    """Where training images come from."""

    label: str  # its name in tables
    kind: Kind  # of real images, set or generator
    hash: str  # of the generator, of the stored set, or of the real data; of the last, empty until `complete`
    path: Path | None = None  # the file of a set or a generator
    synthetic: SyntheticSet | None = None  # of a stored set
    generator: LoadedGenerator | None = None  # of a generator
    ensemble: Ensemble | None = None  # that filters a generator's samples, or chooses or labels images
    selection: Selection | None = None  # by which it chooses; it filters samples of a generator that has none
    soft_labels: bool = False  # whether its logits are stored with the images
    revision: str | None = None  # commit of the Hub's repository that it was fetched from, if it was
    fraction: float | None = None  # of all real training images, as many of each class
    drawn_ipc: int | None = None  # images per class that a fraction (none until `complete`) or a budget comes to

    @property
    def provenance(self) -> dict[str, Any]:
        content = self.synthetic or self.generator
        if content is None:
            made = {"method": "real", "stage": None}
            return made if self.ensemble is None else {**made, "seconds": self.ensemble.provenance.get("seconds")}
        if self.generator is None or self.ensemble is None:
            return content.provenance
        return {**content.provenance, **joint_origin(self.generator, self.ensemble)}

    @property
    def distillation_seed(self) -> int | None:
        """Seed that it was distilled with; none for real images, or if its maker did not say."""
        return self.provenance.get("seed")

    @property
    def curation(self) -> list[str]:
        """How a set of samples was chosen, in words."""
        curated = self.provenance.get("curated", {})
        parts = {
            "filtered": curated.get("kept") is not None,
            str(curated.get("select")): bool(curated.get("select")),
            "soft labels": self.synthetic is not None and self.synthetic.soft_labels is not None,
        }
        return [part for part, is_told in parts.items() if is_told]

    @property
    def networks(self) -> dict[str, Any]:
        """What its file says of the networks that made and chose its images, as settings name them."""
        settings = {**self.provenance.get("config", {}), "ensemble": None}
        judges = self.ensemble.archs if self.ensemble else self.provenance.get("curated", {}).get("archs", [])
        return {**settings, "judges": judges}

    @property
    def stored_ipc(self) -> int | None:
        """Images per class of a stored set, of a fraction or within a budget; none where any number can be drawn."""
        return self.drawn_ipc if self.synthetic is None else self.synthetic.ipc

    def ipcs(self, drawn: tuple[int, ...]) -> tuple[int | None, ...]:
        """Return the images per class to score it at; all real images have no such number."""
        if self.kind == CEILING:
            return (None,)
        return drawn if self.stored_ipc is None else (self.stored_ipc,)

    def protocols(self, of_generators: tuple[Protocol, ...]) -> tuple[Protocol, ...]:
        """Return how it can be scored: only a generator does so in either way."""
        if self.kind == "generator":
            return of_generators
        return ("stream",) if self.kind == STREAM_CEILING else ("fixed",)


def generator_name(provenance: dict[str, Any]) -> str | None:
    """Return what a generator, or that of a set of samples, is called by its provenance: `refined generator (SKD)`."""
    stage, made_by = provenance.get("stage"), provenance.get("method")
    name = GENERATOR_NAMES.get(str(stage))
    if stage != "refine" or made_by is None:
        return name
    loss = str(made_by).partition(" + ")[2] or "none"
    return f"{name} ({LOSS_NAMES[loss]})" if loss in LOSS_NAMES else name


def place(kind: Kind) -> int:
    """Return where sources of a kind stand: floor first, ceilings last."""
    return {FLOOR: 0, CEILING: 2, STREAM_CEILING: 2}.get(kind, 1)


def source_file(path: Path) -> Path:
    """Return the generator's or the set's file that a path names, itself or by the folder of a stage or a run."""
    if not path.is_dir():
        return path
    folder = generator_file.last_stage(path, generator_file.FILE, set_file.FILE)
    for name in (generator_file.FILE, set_file.FILE):
        if (folder / name).exists():
            return folder / name
    raise ConfigError(
        f"{folder} holds neither {generator_file.FILE} nor {set_file.FILE} nor images by class, expected the folder of "
        "a finished run of gdd train-gan or gdd distill, or that of a set of images"
    )


def read(text: str, label: str | None = None, teacher: str = NO_TEACHER) -> Source:
    """Read a source's file, if it has one; no dataset is needed yet.

    Args:
        text: real:random, real:herded, real:crops, real:fraction=SHARE, real:all, real:stream, zoo:NAME,
            hub:USER/NAME, hub:datasets/USER/NAME, or the path of a set, a generator or a run folder, or of a folder of
            images by class or an .npz file; also PATH,filter=ENSEMBLE: those samples of a generator that an ensemble
            classifies as their label.
        label: its name in tables, instead of the text.
        teacher: that of `evaluate.teacher`, which chooses the images of real:herded and real:crops.

    Raises:
        ConfigError: there is no such source, or its file is damaged.
    """
    source = _read(text, label or text, teacher)
    return replace(source, revision=hub.revision_of(split_filter(text)[0]))


def _read(text: str, label: str, teacher: str) -> Source:
    named = source_path(text)
    if named is None:
        fraction = fraction_of(text)
        if fraction is not None:
            return Source(label, FRACTION, hash=str(fraction), fraction=fraction)
        chooser = chooser_path(text, teacher)
        return of_real(cast(Kind, text), label, None if chooser is None else ensemble_file.load(chooser))
    _, judges = split_filter(text)
    if judges is None and _is_plain(named):
        return of_set(plain.load(named), named, label)
    path = source_file(named)
    tensors, metadata = checkpoint.load_tensors(path)
    if metadata.get("kind") == "generator":
        generator = generator_file.from_tensors(path, tensors, metadata)
        if judges is None:
            return Source(label, "generator", generator.hash, path, generator=generator)
        judge = ensemble_path(judges)
        assert judge is not None  # `source_path` has found it
        ensemble = ensemble_file.load(judge)
        both = stable_hash(generator.hash, ensemble.hash)
        return Source(label, "generator", both, path, generator=generator, ensemble=ensemble)
    if judges is not None:
        raise ConfigError(f"{path} holds no generator, expected one before {FILTER}")
    return of_set(set_file.from_tensors(path, tensors, metadata), path, label)


def _is_plain(path: Path) -> bool:
    is_run = path.is_dir() and any((path / name).exists() for name in (generator_file.FILE, set_file.FILE))
    return not is_run and plain.is_plain(path)


def of_real(kind: Kind, label: str, ensemble: Ensemble | None = None, soft_labels: bool = False) -> Source:
    """Return real images, which an ensemble may have chosen or labelled, as a source."""
    selection: Selection | None = "herding" if kind == HERDED else None
    return Source(label, kind, hash="", ensemble=ensemble, selection=selection, soft_labels=soft_labels)


def of_set(synthetic: SyntheticSet, path: Path, label: str = "set") -> Source:
    """Return a set that was read from a file as a source."""
    return Source(label, "set", synthetic.hash, path, synthetic=synthetic)


def complete(
    named: Sequence[Source], ipc: tuple[int, ...], dataset: Dataset, ceiling: bool = True, streams: bool = False
) -> tuple[list[Source], tuple[int, ...]]:
    """Check what was named against the dataset, and add the floor (first) and the ceilings (last).

    Args:
        named: as `read` returns them; only stored sets of different IPC, and replicates of other seeds, share a label.
        ipc: at which generators are scored.
        dataset: what all of them stand for.
        ceiling: whether all real images are added if they are not named; the floor always is.
        streams: whether a generator streams, whose ceiling is added then.

    Returns:
        The sources, and the IPC that need a floor: those of stored sets, and `ipc` if anything is drawn at them.

    Raises:
        ConfigError: a source is unfit or named twice, or a class is too small for the floor.
    """
    kinds = {source.kind for source in named}
    wanted: dict[Kind, bool] = {FLOOR: True, STREAM_CEILING: streams, CEILING: ceiling}
    added = [read(kind, REAL_NAMES[kind]) for kind, is_wanted in wanted.items() if is_wanted and kind not in kinds]
    sources = [fit_source(source, dataset) for source in (*added, *named)]
    _require_different(sources)
    sources.sort(key=lambda source: place(source.kind))
    stored = {source.synthetic.ipc for source in sources if source.synthetic is not None}
    drawn = not stored or any(source.kind in ("generator", STREAM_CEILING) for source in sources)
    floor_ipcs = tuple(sorted(stored | set(ipc if drawn else ())))
    counts = dataset.train.labels.bincount(minlength=dataset.spec.num_classes)
    images = [source.drawn_ipc for source in sources if source.drawn_ipc is not None]
    crops = [source.drawn_ipc for source in sources if source.kind == CROPS]
    images += [factor_of(dataset.spec) ** 2 * max(ipc if own is None else (own,)) for own in crops]  # each gives one
    most = max([*floor_ipcs, *images])
    if most > int(counts.min()):
        name = dataset.spec.class_names[int(counts.argmin())]
        raise ConfigError(
            f"{most} images per class are asked for, but class {name!r} of {dataset.spec.name} has "
            f"{int(counts.min())} training images"
        )
    return sources, floor_ipcs


def fit_source(source: Source, dataset: Dataset) -> Source:
    """Return real images with the hash of the data, and anything else if it fits the dataset; ConfigError otherwise."""
    if source.ensemble is not None:
        set_file.check_matches(source.ensemble.spec, dataset.spec, "the ensemble")
    content = source.synthetic or source.generator
    if content is None:
        if source.fraction is not None:
            ipc = round(source.fraction * len(dataset.train.labels) / dataset.spec.num_classes)
            return replace(source, hash=stable_hash(dataset.fingerprint, source.fraction), drawn_ipc=max(1, ipc))
        if source.ensemble is None and not source.soft_labels:
            return replace(source, hash=dataset.fingerprint)
        judge = None if source.ensemble is None else source.ensemble.hash
        return replace(source, hash=stable_hash(dataset.fingerprint, judge, source.soft_labels))
    if source.synthetic is not None:
        synthetic = plain.of_dataset(source.synthetic, dataset.spec)
        source = replace(source, synthetic=synthetic, hash=synthetic.hash)
        content = synthetic
    set_file.check_matches(content.spec, dataset.spec, source.path or source.label)
    return source


def _require_different(sources: Sequence[Source]) -> None:
    for index, source in enumerate(sources):
        for other in sources[:index]:
            ipcs = {source.stored_ipc, other.stored_ipc}
            replicates = source.distillation_seed != other.distillation_seed
            if other.label == source.label and not replicates and (None in ipcs or len(ipcs) == 1):
                raise ConfigError(f"two sources are called {source.label!r}, expected different names")
            if (other.kind, other.hash) == (source.kind, source.hash):
                raise ConfigError(f"sources {other.label!r} and {source.label!r} are the same {source.kind}")

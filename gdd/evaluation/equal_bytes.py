"""A comparison of equal bytes and equal steps: what is scored within a budget, and how."""

import math
from collections.abc import Sequence
from dataclasses import replace

from gdd.config import ConfigError, EvaluateConfig, stable_hash
from gdd.data.readers import Dataset
from gdd.data.spec import DatasetSpec
from gdd.evaluation import grid, sources
from gdd.evaluation.budget import Budget
from gdd.evaluation.named import CROPS, FLOOR, HERDED, NO_TEACHER
from gdd.evaluation.recipe import Job, resolve_recipe
from gdd.evaluation.sources import REAL_NAMES, Kind, Source
from gdd.sampling import ensemble_file
from gdd.sampling.ensemble_file import Ensemble
from gdd.sampling.set_file import set_bytes

SOFT = ", soft labels"  # ends the names of sources that store them
_REAL: tuple[Kind, ...] = (FLOOR, HERDED, CROPS)


def class_bytes(spec: DatasetSpec, soft_labels: bool = False) -> int:
    """Return the bytes of one uint8 image of each class with its label, and with float16 logits if wanted."""
    classes = spec.num_classes
    return set_bytes(classes * math.prod(spec.shape), classes, classes) + 2 * classes**2 * soft_labels


def most_bytes(budget: Budget, spec: DatasetSpec) -> int:
    """Return the bytes that a source may take."""
    return budget.bytes or (budget.ipc or 0) * class_bytes(spec)


def ipc_within(budget: Budget, spec: DatasetSpec, soft_labels: bool = False) -> int:
    """Return the images per class that fit; 0 if soft labels leave room for none.

    Raises:
        ConfigError: not even hard labels leave room for one.
    """
    most, least = most_bytes(budget, spec), class_bytes(spec)
    if most < least:
        raise ConfigError(
            f"--budget is {budget.text}, expected at least {least:,} bytes: one image of each class of {spec.name} "
            "takes as many, with its label"
        )
    return most // class_bytes(spec, soft_labels)


def settings_within(budget: Budget, settings: EvaluateConfig, spec: DatasetSpec) -> EvaluateConfig:
    """Return the settings of the students: as many steps for all as random real images take, and no teacher."""
    recipe = resolve_recipe(settings.recipe, spec.flip)
    steps = recipe.total_steps(ipc_within(budget, spec) * spec.num_classes)
    return replace(settings, teacher=NO_TEACHER, recipe=replace(settings.recipe, epochs=None, steps=steps))


def jobs_within(budget: Budget, settings: EvaluateConfig, dataset: Dataset, named: Sequence[Source]) -> list[Job]:
    """Return the students of a comparison.

    They learn the named sets, herded samples of the named generators, and random, herded and cropped real images. All
    but sets come with hard labels, and once more with the teacher's answers. Generators whose file fits are streamed.

    Args:
        budget: what it gives to a teacher that is yet to be trained is stood in for.
        settings: of the evaluation.
        dataset: what all of the sources stand for.
        named: sets and generators.

    Raises:
        ConfigError: a set is too large or does not fit the dataset, the budget is too small, or a class is.
    """
    spec, ipc = dataset.spec, ipc_within(budget, dataset.spec)
    teacher = None if budget.teacher is None else ensemble_file.load(budget.teacher)
    generators = [source for source in named if source.generator is not None]
    sets = [_fitted(source, budget, dataset) for source in named if source.synthetic is not None]
    drawn = list[Source]()
    for soft_labels in (False, True):
        if count := ipc_within(budget, spec, soft_labels):
            drawn += [_real(kind, teacher, count, soft_labels) for kind in _REAL]
            drawn += [_samples(source, teacher, count, soft_labels) for source in generators]
    streams = [replace(source, drawn_ipc=ipc) for source in generators if fits_as_stream(source, budget, spec)]
    completed, floor_ipcs = sources.complete([*drawn, *sets, *streams], (ipc,), dataset, ceiling=False)
    return [
        job
        for protocol in settings.protocols
        for job in grid.enumerate_jobs(
            [source for source in completed if _protocol(source) == protocol],
            (ipc,),
            floor_ipcs,
            (protocol,),
            settings.archs,
            settings.seeds,
        )
    ]


def fits_as_stream(source: Source, budget: Budget, spec: DatasetSpec) -> bool:
    """Tell whether a generator's own file is within the budget."""
    return source.generator is not None and source.generator.bytes <= most_bytes(budget, spec)


def samples_label(label: str, soft_labels: bool) -> str:
    """Return what a generator's samples are called, by the generator's label."""
    return f"samples of {label}, herding{SOFT * soft_labels}"


def in_words(budget: Budget, spec: DatasetSpec) -> str:
    """Return the bytes that a source may take, as they were given and as a number."""
    return f"{budget.text} ({most_bytes(budget, spec):,} bytes)"


def remarks(budget: Budget, spec: DatasetSpec, named: Sequence[Source]) -> list[str]:
    """Return what is to be known of a comparison: who chose, what was left out, and which sets could be larger."""
    assert budget.teacher is not None
    teacher = ensemble_file.load(budget.teacher)
    lines = [
        f"{' and '.join(dict.fromkeys(teacher.archs))}, trained on real images ({budget.teacher}), herded, cropped and "
        "gave the soft labels; no student needs its file, so no bytes count it."
    ]
    if not ipc_within(budget, spec, soft_labels=True):
        lines.append(
            f"Soft labels are left out: one image of each class with them takes {class_bytes(spec, True):,} bytes."
        )
    for source in named:
        if source.generator is not None and not fits_as_stream(source, budget, spec):
            lines.append(
                f"{source.label} is not streamed, for its file takes {source.generator.bytes:,} bytes; its stored "
                "samples are compared."
            )
        if (stored := source.synthetic) is not None:
            larger = stored.bytes * (stored.ipc + 1) // stored.ipc
            if larger <= most_bytes(budget, spec):
                lines.append(f"{source.label} leaves room for more images per class: it takes {stored.bytes:,} bytes.")
    return list(dict.fromkeys(lines))  # replicates share a name


def _protocol(source: Source) -> sources.Protocol:
    return "stream" if source.kind == "generator" and source.selection is None else "fixed"


def _fitted(source: Source, budget: Budget, dataset: Dataset) -> Source:
    """Return a set as `fit_source` does; ConfigError if it is above the budget."""
    source = sources.fit_source(source, dataset)
    assert source.synthetic is not None
    most = most_bytes(budget, dataset.spec)
    if source.synthetic.bytes > most:
        raise ConfigError(
            f"{source.path or source.label} takes {source.synthetic.bytes:,} bytes, expected at most {most:,}, which "
            f"--budget {budget.text} allows"
        )
    return source


def _real(kind: Kind, teacher: Ensemble | None, ipc: int, soft_labels: bool) -> Source:
    """Return real images, which the teacher has a part in unless they are random ones with hard labels."""
    judge = None if kind == FLOOR and not soft_labels else teacher
    label = REAL_NAMES[kind] + SOFT * soft_labels
    return replace(sources.of_real(kind, label, judge, soft_labels), drawn_ipc=ipc)


def _samples(source: Source, teacher: Ensemble | None, ipc: int, soft_labels: bool) -> Source:
    """Return a generator's samples that the teacher has herded."""
    return replace(
        source,
        label=samples_label(source.label, soft_labels),
        hash=stable_hash(source.hash, None if teacher is None else teacher.hash, "herding", soft_labels),
        ensemble=teacher,
        selection="herding",
        soft_labels=soft_labels,
        drawn_ipc=ipc,
    )

"""Before a stage: data and sources are opened, and what does not fit them is refused."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import torch
from accelerate import Accelerator

from gdd.checks import networks, said_of
from gdd.config import Config, ConfigError, DataConfig, read_as, stages, to_plain
from gdd.data.encoded import first_shape
from gdd.data.places import TINY_IMAGENET, locate
from gdd.data.readers import Dataset, list_images, open_dataset
from gdd.evaluation import equal_bytes, grid, sources
from gdd.evaluation.budget import Budget
from gdd.evaluation.recipe import Job
from gdd.evaluation.sources import CEILING, FLOOR, GENERATOR_NAMES, REAL_NAMES, Source
from gdd.formats import plain
from gdd.models import registry
from gdd.models.layers import Shape
from gdd.pipeline.stages import STAGES
from gdd.runtime.array import Array
from gdd.runtime.signals import on_signals
from gdd.sampling import generator_file, set_file

logger = logging.getLogger(__name__)


def open_data(settings: DataConfig, seed: int) -> Dataset:
    """Open the dataset that the config names."""
    return open_dataset(
        settings.name,
        settings.root,
        size=settings.size,
        channels=settings.channels,
        val_fraction=settings.val_fraction,
        seed=seed,
        download=settings.download,
        label=settings.label,
    )


def check_networks(config: Config, shape: Shape, num_classes: int) -> None:
    """Build every named network without memory, so that one that such images do not allow is refused at the start."""
    for key, names in networks(config).items():
        _check_networks_of(key, names, shape, num_classes)


def _check_networks_of(key: str, names: Sequence[str], shape: Shape, num_classes: int) -> None:
    with said_of(key):
        for name in names:
            with torch.device("meta"):
                registry.build(name, shape, num_classes)
            if registry.is_pretrained(name):  # which fetches its weights
                registry.build(name, shape, num_classes)


def check_networks_early(config: Config) -> None:
    """Do the same before an image folder is decoded, for images like its first."""
    kind, place = locate(config.data.name, config.data.root, config.data.download)
    if kind in ("folder", TINY_IMAGENET):
        listing = list_images(kind, place, config.data.label)
        check_networks(config, *first_shape(listing, config.data.size, config.data.channels))


def check_ensemble(config: Config, dataset: Dataset) -> None:
    """Refuse members that the images do not allow: a folder that is claimed would refuse others."""
    _check_networks_of("ensemble.archs", config.ensemble.archs, dataset.spec.shape, dataset.spec.num_classes)


def read_sources(config: Config) -> list[Source]:
    """Read the files that `evaluate.sources` names; ConfigError if one is missing or damaged. No data are needed."""
    settings = config.evaluate
    return [sources.read(text, teacher=settings.teacher) for text in dict.fromkeys(settings.sources)]


def with_data_of_sources(config: Config, named: Sequence[Source]) -> Config:
    """Take the data settings of the first source that carries them, unless the config has its own.

    Where the data lie, and whether they may be fetched, stays what the config says.

    Raises:
        ConfigError: there are none, and a source stands for another dataset than the default.
    """
    default = DataConfig()
    if replace(config.data, root=default.root, download=default.download) != default:
        return config
    for source in named:
        made_with = source.provenance.get("config", {})
        stored = made_with.get("data")
        if not stored:  # real images, another program's set, or one drawn from a generator
            continue
        root = stored.get("root") if stored.get("name") == "folder" else config.data.root
        values = {**to_plain(config), "data": {**stored, "root": root, "download": config.data.download}}
        # The seed decides which images validate.
        taken = read_as(Config, {**values, "seed": made_with.get("seed")}, source.label)
        logger.info("data settings of %s: data.name %s", source.label, taken.data.name)
        return taken
    for source in named:
        content = source.synthetic or source.generator
        if content is not None and content.spec.name != config.data.name and not plain.is_unnamed(source.provenance):
            raise ConfigError(
                f"{source.label} stands for {content.spec.name} and does not say where its images are; add --data.name "
                "with their name or place"
            )
    return config


def own_sources(config: Config) -> list[Source]:
    """Read what a bare evaluation scores: floor, what this run distilled, ceiling; ConfigError if nothing is there."""
    home = config.run.root / config.name
    folders = {stage: home / stage for stage in stages.DISTILLING}
    if config.refine.pretrained is not None:
        folders[stages.PRETRAIN] = config.refine.pretrained
    distilled = [
        _as_in_tables(sources.read(str(folder)), stage)
        for stage, folder in folders.items()
        if any((folder / name).exists() for name in (generator_file.FILE, set_file.FILE))
    ]
    if not distilled:
        raise ConfigError(f"{home} holds no finished stage; run gdd distill first or name evaluate.sources")
    ceiling = [sources.read(CEILING, REAL_NAMES[CEILING])] if config.evaluate.ceiling else []
    return [sources.read(FLOOR, REAL_NAMES[FLOOR]), *distilled, *ceiling]


def _as_in_tables(source: Source, stage: str) -> Source:
    """Return what a stage of the run made, called as tables call it."""
    label = GENERATOR_NAMES.get(stage) or str(source.provenance.get("method"))
    if stage == stages.REFINE:
        label = sources.generator_name(source.provenance) or label
    return replace(source, label=label)


def plan(
    config: Config, dataset: Dataset, named: Sequence[Source], ceiling: bool = True, budget: Budget | None = None
) -> list[Job]:
    """Return the students of an evaluation of the named sources, or of what the run will distil, which is stood in for.

    Within a budget they are those of `equal_bytes.jobs_within`.

    Raises:
        ConfigError: a source does not fit the dataset, or a class has too few images for an IPC.
    """
    if budget is not None:
        return equal_bytes.jobs_within(budget, config.evaluate, dataset, named)
    settings, matched = config.evaluate, config.method == "matching" and not named
    ipcs = (config.matching.ipc,) if matched else settings.ipc
    generates = not matched if not named else any(source.kind == "generator" for source in named)
    streams = generates and "stream" in settings.protocols
    completed, floor_ipcs = sources.complete(named, ipcs, dataset, ceiling and settings.ceiling, streams)
    if not named:
        names = ("set",) if matched else ("pretrained", "refined")
        completed[1:1] = [Source(name, FLOOR if matched else "generator", name) for name in names]
    return grid.enumerate_jobs(completed, ipcs, floor_ipcs, settings.protocols, settings.archs, settings.seeds)


class Inputs(NamedTuple):
    """What the stages work with."""

    dataset: Dataset
    accelerator: Accelerator  # the process's
    jobs: list[Job]  # the students to score, if any
    array: Array | None = None  # how these are shared among tasks, if they are


@contextmanager
def open_inputs(
    config: Config,
    accelerator: Accelerator,
    names: Sequence[str],
    named: Sequence[Source] = (),
    budget: Budget | None = None,
    array: Array | None = None,
) -> Iterator[Inputs]:
    """Open the data and refuse networks and sources that do not fit them; signals end the work in order.

    Args:
        config: the settings.
        accelerator: the process's.
        names: the stages that will be run.
        named: the sources that they score; without any, a run scores what it will distil.
        budget: what each of the sources may take, if they are compared within one.
        array: how students are shared among the tasks of an array job, if they are.
    """
    records = [STAGES[stage] for stage in names]
    has_networks = any(record.networks is not None or record.has_gan for record in records)
    with on_signals():
        with accelerator.local_main_process_first():  # it downloads or decodes, the others find the result
            if has_networks:
                check_networks_early(config)
            dataset = open_data(config.data, config.seed)
        if has_networks:
            check_networks(config, dataset.spec.shape, dataset.spec.num_classes)
        jobs: list[Job] = []
        for record in records:
            if record.students is not None:
                jobs = record.students(plan(config, dataset, named, record.has_ceiling, budget))
        yield Inputs(dataset, accelerator, jobs, array)

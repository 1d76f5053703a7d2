"""What the commands do: open data and sources, check them, and run the stages in their folders."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from accelerate import Accelerator

from gdd.checks import networks, said_of
from gdd.config import Config, ConfigError, DataConfig, counted, read_as, stable_hash, to_plain
from gdd.data import folder
from gdd.data.places import locate
from gdd.data.readers import Dataset, open_dataset
from gdd.evaluation import dd_ranking, grid, sources
from gdd.evaluation.dd_ranking import Arm
from gdd.evaluation.landscape import RESULT, STAGE, Landscape, measure
from gdd.evaluation.recipe import Conditions, Job
from gdd.evaluation.row import Row
from gdd.evaluation.sources import CEILING, FLOOR, GENERATOR_NAMES, REAL_NAMES, Source
from gdd.models import registry
from gdd.models.gan import width_of
from gdd.models.layers import Shape
from gdd.runtime import checkpoint
from gdd.runtime.run import Run
from gdd.runtime.signals import on_signals
from gdd.sampling import ensemble_file, generator_file, set_file
from gdd.training import ensemble, matching, pretrain, refine

if TYPE_CHECKING:  # pandas, matplotlib and scipy take a second, and are needed when all is scored
    from gdd.evaluation.audit import Audit
    from gdd.report.compare import Compared
    from gdd.report.tables import Section

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
    )


def check_networks(config: Config, shape: Shape, num_classes: int) -> None:
    """Build every named network without memory, so that one that such images do not allow is refused at the start."""
    with torch.device("meta"):
        for key, names in networks(config).items():
            for name in names:
                with said_of(key):
                    registry.build(name, shape, num_classes)


def check_networks_early(config: Config) -> None:
    """Do the same before an image folder is decoded, for images like its first."""
    kind, place = locate(config.data.name, config.data.root, config.data.download)
    if kind == "folder":
        check_networks(config, *folder.first_shape(place, config.data.size, config.data.channels))


def read_sources(config: Config) -> list[Source]:
    """Read the files that `evaluate.sources` names; ConfigError if one is missing or damaged. No data are needed."""
    return [sources.read(text) for text in dict.fromkeys(config.evaluate.sources)]


def plan(config: Config, dataset: Dataset, named: Sequence[Source], ceiling: bool = True) -> list[Job]:
    """Return the students of an evaluation of the named sources, or of what the run will distil, which is stood in for.

    Raises:
        ConfigError: a source does not fit the dataset, or a class has too few images for an IPC.
    """
    settings, matched = config.evaluate, config.method == "matching" and not named
    ipcs = (config.matching.ipc,) if matched else settings.ipc
    generates = not matched if not named else any(source.kind == "generator" for source in named)
    streams = generates and "stream" in settings.protocols
    completed, floor_ipcs = sources.complete(named, ipcs, dataset, ceiling, streams)
    if not named:
        names = ("set",) if matched else ("pretrained", "refined")
        completed[1:1] = [Source(name, FLOOR if matched else "generator", name) for name in names]
    return grid.enumerate_jobs(completed, ipcs, floor_ipcs, settings.protocols, settings.archs, settings.seeds)


class Work(NamedTuple):
    """What the stages work with: the dataset, the process's Accelerator, and the students to score, if any."""

    dataset: Dataset
    accelerator: Accelerator
    jobs: list[Job]


@contextmanager
def opened(
    config: Config, accelerator: Accelerator, stages: Sequence[str], named: Sequence[Source] = ()
) -> Iterator[Work]:
    """Open the data and refuse networks and sources that do not fit them; signals end the work in order.

    The stages are those of pretrain, refine, matching, evaluate, compare, landscape and audit that will be run; without
    sources, a run scores its own. A landscape has one student, that of its source; an audit builds no network.
    """
    builds = "audit" not in stages
    with on_signals():
        with accelerator.local_main_process_first():  # it downloads or decodes, the others find the result
            if builds:
                check_networks_early(config)
            dataset = open_data(config.data, config.seed)
        if builds:
            check_networks(config, dataset.spec.shape, dataset.spec.num_classes)
        trained = {"evaluate", "compare", "landscape"} & {*stages}
        jobs = plan(config, dataset, named, ceiling="evaluate" in stages) if trained else []
        # Of a landscape the floor stands before it.
        yield Work(dataset, accelerator, jobs[-1:] if "landscape" in stages else jobs)


def _open_run(config: Config, stage: str, fingerprint: str, accelerator: Accelerator) -> Run:
    folder = config.run.root / config.name / stage
    return Run(folder, config.run, to_plain(config), fingerprint, accelerator)


def _run_stage(
    config: Config,
    dataset: Dataset,
    accelerator: Accelerator,
    stage: str,
    without: tuple[str, ...],
    work: Callable[[Run], object],
    start: Path | None = None,
) -> Path:
    """Do a stage's work unless its folder holds the result already, and return the folder.

    The fingerprint counts every setting that has an effect, but for the sections `without`, which play no part in the
    stage, the content of the dataset, and the weights of the generator `start`.
    """
    start_hash = None if start is None else generator_file.load(start).hash
    parts = stage, counted(config, without), dataset.spec.to_dict(), dataset.fingerprint, start_hash
    with _open_run(config, stage, stable_hash(*parts), accelerator) as run:
        files = generator_file.FILE, set_file.FILE, ensemble_file.FILE
        if any((run.folder / name).exists() for name in files):
            logger.info("%s: finished before", run.folder)
        else:
            work(run)
        if run.is_main and stage != ensemble.STAGE:
            from gdd.report import card

            card.write(run.folder)
    return run.folder


def train_gan(config: Config, dataset: Dataset, accelerator: Accelerator) -> Path:
    """Pretrain the GAN, or find it done, and return the run folder."""
    without = ("refine", "matching", "ensemble", "evaluate")
    return _run_stage(
        config, dataset, accelerator, pretrain.STAGE, without, partial(pretrain.pretrain, config, dataset)
    )


def distill(config: Config, dataset: Dataset, accelerator: Accelerator) -> Path:
    """Distil by the config's method and return the run folder of the generator or the set."""
    if config.method == "matching":
        matching.check_first_images(config, dataset)  # a folder that is claimed would refuse other settings
        work, without = partial(matching.match, config, dataset), ("gan", "pretrain", "refine", "ensemble", "evaluate")
        return _run_stage(config, dataset, accelerator, matching.STAGE, without, work, config.matching.generator)
    start = config.refine.pretrained or train_gan(config, dataset, accelerator)
    _check_start(config, dataset, start)
    work = partial(refine.refine, config, dataset, pretrained=start)
    return _run_stage(
        config, dataset, accelerator, refine.STAGE, ("pretrain", "matching", "ensemble", "evaluate"), work, start
    )


def stages_of(config: Config) -> list[str]:
    """Return the stages that distilling by the config runs."""
    skd = ["pretrain"] * (config.refine.pretrained is None) + ["refine"]
    return (["matching"] if config.method == "matching" else skd) + ["evaluate"] * config.score


def distill_and_score(config: Config, work: Work) -> tuple[Path, list[Row]]:
    """Distil, score what came out unless `score` is off, and return the run folder and the rows."""
    folder = distill(config, work.dataset, work.accelerator)
    if not config.score:
        return folder, []
    # Read again: what was named may have been distilled anew.
    jobs = plan(config, work.dataset, read_sources(config) or own_sources(config))
    return folder, evaluate(config, work.dataset, work.accelerator, jobs)


def check_ensemble(config: Config, dataset: Dataset) -> None:
    """Refuse members that the images do not allow: a folder that is claimed would refuse others."""
    with said_of("ensemble.archs"), torch.device("meta"):
        for name in config.ensemble.archs:
            registry.build(name, dataset.spec.shape, dataset.spec.num_classes)


def train_ensemble(config: Config, dataset: Dataset, accelerator: Accelerator) -> Path:
    """Train the classifiers that judge samples, or find them done, and return the run folder."""
    without = ("gan", "pretrain", "refine", "matching", "evaluate")
    work = partial(ensemble.train_ensemble, config, dataset)
    return _run_stage(config, dataset, accelerator, ensemble.STAGE, without, work)


def _check_start(config: Config, dataset: Dataset, start: Path) -> None:
    """Refuse a pretrained GAN that is missing, is this run's refined one, or was made for other data or sizes."""
    what = f"refine.pretrained {start}"
    if not checkpoint.steps(start):
        raise ConfigError(f"{what} holds no checkpoint, expected a finished run folder of gdd train-gan")
    if start.resolve() == (config.run.root / config.name / refine.STAGE).resolve():
        raise ConfigError(f"refine.pretrained is {str(start)!r}, where this run would write; choose another --name")
    pretrained = generator_file.load(start)
    set_file.check_matches(pretrained.spec, dataset.spec, what)
    settings = pretrained.provenance.get("config", {}).get("gan", {})
    if not isinstance(pretrained.provenance.get("seconds"), int | float) or not settings:
        raise ConfigError(f"{what} does not say how it was made, expected one of gdd train-gan")
    gan, made = config.gan, pretrained.generator
    used: dict[str, object] = {
        "arch": made.arch,
        "width": made.width,
        "noise_dim": made.noise_dim,
        "loss": settings.get("loss"),
    }
    width = width_of(gan, dataset.spec.shape)
    wanted: dict[str, object] = {"arch": gan.arch, "width": width, "noise_dim": gan.noise_dim, "loss": gan.loss}
    decays = settings.get("ema_decays", gan.ema_decays)  # 0.1.0 had one, which may go on with another
    if len(decays) > 1 or len(gan.ema_decays) > 1:
        used["ema_decays"], wanted["ema_decays"] = list(decays), list(gan.ema_decays)
    for key, value in wanted.items():
        if used[key] != value:
            raise ConfigError(f"gan.{key} is {value!r}, but {what} was made with {used[key]!r}")


def own_sources(config: Config) -> list[Source]:
    """Read what a bare evaluation scores: floor, what this run distilled, ceiling; ConfigError if nothing is there."""
    home = config.run.root / config.name
    folders = {"pretrain": config.refine.pretrained or home / pretrain.STAGE, "refine": home / refine.STAGE}
    distilled = [
        sources.read(str(folder), GENERATOR_NAMES[stage])
        for stage, folder in folders.items()
        if (folder / generator_file.FILE).exists()
    ]
    if (home / matching.STAGE / set_file.FILE).exists():
        matched = sources.read(str(home / matching.STAGE / set_file.FILE))
        distilled.append(replace(matched, label=str(matched.provenance.get("method"))))
    if not distilled:
        raise ConfigError(f"{home} holds no finished stage; run gdd distill first or name evaluate.sources")
    return [sources.read(FLOOR, REAL_NAMES[FLOOR]), *distilled, sources.read(CEILING, REAL_NAMES[CEILING])]


def evaluate(config: Config, dataset: Dataset, accelerator: Accelerator, jobs: Sequence[Job]) -> list[Row]:
    """Score the planned students, write tables, a picture and the cards of the run's stages, and return their rows."""
    from gdd.report import card, tables

    def write(folder: Path, rows: list[Row]) -> list[Path]:
        return [*tables.write(folder, rows), *card.write_stages(folder.parent)]

    (rows,) = _score(config, dataset, accelerator, "evaluate", [Arm(config.evaluate, [*jobs])], write)
    return rows


def _score(
    config: Config,
    dataset: Dataset,
    accelerator: Accelerator,
    stage: str,
    arms: Sequence[Arm],
    write: Callable[..., list[Path]],
) -> list[list[Row]]:
    """Score the students of each arm, let the main process `write` folder and rows, and return each arm's rows."""
    spec, found = dataset.spec, list[list[Row]]()
    # The data are all that decides a score and does not stand in its row.
    with _open_run(config, stage, stable_hash(spec.to_dict(), dataset.fingerprint), accelerator) as run:
        for settings, jobs in arms:
            conditions = replace(Conditions.of(settings, spec), precision=run.precision)
            config_hash = stable_hash(settings, conditions.hash, run.fingerprint)
            found.append(grid.evaluate(jobs, conditions, dataset, run, config_hash))
        if run.is_main:
            for path in write(run.folder, *found):
                logger.info("wrote %s", path)
    return found


def with_data_of_sources(config: Config, named: Sequence[Source]) -> Config:
    """Take the data settings of the first source that carries them, unless the config has its own.

    Where the data lie, and whether they may be fetched, stays what the config says.
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
    return config


def compare(
    config: Config,
    dataset: Dataset,
    accelerator: Accelerator,
    jobs: Sequence[Job],
    compared: "Sequence[Compared]",
    marks: Sequence[float],
    replicates: bool = False,
    scores: bool = False,
) -> "list[Section]":
    """Score the planned students, write tables and pictures, and return a terminal's tables.

    Each source is compared with the first of `compared`; the picture of seconds shows `marks`, accuracies in percent.
    Of `replicates`, which share a label, intervals are over the seeds of their distillation. DD-Ranking's `scores` are
    a table more, and take more students.
    """
    from gdd.report import compare as comparison
    from gdd.report import dd_ranking as ranking

    def ranked(found: Sequence[list[Row]], brief: bool) -> "list[Section]":
        if not scores:
            return []
        rows, other, hard = found
        return [ranking.section(rows, other, hard, brief, replicates)]

    def write(folder: Path, *found: list[Row]) -> list[Path]:
        return comparison.write(folder, found[0], compared, marks, replicates, ranked(found, brief=False))

    arms = [Arm(config.evaluate, [*jobs])]
    if scores:
        arms += dd_ranking.arms(config.evaluate, jobs, dataset.spec.flip)
    found = _score(config, dataset, accelerator, "compare", arms, write)
    tables = comparison.sections(found[0], compared[0].source.label, brief=True, replicates=replicates)
    return [*tables, *ranked(found, brief=True)]


def landscape(
    config: Config, dataset: Dataset, accelerator: Accelerator, jobs: Sequence[Job], count: int, reach: float
) -> Landscape:
    """Train one student, or find it trained, measure its loss, write numbers and picture, and return what was found.

    The job is one, of stored images; the rest is as `evaluation.landscape.measure` takes it.
    """
    from gdd.report import landscape as pictures

    (job,) = jobs
    conditions, spec = Conditions.of(config.evaluate, dataset.spec), dataset.spec
    student = job.key(conditions, job.images(spec, len(dataset.train.labels)))
    fingerprint = stable_hash(STAGE, student, spec.to_dict(), dataset.fingerprint)
    with _open_run(config, STAGE, fingerprint, accelerator) as run:
        if run.world_size > 1:
            raise ConfigError(f"gdd landscape was started in {run.world_size} processes, expected one")
        found = measure(job, replace(conditions, precision=run.precision), dataset, run, count, reach)
        pictures.draw(run.folder / pictures.PICTURE, found)
        for name in (RESULT, pictures.PICTURE):
            logger.info("wrote %s", run.folder / name)
    return found


def audit(config: Config, dataset: Dataset, accelerator: Accelerator, source: Source) -> "Audit":
    """Compare a source with the images it was distilled from, write numbers and picture, and return what was found.

    The cards of the run tell it. Of a generator, the first of `evaluate.ipc` samples of each class are drawn.
    """
    from gdd.evaluation import audit as measures
    from gdd.report import audit as pictures
    from gdd.report import card

    content = source.synthetic or source.generator
    assert content is not None
    set_file.check_matches(content.spec, dataset.spec, source.path)
    real = measures.real_images(source, dataset)  # a folder that is claimed would refuse other data
    fingerprint = stable_hash(measures.STAGE, source.hash, dataset.spec.to_dict(), dataset.fingerprint)
    with _open_run(config, measures.STAGE, fingerprint, accelerator) as run:
        if run.world_size > 1:
            raise ConfigError(f"gdd audit was started in {run.world_size} processes, expected one")
        found, evidence = measures.measure(source, real, dataset, config.evaluate.ipc[0])
        measures.write(run.folder, found)
        pictures.draw(run.folder / pictures.PICTURE, found, evidence)
        written = [run.folder / name for name in (measures.RESULT, pictures.PICTURE)]
        for path in [*written, *card.write_stages(run.folder.parent)]:
            logger.info("wrote %s", path)
    return found

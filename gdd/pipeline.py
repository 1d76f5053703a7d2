"""The three jobs behind the scripts: each unpacks the config, opens its run folder and calls one function."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator

from gdd.config import Config, ConfigError, DataConfig, to_plain
from gdd.config.checks import is_number, stable_hash
from gdd.data import augment
from gdd.data.readers import Dataset, open_dataset
from gdd.data.spec import DatasetSpec
from gdd.evaluation import grid
from gdd.evaluation.protocol import open_sources, read_source
from gdd.models import registry
from gdd.report import compare as comparison
from gdd.report import tables
from gdd.runtime import checkpoint
from gdd.runtime.run import Run
from gdd.sampling import generator_file, set_file
from gdd.training import matching, pool, pretrain, refine
from gdd.training.images import check_first_images

logger = logging.getLogger(__name__)


def open_data(settings: DataConfig, seed: int) -> Dataset:
    """Open the dataset that the config names and say what was found."""
    dataset = open_dataset(
        settings.name,
        settings.root,
        size=settings.size,
        channels=settings.channels,
        val_fraction=settings.val_fraction,
        seed=seed,
        download=settings.download,
    )
    spec = dataset.spec
    logger.info(
        "data: %s, %d classes, %dx%dx%d, %d train, %d validation, mean %s, std %s",
        *(spec.name, spec.num_classes, *spec.shape, len(dataset.train.labels), len(dataset.val.labels)),
        *(spec.mean, spec.std),
    )
    return dataset


def check_networks(config: Config, spec: DatasetSpec) -> None:
    """Build every named network without memory, so that a name or size that cannot be is refused at the start."""
    settings = config.evaluate
    teachers = () if settings.teacher == "none" else (settings.teacher_arch,)
    with torch.device("meta"):
        for name in (*pool.members(config.pool, config.pool_kind), *settings.archs, *teachers):
            registry.build(name, spec.shape, spec.num_classes)
    for strategy in (config.gan.augment, config.refine.augment):
        augment.parse_strategy(strategy, spec.flip)


def check_scoring(config: Config, dataset: Dataset) -> None:
    """Refuse sources and IPC that cannot be scored, before hours of training; a run's own stages come later."""
    named = [(text, text) for text in config.evaluate.sources]
    own_set = config.method == "gradient_matching" and not named
    open_sources(named, (config.match.ipc,) if own_set else config.evaluate.ipc, dataset)


def _open_run(config: Config, stage: str, fingerprint: str, accelerator: Accelerator) -> Run:
    folder = config.run.root / config.name / stage
    return Run(folder, config.run, to_plain(config), fingerprint, accelerator)


def _finished(run: Run) -> bool:
    """Tell whether the stage's generator or set is there already; its folder's fingerprint has been checked."""
    if not any((run.folder / name).exists() for name in (generator_file.FILE, set_file.FILE)):
        return False
    logger.info("%s: finished before", run.folder)
    return True


def train_gan(config: Config, dataset: Dataset, accelerator: Accelerator) -> Path:
    """Run stage 1, or find it done, and return its run folder."""
    with _open_run(config, pretrain.STAGE, pretrain.fingerprint(config, dataset), accelerator) as run:
        if not _finished(run):
            pretrain.pretrain(config, dataset, run)
    return run.folder


def distill(config: Config, dataset: Dataset, accelerator: Accelerator) -> Path:
    """Distil by the config's method and return the run folder of the generator or the set.

    skd runs stage 2, and stage 1 before it unless `refine.pretrained` names one.
    """
    if config.method == "gradient_matching":
        check_first_images(config, dataset)  # a folder that is claimed in vain would refuse the mended command
        with _open_run(config, matching.STAGE, matching.fingerprint(config, dataset), accelerator) as run:
            if not _finished(run):
                matching.match(config, dataset, run)
        return run.folder
    start = config.refine.pretrained or train_gan(config, dataset, accelerator)
    _check_start(config, dataset, start)
    with _open_run(config, refine.STAGE, refine.fingerprint(config, dataset, start), accelerator) as run:
        if not _finished(run):
            refine.refine(config, dataset, run, start)
    return run.folder


def _check_start(config: Config, dataset: Dataset, start: Path) -> None:
    """Refuse a stage 1 that is missing, is this run's own stage 2, or was made for other data or another GAN."""
    if not checkpoint.steps(start):
        raise ConfigError(f"refine.pretrained is {str(start)!r}, expected a finished run folder of train_gan.py")
    if start.resolve() == (config.run.root / config.name / refine.STAGE).resolve():
        raise ConfigError(f"refine.pretrained is {str(start)!r}, this run's own stage 2; choose another --name")
    found = generator_file.load(start)
    set_file.check_matches(found.spec, dataset.spec, f"refine.pretrained {start}")
    made = found.provenance.get("config", {}).get("gan", {})
    if not is_number(found.provenance.get("seconds")) or not made:
        raise ConfigError(f"refine.pretrained {start} does not say how it was made, expected one of train_gan.py")
    for key in ("width", "noise_dim", "loss"):
        value = getattr(config.gan, key)
        if made.get(key) != value:
            raise ConfigError(f"gan.{key} is {value!r}, but refine.pretrained {start} was made with {made.get(key)!r}")


def own_sources(config: Config) -> list[tuple[str, str]]:
    """Return the labelled sources that a bare evaluation compares: floor, what this run distilled, ceiling."""
    home = config.run.root / config.name
    stages = [
        ("stage 1", config.refine.pretrained or home / pretrain.STAGE),
        ("stage 2", home / refine.STAGE),
    ]
    found = [(label, str(folder)) for label, folder in stages if (folder / generator_file.FILE).exists()]
    optimised = home / matching.STAGE / set_file.FILE
    if optimised.exists():
        found.append((str(set_file.load(optimised).provenance.get("method")), str(optimised)))
    if not found:
        raise ConfigError(f"{home} holds no finished stage; run distill.py first or name evaluate.sources")
    return [("random real", "real:random"), *found, ("all real", "real:all")]


def evaluate(config: Config, dataset: Dataset, accelerator: Accelerator) -> tuple[Path, list[grid.Row]]:
    """Score the config's sources; return the run folder and the rows of this evaluation."""
    sources = [(text, text) for text in config.evaluate.sources] or own_sources(config)
    with _open_run(config, "evaluate", _score_fingerprint(dataset), accelerator) as run:
        rows = grid.evaluate(config, dataset, run, sources)
        if run.is_main:
            for path in tables.write(run.folder, rows):
                logger.info("wrote %s", path)
    return run.folder, rows


def _score_fingerprint(dataset: Dataset) -> str:
    """Return the hash of the data, all that decides a score and does not stand in its row."""
    return stable_hash(dataset.spec.to_dict(), dataset.fingerprint)


def with_data_of_sources(config: Config) -> Config:
    """Take the data settings of the first source that carries them, unless the config has its own.

    Where the data lie, and whether they may be fetched, stays what the config says.
    """
    default = DataConfig()
    if replace(config.data, root=default.root, download=default.download) != default:
        return config
    for text in config.evaluate.sources:
        if text.startswith("real:"):
            continue
        try:
            made = read_source(text, text).provenance["config"]
            found = made["data"]
            size = found["size"] and tuple(found["size"])
            root = Path(found["root"]) if found["name"] == "folder" else config.data.root
            data = DataConfig(**{**found, "size": size, "root": root, "download": config.data.download})
        except (KeyError, TypeError):  # another program's, or a set drawn from a generator
            continue
        logger.info("compare: data settings of %s: data.name %s", text, data.name)
        return replace(config, data=data, seed=made["seed"])  # the seed decides which images validate
    return config


def compare(config: Config, dataset: Dataset, accelerator: Accelerator, marks: Sequence[float]) -> tables.Terminal:
    """Score the config's sources beside each other, write tables and pictures, and return the tables.

    Args:
        config: its `evaluate.sources`, of which the first is the one that the others are compared with.
        dataset: what all of them stand for.
        accelerator: shared by all processes.
        marks: accuracies in percent to draw into the picture of seconds.
    """
    compared = comparison.compared(config.evaluate.sources, dataset)
    named = [(one.label, one.text) for one in compared]
    open_sources(named, config.evaluate.ipc, dataset, ceiling=False)  # refuses before there is a folder
    with _open_run(config, "compare", _score_fingerprint(dataset), accelerator) as run:
        rows = grid.evaluate(config, dataset, run, named, ceiling=False)
        if run.is_main:
            for path in comparison.write(run.folder, rows, compared, marks):
                logger.info("wrote %s", path)
    return tables.Terminal(comparison.sections(rows, compared[0].label, brief=True))

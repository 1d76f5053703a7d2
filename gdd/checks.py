"""What is wrong with settings before anything is read: names, and files that are not there.

Nothing here imports torch, which takes seconds; what only the images can tell is for `gdd.pipeline`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from gdd import hub
from gdd.config import Config, ConfigError
from gdd.data.places import locate
from gdd.data.spec import parse_strategy
from gdd.evaluation.named import TRAINED_TEACHERS, chooser_path, source_path, teacher_path
from gdd.models import registry


@contextmanager
def said_of(key: str) -> Iterator[None]:
    """Put the key of a setting before the sentence of what is wrong with it."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from error


def pool_members(config: Config) -> tuple[str, ...]:
    """Return the names of the networks that the method's pool may hold."""
    fresh = config.matching.pool
    if config.method == "matching":
        return registry.fresh_members(fresh.kind, fresh.main, fresh.various, fresh.similar_depth)
    return config.refine.pool.members


def networks(config: Config) -> dict[str, tuple[str, ...]]:
    """Return the names of all networks that may be built, by the setting that they come from."""
    settings = config.evaluate
    if config.method == "matching":
        with said_of("matching.pool.main"):
            registry.parse(config.matching.pool.main)
    return {
        "matching.pool" if config.method == "matching" else "refine.pool.members": pool_members(config),
        "gan.proxy.arch": (config.gan.proxy.arch,) if config.gan.proxy.every else (),
        "ensemble.archs": config.ensemble.archs if config.ensemble.teaches else (),
        "evaluate.archs": settings.archs,
        "evaluate.teacher_arch": (settings.teacher_arch,) if settings.teacher in TRAINED_TEACHERS else (),
    }


def check_names(config: Config) -> None:
    """Refuse a name of a network or an augmentation that nobody knows."""
    for key, names in (networks(config) | {"ensemble.archs": config.ensemble.archs}).items():
        for name in names:
            with said_of(key):
                registry.parse(name)
    augmentations = {
        "gan.augment": config.gan.augment,
        "refine.augment": config.refine.augment,
        "ensemble.augment": config.ensemble.augment,
        "evaluate.recipe.augment": config.evaluate.recipe.augment or "none",
    }
    for key, text in augmentations.items():
        with said_of(key):
            parse_strategy(text)


def check_files(config: Config, distilled: bool, scored: bool) -> None:
    """Refuse data that are not there, a generator that distilling starts from, and what is scored or teaches it."""
    key, start = "refine.pretrained", config.refine.pretrained
    if config.method == "matching":
        key, start = "matching.generator", config.matching.generator and hub.local_path(config.matching.generator)
    if distilled and start is not None and not start.exists():
        raise ConfigError(f"{key} is {str(start)!r}, which does not exist; expected the run folder of a generator")
    if scored:
        for text in config.evaluate.sources:
            source_path(text)
        with said_of("evaluate.teacher"):
            teacher_path(config.evaluate.teacher)
        for text in config.evaluate.sources:
            chooser_path(text, config.evaluate.teacher)
    locate(config.data.name, config.data.root, config.data.download)

"""Distil an image dataset into a small conditional generator, and prove what the distilled data is worth."""

from importlib import import_module
from typing import Any

__version__ = "0.2.0.dev0"  # of what CHANGELOG.md begins with; ".dev0" until that is released

# The public names, imported on first use: torch takes seconds.
_HOMES = {
    "Config": "gdd.config:Config",
    "ConfigError": "gdd.config:ConfigError",
    "FreshPool": "gdd.training.matching:FreshPool",
    "DistilledGenerator": "gdd.api.generator:DistilledGenerator",
    "GanTrainer": "gdd.training.gan:GanTrainer",
    "ImageSet": "gdd.api.image_set:ImageSet",
    "LearningPool": "gdd.training.pool:LearningPool",
    "Matcher": "gdd.training.matching:Matcher",
    "Mixture": "gdd.api.mixture:Mixture",
    "distill": "gdd.api.run:distill",
    "evaluate": "gdd.api.run:evaluate",
    "load_generator": "gdd.api.generator:load_generator",
    "load_set": "gdd.api.image_set:load_set",
    "mix": "gdd.api.mixture:mix",
    "open_dataset": "gdd.data.readers:open_dataset",
    "skd": "gdd.losses.logits:skd",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gdd' has no attribute {name!r}")
    home, _, attribute = _HOMES[name].partition(":")
    return getattr(import_module(home), attribute)


def __dir__() -> list[str]:
    return [*_HOMES, "__version__"]

"""Every setting and its default, a frozen dataclass per section; a YAML file holds only what differs.

Each field's docstring gives its unit, range and, where a number comes from a paper, its source; `--help` and
docs/configuration.md are made from them. Ranges are checked when a section is made.
"""

import os
from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, model_validator
from pydantic.dataclasses import dataclass

from gdd.config import earlier
from gdd.config.errors import ConfigError, did_you_mean, read_as, require
from gdd.config.evaluate import EnsembleConfig, EvaluateConfig, RecipeConfig
from gdd.config.fields import STRICT, AtLeast0, counted, stable_hash, to_plain, without_effect
from gdd.config.gan import GanConfig, PretrainConfig
from gdd.config.matching import MatchingConfig, MatchingPoolConfig, PoolKind
from gdd.config.refine import RefineConfig, RefinePoolConfig
from gdd.config.run import DataConfig, RunConfig


def _is_folder_name(name: str) -> str:
    plain = bool(name) and Path(name).name == name and name not in (".", "..") and name.isprintable()
    if not plain or len(os.fsencode(name)) > 255:
        raise ValueError("a plain folder name without slashes, of at most 255 bytes")
    return name


@dataclass(frozen=True, config=STRICT)
class Config:
    """One experiment: a dataset, a generator or a set distilled from it, and its score."""

    name: Annotated[str, AfterValidator(_is_folder_name)] = without_effect("digits")
    """Folder below run.root that this experiment writes to."""
    # It chooses the stages, each with its fingerprint.
    method: Annotated[Literal["generator", "matching", "skd"], AfterValidator(earlier.current_method)] = without_effect(
        "generator"
    )
    """How gdd distill distils: generator pretrains and refines one, matching optimises pixels (DC, DSA, DM); skd, the
    earlier name of generator, is taken for it."""
    seed: AtLeast0 = 0
    """Root of every random draw, at least 0."""
    score: bool = without_effect(True)
    """Whether gdd distill ends with an evaluation."""
    data: DataConfig = without_effect(default_factory=DataConfig)  # the images themselves count instead
    gan: GanConfig = field(default_factory=GanConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    refine: RefineConfig = field(default_factory=RefineConfig)
    matching: MatchingConfig = field(default_factory=MatchingConfig)
    ensemble: EnsembleConfig = field(default_factory=EnsembleConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    run: RunConfig = field(default_factory=RunConfig)

    @property
    def skd_weight(self) -> float:
        """Lambda of SKD's paper for these data."""
        return 0.001 if self.data.name == "mnist" else 0.01

    @property
    def refine_weight(self) -> float:
        """Lambda: refine.weight or, where it is null, that of SKD; 0 if nothing is weighed, or by a balance."""
        if not self.refine.guided or self.refine.balance is not None:
            return 0.0
        return self.refine.weight or self.skd_weight

    @model_validator(mode="after")
    def _selects_on_something(self) -> "Config":
        settings, fraction = self.evaluate, self.data.val_fraction
        for name in ("select_alpha", "select_temperature"):
            fits = fraction > 0 or not getattr(settings, name)
            require(fits, "data.val_fraction", fraction, f"a number above 0 with evaluate.{name}")
        fits = fraction > 0 or self.gan.proxy.every == 0
        require(fits, "data.val_fraction", fraction, "a number above 0 with gan.proxy.every")
        return self

    @model_validator(mode="after")
    def _teaches_a_generator(self) -> "Config":
        fits = not self.ensemble.teaches or self.method == "generator"
        require(fits, "ensemble.teaches", self.ensemble.teaches, "false with method matching, which makes no generator")
        return self

    @model_validator(mode="after")
    def _snapshots_are_reached(self) -> "Config":
        late = self.method == "matching" and max(self.run.snapshots, default=0) > self.matching.iterations
        require(
            not late, "run.snapshots", self.run.snapshots, f"at most matching.iterations, {self.matching.iterations}"
        )
        return self

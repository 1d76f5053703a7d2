"""Every setting and its default, one frozen dataclass per part; a YAML file holds only what differs.

Each field's docstring gives its unit, range and, where a number comes from a paper, its source. `--help` and
docs/configuration.md are generated from them. Ranges are checked when the object is made.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gdd.config.checks import ConfigError, nearest, require, require_types, stable_hash, to_plain
from gdd.config.distillation import (
    DataConfig,
    GanConfig,
    MatchConfig,
    PoolConfig,
    PoolKind,
    PretrainConfig,
    RefineConfig,
)
from gdd.config.evaluation import EvaluateConfig, RunConfig

__all__ = [
    "Config",
    "ConfigError",
    "DataConfig",
    "EvaluateConfig",
    "GanConfig",
    "MatchConfig",
    "PoolConfig",
    "PoolKind",
    "PretrainConfig",
    "RefineConfig",
    "RunConfig",
    "nearest",
    "stable_hash",
    "to_plain",
]


@dataclass(frozen=True)
class Config:
    """One experiment: a dataset, a generator or a set distilled from it, and its score."""

    name: str = "digits"
    """Folder below run.root that this experiment writes to."""
    method: Literal["skd", "gradient_matching"] = "skd"
    """How distill.py distils: skd refines a generator, gradient_matching optimises pixels (DC, DSA, DM)."""
    seed: int = 0
    """Root of every random draw, at least 0."""
    score: bool = True
    """Whether distill.py ends with an evaluation."""
    data: DataConfig = field(default_factory=DataConfig)
    gan: GanConfig = field(default_factory=GanConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    pool: PoolConfig = field(default_factory=PoolConfig)
    refine: RefineConfig = field(default_factory=RefineConfig)
    match: MatchConfig = field(default_factory=MatchConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        require_types(self)
        require(self.seed >= 0, "seed", self.seed, "a whole number of at least 0")
        late = self.method == "gradient_matching" and max(self.run.snapshots, default=0) > self.match.iterations
        require(not late, "run.snapshots", self.run.snapshots, f"at most match.iterations, {self.match.iterations}")
        plain = bool(self.name) and Path(self.name).name == self.name and self.name not in (".", "..")
        plain = plain and self.name.isprintable() and len(os.fsencode(self.name)) <= 255
        require(plain, "name", self.name, "a plain folder name without slashes")

    @property
    def pool_kind(self) -> PoolKind:
        """The kind of pool that the method draws from."""
        return self.pool.kind or ("main" if self.method == "gradient_matching" else "members")

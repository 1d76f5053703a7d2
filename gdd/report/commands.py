"""The commands that make a source again, and that train students of a comparison again."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gdd.config import Config, ConfigError, read_as
from gdd.config.flags import flags
from gdd.config.stages import DISTILLING, ENSEMBLE, EVALUATE, PRETRAIN, SECTIONS
from gdd.evaluation.sources import FLOOR, Kind, Protocol


def distilling(provenance: Mapping[str, Any]) -> str | None:
    """Return the command that distils a generator or a set anew; none if its file does not say the settings."""
    stage, stored = str(provenance.get("stage")), provenance.get("config")
    if stage not in DISTILLING or not stored:
        return None
    try:
        config = read_as(Config, stored)
    except ConfigError:  # settings of another version
        return None
    config, before = replace(config, score=stage == PRETRAIN), [PRETRAIN] if stage != PRETRAIN else []
    told = flags(config, ["data", *before, *SECTIONS[stage]])
    return shlex.join(["gdd", "train-gan" if stage == PRETRAIN else "distill", *told])


@dataclass(frozen=True)
class Asked:
    """What a comparison was asked for."""

    config: Config
    named: Mapping[str, Sequence[str]] = field(default_factory=dict)  # what the command line named, by label
    made: Mapping[str, Sequence[str]] = field(default_factory=dict)  # the commands that distilled it, by label
    words: Sequence[str] = ()  # flags beside the settings, such as --replicates
    together: bool = False  # whether its sources cannot be scored one by one

    def commands(self, label: str, kind: Kind, arch: str, ipc: int | None, protocol: Protocol) -> list[str]:
        """Return the commands that distil a source and train its students of one architecture, in a run of their own.

        Random real images, which every comparison adds, are evaluated.
        """
        settings = replace(self.config.evaluate, archs=(arch,), sources=())
        texts = self.config.evaluate.sources
        if not self.together:
            texts = tuple(self.named.get(label, [kind]))
            settings = replace(settings, protocols=(protocol,), ipc=settings.ipc if ipc is None else (ipc,))
        if kind == FLOOR and not self.together:
            settings = replace(settings, ceiling=False)
        command = "evaluate" if kind == FLOOR and not self.together else "compare"
        config = replace(self.config, evaluate=settings, name=f"{self.config.name}-again")
        told = flags(config, ["data", EVALUATE, *([ENSEMBLE] if self.together else [])])
        return [*self.made.get(label, []), shlex.join(["gdd", command, *texts, *self.words, *told])]

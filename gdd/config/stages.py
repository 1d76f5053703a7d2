"""The stages of a run, and which settings decide what each makes: fingerprints, cards, tables and the page ask here."""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from gdd.config.fields import counted

if TYPE_CHECKING:
    from gdd.config import Config, PretrainConfig, RefineConfig

PRETRAIN, REFINE, MATCHING, ENSEMBLE = "pretrain", "refine", "matching", "ensemble"  # each leaves a file in its folder
EVALUATE, COMPARE, DD_RANKING, LANDSCAPE, AUDIT = "evaluate", "compare", "dd-ranking", "landscape", "audit"
REPRODUCE = "reproduce"

# The sections that a stage reads. The seed and `run` count in every stage, and the images count instead of `data`.
SECTIONS = {PRETRAIN: ("gan", "pretrain"), REFINE: ("gan", "refine"), MATCHING: ("matching",), ENSEMBLE: ("ensemble",)}
DISTILLING = (PRETRAIN, REFINE, MATCHING)
_OF_SOME_STAGES = ("gan", "pretrain", "refine", "matching", "ensemble", "evaluate")


def stages_of(config: "Config") -> list[str]:
    """Return the stages that `gdd distill` runs, in their order."""
    stages = [MATCHING] if config.method == "matching" else [REFINE]
    if config.method != "matching" and config.refine.pretrained is None:
        stages.insert(0, PRETRAIN)
    if config.ensemble.teaches:
        stages.append(ENSEMBLE)
    if config.score:
        stages.append(EVALUATE)
    return stages


def steps_of(config: "Config", stage: str) -> "PretrainConfig | RefineConfig":
    """Return the section with the steps of a stage of the GAN: their number, batches and rates."""
    return config.pretrain if stage == PRETRAIN else config.refine


def decisive(config: "Config", stage: str) -> dict[str, Any]:
    """Return the settings that a stage's fingerprint counts, by the names under which there are folders.

    Before refine.loss none there was, its weight was 0; and a weight that is null is the one that it stands for.
    """
    settings = counted(config, _without(SECTIONS[stage]))
    if stage == REFINE:
        loss = config.refine.loss if config.refine.guided else "skd"
        settings["refine"] |= {"loss": loss, "weight": config.refine_weight}
    return settings


def telling_apart(config: "Config", stage: str | None = None) -> dict[str, Any]:
    """Return the settings that decide the result of a distilling stage and those before it, the data's included.

    Without a stage, or with one that distils nothing, those of all sections but `evaluate`.
    """
    read = {*(SECTIONS[stage] if stage in DISTILLING else _OF_SOME_STAGES[:-1])}
    read |= {"pretrain"} if stage == REFINE else set()
    return {"data": counted(config.data), **counted(config, _without(read))}


def _without(read: Collection[str]) -> tuple[str, ...]:
    return tuple(section for section in _OF_SOME_STAGES if section not in read)

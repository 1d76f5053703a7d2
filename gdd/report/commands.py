"""The commands that made a comparison: those that distil its sources, and that which scores them."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import replace

from gdd import hub
from gdd.config import Config
from gdd.config.flags import flags
from gdd.config.stages import DISTILLING, ENSEMBLE, EVALUATE, MATCHING, PRETRAIN, SECTIONS
from gdd.evaluation.named import split_filter
from gdd.evaluation.sources import Source
from gdd.report.replicates import settings_of


def distilling(source: Source) -> str | None:
    """Return the command that distils a source anew; none if its file does not say the settings."""
    made = source.provenance
    stage, config = str(made.get("stage")), settings_of(made)
    if stage not in DISTILLING or config is None:
        return None
    if stage == PRETRAIN:
        return _joined(["gdd", "train-gan", *flags(config, ["data", *SECTIONS[stage]], without=["score"])])
    reached = made.get("iterations", config.matching.iterations)
    if stage == MATCHING and reached < config.matching.iterations:
        config = replace(config, run=replace(config.run, snapshots=(reached,)))
    read = ["data", PRETRAIN, *SECTIONS[stage], *([ENSEMBLE] if config.ensemble.teaches else [])]
    return _joined(["gdd", "distill", *flags(replace(config, score=False), read)])


def comparing(config: Config, words: Sequence[str] = (), with_ensemble: bool = False) -> str | None:
    """Return the command that compares what the settings name.

    Args:
        config: of the comparison.
        words: its flags that are no settings, such as --replicates.
        with_ensemble: whether it trains an ensemble.
    """
    settings = replace(config.evaluate, sources=())
    read = ["data", EVALUATE, *([ENSEMBLE] if with_ensemble else [])]
    told = flags(replace(config, evaluate=settings), read, without=["score"])
    return _joined(["gdd", "compare", *map(_pinned, config.evaluate.sources), *words, *told])


def _pinned(text: str) -> str:
    """Return a source with the commit of the Hub's repository that it was fetched from, if it was."""
    named, _ = split_filter(text)
    revision = hub.revision_of(named)
    if revision is None or "@" in named:
        return text
    return text.replace(named, f"{named}@{revision}", 1)


def _joined(words: Iterable[str]) -> str | None:
    """Return words for a shell; none if they hold what a terminal would obey."""
    command = shlex.join(words)
    return command if command.isprintable() else None

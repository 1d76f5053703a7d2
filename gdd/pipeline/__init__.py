"""What the commands do: open data and sources, check them, and run the stages in their folders."""

from gdd.pipeline.opening import (
    Work,
    check_ensemble,
    check_networks,
    open_data,
    opened,
    own_sources,
    plan,
    read_sources,
    with_data_of_sources,
)
from gdd.pipeline.scoring import audit, compare, distill_and_score, evaluate, landscape
from gdd.pipeline.stages import distill, stages_of, train_ensemble, train_gan

__all__ = [
    "Work",
    "audit",
    "check_ensemble",
    "check_networks",
    "compare",
    "distill",
    "distill_and_score",
    "evaluate",
    "landscape",
    "open_data",
    "opened",
    "own_sources",
    "plan",
    "read_sources",
    "stages_of",
    "train_ensemble",
    "train_gan",
    "with_data_of_sources",
]

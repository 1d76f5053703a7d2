"""What the commands do: open data and sources, check them, and run the stages in their folders."""

from gdd.config.stages import stages_of
from gdd.pipeline.opening import (
    Inputs,
    check_ensemble,
    check_networks,
    open_data,
    open_inputs,
    own_sources,
    plan,
    read_sources,
    with_data_of_sources,
)
from gdd.pipeline.scoring import audit, compare, compare_within, distill_and_score, evaluate, landscape
from gdd.pipeline.stages import distill, train_ensemble, train_gan

__all__ = [
    "Inputs",
    "audit",
    "check_ensemble",
    "check_networks",
    "compare",
    "compare_within",
    "distill",
    "distill_and_score",
    "evaluate",
    "landscape",
    "open_data",
    "open_inputs",
    "own_sources",
    "plan",
    "read_sources",
    "stages_of",
    "train_ensemble",
    "train_gan",
    "with_data_of_sources",
]

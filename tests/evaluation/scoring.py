"""What the tests of the evaluation share besides fixtures."""

import dataclasses
from collections.abc import Callable

from gdd.evaluation.recipe import Recipe
from gdd.evaluation.row import Row

SHORT = Recipe("dc", lr=0.01, epochs=3, batch_size=256, schedule="step")
Evaluate = Callable[..., list[Row]]
TIMINGS = ("seconds", "seconds_generating", "seconds_teacher", "seconds_selecting", "peak_memory_mb")


def timeless(row: Row) -> Row:
    """Return the row without what may differ from run to run."""
    return dataclasses.replace(row, **dict.fromkeys(TIMINGS, 0.0))

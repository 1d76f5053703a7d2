"""How a learning rate goes on after its first value."""

import math
from typing import Literal


def share(kind: Literal["constant", "linear", "cosine", "step"], step: int, steps: int, warmup: int = 0) -> float:
    """Return a step's learning rate as a share of the first one, in [0, 1].

    Args:
        kind: constant; linear or cosine reach 0 just after the last step (cosine: Loshchilov and Hutter 2017, eq. 5);
            step is a tenth from half of the steps on (DC, utils.py).
        step: its number, from 0.
        steps: all of them.
        warmup: the first steps, in which the share rises evenly to 1; the rest follows on it.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if kind == "constant":
        return 1.0
    gone = (step - warmup) / max(1, steps - warmup)
    if kind == "step":
        return 0.1 if gone >= 0.5 else 1.0
    return 1 - gone if kind == "linear" else (1 + math.cos(math.pi * gone)) / 2

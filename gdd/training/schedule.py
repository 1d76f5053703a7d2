"""How a learning rate, and the share of paths that are kept, go on."""

import math
from dataclasses import dataclass
from typing import Literal


def lr_factor(
    kind: Literal["constant", "linear", "cosine", "step", "cyclic"], step: int, steps: int, warmup: int = 0
) -> float:
    """Return a step's learning rate as a share of the first one, in [0, 1].

    Args:
        kind: constant; linear or cosine reach 0 just after the last step (cosine: Loshchilov and Hutter 2017, eq. 5);
            step is a tenth from half of the steps on (DC, utils.py); cyclic restarts (`_cyclic`).
        step: its number, from 0.
        steps: all of them.
        warmup: the first steps, in which the share rises evenly to 1; the rest follows on it.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if kind == "constant":
        return 1.0
    if kind == "cyclic":
        return _cyclic(step - warmup, steps - warmup)
    gone = (step - warmup) / max(1, steps - warmup)
    if kind == "step":
        return 0.1 if gone >= 0.5 else 1.0
    return 1 - gone if kind == "linear" else (1 + math.cos(math.pi * gone)) / 2


def _cyclic(step: int, steps: int) -> float:
    """Return the share in cycles of a quarter of the steps, with a warm-up of a tenth of the cycle and a cosine to 0.

    At every eighth of the steps a cycle is broken off and the next one begins, whose peak is .8 of the last; the last
    quarter is a whole cycle, with a tenth of the peak before it. Zhong and Liu meant this (arXiv 2309.04195); in their
    released code no peak decays.
    """
    eighth = 8 * step // steps
    number, peak = (eighth, 0.8**eighth) if eighth < 6 else (6, 0.8**5 / 10)
    begun, cycle = math.ceil(number * steps / 8), max(1, steps // 4)
    return peak * lr_factor("cosine", step - begun, cycle, warmup=cycle // 10)


@dataclass(frozen=True)
class KeepRate:
    """Probability that a path is kept, in three phases (Zhong and Liu, arXiv 2309.04195; train.py).

    First all are, for one period; then the rate falls by `decrement` in every period, down to `minimum`; in the last
    quarter of the steps it is `final`.
    """

    period: float = 1 / 8  # share of all steps
    decrement: float = 0.1  # in [0, 1]
    minimum: float = 0.5  # in [0, 1]
    final: float = 0.8  # in [0, 1]

    def at(self, step: int, steps: int) -> float:
        """Return the rate of step `step` of `steps`."""
        if 4 * step >= 3 * steps:
            return self.final
        periods = step // max(1, round(self.period * steps))
        return max(self.minimum, 1 - self.decrement * periods)

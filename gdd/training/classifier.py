"""Train one classifier; pool members, teachers and students all go through here."""

from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gdd.data.mapped import ImageRows
from gdd.losses.logits import classified
from gdd.rng import Count
from gdd.runtime.execution import EAGER, Execution
from gdd.runtime.graphs import Rate, Replayed, Scalars, tensors_of
from gdd.training.average import Average
from gdd.training.optimizers import set_lr

# Images that are answered at once in a test: a GPU is idle with fewer.
ANSWERED = {"cpu": 500, "cuda": 2000}

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, labels: Tensor, images_std: Tensor) -> Tensor:
    """The plain loss; others may also look at the images, as a teacher does."""
    return F.cross_entropy(logits, labels)


class Masks(Protocol):
    """What DropPath drops."""

    def rate_at(self, step: int) -> float:
        """Return the rate at which paths are kept in a step."""

    def __call__(self, step: Count, rate: Rate, count: int) -> Tensor:
        """Return which paths so many images keep, (count, paths)."""


@dataclass(eq=False, repr=False)
class Fit:
    """Training of one network, or of several at once (`together.Stacked`), step by step.

    Of several, images, labels and losses have an axis more in front.
    """

    network: nn.Module  # maps images (B, C, H, W) in classifier space to logits (B, K)
    batches: Callable[[int], tuple[Tensor, Tensor]]  # maps a step to images, of any space, and labels (B,)
    optimizer: torch.optim.Optimizer  # over the network's parameters
    _: KW_ONLY
    lr: Callable[[int], float] | None = None  # maps a step to the learning rate; none leaves the optimiser's
    loss: Loss = cross_entropy  # maps logits, labels and images to a scalar, or to one for each of several networks
    prepare: Callable[[Count, Tensor], Tensor] | None = None  # maps step and images to images in classifier space
    masks: Masks | None = None  # which paths images keep; none: all
    max_accuracy: float = 1.0  # a batch already classified this well changes no weight; 1 switches this off
    frozen_statistics: bool = False  # whether batch norm uses and keeps the statistics that it has, as in eval mode
    execution: Execution = EAGER  # of the network; batches of another size than the first one are not compiled
    replayed: bool = True  # whether a GPU may capture the step; False for few steps
    average: Average | None = None  # of the network, over the steps

    def __post_init__(self) -> None:
        device = next(self.network.parameters()).device
        wanted = self.replayed and self.max_accuracy == 1 and self.optimizer.defaults.get("fused") is True
        self._step = Replayed(self._take, self._changed, device, wanted=wanted)
        self._shape: torch.Size | None = None
        self._first_lr: float | None = None

    def __call__(self, steps: range) -> Tensor:
        """Take one optimiser step for each number in `steps` and return the last loss.

        ValueError if there are none, for an untrained network has no score.
        """
        if not steps:
            raise ValueError(f"a network would be trained for no step at all ({steps})")
        self.network.train(not self.frozen_statistics)
        value = torch.zeros(())
        for step in steps:
            images, labels = self.batches(step)
            self._shape = self._shape or images.shape
            lr = self._own_lr() if self.lr is None else self.lr(step)
            rate = 1.0 if self.masks is None else self.masks.rate_at(step)
            value = self._step(images.shape == self._shape, step, lr, rate, images, labels).get("loss", value)
        return value.clone()

    def _take(self, as_before: bool, step: Count, lr: Rate, rate: Rate, images: Tensor, labels: Tensor) -> Scalars:
        images_std = images if self.prepare is None else self.prepare(step, images)
        inputs = (images_std,) if self.masks is None else (images_std, self.masks(step, rate, images_std.shape[-4]))
        logits = self.execution(self.network, *inputs, compiled=as_before)
        if self.max_accuracy < 1 and classified(logits, labels).float().mean() >= self.max_accuracy:
            return {}
        value = self.loss(logits, labels, images_std)
        set_lr(self.optimizer, lr)
        self.optimizer.zero_grad()
        value.sum().backward()  # of several networks: a mean would divide each one's gradient
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.network)
        return {"loss": value.detach()}

    def _own_lr(self) -> float:
        if self._first_lr is None:  # later it is where a captured step looks for it
            self._first_lr = float(self.optimizer.param_groups[0]["lr"])
        return self._first_lr

    def _changed(self) -> Iterator[list[Tensor]]:
        return tensors_of(self.network, self.optimizer, *([self.average] if self.average is not None else []))


def fit(
    network: nn.Module,
    batches: Callable[[int], tuple[Tensor, Tensor]],
    steps: range,
    optimizer: torch.optim.Optimizer,
    lr: Callable[[int], float] | None = None,
    loss: Loss = cross_entropy,
    **more: Any,
) -> Tensor:
    """Train by a `Fit` of these and `more` of its fields for the given steps, and return the last loss."""
    return Fit(network, batches, optimizer, lr=lr, loss=loss, **more)(steps)


class Answers(NamedTuple):
    """What a network makes of some images."""

    correct: int  # classified correctly
    broken: int  # whose logits are not all finite, so they have no class


@torch.inference_mode()
def count_correct(answer: Callable[[Tensor], Tensor], images_u8: ImageRows, labels: Tensor) -> Answers:
    """Return how many of the images are classified correctly, and how many not at all.

    Args:
        answer: maps some of the images, all `ANSWERED` of them but the last ones, to logits (B, K); in eval mode.
        images_u8: (N, C, H, W).
        labels: (N,), on the device of the logits.
    """
    counts = torch.zeros(2, dtype=torch.int64, device=labels.device)
    correct, broken = counts
    at_once = ANSWERED[labels.device.type]
    for images, targets in zip(images_u8.split(at_once), labels.split(at_once), strict=True):
        logits = answer(images)
        correct += classified(logits, targets).sum()
        broken += (~logits.isfinite().all(1)).sum()
    return Answers(*counts.cpu().tolist())  # for which a GPU waits once

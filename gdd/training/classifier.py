"""Train one classifier; pool members, teachers and students all go through here."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from gdd.losses.logits import classified
from gdd.runtime.execution import EAGER, Execution

ANSWERED = 500  # images that are answered at once in a test

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, labels: Tensor, images_std: Tensor) -> Tensor:
    """The plain loss; others may also look at the images, as a teacher does."""
    return F.cross_entropy(logits, labels)


def sgd(network: nn.Module, lr: float, fused: bool | None = None, weight_decay: float = 5e-4) -> torch.optim.SGD:
    """Return the field's optimiser: momentum 0.9, weight decay 5e-4 unless told (DC, utils.py)."""
    return torch.optim.SGD(network.parameters(), lr=lr, momentum=0.9, weight_decay=weight_decay, fused=fused)


def adamw(network: nn.Module, lr: float, fused: bool | None = None, weight_decay: float = 5e-4) -> torch.optim.AdamW:
    """Return AdamW with betas .9 and .999, the baseline of Zhong and Liu (arXiv 2309.04195, config.py)."""
    return torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=weight_decay, fused=fused)


def lion(network: nn.Module, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Return Lion as Zhong and Liu set it (arXiv 2309.04195, optim.py)."""
    from timm.optim import Lion  # takes seconds

    return Lion(network.parameters(), lr=lr, betas=(0.95, 0.98), weight_decay=weight_decay)


def fit(
    network: nn.Module,
    batches: Callable[[int], tuple[Tensor, Tensor]],
    steps: range,
    optimizer: torch.optim.Optimizer,
    lr: Callable[[int], float] | None = None,
    loss: Loss = cross_entropy,
    max_accuracy: float = 1.0,
    frozen_statistics: bool = False,
    execution: Execution = EAGER,
    masks: Callable[[int, int], Tensor] | None = None,
) -> Tensor:
    """Take one optimiser step for each number in `steps` and return the last loss.

    Args:
        network: maps images (B, C, H, W) in classifier space to logits (B, K); or several that are trained at once,
            `together.Stacked`, where all these, labels and losses have an axis more in front.
        batches: maps a step to images in classifier space and labels (B,).
        steps: which steps to take; ValueError if there are none, for an untrained network has no score.
        optimizer: over the network's parameters.
        lr: maps a step to the learning rate; none leaves the optimiser's.
        loss: maps logits, labels and images to a scalar, or to one for each of several networks.
        max_accuracy: a batch already classified this well changes no weight; 1 switches this off. One network only.
        frozen_statistics: whether batch norm uses and keeps the statistics that it has, as in eval mode.
        execution: of the network. Batches of another size than the first one are not compiled.
        masks: maps a step and its number of images to the paths that they keep, (B, paths); without it they keep all.
    """
    if not steps:
        raise ValueError(f"a network would be trained for no step at all ({steps})")
    network.train(not frozen_statistics)
    value, shape = torch.zeros(()), None
    for step in steps:
        images_std, labels = batches(step)
        shape = shape or images_std.shape
        inputs = (images_std,) if masks is None else (images_std, masks(step, images_std.shape[-4]))
        logits = execution(network, *inputs, compiled=images_std.shape == shape)
        if max_accuracy < 1 and classified(logits, labels).float().mean() >= max_accuracy:
            continue
        value = loss(logits, labels, images_std)
        if lr is not None:
            for group in optimizer.param_groups:
                group["lr"] = lr(step)
        optimizer.zero_grad()
        value.sum().backward()  # of several networks: a mean would divide each one's gradient
        optimizer.step()
    return value.detach()


@contextmanager
def averaged(network: nn.Module, optimizer: torch.optim.Optimizer, decay: float) -> Iterator[None]:
    """Average a network over the optimiser's steps inside the block, and leave it with that average after it.

    average <- decay * average + (1 - decay) * weights after every step, beginning with the weights after the first;
    batch norm's running statistics and other buffers are averaged alike.

    Args:
        network: one, or several as `together.Stacked`.
        optimizer: over its parameters.
        decay: in [0, 1); 0 leaves the weights of the last step.
    """
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    hook = optimizer.register_step_post_hook(lambda *_: average.update_parameters(network))
    try:
        yield
    finally:
        hook.remove()
    network.load_state_dict(average.module.state_dict())


class Answers(NamedTuple):
    """What a network makes of some images."""

    correct: int  # classified correctly
    broken: int  # whose logits are not all finite, so they have no class


@torch.inference_mode()
def count_correct(answer: Callable[[Tensor], Tensor], images_u8: Tensor, labels: Tensor) -> Answers:
    """Return how many of the images are classified correctly, and how many not at all.

    Args:
        answer: maps some of the images, all `ANSWERED` of them but the last ones, to logits (B, K); in eval mode.
        images_u8: (N, C, H, W).
        labels: (N,), on the device of the logits.
    """
    correct, broken = torch.zeros(2, dtype=torch.int64, device=labels.device)
    for images, targets in zip(images_u8.split(ANSWERED), labels.split(ANSWERED), strict=True):
        logits = answer(images)
        correct += classified(logits, targets).sum()
        broken += (~logits.isfinite().all(1)).sum()
    return Answers(int(correct), int(broken))

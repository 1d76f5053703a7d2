"""An average of a network's weights over the steps of its training."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


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

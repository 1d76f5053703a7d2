"""An average of a network's weights over training."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gdd.runtime.graphs import tensors_of


class Average(nn.Module):
    """average <- decay * average + (1 - decay) * network, of weights and buffers; it begins with the first network.

    `module` is a network like the one that is averaged. Whole numbers, such as counts of batches, are the network's.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        """Take the network and a decay per update, in [0, 1); 0 leaves the last network."""
        super().__init__()
        self.module, self.decay = copy.deepcopy(network), decay
        device = next(network.parameters()).device
        self.n_averaged: Tensor
        self.register_buffer("n_averaged", torch.zeros((), dtype=torch.int64, device=device))
        self.begun = False

    def _get_name(self) -> str:
        return "AveragedModel"  # as earlier checkpoints have it

    def forward(self, *inputs: Tensor) -> Any:
        return self.module(*inputs)

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Add the network as it is now."""
        pairs = list(zip(*tensors_of(self.module, network), strict=True))
        for floating in (True, False):
            averages = [one for one, _ in pairs if one.is_floating_point() == floating]
            values = [one for _, one in pairs if one.is_floating_point() == floating]
            if averages and floating and self.begun:
                torch._foreach_lerp_(averages, values, 1 - self.decay)
            elif averages:
                torch._foreach_copy_(averages, values)
        self.n_averaged.add_(1)
        self.begun = True

    def load_state_dict(self, state_dict: Mapping[str, Any], *arguments: Any, **more: Any) -> Any:
        self.begun = bool(state_dict["n_averaged"] > 0)
        return super().load_state_dict(state_dict, *arguments, **more)

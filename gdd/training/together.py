"""Several networks of one architecture, trained at once: a GPU takes one large step faster than many small ones."""

import copy
import itertools
import warnings
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from gdd.runtime.graphs import tensors_of
from gdd.training.classifier import Loss


class Stacked(nn.Module):
    """S networks as one, whose weights and buffers have a first axis of S; each sees images of its own.

    Args:
        networks: of one architecture and on one device; at least one, none of them with dropout. They are left as
            they are until `give_back`.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        # Of average pools over whole maps, whose one value per channel it concerns: too little to matter.
        warnings.filterwarnings("ignore", "There is a performance drop.*aten::as_strided_", UserWarning)
        self._networks = tuple(networks)  # no submodules, so they are not trained
        self.network = copy.deepcopy(networks[0])
        # Under vmap, cuDNN's batch norm cannot be asked for maps that lie channels-last.
        contiguous = any(isinstance(module, _BatchNorm) for module in self.network.modules())
        for stacked, alone in self._pairs():
            together = torch.stack([tensor.detach() for tensor in alone])
            # Not `contiguous()`, which leaves the strides of 1x1 kernels as they are.
            stacked.data = together.clone(memory_format=torch.contiguous_format) if contiguous else together

    def _pairs(self) -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
        """Yield each weight and buffer of all, and the S networks' own."""
        stacked, *alone = tensors_of(self.network, *self._networks)
        return zip(stacked, zip(*alone, strict=True), strict=True)

    def forward(self, images_std: Tensor, *masks: Tensor) -> Tensor:
        """Return logits (S, B, K) of images (S, B, C, H, W) in classifier space; `masks` of paths are (S, B, P)."""

        def answer(tensors: dict[str, Tensor], *inputs: Tensor) -> Tensor:
            return functional_call(self.network, tensors, inputs)

        tensors = dict(itertools.chain(self.network.named_parameters(), self.network.named_buffers()))
        return torch.vmap(answer)(tensors, images_std, *masks)

    @torch.no_grad()
    def give_back(self) -> None:
        """Write weights and buffers, such as batch norm's running statistics, into the networks they came from."""
        for stacked, alone in self._pairs():
            for tensor, value in zip(alone, stacked, strict=True):
                tensor.copy_(value)


def each_own(losses: Sequence[Loss]) -> Loss:
    """Return a loss that maps logits, labels and images with an axis of S in front to the S networks' own losses (S,).

    `fit` descends their sum. Of its parts a network's weights decide its own loss alone, so each is trained as it would
    be alone. If all have one loss, it is called once, under vmap: it must not depend on anything but its arguments.
    """
    if len({*losses}) == 1:
        return torch.vmap(losses[0])

    def loss(*stacked: Tensor) -> Tensor:
        return torch.stack([loss_of_one(*parts) for loss_of_one, *parts in zip(losses, *stacked, strict=True)])

    return loss

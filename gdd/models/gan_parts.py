"""What generators and discriminators share: what they are, and batch norm over all processes."""

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm


class Generator(nn.Module):
    """Map noise (B, noise_dim) and classes (B,) to images (B, C, H, W) in [-1, 1]."""

    arch: ClassVar[Literal["dim", "residual"]]
    num_classes: int  # K
    width: int  # channels of its largest maps
    noise_dim: int  # length of the noise vector


class Discriminator(nn.Module):
    """Map images (B, C, H, W) in [-1, 1] to realness scores (B,) and class logits (B, K)."""


class _Sum(torch.autograd.Function):
    """Sum over all processes, of values and of gradients."""

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        total = local.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Sum.apply(*gradients)


class BatchNorm(_BatchNorm):
    """Batch norm over the images of all processes, so that their number changes nothing but rounding.

    torch's own SyncBatchNorm is for GPUs alone. In eval mode, and for one process, this is torch's batch norm.
    Every process must have as many images.
    """

    shared = True  # whether processes share their statistics

    def _check_input_dim(self, input: Tensor) -> None:
        """Take vectors (B, F) and maps (B, C, H, W) alike."""

    def forward(self, input: Tensor) -> Tensor:
        processes = distributed.get_world_size() if self.shared and distributed.is_initialized() else 1
        if not self.training or processes == 1:
            return super().forward(input)
        # Statistics need more digits than bfloat16 has.
        values = input.to(torch.promote_types(input.dtype, torch.float32))
        axes = (0, *range(2, values.ndim))

        def mean(part: Tensor) -> Tensor:
            return _Sum.apply(part.mean(axes, keepdim=True)) / processes

        average = mean(values)
        centred = values - average
        variance = mean(centred.square())
        count = processes * values.numel() // self.num_features
        self._track(average.detach().flatten(), variance.detach().flatten() * count / (count - 1))
        standardized = centred * (variance + self.eps).rsqrt()
        if not self.affine:
            return standardized
        shape = average.shape
        return standardized * self.weight.view(shape) + self.bias.view(shape)

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        self.num_batches_tracked += 1

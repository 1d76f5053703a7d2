"""The optimisers of all training. On a GPU each takes its step in one kernel, so that a graph can replay it."""

import warnings

import torch
from torch import nn

from gdd.runtime.graphs import Rate


def sgd(network: nn.Module, lr: float, fused: bool | None = None, weight_decay: float = 5e-4) -> torch.optim.SGD:
    """Return the field's optimiser: momentum 0.9, weight decay 5e-4 unless told (DC, utils.py)."""
    fused = fused or _on_gpu(network) or None
    return torch.optim.SGD(network.parameters(), lr=lr, momentum=0.9, weight_decay=weight_decay, fused=fused)


def adamw(network: nn.Module, lr: float, fused: bool | None = None, weight_decay: float = 5e-4) -> torch.optim.AdamW:
    """Return AdamW with betas .9 and .999, the baseline of Zhong and Liu (arXiv 2309.04195, config.py)."""
    on_gpu = _on_gpu(network)
    return torch.optim.AdamW(
        network.parameters(), lr=lr, weight_decay=weight_decay, fused=fused or on_gpu or None, capturable=on_gpu
    )


def adam(network: nn.Module, lr: float, betas: tuple[float, float], fused: bool | None = None) -> torch.optim.Adam:
    """Return Adam, the optimiser of both networks of a GAN."""
    on_gpu = _on_gpu(network)
    return torch.optim.Adam(network.parameters(), lr, betas, fused=fused or on_gpu or None, capturable=on_gpu)


def lion(network: nn.Module, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Return Lion as Zhong and Liu set it (arXiv 2309.04195, optim.py)."""
    from timm.optim import Lion  # takes seconds

    return Lion(network.parameters(), lr=lr, betas=(0.95, 0.98), weight_decay=weight_decay)


def set_lr(optimizer: torch.optim.Optimizer, lr: Rate) -> None:
    """Let the optimiser's next step have a learning rate, on a GPU also a tensor ()."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def _on_gpu(network: nn.Module) -> bool:
    # torch would warn of each optimiser that can be captured while it is not.
    warnings.filterwarnings("ignore", "This instance was constructed with capturable=True", UserWarning)
    return next(network.parameters()).device.type == "cuda"

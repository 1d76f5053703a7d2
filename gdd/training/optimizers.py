"""The optimisers of all training. On a GPU each takes its step in one kernel, so that a graph can replay it."""

import warnings
from typing import Any, TypeVar

import torch
from torch import nn

from gdd.runtime.graphs import Rate

Made = TypeVar("Made", bound=torch.optim.Optimizer)


def sgd(network: nn.Module, lr: float, fused: bool | None = None, weight_decay: float = 5e-4) -> torch.optim.SGD:
    """Return the field's optimiser: momentum 0.9, weight decay 5e-4 unless told (DC, utils.py)."""
    fused = fused or _on_gpu(network) or None
    return _keeping(
        torch.optim.SGD(network.parameters(), lr=lr, momentum=0.9, weight_decay=weight_decay, fused=fused), "fused"
    )


def adamw(network: nn.Module, lr: float, fused: bool | None = None, weight_decay: float = 5e-4) -> torch.optim.AdamW:
    """Return AdamW with betas .9 and .999, the baseline of Zhong and Liu (arXiv 2309.04195, config.py)."""
    on_gpu = _on_gpu(network)
    made = torch.optim.AdamW(
        network.parameters(), lr=lr, weight_decay=weight_decay, fused=fused or on_gpu or None, capturable=on_gpu
    )
    return _keeping(made, "fused", "capturable")


def adam(network: nn.Module, lr: float, betas: tuple[float, float], fused: bool | None = None) -> torch.optim.Adam:
    """Return Adam, the optimiser of both networks of a GAN."""
    on_gpu = _on_gpu(network)
    made = torch.optim.Adam(network.parameters(), lr, betas, fused=fused or on_gpu or None, capturable=on_gpu)
    return _keeping(made, "betas", "fused", "capturable")


def lion(network: nn.Module, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Return Lion as Zhong and Liu set it (arXiv 2309.04195, optim.py)."""
    from timm.optim import Lion  # takes seconds

    return Lion(network.parameters(), lr=lr, betas=(0.95, 0.98), weight_decay=weight_decay)


def set_lr(optimizer: torch.optim.Optimizer, lr: Rate) -> None:
    """Let the optimiser's next step have a learning rate, on a GPU also a tensor ()."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def _keeping(optimizer: Made, *settings: str) -> Made:
    """Let an optimiser keep some settings when a state is loaded, perhaps of another stage, precision or device.

    They decide where the count of its steps is kept, so they have to be there before the state is.
    """

    def kept(own: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        groups = zip(state["param_groups"], own.param_groups, strict=True)
        merged = [{**saved, **{name: group[name] for name in settings}} for saved, group in groups]
        return {**state, "param_groups": merged}

    optimizer.register_load_state_dict_pre_hook(kept)
    return optimizer


def _on_gpu(network: nn.Module) -> bool:
    # torch would warn of each optimiser that can be captured while it is not.
    warnings.filterwarnings("ignore", "This instance was constructed with capturable=True", UserWarning)
    return next(network.parameters()).device.type == "cuda"

"""timm's networks as classifiers, by timm's own names; weights are those of its cache, into which it fetches them.

Its dropout and DropPath are switched off: they draw from PyTorch's global generator, which no step counts.
"""

import copy
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from gdd import rng
from gdd.config import ConfigError, did_you_mean
from gdd.models.layers import Classifier, Shape

_KEPT = 4  # networks with weights: those of other seeds need not ask for them again
_DROPPED = nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d


def timm_classifier(name: str, shape: Shape, num_classes: int) -> Classifier:
    """Build a network of timm with a new linear head.

    Like all classifiers it sees images normalised by their dataset's mean and std, not by timm's.

    Args:
        name: as timm lists it, NAME or, with weights, NAME.WEIGHTS; on the meta device neither has any.
        shape: (C, H, W) of the images.
        num_classes: outputs.

    Raises:
        ConfigError: timm has no such network or weights, they cannot be had, or it cannot work on such images.
    """
    width = _width(name, shape)
    has_weights = "." in name and torch.empty(0).device.type != "meta"
    features = copy.deepcopy(_with_weights(name, shape)) if has_weights else _create(name, shape)
    return Classifier(nn.Sequential(features), nn.Linear(width, num_classes))


@lru_cache
def _width(name: str, shape: Shape) -> int:
    """Return how many features the network has for such images, for which it is tried without memory."""
    import timm  # which takes seconds

    base, _, weights = name.partition(".")
    if not timm.is_model(base):
        raise ConfigError(f"timm has no network {base!r}{did_you_mean(base, timm.list_models())}")
    if weights and name not in (offered := timm.list_pretrained(f"{base}.*")):
        raise ConfigError(f"timm has no weights {name!r}, expected one of {', '.join(offered) or 'none'}")
    channels, height, columns = shape
    try:
        with torch.device("meta"):
            features: torch.Tensor = _create(base, shape).eval()(torch.zeros(2, *shape))
    except Exception as error:  # they fail in many ways
        raise ConfigError(
            f"timm's {base} cannot work on images of {height}x{columns} pixels and {channels} channels "
            f"({_reason(error)})"
        ) from error
    if features.ndim != 2:
        raise ConfigError(f"timm's {base} answers with features of shape {tuple(features.shape)}, expected (B, F)")
    return features.shape[1]


def _create(name: str, shape: Shape, pretrained: bool = False) -> nn.Module:
    """Return the network up to its pooled features."""
    import timm

    config = timm.get_pretrained_cfg(name.partition(".")[0])
    size: dict[str, Any] = {"img_size": shape[1:]} if config is not None and config.fixed_input_size else {}
    network: nn.Module = timm.create_model(name, pretrained=pretrained, in_chans=shape[0], num_classes=0, **size)
    for module in network.modules():
        if isinstance(module, _DROPPED):
            module.p = 0.0
        if isinstance(module, timm.layers.DropPath):
            module.drop_prob = 0.0
        if getattr(module, "fused_attn", False):
            module.fused_attn = False  # type: ignore[assignment]  # the fused kernel has no second derivative
    return network


@lru_cache(maxsize=_KEPT)
def _with_weights(name: str, shape: Shape) -> nn.Module:
    try:
        with rng.seeded(0, f"{rng.INIT}-timm"):  # of what the weights lack: the same however often it is built
            return _create(name, shape, pretrained=True)
    except Exception as error:  # of the network, of the disk, of damaged files
        raise ConfigError(
            f"the weights of timm's {name} are not in its cache and cannot be fetched ({_reason(error)})"
        ) from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__

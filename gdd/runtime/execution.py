"""How every trained network is executed: the only place that decides on precision, memory layout and compilation.

docs/performance.md holds the measurements behind each rule. Weights, losses, averages, gradient penalties and the
statistics of norms are float32 throughout: bfloat16 is autocast's, and what a network answers is float32 again.
"""

import functools
import logging
import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

logger = logging.getLogger(__name__)

Precision = Literal["float32", "bfloat16"]

# Seconds that a compiler's first run takes for each layer with weights, in one of the graphs that it is part of.
_COMPILING = 1.2
_GRAPHS = 3  # with gradients, without, and in eval mode
# The share of eager execution that compiling saves, where norms over maps stand between convolutions.
_GAIN = 0.4
# FLOP in a second of eager training of one CPU core with AVX2 or AVX-512.
_SPEED = 5e10
# Forward FLOP for an image from which on bfloat16 saves a GPU more time than its conversions take, in batches of 32.
_WORTH_BFLOAT16 = 2e7
# Entries of one compiled function: an architecture has one per batch size, mode and layout.
_MOST_GRAPHS = 256


def has_bfloat16(device: torch.device) -> bool:
    """Tell whether the device computes in bfloat16 itself; emulated, it is up to 300 times slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.10 may lack it
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def needs_channels_first(network: nn.Module) -> bool:
    """Tell whether norms over maps stand in a network, which torch's own kernels compute slowly in channels-last."""
    return any(isinstance(module, nn.GroupNorm | nn.LayerNorm) for module in network.modules())


@dataclass(frozen=True)
class Execution:
    """How a network answers.

    In float32 and not compiled, the same network, data and threads give the same bits on one machine; so do the others
    as far as tests can tell, but a compiler's next version may round differently.
    """

    precision: Precision = "float32"  # of convolutions and products
    compiled: bool = False  # whether torch.compile makes the kernels

    @property
    def fused(self) -> bool | None:
        """Whether optimisers take their step in one kernel, which may round differently; None leaves it to torch."""
        return True if self != EAGER else None

    @property
    def name(self) -> str:
        return f"{self.precision}{' compiled' * self.compiled}"

    def place(self, network: nn.Module) -> nn.Module:
        """Return the network, its maps laid out as they are computed fastest."""
        if self.compiled or not needs_channels_first(network):
            network.to(memory_format=torch.channels_last)
            for module in network.modules():
                if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) == 3:
                    for parameter in module.parameters():  # (C, H, W), beside maps (B, C, H, W)
                        parameter.data = parameter.data.permute(1, 2, 0).contiguous().permute(2, 0, 1)
        return network

    def __call__(self, network: nn.Module, *inputs: Tensor, compiled: bool = True) -> Any:
        """Return the network's answer to its inputs, a tensor or a tuple of them, in float32.

        Args:
            network: from `place`.
            inputs: what it takes, the first of them on its device.
            compiled: False for inputs of a size that does not come again, which would be compiled for nothing.
        """
        answer = _compiled() if self.compiled and compiled else _answer
        return answer(network, self.precision == "bfloat16", *inputs)


EAGER = Execution()


def resolve(
    precision: Literal["float32", "bfloat16", "auto"], device: torch.device, flop: float = math.inf
) -> Precision:
    """Return the precision of the settings; auto takes bfloat16 where the device computes in it, if that pays.

    Args:
        precision: of the settings.
        device: where networks work.
        flop: for an image through the smallest of them, forwards.
    """
    if precision == "auto":
        pays = device.type == "cpu" or flop >= _WORTH_BFLOAT16
        return "bfloat16" if pays and has_bfloat16(device) else "float32"
    return precision


def decide(
    precision: Precision,
    compiled: Literal["auto", "on", "off"],
    device: torch.device,
    networks: Sequence[nn.Module],
    flop: float,
) -> Execution:
    """Choose how networks are executed; the same for the same settings on one kind of machine.

    Args:
        precision: of `resolve`.
        compiled: of the settings; auto compiles on a CPU if the work is long enough to win back the compiler's time,
            whatever its cache holds, since a result must not depend on that. On a GPU steps are replayed instead.
        device: where the networks work.
        networks: one of each architecture; may be on the meta device.
        flop: of all the work that shares its graphs, gradients included.
    """
    wanted = compiled == "on"
    if compiled == "auto" and device.type == "cpu" and any(needs_channels_first(network) for network in networks):
        modules = [module for network in networks for module in network.modules()]
        layers = sum(isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) for module in modules)
        wanted = _GAIN * flop / _SPEED > _COMPILING * _GRAPHS * layers
    return Execution(precision, wanted and can_compile(device))


@functools.cache
def can_compile(device: torch.device) -> bool:
    """Tell whether torch.compile works here, gradients included, and say once if it does not."""
    try:
        _use_cache()
        images, kernels = (torch.ones(*shape, device=device) for shape in ((2, 2, 4, 4), (2, 2, 3, 3)))
        torch.compile(_probe, dynamic=False)(images, kernels.requires_grad_()).backward()
    except Exception as error:  # every kind, from a missing compiler to missing headers
        reason = " ".join(str(error).split())[:200]
        logger.warning("networks are not compiled, since torch.compile does not work here (%s)", reason)
        return False
    return True


def _probe(images: Tensor, kernels: Tensor) -> Tensor:
    """Return a number from what networks are made of: a convolution, products of matrices, apart and in a batch."""
    maps = F.conv2d(images, kernels, padding=1).flatten(2)
    return (maps[0] @ maps[0].T + torch.bmm(maps, maps.mT)).sum()


def _use_cache() -> None:
    """Keep compiled kernels between runs and restarts of the machine, which clear torch's own place."""
    if shutil.which(os.environ.get("CXX", "c++")) is None and shutil.which("g++") is None:
        raise RuntimeError("there is no C++ compiler")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(home / "gdd" / "compiled"))


def _answer(network: nn.Module, in_bfloat16: bool, *inputs: Tensor) -> Any:
    with torch.autocast(inputs[0].device.type, torch.bfloat16, enabled=in_bfloat16):
        output = network(*inputs)
    return tuple(map(_to_float32, output)) if isinstance(output, tuple) else _to_float32(output)


def _to_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


@functools.cache
def _compiled() -> Callable[..., Any]:
    """Return the one compiled function, whose graphs all networks of one architecture share."""
    import torch._dynamo  # takes seconds

    torch._dynamo.config.recompile_limit = _MOST_GRAPHS
    torch._dynamo.config.accumulated_recompile_limit = _MOST_GRAPHS
    return torch.compile(_answer, dynamic=False)

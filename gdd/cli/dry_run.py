"""What a run would cost, before it starts: parameters, FLOPs and memory of every network."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from rich.table import Table
from torch import Tensor, nn

from gdd.config import Config
from gdd.data.spec import DatasetSpec
from gdd.models import registry
from gdd.models.cost import forward_flop
from gdd.models.gan import make_discriminator, make_generator, width_of
from gdd.pipeline.stages import STAGES

_PROBE = 2  # images; batch norm in train mode needs more than one


def cost(network: nn.Module, call: Callable[[], object]) -> tuple[int, float, int]:
    """Return a network's parameters, forward GFLOP per image, and bytes kept per image for the backward pass."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        flop = forward_flop(network, call)
    for parameter in network.parameters():
        kept.pop(parameter.data_ptr(), None)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return parameters, flop / 1e9, sum(kept.values()) // _PROBE


def _gan_rows(
    config: Config, spec: DatasetSpec, images: Tensor
) -> list[tuple[str, nn.Module, Callable[[], object], int]]:
    sizes = config.gan.arch, spec.shape, spec.num_classes, width_of(config.gan, spec.shape)
    generator, discriminator = make_generator(*sizes, config.gan.noise_dim), make_discriminator(*sizes)
    noise, labels = torch.zeros(_PROBE, config.gan.noise_dim), torch.zeros(_PROBE, dtype=torch.int64)
    batch = max(config.pretrain.batch_size, config.refine.batch_size)
    return [
        ("generator", generator, lambda: generator(noise, labels), batch),
        ("discriminator", discriminator, lambda: discriminator(images), 2 * batch),
    ]


def table(config: Config, spec: DatasetSpec, stages: Sequence[str]) -> Table:
    """Return a table with a row per network of the stages; memory is weights, gradients, two moments, activations."""
    images = torch.zeros(_PROBE, *spec.shape)
    records = [STAGES[stage] for stage in stages]
    rows = _gan_rows(config, spec, images) if any(record.has_gan for record in records) else []
    for networks in (record.networks(config, spec) for record in records if record.networks is not None):
        for name in networks.archs:
            classifier = registry.build(name, spec.shape, spec.num_classes)
            rows.append((f"{networks.purpose} {name}", classifier, partial(classifier, images), networks.batch_size))
    result = Table("network", "parameters", "forward GFLOP / image", "batch", "memory MiB")
    for title, network, call, size in rows:
        parameters, gflop, kept = cost(network, call)
        memory = (16 * parameters + kept * size) / 2**20
        result.add_row(title, f"{parameters:,}", f"{gflop:.4f}", str(size), f"{memory:,.0f}")
    return result

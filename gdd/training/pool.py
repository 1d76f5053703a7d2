"""The weighted set of networks that distillation draws from: SKD trains them on real data, matching takes them new."""

from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from gdd import rng
from gdd.config import ConfigError, PoolConfig, PoolKind
from gdd.models import registry
from gdd.training.classifier import fit, sgd

# Zhou et al. 2024, table 3.
_ACTIVATIONS = ("relu", "sigmoid", "leakyrelu", "swish")
_NORMS = ("instance", "batch", "layer", "group")
_POOLINGS = ("avg", "max")


def members(settings: PoolConfig, kind: PoolKind) -> tuple[str, ...]:
    """Return the names of a pool's networks, the main model first unless the kind is `members`."""
    if kind == "members":
        return settings.members
    if kind == "main":
        return (settings.main,)
    return (settings.main, *(_similar(settings) if kind == "main+similar" else settings.various))


def _similar(settings: PoolConfig) -> tuple[str, ...]:
    """Return every ConvNet of the main model's width that the random one can be; the main model may be among them."""
    main = registry.parse(settings.main)
    if not main.base.startswith("convnet"):
        raise ConfigError(f"pool.main is {settings.main!r}, expected a convnet with pool.kind main+similar")
    base = "convnet3" if settings.similar_depth == 3 else "convnet"
    return tuple(
        registry.Arch(base, norm, main.width, settings.similar_depth, activation, pooling).name
        for activation, norm, pooling in product(_ACTIVATIONS, _NORMS, _POOLINGS)
    )


def probabilities(settings: PoolConfig, kind: PoolKind, step: int, total: int) -> Tensor:
    """Return what each of `members` weighs at step `step` of `total`; the draw divides by the sum."""
    count = len(members(settings, kind))
    if kind == "members":
        return torch.tensor(settings.weights or [1.0] * count)
    if step < settings.main_only or count == 1:
        return torch.tensor([1.0] + [0.0] * (count - 1))
    if kind == "total random":
        return torch.full((count,), 1 / count)
    start, end = settings.main_probability, settings.main_probability_end
    done = step / max(1, total - 1)
    share = start if end is None else start * (1 - done) + end * done
    return torch.tensor([share] + [(1 - share) / (count - 1)] * (count - 1))


class Pool:
    """The networks drawn at each step; every process holds the same ones, built from the same seeds.

    With `batches`, a member is used when drawn, learns between uses, and starts anew after `redraw_every` of them.
    Without, each draw gives a new, untrained network.

    Args:
        settings: kind, members, weights and how much they learn.
        kind: which of the pools.
        total: steps of the distillation, for the schedule of the main model.
        shape: (C, H, W).
        num_classes: K.
        seed: root seed.
        batches: maps a training step to real images in classifier space and labels.
        device: where the networks live.
    """

    def __init__(
        self,
        settings: PoolConfig,
        kind: PoolKind,
        total: int,
        shape: tuple[int, int, int],
        num_classes: int,
        seed: int,
        batches: Callable[[int], tuple[Tensor, Tensor]] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.settings, self.kind, self.total = settings, kind, total
        self.shape, self.num_classes = shape, num_classes
        self.batches, self.seed, self.device = batches, seed, device
        self.names = members(settings, kind)
        self.lifespan = 1 if batches is None else settings.redraw_every
        self.uses = [0] * len(self.names)
        self.trained = 0
        self.living: dict[int, tuple[nn.Module, torch.optim.SGD]] = {}

    def _new(self, member: int) -> tuple[nn.Module, torch.optim.SGD]:
        with rng.seeded(self.seed, "init-pool", member, self.uses[member] // self.lifespan):
            network = registry.build(self.names[member], self.shape, self.num_classes)
        network.to(self.device)
        return network, sgd(network, self.settings.lr)

    def draw(self, step: int) -> tuple[int, nn.Module]:
        """Return the member for distillation step `step` and its network: trained further, frozen, in eval mode."""
        weights = probabilities(self.settings, self.kind, step, self.total)
        member = int(torch.multinomial(weights, 1, generator=rng.generator(self.seed, "pool", step)))
        fresh = member not in self.living
        network, optimizer = self._new(member) if fresh else self.living[member]
        if self.batches is not None:
            count = self.settings.steps_before if fresh else self.settings.steps_between
            if count:
                steps = range(self.trained, self.trained + count)
                network.requires_grad_(True)
                fit(network, self.batches, steps, optimizer, max_accuracy=self.settings.max_accuracy)
                self.trained += count
        self.uses[member] += 1
        self.living[member] = network, optimizer
        if self.uses[member] % self.lifespan == 0:
            del self.living[member]
        return member, network.eval().requires_grad_(False)

    def state_dict(self) -> dict[str, Any]:
        return {
            "names": list(self.names),
            "uses": list(self.uses),
            "trained": self.trained,
            "networks": {member: network.state_dict() for member, (network, _) in self.living.items()},
            "optimizers": {member: optimizer.state_dict() for member, (_, optimizer) in self.living.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["names"] != list(self.names):
            raise ValueError(f"the state is of the members {state['names']}, expected {list(self.names)}")
        self.uses, self.trained = list(state["uses"]), state["trained"]
        self.living = {member: self._new(member) for member in state["networks"]}
        for member, (network, optimizer) in self.living.items():
            network.load_state_dict(state["networks"][member])
            optimizer.load_state_dict(state["optimizers"][member])

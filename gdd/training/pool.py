"""The weighted set of networks that distillation draws from, trained on real data as it goes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gdd import rng
from gdd.config import PoolConfig
from gdd.models import registry
from gdd.training.fit import fit, sgd


class Pool:
    """One living network per member; each is used when drawn, learns between uses, and starts anew at times.

    Every process holds the same networks: they are built from the same seeds and see the same batches.

    Args:
        settings: members, weights and how much they learn.
        shape: (C, H, W).
        num_classes: K.
        batches: maps a training step to real images in classifier space and labels.
        seed: root seed.
        device: where the networks live.
    """

    def __init__(
        self,
        settings: PoolConfig,
        shape: tuple[int, int, int],
        num_classes: int,
        batches: Callable[[int], tuple[Tensor, Tensor]],
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.settings, self.shape, self.num_classes = settings, shape, num_classes
        self.batches, self.seed, self.device = batches, seed, device
        self.weights = torch.tensor(settings.weights or [1.0] * len(settings.members))
        self.uses = [0] * len(settings.members)
        self.trained = 0
        self.networks = [self._new(member) for member in range(len(settings.members))]
        self.optimizers = [sgd(network, settings.lr) for network in self.networks]

    def _new(self, member: int) -> nn.Module:
        age = self.uses[member] // self.settings.redraw_every
        with rng.seeded(self.seed, "init-pool", member, age):
            network = registry.build(self.settings.members[member], self.shape, self.num_classes)
        return network.to(self.device)

    def draw(self, step: int) -> tuple[int, nn.Module]:
        """Return the member for refinement step `step` and its network: trained further, frozen, in eval mode."""
        generator = rng.generator(self.seed, "pool", step)
        member = int(torch.multinomial(self.weights, 1, generator=generator))
        fresh = self.uses[member] % self.settings.redraw_every == 0
        if fresh:
            self.networks[member] = self._new(member)
            self.optimizers[member] = sgd(self.networks[member], self.settings.lr)
        network = self.networks[member].requires_grad_(True)
        count = self.settings.steps_before if fresh else self.settings.steps_between
        if count:
            steps = range(self.trained, self.trained + count)
            fit(network, self.batches, steps, self.optimizers[member], max_accuracy=self.settings.max_accuracy)
            self.trained += count
        self.uses[member] += 1
        return member, network.eval().requires_grad_(False)

    def state_dict(self) -> dict[str, Any]:
        return {
            "uses": list(self.uses),
            "trained": self.trained,
            "networks": [network.state_dict() for network in self.networks],
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.uses, self.trained = list(state["uses"]), state["trained"]
        for network, values in zip(self.networks, state["networks"], strict=True):
            network.load_state_dict(values)
        for optimizer, values in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(values)

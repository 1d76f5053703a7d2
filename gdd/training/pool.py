"""The networks that real and synthetic images are compared with, drawn by weight at every step.

Refinement asks a `LearningPool`, whose members learn from real images as it goes on; matching takes a new network of a
`FreshPool` for each iteration. Every process holds the same networks, built from the same seeds.
"""

from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from gdd import rng
from gdd.config import ConfigError, PoolKind
from gdd.data.batches import Batches
from gdd.data.pixels import Normalizer
from gdd.models import registry
from gdd.models.layers import Shape
from gdd.training.classifier import fit, sgd

# Zhou et al. 2024, table 3.
_ACTIVATIONS = ("relu", "sigmoid", "leakyrelu", "swish")
_NORMS = ("instance", "batch", "layer", "group")
_POOLINGS = ("avg", "max")


def _drawn(weights: Tensor, seed: int, step: int) -> int:
    return int(torch.multinomial(weights, 1, generator=rng.generator(seed, rng.POOL_MEMBER, step)))


def _require_members(state: dict[str, Any], names: tuple[str, ...]) -> None:
    if state["names"] != list(names):
        raise ValueError(f"the state is of the members {state['names']}, expected {list(names)}")


class LearningPool:
    """Members that learn from real images before and between uses, and start anew after `redraw_every` of them.

    Args:
        images_u8: (N, C, H, W), real images on the device where the members shall live.
        labels: (N,).
        num_classes: K.
        normalize: to classifier space, on the same device.
        members: names of architectures.
        weights: probability weight of each; empty means equal.
        redraw_every: uses of a member until it starts anew from random weights.
        steps_before: training steps of a new member before its first use.
        steps_between: training steps before each further use.
        max_accuracy: members stop learning while their accuracy on a fresh batch is at least this; 1 switches it off.
        batch_size: real images per training step.
        lr: of their SGD.
        seed: root seed.
    """

    def __init__(
        self,
        images_u8: Tensor,
        labels: Tensor,
        num_classes: int,
        normalize: Normalizer,
        *,
        members: tuple[str, ...],
        weights: tuple[float, ...],
        redraw_every: int,
        steps_before: int,
        steps_between: int,
        max_accuracy: float,
        batch_size: int,
        lr: float,
        seed: int,
    ) -> None:
        self.batches = Batches(images_u8, labels, batch_size, seed, rng.POOL_BATCHES)
        self.num_classes, self.normalize = num_classes, normalize
        self.names, self.weights = members, torch.tensor(weights or [1.0] * len(members))
        self.redraw_every, self.steps_before, self.steps_between = redraw_every, steps_before, steps_between
        self.max_accuracy, self.lr, self.seed = max_accuracy, lr, seed
        self.uses = [0] * len(members)
        self.steps_trained = 0
        self.alive: dict[int, tuple[nn.Module, torch.optim.SGD]] = {}

    def network(self, step: int) -> nn.Module:
        """Return the member that is drawn for step `step`: trained further, then frozen and in eval mode."""
        member = _drawn(self.weights, self.seed, step)
        is_new = member not in self.alive
        network, optimizer = self._new(member) if is_new else self.alive[member]
        count = self.steps_before if is_new else self.steps_between
        if count:
            network.requires_grad_(True)
            steps = range(self.steps_trained, self.steps_trained + count)
            fit(network, self._batch, steps, optimizer, max_accuracy=self.max_accuracy)
            self.steps_trained += count
        self.uses[member] += 1
        self.alive[member] = network, optimizer
        if self.uses[member] % self.redraw_every == 0:
            del self.alive[member]
        return network.eval().requires_grad_(False)

    def _new(self, member: int) -> tuple[nn.Module, torch.optim.SGD]:
        _, channels, height, width = self.batches.images_u8.shape
        with rng.seeded(self.seed, rng.INIT_POOL, member, self.uses[member] // self.redraw_every):
            network = registry.build(self.names[member], (channels, height, width), self.num_classes)
        network.to(self.batches.images_u8.device)
        return network, sgd(network, self.lr)

    def _batch(self, step: int) -> tuple[Tensor, Tensor]:
        images_u8, labels = self.batches(step)
        return self.normalize.from_u8(images_u8), labels

    def state_dict(self) -> dict[str, Any]:
        return {
            "names": list(self.names),
            "uses": list(self.uses),
            "steps_trained": self.steps_trained,
            "networks": {member: network.state_dict() for member, (network, _) in self.alive.items()},
            "optimizers": {member: optimizer.state_dict() for member, (_, optimizer) in self.alive.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        _require_members(state, self.names)
        self.uses, self.steps_trained = list(state["uses"]), state["steps_trained"]
        self.alive = {member: self._new(member) for member in state["networks"]}
        for member, (network, optimizer) in self.alive.items():
            network.load_state_dict(state["networks"][member])
            optimizer.load_state_dict(state["optimizers"][member])


def fresh_members(kind: PoolKind, main: str, various: tuple[str, ...], similar_depth: int) -> tuple[str, ...]:
    """Return the names of a pool of Zhou et al., the main model first."""
    if kind == "main":
        return (main,)
    return (main, *(_similar(main, similar_depth) if kind == "main+similar" else various))


def _similar(main: str, depth: int) -> tuple[str, ...]:
    """Return every ConvNet of the main model's width that the random one can be; the main model may be among them."""
    arch = registry.parse(main)
    if not arch.base.startswith("convnet"):
        raise ConfigError(f"matching.pool.main is {main!r}, expected a convnet with matching.pool.kind main+similar")
    base = "convnet3" if depth == 3 else "convnet"
    return tuple(
        registry.Arch(base, norm, arch.width, depth, activation, pooling).name
        for activation, norm, pooling in product(_ACTIVATIONS, _NORMS, _POOLINGS)
    )


class FreshPool:
    """A new, untrained network at every iteration, from a pool of Zhou et al. (arXiv 2402.13007).

    Args:
        shape: (C, H, W).
        num_classes: K.
        kind: main alone, with similar ConvNets, with various networks, or all of the latter alike (total random).
        main: the main model.
        main_probability: of the main model beside others.
        main_probability_end: the same at the last iteration, linear in between; none keeps it.
        main_only: iterations at the start that use the main model alone.
        similar_depth: depth of the similar ConvNets.
        various: the other models.
        iterations: of the whole distillation.
        seed: root seed.
        device: where the networks live.
    """

    def __init__(
        self,
        shape: Shape,
        num_classes: int,
        *,
        kind: PoolKind,
        main: str,
        main_probability: float,
        main_probability_end: float | None,
        main_only: int,
        similar_depth: int,
        various: tuple[str, ...],
        iterations: int,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.shape, self.num_classes, self.seed, self.device = shape, num_classes, seed, device
        self.kind, self.main_only, self.iterations = kind, main_only, iterations
        self.main_probability, self.main_probability_end = main_probability, main_probability_end
        self.names = fresh_members(kind, main, various, similar_depth)
        self.uses = [0] * len(self.names)

    def probabilities(self, iteration: int) -> Tensor:
        """Return the probability of each member at an iteration."""
        count = len(self.names)
        if iteration < self.main_only or count == 1:
            return torch.tensor([1.0] + [0.0] * (count - 1))
        if self.kind == "total random":
            return torch.full((count,), 1 / count)
        main = self.main_probability
        if self.main_probability_end is not None:
            done = iteration / max(1, self.iterations - 1)
            main = main * (1 - done) + self.main_probability_end * done
        return torch.tensor([main] + [(1 - main) / (count - 1)] * (count - 1))

    def network(self, iteration: int) -> nn.Module:
        """Return the iteration's network, in eval mode."""
        member = _drawn(self.probabilities(iteration), self.seed, iteration)
        with rng.seeded(self.seed, rng.INIT_POOL, member, self.uses[member]):
            network = registry.build(self.names[member], self.shape, self.num_classes)
        self.uses[member] += 1
        return network.to(self.device).eval()

    def state_dict(self) -> dict[str, Any]:
        return {"names": list(self.names), "uses": list(self.uses)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        _require_members(state, self.names)
        self.uses = list(state["uses"])

"""The networks that guide refinement, drawn by weight.

Members of a `LearningPool` learn from real images as refinement goes on; those of a `SnapshotPool` have learned before.
Every process holds the same networks, built from the same seeds.
"""

import copy
import itertools
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn

from gdd import rng
from gdd.data import augment
from gdd.data.augment import AugmentedBatches
from gdd.data.batches import Batches
from gdd.data.mapped import ImageRows
from gdd.data.pixels import Normalizer
from gdd.data.spec import DatasetSpec
from gdd.data.splits import Split
from gdd.losses.logits import classified
from gdd.models import registry
from gdd.models.cost import TRAINING, classifier_flop
from gdd.runtime.device import Stopwatch
from gdd.runtime.execution import EAGER, Execution
from gdd.runtime.graphs import tensors_of
from gdd.runtime.run import Run
from gdd.training.classifier import Fit
from gdd.training.optimizers import sgd


def draw_member(weights: Tensor, seed: int, step: int) -> int:
    """Return the place of the member that is drawn for a step, by the members' probability weights (M,)."""
    return rng.Draws(seed, rng.POOL_MEMBER, step).choice(weights.tolist())


def told_apart(names: Sequence[str]) -> list[str]:
    """Return the names, with their place where one is there more than once."""
    return [name if names.count(name) == 1 else f"{name} {place}" for place, name in enumerate(names)]


def require_members(state: dict[str, Any], members: tuple[str, ...]) -> None:
    """Refuse the state of a pool of other members."""
    if state["members"] != list(members):
        raise ValueError(f"the state is of the members {state['members']}, expected {list(members)}")


def execution_of(members: Sequence[str], spec: DatasetSpec, flop: float, run: Run) -> Execution:
    """Decide how the members of a pool are executed whose work takes `flop` in all."""
    with torch.device("meta"):
        networks = [registry.build(name, spec.shape, spec.num_classes) for name in members]
    precision = run.precision(classifier_flop(name, spec.shape, spec.num_classes) for name in members)
    return run.execution(networks, precision, flop)


def learning_flop(members: Sequence[str], spec: DatasetSpec, images: float) -> float:
    """Return the FLOP of so many images through members that are drawn equally often, gradients included."""
    return (
        TRAINING * images * sum(classifier_flop(name, spec.shape, spec.num_classes) for name in members) / len(members)
    )


@dataclass(eq=False, repr=False)
class Lessons:
    """What members learn from: batches of real images, on which they are trained as plain classifiers."""

    images_u8: ImageRows  # (N, C, H, W), real images on the device where the members shall live
    labels: Tensor  # (N,)
    num_classes: int
    normalize: Normalizer  # to classifier space, on the same device
    _: KW_ONLY
    max_accuracy: float  # members stop learning while their accuracy on a fresh batch is at least this; 1: never
    batch_size: int  # real images per training step
    lr: float  # of their SGD
    augmentations: tuple[str, ...]  # of what they learn, each image by itself
    seed: int  # root seed
    execution: Execution = EAGER  # of the members

    def __post_init__(self) -> None:
        batches = Batches(self.images_u8, self.labels, self.batch_size, self.seed, rng.POOL_BATCHES)
        self.batches = AugmentedBatches(batches, self.normalize, self.augmentations, rng.POOL_AUGMENT)
        self.watch = Stopwatch(self.images_u8.device)  # of what they take this process

    def beginner(self, arch: str, *counters: int) -> Fit:
        """Return the training of an untrained member, the same for the same counters."""
        _, channels, height, width = self.images_u8.shape
        with rng.seeded(self.seed, rng.INIT_POOL, *counters):
            network = registry.build(arch, (channels, height, width), self.num_classes)
        self.execution.place(network.to(self.images_u8.device))
        return Fit(
            network,
            self.batches.batches,
            sgd(network, self.lr, self.execution.fused),
            prepare=self.batches.prepare,
            max_accuracy=self.max_accuracy,
            execution=self.execution,
        )

    def teach(self, member: Fit, steps: range) -> None:
        """Train a member on the batches of some steps, if there are any; afterwards it is the same on all processes."""
        if not steps:
            return
        with self.watch:
            member.network.requires_grad_(True)
            member(steps)
            _agree(member.network)


@torch.no_grad()
def _agree(network: nn.Module) -> None:
    """Give all processes the first one's weights and statistics: on GPUs, sums may round differently in each."""
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return
    tensors = [tensor for tensor in (*network.parameters(), *network.buffers()) if tensor.is_floating_point()]
    joined = torch.cat([tensor.flatten() for tensor in tensors])
    distributed.broadcast(joined, 0)
    for tensor, values in zip(tensors, joined.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(values.view(tensor.shape))


@dataclass(eq=False, repr=False)
class LearningPool:
    """Members that learn from real images before and between uses, and start anew after `redraw_every` of them."""

    lessons: Lessons
    members: tuple[str, ...]  # names of architectures
    weights: tuple[float, ...]  # probability weight of each; empty means equal
    redraw_every: int  # uses of a member until it starts anew from random weights
    steps_before: int  # training steps of a new member before its first use
    steps_between: int  # training steps before each further use

    def __post_init__(self) -> None:
        self.probabilities = torch.tensor(self.weights or [1.0] * len(self.members))
        self.uses = [0] * len(self.members)
        self.steps_trained = 0
        self.alive: dict[int, Fit] = {}
        self.kept: dict[int, Fit] = {}  # of members that have lived: captured steps know where their weights are

    def network(self, step: int) -> nn.Module:
        """Return the member that is drawn for step `step`: trained further, then frozen and in eval mode."""
        member = draw_member(self.probabilities, self.lessons.seed, step)
        is_new = member not in self.alive
        self.alive[member] = self._new(member) if is_new else self.alive[member]
        learning = self.alive[member]
        count = self.steps_before if is_new else self.steps_between
        self.lessons.teach(learning, range(self.steps_trained, self.steps_trained + count))
        self.steps_trained += count
        self.uses[member] += 1
        if self.uses[member] % self.redraw_every == 0:
            del self.alive[member]
        return learning.network.eval().requires_grad_(False)

    def networks(self) -> dict[str, nn.Module]:
        """Return the members that are alive, by name."""
        names = told_apart(self.members)
        return {names[member]: learning.network for member, learning in self.alive.items()}

    def _new(self, member: int) -> Fit:
        """Return a member that has learned nothing, in the place of the one that it follows."""
        beginner = self.lessons.beginner(self.members[member], member, self.uses[member] // self.redraw_every)
        kept = self.kept.setdefault(member, beginner)
        if kept is not beginner:
            kept.network.load_state_dict(beginner.network.state_dict())
            for moment in itertools.chain(*tensors_of(kept.optimizer)):
                moment.zero_()
        return kept

    def state_dict(self) -> dict[str, Any]:
        return {
            "members": list(self.members),
            "uses": list(self.uses),
            "steps_trained": self.steps_trained,
            "networks": {member: learning.network.state_dict() for member, learning in self.alive.items()},
            "optimizers": {member: learning.optimizer.state_dict() for member, learning in self.alive.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        require_members(state, self.members)
        self.uses, self.steps_trained = list(state["uses"]), state["steps_trained"]
        self.alive = {member: self._new(member) for member in state["networks"]}
        for member, learning in self.alive.items():
            learning.network.load_state_dict(state["networks"][member])
            learning.optimizer.load_state_dict(state["optimizers"][member])


@dataclass(eq=False, repr=False)
class SnapshotPool:
    """Members that are trained once, when first drawn, and kept as they were at several ages."""

    lessons: Lessons
    members: tuple[str, ...]  # names of architectures
    weights: tuple[float, ...]  # probability weight of each; empty means equal
    ages: tuple[int, ...]  # training steps of a member at each of its snapshots, ascending; all equally likely

    def __post_init__(self) -> None:
        self.probabilities = torch.tensor(self.weights or [1.0] * len(self.members))
        self.uses = [0] * len(self.members)
        self.snapshots: dict[int, list[nn.Module]] = {}

    def network(self, step: int) -> nn.Module:
        """Return the snapshot that is drawn for step `step`, frozen and in eval mode."""
        member = draw_member(self.probabilities, self.lessons.seed, step)
        age = rng.Draws(self.lessons.seed, rng.POOL_AGE, step).whole(len(self.ages))
        if member not in self.snapshots:
            self.snapshots[member] = self._grown(member)
        self.uses[member] += 1
        return self.snapshots[member][age].eval().requires_grad_(False)

    def networks(self) -> dict[str, nn.Module]:
        """Return the snapshots that there are, by name and age."""
        return {
            f"{told_apart(self.members)[member]} after {age}": network
            for member, snapshots in self.snapshots.items()
            for age, network in zip(self.ages, snapshots, strict=True)
        }

    def _grown(self, member: int) -> list[nn.Module]:
        """Train a member on batches of its own, so that it does not matter when it is drawn, and return its states."""
        learning = self.lessons.beginner(self.members[member], member, 0)
        snapshots, first = [], member * self.ages[-1]
        for before, age in itertools.pairwise((0, *self.ages)):
            self.lessons.teach(learning, range(first + before, first + age))
            snapshots.append(copy.deepcopy(learning.network))
        return snapshots

    def state_dict(self) -> dict[str, Any]:
        return {
            "members": list(self.members),
            "uses": list(self.uses),
            "snapshots": {
                member: [network.state_dict() for network in snapshots] for member, snapshots in self.snapshots.items()
            },
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        require_members(state, self.members)
        self.uses, self.snapshots = list(state["uses"]), {}
        for member, states in state["snapshots"].items():
            self.snapshots[member] = [self.lessons.beginner(self.members[member], member, 0).network for _ in states]
            for network, weights in zip(self.snapshots[member], states, strict=True):
                network.load_state_dict(weights)


class Exam:
    """How many validation images the members of a pool get right, augmented as the images that they are asked about."""

    MOST = 500

    def __init__(self, val: Split, normalize: Normalizer, augmentations: tuple[str, ...], seed: int) -> None:
        """Take the validation part, of which the first 500 images of a random order count; it may be empty."""
        order = rng.Draws(seed, rng.POOL_EXAM, 0).permutation(len(val.labels))[: self.MOST]
        chosen = val.subset(order)
        change = augment.draw(augmentations, len(order), rng.Draws(seed, rng.POOL_EXAM, 1), shared=False, pick="all")
        device = normalize.mean.device
        self.images_std = augment.apply(change, normalize.from_u8(chosen.images_u8[:].to(device)))
        self.labels = chosen.labels.to(device)

    @torch.inference_mode()
    def accuracies(self, pool: LearningPool | SnapshotPool) -> dict[str, Tensor]:
        """Return the share that each member gets right, by the name of its curve."""
        if not len(self.labels):
            return {}
        return {
            f"accuracy/{name}": classified(network.eval()(self.images_std), self.labels).float().mean()
            for name, network in pool.networks().items()
        }

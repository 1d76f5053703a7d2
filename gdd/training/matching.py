"""The rival: optimise the pixels of a set until a network's gradients, or features, are those of real images.

Gradient matching is DC (Zhao, Mopuri and Bilen 2021), with shared augmentation DSA (Zhao and Bilen 2021); embedding
matching is DM (Zhao and Bilen 2023); the pools of networks are those of Zhou, Zhong and Chen (arXiv 2402.13007).
"""

from dataclasses import KW_ONLY, asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from einops import rearrange
from torch import Tensor, nn

from gdd import rng
from gdd.config import Config, ConfigError, MatchingConfig, MatchingPoolConfig, PoolKind, stages
from gdd.data import augment
from gdd.data.batches import ClassBatches
from gdd.data.pixels import Normalizer
from gdd.data.readers import Dataset
from gdd.data.spec import DatasetSpec, dsa
from gdd.losses import distances
from gdd.models import registry
from gdd.models.layers import Shape
from gdd.runtime.checkpoint import Stateful
from gdd.runtime.execution import EAGER, Execution
from gdd.runtime.run import Run
from gdd.sampling import generator_file, sample, set_file
from gdd.sampling.origin import run_origin
from gdd.training.classifier import fit
from gdd.training.matching_loss import embedding_loss, freeze_statistics, gradient_loss
from gdd.training.pool import draw_member, execution_of, learning_flop, require_members, told_apart

Objective = Literal["gradient", "embedding"]
# Epochs between two updates by images per class, which is also how many updates (DatasetCondensation, utils.py).
INNER = {1: 1, 10: 50, 20: 25, 30: 20, 40: 15, 50: 10}
# Synthetic images whose gradients are taken together; the same groups whatever the number of processes.
GROUP_IMAGES = 5


def loops(settings: MatchingConfig) -> tuple[int, int]:
    """Return the image updates per network and the epochs between them, by DC's table where they are not given.

    Between the table's entries the epochs are linear in the images per class. Embeddings take one update and no epoch.
    """
    if settings.objective == "embedding":
        return 1, 0
    epochs = round(float(np.interp(settings.ipc, list(INNER), list(INNER.values()))))
    return settings.outer or min(settings.ipc, max(INNER)), settings.inner or epochs


def updates_of(settings: MatchingConfig, num_classes: int) -> int:
    """Return how often images of a class are updated in all."""
    return settings.iterations * loops(settings)[0] * num_classes


def matching_flop(settings: MatchingConfig, spec: DatasetSpec) -> float:
    """Return the FLOP of all updates; the gradient of a gradient costs about three times as much as that."""
    images = settings.batch_real + (3 + loops(settings)[1]) * settings.ipc
    return learning_flop(members_of(settings.pool), spec, updates_of(settings, spec.num_classes) * images)


def members_of(settings: MatchingPoolConfig) -> tuple[str, ...]:
    """Return the names of the networks that a pool may hold."""
    return registry.fresh_members(settings.kind, settings.main, settings.various, settings.similar_depth)


def method_name(settings: MatchingConfig) -> str:
    """Return the method's name in tables."""
    parts = {
        f"{settings.objective} matching": True,
        settings.distance: settings.distance != "dc",
        "DSA": settings.augment == "dsa",
        f"pool {settings.pool.kind}": settings.pool.kind != "main",
    }
    return ", ".join(part for part, is_told in parts.items() if is_told)


@dataclass(eq=False, repr=False)
class FreshPool:
    """A new, untrained network at every iteration, from a pool of Zhou et al. (arXiv 2402.13007)."""

    shape: Shape  # (C, H, W)
    num_classes: int
    _: KW_ONLY
    kind: PoolKind  # the main model alone, with similar ConvNets, with various networks, or those alike (total random)
    main: str  # the main model
    main_probability: float  # of the main model beside others
    main_probability_end: float | None  # the same at the last iteration, linear in between; none keeps it
    main_only: int  # iterations at the start that use the main model alone
    similar_depth: int  # depth of the similar ConvNets
    various: tuple[str, ...]  # the other models
    iterations: int  # of the whole distillation
    seed: int  # root seed
    device: torch.device | str = "cpu"  # where the networks live
    execution: Execution = EAGER  # of the networks

    def __post_init__(self) -> None:
        self.members = registry.fresh_members(self.kind, self.main, self.various, self.similar_depth)
        self.uses = [0] * len(self.members)

    def probabilities(self, iteration: int) -> Tensor:
        """Return the probability of each member at an iteration."""
        count = len(self.members)
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
        member = draw_member(self.probabilities(iteration), self.seed, iteration)
        with rng.seeded(self.seed, rng.INIT_POOL, member, self.uses[member]):
            network = registry.build(self.members[member], self.shape, self.num_classes)
        self.uses[member] += 1
        return self.execution.place(network.to(self.device)).eval()

    def counts(self) -> dict[str, float]:
        """Return how often each network was drawn that was, by the name of its curve; nothing of one alone."""
        if len(self.members) == 1:
            return {}
        named = zip(told_apart(self.members), self.uses, strict=True)
        return {f"uses/{name}": float(count) for name, count in named if count}

    def state_dict(self) -> dict[str, Any]:
        return {"members": list(self.members), "uses": list(self.uses)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        require_members(state, self.members)
        self.uses = list(state["uses"])


class SyntheticImages(nn.Module):
    """The pixels being optimised.

    Args:
        images_std: (K, ipc, C, H, W) in classifier space, unclipped.
    """

    def __init__(self, images_std: Tensor) -> None:
        super().__init__()
        self.images_std = nn.Parameter(images_std)

    @property
    def labels(self) -> Tensor:
        """(K * ipc,), ordered by class."""
        classes, ipc = self.images_std.shape[:2]
        return torch.arange(classes, device=self.images_std.device).repeat_interleave(ipc)

    def flat(self) -> Tensor:
        """Return (K * ipc, C, H, W), without gradient."""
        return rearrange(self.images_std.detach(), "k ipc c h w -> (k ipc) c h w")


@dataclass(eq=False, repr=False)
class Matcher:
    """One iteration: a new network, `outer` updates of the images, `inner` epochs of the network in between.

    Networks live too shortly for a captured step. So a GPU draws once for all classes, or for all inner steps: one by
    one, its kernels would take longer than the step.

    Processes share the groups of classes, of which there are no more than classes; further processes idle. A class's
    loss depends on its own images alone, so that the sum over processes is what one process finds, to the bit if it
    has as many threads.
    """

    first_images: Tensor  # (K, ipc, C, H, W) in classifier space, on the device
    real: ClassBatches  # real images of each class
    pool: FreshPool  # gives the networks
    _: KW_ONLY
    objective: Objective  # gradient or embedding
    distance: distances.Distance  # between gradients
    outer: int  # image updates per network
    inner: int  # epochs on the set between two updates
    inner_first: bool  # whether a network also learns those epochs before its first comparison
    batch_real: int  # real images of each class per update
    batch_train: int  # images per step of the inner epochs
    lr_image: float  # of the images' SGD with momentum 0.5
    lr_network: float  # of the inner epochs' SGD
    augmentations: tuple[str, ...]  # of DSA, one for each class and update, for real and synthetic images alike
    seed: int  # root seed
    accelerator: Accelerator  # its processes share the classes

    def __post_init__(self) -> None:
        self.synthetic = SyntheticImages(self.first_images)
        self.optimizer = torch.optim.SGD(self.synthetic.parameters(), self.lr_image, momentum=0.5)

    def states(self) -> dict[str, Stateful]:
        """Return what a checkpoint holds, by name."""
        return {"images": self.synthetic, "optimizer": self.optimizer, "pool": self.pool}

    def iterate(self, iteration: int) -> Tensor:
        """Update the images on one network and return the mean loss per class and update."""
        network = self.pool.network(iteration)
        # Embeddings need no gradient of the weights.
        network.requires_grad_(self.objective == "gradient")
        optimizer = torch.optim.SGD(network.parameters(), self.lr_network, fused=self.pool.execution.fused)
        total = torch.zeros((), device=self.synthetic.images_std.device)
        freeze_statistics(network, self.real, iteration, 0)
        for turn in range(self.outer):
            if turn or self.inner_first:
                self._train(network, optimizer, iteration, turn)
                freeze_statistics(network, self.real, iteration, turn + 1)
            total += self._update(network, iteration, turn)
        return total / (self.outer * self.real.num_classes)

    def _update(self, network: nn.Module, iteration: int, turn: int) -> Tensor:
        """Take one optimiser step of the images; return the sum of the classes' losses."""
        images = self.synthetic.images_std  # (K, ipc, C, H, W)
        images.grad = torch.zeros_like(images)
        total = torch.zeros((), device=images.device)
        # Draw the real images of each class, and one augmentation for real and synthetic ones alike.
        classes, counters = range(len(images)), (iteration, turn)
        indices = self.real(self.batch_real, rng.MATCHING_REAL, *counters)
        random = rng.Draws(self.seed, rng.MATCHING_AUGMENT, *counters, each=classes, device=images.device)
        augmentations = augment.draw_each(self.augmentations, 1, random)

        size = max(1, GROUP_IMAGES // images.shape[1])
        groups = [slice(first, first + size) for first in range(0, len(images), size)]
        for group in groups[self.accelerator.process_index :: self.accelerator.num_processes]:
            labels = torch.arange(group.start, min(group.stop, len(images)), device=images.device)
            real = map(augment.apply, augmentations[group], map(self.real.images, indices[group]))
            pixels = images[group].detach().clone().requires_grad_()
            synthetic = torch.stack([*map(augment.apply, augmentations[group], pixels)])

            if self.objective == "gradient":
                loss = gradient_loss(network, synthetic, [*real], labels, self.distance, self.pool.execution)
            else:
                loss = embedding_loss(network, synthetic, [*real])
            (images.grad[group],) = torch.autograd.grad(loss, pixels)
            total += loss.detach()
        if self.accelerator.num_processes > 1:
            images.grad = self.accelerator.reduce(images.grad, "sum")
            total = self.accelerator.reduce(total, "sum")
        self.optimizer.step()
        return total

    def _train(self, network: nn.Module, optimizer: torch.optim.Optimizer, iteration: int, turn: int) -> None:
        """Train the network on the set for `inner` epochs, its batch norms frozen."""
        images, labels = self.synthetic.flat(), self.synthetic.labels
        size = min(self.batch_train, len(labels))
        per_epoch = -(-len(labels) // size)
        steps, counters, device = range(self.inner * per_epoch), (iteration, turn), labels.device

        # Draw the order of each epoch, and for each step an operation, whose numbers every image has for itself.
        epochs = rng.Draws(self.seed, rng.INNER_ORDER, *counters, each=range(self.inner), device=device)
        orders = epochs.permutation(len(labels))  # (inner, K * ipc)
        random = rng.Draws(self.seed, rng.INNER_AUGMENT, *counters, each=steps, device=device)
        augmentations = augment.draw_each(self.augmentations, size, random)

        def batch(step: int) -> tuple[Tensor, Tensor]:
            epoch, position = divmod(step, per_epoch)
            chosen = orders[epoch, position * size :][:size]
            return augment.apply(augmentations[step].first_rows(len(chosen)), images[chosen]), labels[chosen]

        fit(network, batch, steps, optimizer, frozen_statistics=True, execution=self.pool.execution, replayed=False)

    def grid(self, columns: int = 10) -> Tensor:
        """Return one picture (C, H, W) in [0, 1] with a row per class, clipped for showing."""
        from torchvision.utils import make_grid  # takes a second to import, for which no start need wait

        shown = rearrange(self.synthetic.images_std.detach()[:, :columns], "k ipc c h w -> (k ipc) c h w")
        images = self.real.normalize.to_unit(shown).clamp(0, 1).cpu()
        return make_grid(images, nrow=len(images) // self.real.num_classes, padding=2, pad_value=1.0)


def check_first_images(config: Config, dataset: Dataset) -> None:
    """Raise ConfigError if a class has too few real images to start from, or the generator was made for other data."""
    settings, spec = config.matching, dataset.spec
    counts = dataset.train.labels.bincount(minlength=spec.num_classes)
    if settings.init == "real" and int(counts.min()) < settings.ipc:
        raise ConfigError(
            f"matching.ipc is {settings.ipc}, but class {spec.class_names[int(counts.argmin())]!r} has "
            f"{int(counts.min())} training images for init real"
        )
    if settings.generator is not None:
        start = generator_file.load(settings.generator)
        set_file.check_matches(start.spec, spec, f"matching.generator {settings.generator}")


def first_images(settings: MatchingConfig, real: ClassBatches, seed: int, start: Path | None = None) -> Tensor:
    """Return (K, ipc, C, H, W) in classifier space: noise, real images, or a generator's, all checked before."""
    device = real.images_u8.device
    size = (real.num_classes, settings.ipc, *real.images_u8.shape[1:])
    if settings.init == "noise":
        return rng.Draws(seed, rng.MATCHING_NOISE).normal(*size).to(device)
    if settings.init == "real":
        return torch.stack([*map(real.images, real(settings.ipc, rng.MATCHING_INIT))])
    assert start is not None
    sampled = sample.sample_set(generator_file.load(start), settings.ipc, seed, device)
    return real.normalize.from_u8(sampled.images.to(device)).view(size)


def _matcher(config: Config, dataset: Dataset, run: Run, start: Path | None = None) -> Matcher:
    settings, spec, seed = config.matching, dataset.spec, config.seed
    images_u8, labels = dataset.train.images_u8.to(run.device), dataset.train.labels
    real = ClassBatches(images_u8, labels, spec.num_classes, Normalizer(spec.mean, spec.std, run.device), seed)
    by_gradient = settings.objective == "gradient"
    outer, inner = loops(settings)
    return Matcher(
        first_images(settings, real, seed, start),
        real,
        FreshPool(
            spec.shape,
            spec.num_classes,
            **asdict(settings.pool),
            iterations=settings.iterations,
            seed=seed,
            device=run.device,
            execution=execution_of(members_of(settings.pool), spec, matching_flop(settings, spec), run),
        ),
        objective=settings.objective,
        distance=settings.distance,
        outer=outer,
        inner=inner,
        inner_first=settings.inner_first,
        batch_real=settings.batch_real,
        batch_train=settings.batch_train,
        lr_image=settings.lr_image or (0.1 if by_gradient else 1.0),
        lr_network=settings.lr_network,
        augmentations=dsa(spec.flip) if settings.augment == "dsa" else (),
        seed=seed,
        accelerator=run.accelerator,
    )


def distil_pixels(config: Config, dataset: Dataset, run: Run, start: Path | None = None) -> Path:
    """Distil a set of `matching.ipc` images per class into the run folder and return its file.

    `run.snapshots` also stores the set of earlier iterations. With init generator, images are first those of `start`.
    """
    settings, spec = config.matching, dataset.spec
    matcher = _matcher(config, dataset, run, start)
    seconds_before = 0.0 if start is None else float(generator_file.load(start).provenance.get("seconds") or 0)

    def save(path: Path, iterations: int) -> None:
        if not run.is_main:
            return
        seconds = run.seconds + seconds_before
        origin = run_origin(run, config, dataset, stages.MATCHING, method_name(settings), seconds)
        images, labels = matcher.real.normalize.to_unit(matcher.synthetic.flat()).cpu(), matcher.synthetic.labels.cpu()
        set_file.save(
            path, set_file.SyntheticSet(images, labels, spec, settings.ipc, {**origin, "iterations": iterations})
        )

    def save_snapshot(iterations: int) -> None:
        if iterations in config.run.snapshots:
            save(run.folder / f"set-{iterations:08d}.safetensors", iterations)

    save_snapshot(0)
    images_per_step = matcher.outer * spec.num_classes * settings.batch_real
    for step in run.loop(
        matcher.states(), settings.iterations, images_per_step, stages.MATCHING, fixed_world_size=False, agreed_every=1
    ):
        step.record({"loss/matching": matcher.iterate(step.index), **matcher.pool.counts()})
        save_snapshot(step.done)
        if step.grid_due:
            step.images = matcher.grid()
    if run.is_main:
        from torchvision.utils import save_image  # takes a second to import, for which no start need wait

        save_image(matcher.grid(), run.folder / "grid.png")
    # Last, for its presence says that the stage is finished.
    save(run.folder / set_file.FILE, settings.iterations)
    run.accelerator.wait_for_everyone()
    return run.folder / set_file.FILE

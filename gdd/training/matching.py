"""The rival: optimise the pixels of a set until a network's gradients, or features, are those of real images.

Gradient matching is DC (Zhao, Mopuri and Bilen 2021), with shared augmentation DSA (Zhao and Bilen 2021); embedding
matching is DM (Zhao and Bilen 2023); the pools of networks are those of Zhou, Zhong and Chen (arXiv 2402.13007).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torchvision.utils import make_grid, save_image

from gdd import rng
from gdd.config import Config, MatchConfig, to_plain
from gdd.config.checks import stable_hash
from gdd.data import augment
from gdd.data.pixels import Normalizer
from gdd.data.readers import Dataset
from gdd.losses import gradients
from gdd.models.layers import Classifier
from gdd.runtime.checkpoint import Stateful
from gdd.runtime.device import device_name
from gdd.runtime.run import Run
from gdd.sampling import generator_file, set_file
from gdd.training.classifier import fit
from gdd.training.images import RealImages, SyntheticImages, first_images
from gdd.training.pool import Pool, members

STAGE = "match"
# Epochs between two updates by images per class, which is also how many updates (DatasetCondensation, utils.py).
INNER = {1: 1, 10: 50, 20: 25, 30: 20, 40: 15, 50: 10}
# Real images of each class whose statistics batch norms are frozen at (DatasetCondensation, main.py).
STATISTICS_IMAGES = 16
# Activations of so many images stay in a CPU's cache.
CPU_CHUNK = 32
# Synthetic images whose gradients are taken together; the same groups whatever the number of processes.
GROUP_IMAGES = 5


def loops(settings: MatchConfig) -> tuple[int, int]:
    """Return the image updates per network and the epochs between them: DC's table, or linear between its entries."""
    inner = round(float(np.interp(settings.ipc, list(INNER), list(INNER.values()))))
    return settings.outer or min(settings.ipc, max(INNER)), settings.inner or inner


def describe(config: Config) -> str:
    """Return the method's name in tables."""
    settings = config.match
    parts = ["gradient matching" if settings.objective == "gradient" else "embedding matching"]
    parts += [settings.distance] * (settings.distance != "dc") + ["DSA"] * (settings.augment == "dsa")
    parts += [f"pool {config.pool_kind}"] * (config.pool_kind != "main")
    return ", ".join(parts)


def fingerprint(config: Config, dataset: Dataset) -> str:
    """Return the hash of all that decides the set."""
    settings, pool, start = config.match, config.pool, None
    if settings.generator is not None:
        start = generator_file.load(settings.generator).hash
    settings = replace(settings, init="noise", generator=None)  # a moved generator is the same generator
    schedule = (pool.weights, pool.main_probability, pool.main_probability_end, pool.main_only)
    parts = (config.seed, settings, config.match.init, start, config.pool_kind, members(pool, config.pool_kind))
    return stable_hash(*parts, schedule, dataset.spec.to_dict(), dataset.fingerprint)


def freeze_statistics(network: nn.Module, real: RealImages, *counters: int) -> None:
    """Set every batch norm's running statistics to those of one real batch of all classes, and use them from now on.

    DC updates them once with momentum 0.1, which leaves nine tenths of the initial values, and its inner loop lets
    them move again.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    if norms:
        drawn = [real.draw(c, STATISTICS_IMAGES, "match-statistics", *counters) for c in range(len(real.members))]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the average of all batches since the reset, which is this one
        network.train()
        with torch.no_grad():
            network(torch.cat(drawn))
    network.eval()


def real_gradient(network: nn.Module, images_std: Tensor, label: int) -> list[Tensor]:
    """Return the gradient of the mean cross-entropy of images of one class, a tensor per parameter.

    On CPUs the images go through in chunks: exact but for rounding, since no layer in eval mode mixes images.
    """
    parameters = list(network.parameters())
    chunk = CPU_CHUNK if images_std.device.type == "cpu" else len(images_std)
    total: list[Tensor] | None = None
    for part in images_std.split(chunk):
        labels = torch.full((len(part),), label, device=part.device)
        loss = F.cross_entropy(network(part), labels, reduction="sum") / len(images_std)
        gradient = torch.autograd.grad(loss, parameters)
        total = list(gradient) if total is None else [x.add_(y) for x, y in zip(total, gradient, strict=True)]
    assert total is not None
    return total


def group_loss(
    network: nn.Module, synthetic: Tensor, real: Sequence[Tensor], labels: Sequence[int], settings: MatchConfig
) -> Tensor:
    """Return how far apart a network in eval mode sees synthetic and real images, summed over some classes.

    The classes' gradients are taken in one graph, as a vmap over stacked batches: for single images on two AVX2 cores
    twice as fast as one by one with networks of width 24 and 32, and level with 10 images of width 128.

    Args:
        network: a Classifier.
        synthetic: (G, ipc, C, H, W) in classifier space, a row per class; the loss is differentiable in it.
        real: G batches (B, C, H, W).
        labels: the G classes.
        settings: objective and distance.
    """
    if settings.objective == "embedding":
        return _embedding_loss(network, synthetic, real)
    parameters: dict[str, Tensor] = dict(network.named_parameters())
    buffers = dict(network.named_buffers())
    targets = torch.tensor(labels, device=synthetic.device)[:, None].expand(synthetic.shape[:2])

    def loss(weights: dict[str, Tensor], images: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(network, (weights, buffers), (images,)), target)

    def apart(images: Tensor, target: Tensor, *answer: Tensor) -> Tensor:
        own = grad(loss)(parameters, images, target)
        return gradients.distance(list(own.values()), answer, settings.distance)

    answers = [real_gradient(network, images, label) for images, label in zip(real, labels, strict=True)]
    stacked = [torch.stack(tensors) for tensors in zip(*answers, strict=True)]
    return vmap(apart)(synthetic, targets, *stacked).sum()


def _embedding_loss(network: nn.Module, synthetic: Tensor, real: Sequence[Tensor]) -> Tensor:
    assert isinstance(network, Classifier)
    features = network.embed(synthetic.flatten(0, 1)).unflatten(0, synthetic.shape[:2])
    with torch.no_grad():
        targets = [network.embed(images) for images in real]
    pairs = zip(features, targets, strict=True)
    return torch.stack([gradients.embedding_distance(own, target) for own, target in pairs]).sum()


class Matcher:
    """One iteration: a new network, `outer` updates of the images, `inner` epochs of the network in between.

    Processes share the groups of classes, of which there are no more than classes; further processes idle. A class's
    loss depends on its own images alone, so that the sum over processes is what one process finds, to the bit if it
    has as many threads.

    Args:
        config: its match and pool part.
        dataset: real images.
        run: device and processes.
    """

    def __init__(self, config: Config, dataset: Dataset, run: Run) -> None:
        spec, settings = dataset.spec, config.match
        self.settings, self.seed, self.run = settings, config.seed, run
        self.normalize = Normalizer(spec.mean, spec.std, run.device)
        self.real = RealImages(dataset, self.normalize, config.seed)
        self.synthetic = SyntheticImages(first_images(config, dataset, self.real).to(run.device))
        default = 0.1 if settings.objective == "gradient" else 1.0
        self.optimizer = torch.optim.SGD(self.synthetic.parameters(), settings.lr_image or default, momentum=0.5)
        kind, total = config.pool_kind, settings.iterations
        self.pool = Pool(
            config.pool, kind, total, spec.shape, spec.num_classes, config.seed, batches=None, device=run.device
        )
        dsa = "_".join(augment.OPERATIONS) if settings.augment == "dsa" else "none"
        self.strategy = augment.parse_strategy(dsa, spec.flip)
        self.outer, self.inner = loops(settings) if settings.objective == "gradient" else (1, 0)

    def iterate(self, iteration: int) -> Tensor:
        """Update the images on one network and return the mean loss per class and update."""
        _, network = self.pool.draw(iteration)
        # Embeddings need no gradient of the weights.
        network.requires_grad_(self.settings.objective == "gradient")
        optimizer = torch.optim.SGD(network.parameters(), self.settings.lr_network)
        total = torch.zeros((), device=self.run.device)
        freeze_statistics(network, self.real, iteration, 0)
        for turn in range(self.outer):
            if turn or self.settings.inner_first:
                self._train(network, optimizer, iteration, turn)
                freeze_statistics(network, self.real, iteration, turn + 1)
            total += self._update(network, iteration, turn)
        return total / (self.outer * len(self.real.members))

    def _update(self, network: nn.Module, iteration: int, turn: int) -> Tensor:
        """Take one optimiser step of the images; return the sum of the classes' losses."""
        images = self.synthetic.images_std
        images.grad = torch.zeros_like(images)
        total = torch.zeros((), device=images.device)
        groups = torch.arange(len(images)).split(max(1, GROUP_IMAGES // self.settings.ipc))
        for group in groups[self.run.rank :: self.run.world_size]:
            labels = group.tolist()
            changes = [self._augmentation(iteration, turn, label) for label in labels]
            count, counters = self.settings.batch_real, (iteration, turn)
            real = [self.real.draw(label, count, "match-real", *counters) for label in labels]
            real = [change(part) for change, part in zip(changes, real, strict=True)]
            own = images[labels].detach().requires_grad_()
            synthetic = torch.stack([change(part) for change, part in zip(changes, own, strict=True)])
            loss = group_loss(network, synthetic, real, labels, self.settings)
            (images.grad[labels],) = torch.autograd.grad(loss, own)
            total += loss.detach()
        if self.run.world_size > 1:
            images.grad = self.run.accelerator.reduce(images.grad, "sum")
            total = self.run.accelerator.reduce(total, "sum")
        self.optimizer.step()
        return total

    def _augmentation(self, iteration: int, turn: int, label: int) -> Callable[[Tensor], Tensor]:
        """Return one change for the real and the synthetic images of a class alike."""
        if not self.strategy:
            return lambda images: images
        draw = rng.generator(self.seed, "match-augment", iteration, turn, label)
        drawn = augment.draw(self.strategy, 1, draw, shared=True, pick="one")
        return lambda images: augment.apply(drawn, images)

    def _train(self, network: nn.Module, optimizer: torch.optim.Optimizer, iteration: int, turn: int) -> None:
        """Train the network on the set for `inner` epochs, its batch norms frozen."""
        images, labels = self.synthetic.flat(), self.synthetic.labels
        size = min(self.settings.batch_train, len(labels))
        per_epoch = -(-len(labels) // size)

        def batch(step: int) -> tuple[Tensor, Tensor]:
            epoch, position = divmod(step, per_epoch)
            order = torch.randperm(len(labels), generator=rng.generator(self.seed, "inner", iteration, turn, epoch))
            chosen = order[position * size :][:size].to(labels.device)
            part = images[chosen]
            if self.strategy:
                draw = rng.generator(self.seed, "inner-augment", iteration, turn, step)
                part = augment.apply(augment.draw(self.strategy, len(part), draw, shared=False, pick="one"), part)
            return part, labels[chosen]

        fit(network, batch, range(self.inner * per_epoch), optimizer, frozen_statistics=True)

    def grid(self, columns: int = 10) -> Tensor:
        """Return one picture (C, H, W) in [0, 1] with a row per class, clipped for showing."""
        shown = self.synthetic.images_std.detach()[:, :columns]
        images = self.normalize.to_unit(shown.flatten(0, 1)).clamp(0, 1).cpu()
        return make_grid(images, nrow=shown.shape[1], padding=2, pad_value=1.0)


def match(config: Config, dataset: Dataset, run: Run) -> Path:
    """Distil a set of `match.ipc` images per class into the run folder and return its file.

    `run.snapshots` also stores the set of earlier iterations.
    """
    matcher = Matcher(config, dataset, run)
    total, classes = config.match.iterations, dataset.spec.num_classes
    states: dict[str, Stateful] = {"images": matcher.synthetic, "optimizer": matcher.optimizer, "pool": matcher.pool}

    def save(path: Path, iterations: int) -> None:
        if run.is_main:
            images = matcher.normalize.to_unit(matcher.synthetic.flat()).cpu()
            facts = {
                "method": describe(config),
                "stage": STAGE,
                "seed": config.seed,
                "iterations": iterations,
                "fingerprint": run.fingerprint,
                "data": dataset.fingerprint,
                "seconds": round(run.seconds + _seconds_before(config.match), 1),
                "device": device_name(run.device),
                "config": to_plain(config),
            }
            labels = matcher.synthetic.labels.cpu()
            set_file.save(path, set_file.SyntheticSet(images, labels, dataset.spec, config.match.ipc, facts))

    def snapshot(iterations: int) -> None:
        if iterations in config.run.snapshots:
            save(run.folder / f"set-{iterations:08d}.safetensors", iterations)

    snapshot(0)
    per_step = matcher.outer * classes * config.match.batch_real
    for step in run.loop(states, total, per_step, "matching", fixed_world_size=False):
        step.record({"loss/matching": matcher.iterate(step.index)})
        snapshot(step.done)
        if step.grid_due:
            step.images = matcher.grid()
    if run.is_main:
        save_image(matcher.grid(), run.folder / "grid.png")
    # Last, for its presence says that the stage is finished.
    save(run.folder / set_file.FILE, total)
    run.accelerator.wait_for_everyone()
    return run.folder / set_file.FILE


def _seconds_before(settings: MatchConfig) -> float:
    """Return what the generator of the first images took."""
    if settings.generator is None:
        return 0.0
    return float(generator_file.load(settings.generator).provenance.get("seconds") or 0)

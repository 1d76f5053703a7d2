"""What guides the generator in refinement: networks of a pool that compare real and generated images.

    gradient at the generated images = lambda * dL/dfake,   L by `refine.loss`: SKD (skd), DiM's loss (log_mse), moments
                                                            of features (features), gradients of classes (gradient)

A loss maps a network and two batches in classifier space, whose rows have the same classes, to a scalar with a gradient
at the generated images. One that compares rows with each other (`OF_ALL`) sees those of all W processes: its gradient
has to be counted W times, since gradients are then averaged over the processes.

Self-knowledge distillation: Li et al., arXiv 2501.04202. Logits' MSE: DiM, arXiv 2303.04707.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from gdd import rng
from gdd.config import Config, ConfigError, RefineConfig
from gdd.data import augment
from gdd.data.batches import Batches
from gdd.data.pixels import Normalizer
from gdd.data.readers import Dataset
from gdd.data.spec import DatasetSpec, parse_strategy
from gdd.losses.distances import class_gradient_distance, moment_distance, standardized_by
from gdd.losses.logits import log_probability_mse, paired, skd
from gdd.models.layers import Classifier
from gdd.rng import Count
from gdd.runtime.checkpoint import Stateful
from gdd.runtime.execution import Execution
from gdd.runtime.graphs import Scalars
from gdd.runtime.run import Run, Step
from gdd.training.pool import Exam, LearningPool, Lessons, SnapshotPool, execution_of, learning_flop

OF_ALL = ("features", "gradient")

BY_OTHERS = ("features",)  # what also takes other real images

# Network, real images (B, C, H, W), generated images (B, C, H, W), labels (B,), perhaps other real images (B, C, H, W).
GuidanceLoss = Callable[..., Tensor]


class Balance:
    """Find the weight of a loss that makes its gradient a given share of another's, by running means of their norms."""

    DECAY = 0.9

    def __init__(self, wanted: float, device: torch.device | str = "cpu") -> None:
        """Take the wanted ratio of the weighted loss's gradient to the other's, above 0, and where these are."""
        self.wanted = wanted
        self.norms = torch.zeros(2, device=device)

    def weight(self, norms: Tensor) -> Tensor:
        """Return the weight of this step, whose gradients have these norms (2,) before weighing: its own, the other's.

        Start-up bias cancels in the ratio.
        """
        self.norms.mul_(self.DECAY).add_((1 - self.DECAY) * norms)
        return self.wanted * self.norms[1] / self.norms[0]

    def state_dict(self) -> dict[str, Any]:
        return {"norms": self.norms}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.norms.copy_(state["norms"])


@dataclass(eq=False, repr=False)
class Guidance:
    """What refinement adds to the adversarial loss: a network of the pool compares real and generated images."""

    pool: LearningPool | SnapshotPool
    compare: GuidanceLoss
    _: KW_ONLY
    name: str  # of the loss, for the metrics
    weight: float | Balance  # of the loss, or what finds it
    batches: Batches  # of real images
    normalize: Normalizer  # to classifier space
    augmentations: tuple[str, ...]  # of what the network is shown
    exam: Exam  # tells how much members know
    seed: int  # root seed
    accelerator: Accelerator  # adds up norms over processes
    replayed: bool = True  # whether a GPU may capture the comparison, which must not ask it for anything

    def __post_init__(self) -> None:
        self.began = time.perf_counter()

    def states(self) -> dict[str, Stateful]:
        """Return what a checkpoint holds, by name."""
        return {"pool": self.pool} | ({"balance": self.weight} if isinstance(self.weight, Balance) else {})

    def others(self, step: int) -> tuple[Tensor, ...]:
        """Return other real images (B, C, H, W) uint8 if the loss takes them."""
        return (self.batches.others(step),) if self.name in BY_OTHERS else ()

    def changed(self) -> Iterator[list[Tensor]]:
        """Yield all tensors that a step changes."""
        if isinstance(self.weight, Balance):
            yield [self.weight.norms]

    def gradient(
        self,
        network: nn.Module,
        step: Count,
        images_u8: Tensor,
        fake: Tensor,
        labels: Tensor,
        adversarial: Tensor,
        *others_u8: Tensor,
    ) -> tuple[Tensor, Scalars]:
        """Return the weighted gradient at the generated images, and what it is made of.

        Args:
            network: of the pool.
            step: its number.
            images_u8: real images (B, C, H, W).
            fake: generated ones in [-1, 1], of the same classes.
            labels: (B,).
            adversarial: the other loss's gradient at the generated images.
            others_u8: what `others` returned.
        """
        # Draw one augmentation for real and synthetic images alike.
        random = rng.Draws(self.seed, rng.REFINE_AUGMENT, step, device=fake.device)
        augmentation = augment.draw(self.augmentations, len(labels), random, shared=True, pick="all")

        # Show the network both batches.
        real_std, *others_std = (
            augment.apply(augmentation, self.normalize.from_u8(images)) for images in (images_u8, *others_u8)
        )  # (B, C, H, W) in classifier space
        fake_std = augment.apply(augmentation, self.normalize.from_pm1(fake))
        loss = self.compare(network, real_std, fake_std, labels, *others_std)

        # Weigh what it asks.
        (gradient,) = torch.autograd.grad(loss, fake)
        gradient = gradient * (self.accelerator.num_processes if self.name in OF_ALL else 1)
        norms = self._norms(gradient, adversarial)
        weight = self.weight.weight(norms) if isinstance(self.weight, Balance) else self.weight
        return weight * gradient, {f"loss/{self.name}": loss.detach(), "gradient/ratio": weight * norms[0] / norms[1]}

    def observe(self, step: Step) -> None:
        """Record what members know and what their lessons cost when a line is due."""
        if step.log_due:
            seconds = time.perf_counter() - self.began
            step.record({**self.exam.accuracies(self.pool), "lessons/share": self.pool.lessons.watch.seconds / seconds})

    def _norms(self, *gradients: Tensor) -> Tensor:
        """Return the norms, above 0, of gradients of whose rows each process has its own."""
        squares = torch.stack([gradient.square().sum() for gradient in gradients])
        return self.accelerator.reduce(squares, "sum").sqrt().clamp(min=1e-12)


def make_guidance(config: Config, dataset: Dataset, batches: Batches, run: Run) -> Guidance:
    """Build the guidance that the settings describe."""
    refinement, settings, spec = config.refine, config.refine.pool, dataset.spec
    normalize = Normalizer(spec.mean, spec.std, run.device)
    augmentations = parse_strategy(refinement.augment, spec.flip)
    lessons = Lessons(
        batches.images_u8,
        batches.labels,
        spec.num_classes,
        normalize,
        max_accuracy=settings.max_accuracy,
        batch_size=settings.batch_size,
        lr=settings.lr,
        augmentations=augmentations if settings.augmented else (),
        seed=config.seed,
        execution=execution_of(settings.members, spec, guidance_flop(config, spec), run),
    )
    life = settings.redraw_every, settings.steps_before, settings.steps_between
    pool = (
        SnapshotPool(lessons, settings.members, settings.weights, settings.ages)
        if settings.ages
        else LearningPool(lessons, settings.members, settings.weights, *life)
    )
    return Guidance(
        pool,
        make_loss(refinement, lessons.execution, run.accelerator),
        name=refinement.loss,
        weight=config.refine_weight if refinement.balance is None else Balance(refinement.balance, run.device),
        batches=batches,
        normalize=normalize,
        augmentations=augmentations,
        exam=Exam(dataset.val, normalize, augmentations, config.seed),
        seed=config.seed,
        accelerator=run.accelerator,
        replayed=refinement.loss != "gradient" and refinement.pairing != "optimal",
    )


def guidance_flop(config: Config, spec: DatasetSpec) -> float:
    """Return the FLOP of all that the pool's networks are asked and learn in refinement; 0 without guidance."""
    if not config.refine.guided:
        return 0.0
    return learning_flop(config.refine.pool.members, spec, config.refine.images_asked)


def check_others(config: Config, dataset: Dataset) -> None:
    """Refuse a loss that takes statistics from as many other images as it compares where there are too few."""
    settings, count = config.refine, len(dataset.train.labels)
    if settings.loss in BY_OTHERS and 2 * settings.batch_size > count:
        raise ConfigError(
            f"refine.batch_size is {settings.batch_size}, expected at most half of the {count} training images: "
            f"refine.loss {settings.loss} takes its statistics from as many other images as it compares"
        )


def make_loss(settings: RefineConfig, execution: Execution, accelerator: Accelerator) -> GuidanceLoss:
    """Return the loss that the settings name; networks are executed by `execution`."""
    if settings.loss == "features":
        return partial(feature_loss, accelerator=accelerator)
    if settings.loss == "gradient":
        return partial(class_gradient_loss, accelerator=accelerator)
    compare: Callable[[Tensor, Tensor], Tensor] = log_probability_mse
    if settings.loss == "skd":
        compare = partial(
            skd,
            tau=settings.tau,
            tau_mode=settings.tau_mode,
            standardized=settings.standardize,
            over=settings.standardize_over,
        )
    pairs = accelerator if settings.pairing == "optimal" else None
    return partial(logit_loss, compare=compare, execution=execution, optimal_over=pairs)


def logit_loss(
    network: nn.Module,
    real_std: Tensor,
    fake_std: Tensor,
    labels: Tensor,
    compare: Callable[[Tensor, Tensor], Tensor],
    execution: Execution,
    optimal_over: Accelerator | None,
) -> Tensor:
    """Compare each generated image's logits with those of the real one in its row, or of its optimal pair."""
    with torch.no_grad():
        real_logits = execution(network, real_std)  # (B, K)
    fake_logits = execution(network, fake_std)
    if optimal_over is not None:
        rows = (optimal_over.gather(part) for part in (real_logits, fake_logits.detach(), labels))
        real_logits = paired(*rows)[optimal_over.process_index * len(labels) :][: len(labels)]  # (B, K)
    return compare(real_logits, fake_logits)


def feature_loss(
    network: nn.Module,
    real_std: Tensor,
    fake_std: Tensor,
    labels: Tensor,
    others_std: Tensor,
    accelerator: Accelerator,
) -> Tensor:
    """Compare mean and covariance of each class's features, the mean over the network's layers.

    Features are standardized by those of other real images, whose draw is independent of the compared ones: then the
    loss is least in expectation where both sides have the same moments. By the compared images themselves it would be
    least where the generated ones vary too little, for their scale is that of the very images that they are held to.

    In float32: covariances need more digits than bfloat16 has.
    """
    assert isinstance(network, Classifier)
    labels = accelerator.gather(labels)
    with torch.no_grad():
        real_layers, other_layers = (
            [accelerator.gather(layer) for layer in network.activations(images)] for images in (real_std, others_std)
        )
    fake_layers = [_of_all(layer, accelerator) for layer in network.activations(fake_std)]
    layers = map(standardized_by, other_layers, real_layers, fake_layers)
    distances = [moment_distance(real, fake, labels, labels) for real, fake in layers]
    return torch.stack(distances).mean()


def class_gradient_loss(
    network: nn.Module, real_std: Tensor, fake_std: Tensor, labels: Tensor, accelerator: Accelerator
) -> Tensor:
    """Compare the gradients that each class's images cause in the network: the objective of gradient matching.

    In float32: it is a derivative of a derivative. Every process takes the gradients of all images.
    """
    network.requires_grad_(True)
    real_std, fake_std, labels = (
        accelerator.gather(real_std),
        _of_all(fake_std, accelerator),
        accelerator.gather(labels),
    )
    return class_gradient_distance(network, real_std, fake_std, labels)


def _of_all(rows: Tensor, accelerator: Accelerator) -> Tensor:
    """Return the rows of all processes (W * B, ...), of which this one's own are in their graph."""
    gathered = accelerator.gather(rows.detach()).clone()
    gathered[accelerator.process_index * len(rows) :][: len(rows)] = rows
    return gathered

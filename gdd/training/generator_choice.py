"""Which averaged generator is kept: the last one, or the best by a short student; and its batch norms' statistics."""

import copy
import logging
import math
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from gdd import rng
from gdd.config import Config
from gdd.data.pixels import Normalizer
from gdd.data.readers import Dataset
from gdd.data.spec import DatasetSpec
from gdd.data.splits import Split
from gdd.models import registry
from gdd.models.cost import TRAINING, classifier_flop, gan_flop_of
from gdd.models.gan import BatchNorm, Generator
from gdd.rng import Count
from gdd.runtime.execution import EAGER, Execution
from gdd.runtime.run import Run
from gdd.training.classifier import count_correct, fit
from gdd.training.gan import GanTrainer
from gdd.training.optimizers import sgd

logger = logging.getLogger(__name__)

# Batches, and images in each, whose statistics stand for those of all images.
_BATCHES, _IMAGES = 20, 200
_LR = 0.01  # of the proxy


@torch.no_grad()
def with_own_statistics(generator: Generator, seed: int) -> Generator:
    """Return a copy in eval mode whose batch norms have the statistics of its own images of all classes.

    An average of weights has others than the average of the statistics that those weights had. All processes take the
    same images.
    """
    generator = copy.deepcopy(generator).train()
    device = next(generator.parameters()).device
    norms = [module for module in generator.modules() if isinstance(module, BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for index in range(_BATCHES if norms else 0):
        random = rng.Draws(seed, rng.STATISTICS_NOISE, index, device=device)
        noise = random.normal(_IMAGES, generator.noise_dim)
        labels = random.integers(generator.num_classes, _IMAGES)
        for norm in norms:
            norm.shared = False  # the images are the same on all processes
            norm.momentum = 1 / (index + 1)  # so that all batches weigh alike, the first one instead of what was there
        generator(noise, labels)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum, norm.shared = momentum, True
    return generator.eval()


@dataclass(eq=False, repr=False)
class Proxy:
    """A student that every generator teaches from the same start by the same noise."""

    val: Split  # real images that say how good it is, on the device; not empty
    normalize: Normalizer  # to classifier space, on the same device
    _: KW_ONLY
    arch: str  # name of its architecture
    steps: int  # of its training, at least 1
    batch_size: int  # new images per step; classes take turns
    seed: int  # root seed
    execution: Execution = EAGER  # of its network

    def accuracy(self, generator: Generator) -> float:
        """Return the share of the validation images that the generator's student gets right, in [0, 1]."""
        generator.eval()
        _, channels, height, width = self.val.images_u8.shape
        with rng.seeded(self.seed, rng.INIT_PROXY):
            network = registry.build(self.arch, (channels, height, width), generator.num_classes)
        device = self.val.labels.device
        self.execution.place(network.to(device))

        def classes(step: int) -> tuple[Tensor, Tensor]:
            place = step * self.batch_size
            labels = torch.arange(place, place + self.batch_size, device=device) % generator.num_classes
            return labels, labels

        @torch.no_grad()
        def images(step: Count, labels: Tensor) -> Tensor:
            noise = rng.Draws(self.seed, rng.PROXY_NOISE, step, device=device)
            return self.normalize.from_pm1(generator(noise.normal(len(labels), generator.noise_dim), labels))

        optimizer = sgd(network, _LR, self.execution.fused)
        fit(network, classes, range(self.steps), optimizer, prepare=images, execution=self.execution)
        network.eval()

        def answer(images_u8: Tensor) -> Tensor:
            logits: Tensor = self.execution(network, self.normalize.from_u8(images_u8), compiled=False)
            return logits

        return count_correct(answer, self.val.images_u8, self.val.labels).correct / len(self.val.labels)


@dataclass(eq=False, repr=False)
class GeneratorChoice:
    """The averaged generator that a stage keeps: the last one or, with a proxy, the best one of several steps."""

    gan: GanTrainer
    seed: int  # root seed
    proxy: Proxy | None = None  # judges on validation images
    every: int = 0  # steps from one choice to the next; there is one after the last step too
    best: dict[str, Any] = field(default_factory=dict)  # step, decay, accuracy and weights of the best one so far

    def observe(self, done: int, total: int) -> dict[str, float]:
        """Let every average teach a proxy if that is due after `done` of `total` steps; return the best one's share."""
        if self.proxy is None or (done % self.every and done < total):
            return {}
        accuracies = {}
        for decay, average in self.gan.averages.items():
            generator = with_own_statistics(_generator(average.module), self.seed)
            accuracies[decay] = self.proxy.accuracy(generator)
            if accuracies[decay] > self.best.get("accuracy", -math.inf):
                weights = {name: value.clone() for name, value in generator.state_dict().items()}
                self.best = {"step": done, "ema_decay": decay, "accuracy": accuracies[decay], "weights": weights}
        return {f"proxy/{decay}": accuracy for decay, accuracy in accuracies.items()}

    def generator(self) -> tuple[Generator, dict[str, Any]]:
        """Return the generator in eval mode and, if a proxy chose it, how."""
        last = _generator(self.gan.average.module)
        if not self.best:
            return with_own_statistics(last, self.seed), {}
        generator = copy.deepcopy(last).eval()
        generator.load_state_dict(self.best["weights"])
        chosen = {name: self.best[name] for name in ("step", "ema_decay", "accuracy")}
        logger.info(
            "kept the average of decay %(ema_decay)g after step %(step)d, proxy accuracy %(accuracy).3f", chosen
        )
        return generator, {"chosen": chosen}

    def state_dict(self) -> dict[str, Any]:
        return dict(self.best)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        device = next(self.gan.average.parameters()).device
        self.best = dict(state)
        if state:
            self.best["weights"] = {name: value.to(device) for name, value in state["weights"].items()}


def make_choice(config: Config, gan: GanTrainer, dataset: Dataset, run: Run) -> GeneratorChoice:
    """Build what chooses the generator that a stage keeps."""
    settings, spec = config.gan.proxy, dataset.spec
    if not settings.every:
        return GeneratorChoice(gan, config.seed)
    answering = classifier_flop(settings.arch, spec.shape, spec.num_classes)
    proxy = Proxy(
        dataset.val.to(run.device),
        Normalizer(spec.mean, spec.std, run.device),
        arch=settings.arch,
        steps=settings.steps,
        batch_size=settings.batch_size,
        seed=config.seed,
        execution=replace(EAGER, precision=run.precision([answering])),
    )
    return GeneratorChoice(gan, config.seed, proxy, settings.every)


def proxy_work(config: Config, steps: int, spec: DatasetSpec) -> tuple[int, float]:
    """Return the steps and the FLOP of all proxies in a stage of so many steps, their images' generation included."""
    proxy, gan = config.gan.proxy, config.gan
    if not proxy.every:
        return 0, 0.0
    making, _ = gan_flop_of(gan, spec.shape, spec.num_classes)
    proxy_steps = proxy.steps * len(gan.ema_decays) * -(-steps // proxy.every)
    answering = classifier_flop(proxy.arch, spec.shape, spec.num_classes)
    return proxy_steps, proxy_steps * proxy.batch_size * (TRAINING * answering + making)


def _generator(module: torch.nn.Module) -> Generator:
    assert isinstance(module, Generator)
    return module

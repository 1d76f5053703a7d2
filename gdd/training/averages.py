"""Which averaged generator is kept, and the statistics of its batch norms."""

import copy
import logging
import math
from dataclasses import dataclass, field
from typing import Any

import torch

from gdd import rng
from gdd.models.gan import BatchNorm, Generator
from gdd.training.gan import GanTrainer
from gdd.training.proxy import Proxy

logger = logging.getLogger(__name__)

# Batches, and images in each, whose statistics stand for those of all images.
_BATCHES, _IMAGES = 20, 200


@torch.no_grad()
def with_own_statistics(generator: Generator, seed: int) -> Generator:
    """Return a copy in eval mode whose batch norms have the statistics of its own images of all classes.

    An average of weights has others than the average of the statistics that those weights had. All processes take the
    same images.
    """
    generator = copy.deepcopy(generator).train()
    device = next(generator.parameters()).device
    norms = [module for module in generator.modules() if isinstance(module, BatchNorm)]
    kept = [norm.momentum for norm in norms]
    for index in range(_BATCHES if norms else 0):
        random = rng.generator(seed, rng.STATISTICS_NOISE, index)
        noise = torch.randn(_IMAGES, generator.noise_dim, generator=random)
        labels = torch.randint(generator.num_classes, (_IMAGES,), generator=random)
        for norm in norms:
            norm.shared = False  # the images are the same on all processes
            norm.momentum = 1 / (index + 1)  # so that all batches weigh alike, the first one instead of what was there
        generator(noise.to(device), labels.to(device))
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum, norm.shared = momentum, True
    return generator.eval()


@dataclass(eq=False, repr=False)
class Choice:
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
        found = {}
        for decay, average in self.gan.averages.items():
            generator = with_own_statistics(_generator(average.module), self.seed)
            found[decay] = self.proxy.accuracy(generator)
            if found[decay] > self.best.get("accuracy", -math.inf):
                weights = {name: value.clone() for name, value in generator.state_dict().items()}
                self.best = {"step": done, "ema_decay": decay, "accuracy": found[decay], "weights": weights}
        return {f"proxy/{decay}": accuracy for decay, accuracy in found.items()}

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


def _generator(module: torch.nn.Module) -> Generator:
    assert isinstance(module, Generator)
    return module

"""A short student of generated images: how well it does on real ones says what a generator is worth."""

from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from gdd import rng
from gdd.data.pixels import Normalizer
from gdd.data.splits import Split
from gdd.models import registry
from gdd.models.gan import Generator
from gdd.runtime.execution import EAGER, Execution
from gdd.training.classifier import count_correct, fit, sgd

_LR = 0.01


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

        @torch.no_grad()
        def batch(step: int) -> tuple[Tensor, Tensor]:
            place = step * self.batch_size
            labels = (torch.arange(place, place + self.batch_size) % generator.num_classes).to(device)
            random = rng.generator(self.seed, rng.PROXY_NOISE, step)
            noise = torch.randn(self.batch_size, generator.noise_dim, generator=random).to(device)
            return self.normalize.from_pm1(generator(noise, labels)), labels

        fit(network, batch, range(self.steps), sgd(network, _LR, self.execution.fused), execution=self.execution)
        network.eval()

        def answer(images_u8: Tensor) -> Tensor:
            logits: Tensor = self.execution(network, self.normalize.from_u8(images_u8), compiled=False)
            return logits

        return count_correct(answer, self.val.images_u8, self.val.labels).correct / len(self.val.labels)

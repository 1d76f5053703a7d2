"""Three classes of random 16x16 images, networks for them, and the comparison of weights."""

import torch
from torch import Tensor, nn

from gdd import rng
from gdd.data.readers import Dataset
from gdd.data.spec import DatasetSpec
from gdd.data.splits import Split
from gdd.models import registry

SPEC = DatasetSpec("toy", 1, 16, 16, ("a", "b", "c"), (0.4,), (0.3,), flip=True)
CLASSES, PER_CLASS = SPEC.num_classes, 20


def unread() -> Split:
    raise AssertionError("distillation read the test part")


def dataset_of(images_u8: Tensor, labels: Tensor, spec: DatasetSpec = SPEC) -> Dataset:
    held_out = Split(torch.zeros(CLASSES, *SPEC.shape, dtype=torch.uint8), torch.arange(CLASSES))
    return Dataset(spec, Split(images_u8, labels), held_out, unread)


def network_of(arch: str, seed: int = 0) -> nn.Module:
    """Return a network in eval mode whose batch norms, if any, are far from the identity."""
    with rng.seeded(seed, "test-network"):
        network = registry.build(arch, SPEC.shape, CLASSES)
        for norm in (module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
            norm.running_mean.normal_(0, 0.3)
            norm.running_var.uniform_(0.3, 2)
    return network.eval()


def state(network: nn.Module) -> dict[str, Tensor]:
    """Return copies of all weights and buffers."""
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def places(images: Tensor, known: Tensor) -> Tensor:
    """Return which of the known images (N, C, H, W), all different, each image (B, C, H, W) is; one must be it."""
    equal = (images[:, None] == known[None]).flatten(2).all(2)
    assert equal.sum(1).tolist() == [1] * len(images)
    return equal.int().argmax(1)

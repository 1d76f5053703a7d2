"""What the tests of matching share besides fixtures."""

import torch
from torch import Tensor, nn

from gdd import rng
from gdd.config import Config, MatchingConfig, PoolConfig, RunConfig
from gdd.data.readers import Dataset
from gdd.data.spec import DatasetSpec
from gdd.data.splits import Split
from gdd.models import registry

SPEC = DatasetSpec("toy", 1, 16, 16, ("a", "b", "c"), (0.4,), (0.3,), flip=True)
CLASSES, PER_CLASS = SPEC.num_classes, 20


def unread() -> Split:
    raise AssertionError("distillation read the test part")


def toy(images_u8: Tensor, labels: Tensor, spec: DatasetSpec = SPEC) -> Dataset:
    held_out = Split(torch.zeros(CLASSES, *SPEC.shape, dtype=torch.uint8), torch.arange(CLASSES))
    return Dataset(spec, Split(images_u8, labels), held_out, unread)


def settings(pool: dict[str, object] | None = None, seed: int = 0, snapshots: tuple[int, ...] = (), **own) -> Config:
    values = {"ipc": 2, "iterations": 3, "outer": 2, "inner": 1, "batch_real": 8, "batch_train": 4, **own}
    if values.get("objective") == "embedding":
        values |= {"outer": None, "inner": None}
    return Config(
        method="matching",
        seed=seed,
        pool=PoolConfig(**{"main": "convnet3-w4", "various": ("mlp-w8", "lenet"), **(pool or {})}),
        match=MatchingConfig(**values),
        run=RunConfig(snapshots=snapshots),
    )


def network_of(arch: str, seed: int = 0) -> nn.Module:
    """Return a network in eval mode whose batch norms, if any, are far from the identity."""
    with rng.seeded(seed, "test-network"):
        network = registry.build(arch, SPEC.shape, CLASSES)
        for norm in (module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
            norm.running_mean.normal_(0, 0.3)
            norm.running_var.uniform_(0.3, 2)
    return network.eval()

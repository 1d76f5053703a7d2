"""What the tests of network pools share."""

import torch

from gdd.rng import generator

SHAPE, CLASSES = (1, 16, 16), 4
MEMBERS = ("mlp-w8", "convnet3-w4-bn")


class StudentBatches:
    """Real batches that remember which were asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        self.asked.append(step)
        draw = generator(0, "lesson", step)
        return torch.randn(6, *SHAPE, generator=draw), torch.randint(CLASSES, (6,), generator=draw)


def weights_of(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())

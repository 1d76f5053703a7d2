"""Generators as other programs save them: tiny ones with known answers, and ones that go wrong."""

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

NOISE, SHAPE = 5, (3, 8, 8)


class Toy(nn.Module):
    """Images of one level, which the class and the first entry of the noise decide."""

    def forward(self, noise: Tensor, classes: Tensor) -> Tensor:
        level = 0.5 * classes.float() - 0.5 + 0.1 * torch.tanh(noise[:, 0])
        return level[:, None, None, None].expand(-1, 3, 8, 8)


class Loud(Toy):
    def forward(self, noise: Tensor, classes: Tensor) -> Tensor:
        return noise.new_ones(len(noise), 1, 8, 8) * (2 * classes)[:, None, None, None]


class Broken(Toy):
    def forward(self, noise: Tensor, classes: Tensor) -> Tensor:
        return noise.new_ones(len(noise), 1, 8, 8) / 0 * 0


class Levels(Toy):
    def forward(self, noise: Tensor, classes: Tensor) -> Tensor:
        return torch.ones(len(noise), 3, 8, 8, dtype=torch.uint8)


class Flat(Toy):
    def forward(self, noise: Tensor, classes: Tensor) -> Tensor:
        return noise[:, :3]


class Pairs(nn.Module):
    def forward(self, noise: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        return noise, classes


class TwoChannels(Toy):
    def forward(self, noise: Tensor, classes: Tensor) -> Tensor:
        return noise.new_zeros(len(noise), 2, 8, 8)


class Random(Toy):
    def forward(self, noise: Tensor, classes: Tensor) -> Tensor:
        return torch.rand(len(noise), 3, 8, 8)


class Narrow(Toy):
    """Takes noise of length 7 alone."""

    def forward(self, noise: Tensor, classes: Tensor) -> Tensor:
        return noise.view(-1, 7, 1, 1)[:, :3].expand(-1, 3, 8, 8) * 0


class Traced(nn.Module):
    """Leaves a file where it is opened."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path, self.opened = path, torch.zeros(1)

    def forward(self, noise: Tensor, classes: Tensor) -> Tensor:
        return self.opened * noise.new_zeros(len(noise), 3, 8, 8)

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.path, self.training = state[0], state[1]
        self.opened = torch.from_file(self.path, True, 1)


def scripted(network: nn.Module, path: Path) -> Path:
    """Write a network as TorchScript."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit", FutureWarning)
        torch.jit.script(network).save(path)
    return path


def exported(network: nn.Module, path: Path, dynamic: bool = True) -> Path:
    """Write a network as torch.export does, for any number of images or for four."""
    inputs = torch.zeros(4, NOISE), torch.zeros(4, dtype=torch.int64)
    shapes = tuple({0: torch.export.Dim("batch")} for _ in inputs) if dynamic else None
    torch.export.save(torch.export.export(network, inputs, dynamic_shapes=shapes), path)
    return path

"""The inputs of a generator: balanced labels, and noise that depends on the sample alone."""

import torch
from einops import repeat
from torch import Tensor

from gdd import rng


def noise(seed: int, labels: Tensor, indices: Tensor, noise_dim: int) -> Tensor:
    """Return noise (B, noise_dim) for sample `indices[b]` of class `labels[b]`.

    It depends on (seed, class, index) only, so IPC 10 is a prefix of IPC 50 whatever the batches are.
    """
    rows = torch.empty(len(labels), noise_dim)
    samples = zip(labels.tolist(), indices.tolist(), strict=True)
    for row, random in zip(rows.unbind(), rng.generators(seed, rng.LATENT, samples), strict=True):
        row.normal_(generator=random)
    return rows


def balanced(num_classes: int, start: int, stop: int) -> tuple[Tensor, Tensor]:
    """Return labels and indices of samples `start..stop-1` of every class, ordered by class."""
    labels = repeat(torch.arange(num_classes), "k -> (k n)", n=stop - start)
    return labels, repeat(torch.arange(start, stop), "n -> (k n)", k=num_classes)

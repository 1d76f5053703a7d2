"""The only home of seeding.

Every random draw names what it is for and which step it belongs to, so it never depends on how many
draws came before it. A checkpoint therefore holds no generator state, and resuming is exact.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive(seed: int, purpose: str, *counters: int) -> int:
    """Return the 63-bit seed that belongs to one root seed, one purpose and any counters (step, rank, ...)."""
    text = ":".join([str(seed), purpose, *map(str, counters)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, purpose: str, *counters: int) -> torch.Generator:
    """Return a fresh CPU generator; draws are made on the CPU so that every device sees the same ones."""
    return torch.Generator().manual_seed(derive(seed, purpose, *counters))


@contextmanager
def seeded(seed: int, purpose: str, *counters: int) -> Iterator[None]:
    """Seed the global CPU generator for code that takes no generator (weight initialisation), then restore it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, purpose, *counters))
        yield

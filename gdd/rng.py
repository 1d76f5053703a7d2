"""The only home of seeding.

Every random draw names its stream, what it is for, and the step that it belongs to, so that it never depends on how
many draws came before it. A checkpoint therefore holds no generator state, and resuming is exact.

A stream's text enters every seed made of it: another text is another draw, and other results.
"""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch

# Data: which images are held out.
SPLIT_TEST = "split/test"
SPLIT_VALIDATION = "split/val"

# The GAN.
REFINE_AUGMENT = "refine-augment"
INIT_GAN = "init-gan"
# The name of the stage and a hyphen stand before these, so that each has draws of its own; its batches have the name.
NOISE_OF_GENERATOR_STEP = "noise-g"
NOISE_OF_DISCRIMINATOR_STEP = "noise-d"
AUGMENT_OF_GENERATOR_STEP = "augment-g"
AUGMENT_OF_DISCRIMINATOR_STEP = "augment-d"

# The pools.
INIT_POOL = "init-pool"
POOL_MEMBER = "pool"
POOL_AGE = "pool-age"
POOL_BATCHES = "pool-batches"
POOL_AUGMENT = "pool-augment"
POOL_EXAM = "pool-exam"

# The choice among averaged generators.
INIT_PROXY = "init-proxy"
PROXY_NOISE = "proxy-noise"
STATISTICS_NOISE = "statistics-noise"

# The ensemble that judges samples.
INIT_ENSEMBLE = "init-ensemble"
ENSEMBLE_BATCHES = "ensemble-batches"
ENSEMBLE_AUGMENT = "ensemble-augment"

# Matching.
MATCHING_NOISE = "match-noise"
MATCHING_INIT = "match-init"
MATCHING_REAL = "match-real"
MATCHING_AUGMENT = "match-augment"
MATCHING_STATISTICS = "match-statistics"
INNER_ORDER = "inner"
INNER_AUGMENT = "inner-augment"

# Sampling.
LATENT = "latent"

# Evaluation. STUDENT or TEACHER and a hyphen stand before ORDER, AUGMENT and DROP_PATH, and after INIT.
RANDOM_REAL = "real-random"
STUDENT = "student"
TEACHER = "teacher"
INIT = "init"
ORDER = "order"
AUGMENT = "augment"
DROP_PATH = "drop-path"
EIGENVECTORS = "eigenvectors"
AUDITED_IMAGES = "audit"

# What the machine can do.
SPEED = "speed"


def derive(seed: int, purpose: str, *counters: int) -> int:
    """Return the 63-bit seed that belongs to one root seed, one stream and any counters (step, class, ...)."""
    text = ":".join([str(seed), purpose, *map(str, counters)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, purpose: str, *counters: int) -> torch.Generator:
    """Return a fresh CPU generator; draws are made on the CPU so that every device sees the same ones."""
    return torch.Generator().manual_seed(derive(seed, purpose, *counters))


def generators(seed: int, purpose: str, counters: Iterable[tuple[int, ...]]) -> Iterator[torch.Generator]:
    """Yield what `generator` returns for each of many counters, as one object that the next step seeds anew."""
    reused = torch.Generator()
    for numbers in counters:
        yield reused.manual_seed(derive(seed, purpose, *numbers))


@contextmanager
def seeded(seed: int, purpose: str, *counters: int) -> Iterator[None]:
    """Seed the global CPU generator for code that takes no generator (weight initialisation), then restore it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, purpose, *counters))
        yield

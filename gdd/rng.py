"""The only home of seeding.

Every random draw names its stream, what it is for, and the step that it belongs to, so that it never depends on how
many draws came before it. A checkpoint therefore holds no generator state, and resuming is exact.

`Draws` are counted on the device that needs them. `generator` serves what is drawn once, on the host: the splits of the
data, which generators of earlier versions were made with, and through `seeded` the first weights of networks.

A stream's text enters every seed made of it: another text is another draw, and other results.
"""

import bisect
import hashlib
import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

Count = int | Tensor  # a step's number or another; a tensor () on the device where a captured step is replayed

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
RANDOM_CROPS = "random-crops"
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
    """Return a fresh CPU generator of torch, for what is drawn once on the host."""
    return torch.Generator().manual_seed(derive(seed, purpose, *counters))


_WORD = 0xFFFFFFFF
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_WEYL = 0x9E3779B9, 0xBB67AE85


def philox(counter: Sequence[Any], key: Sequence[Any]) -> tuple[Any, Any, Any, Any]:
    """Return the four words of Philox 4x32-10 for each counter (Salmon et al., SC 2011).

    Args:
        counter: four words of 32 bits each: whole numbers, or arrays or tensors of int64 whose shapes broadcast, on
            any device.
        key: two words, which may be arrays or tensors too.
    """
    (a, b, c, d), (first, second) = counter, key
    for _ in range(10):
        left, right = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]  # of 64 bits, of which the sign is one
        a, b = ((right >> 32) ^ b ^ first) & _WORD, right & _WORD
        c, d = ((left >> 32) ^ d ^ second) & _WORD, left & _WORD
        first, second = first + _WEYL[0], second + _WEYL[1]
    return a, b, c, d


def key_of(seed: int, purpose: str) -> tuple[int, int]:
    """Return the key of one root seed and one stream."""
    digest = hashlib.blake2b(f"{seed}:{purpose}".encode(), digest_size=8).digest()
    return int.from_bytes(digest[:4], "big"), int.from_bytes(digest[4:], "big")


class Draws:
    """Random numbers of one stream, in the order in which they are asked for: a pure function of seed and counters.

    The words are the same on every device, so uniform and whole numbers are; normal ones are but for rounding.
    """

    def __init__(
        self,
        seed: int | Sequence[int],
        purpose: str,
        *counters: Count,
        each: range | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """Begin a stream.

        Args:
            seed: the root seed. With S of them, S streams draw side by side: all shapes have S in front.
            purpose: the stream.
            counters: at most three (step, class, ...), each below 2^32, or a tensor () of int64 on the device.
            each: L numbers of a further counter, of one seed: L streams draw side by side as those of S seeds do.
            device: to draw on.
        """
        numbers = [*(number for number in counters if isinstance(number, int)), *(each or ())]
        if len(counters) + (each is not None) > 3 or any(not 0 <= number <= _WORD for number in numbers):
            raise ValueError(f"the counters are {counters}, expected at most three numbers from 0 to {_WORD}")
        if each is not None and not isinstance(seed, int):
            raise ValueError(
                f"there are {len(seed)} seeds and each of {len(each)} numbers, expected several of one alone"
            )
        self.device, self.blocks = torch.device(device), 0
        self.lead, self.key = _keys(seed, purpose, self.device, ndim=1)
        self.streams = [_filled(counters)] if each is None else [_filled((*counters, one)) for one in each]
        if each is not None:
            self.lead = (len(each),)
            counters = (*counters, torch.arange(each.start, each.stop, each.step, device=self.device)[:, None])
        self.counters = _filled(counters)

    def words(self, count: int) -> Tensor:
        """Return `count` new words (count,) of 32 bits, of int64."""
        blocks, first = -(-count // 4), self.blocks
        self.blocks += blocks
        return _words_of(first, blocks, self.counters, self.key, self.device).flatten(-2)[..., :count]

    def uniform(self, *shape: int) -> Tensor:
        """Return float32 numbers in [0, 1), multiples of 2^-24."""
        return _uniform(self.words(math.prod(shape))).reshape(*self.lead, *shape)

    def normal(self, *shape: int) -> Tensor:
        """Return standard normal float32 numbers."""
        count = math.prod(shape)
        return _normal(self.words(count + count % 2))[..., :count].reshape(*self.lead, *shape)

    def integers(self, high: int, *shape: int) -> Tensor:
        """Return whole numbers (int64) from 0 to high - 1, at most 2^31; each is as likely but for high / 2^32."""
        return ((self.words(math.prod(shape)) * high) >> 32).reshape(*self.lead, *shape)

    def permutation(self, count: int) -> Tensor:
        """Return the numbers from 0 to count - 1 in random order."""
        high, low = self.words(2 * count).unflatten(-1, (2, count)).unbind(-2)
        return _order(high, low).argsort(stable=True)

    def permutations(self, counts: Tensor, most: int) -> Tensor:
        """Return (L, most), in row l the numbers from 0 to counts[l] - 1 in random order, then others.

        Each row is what `permutation` of its stream alone gives.

        Args:
            counts: (L,), of each stream, on the device.
            most: the largest of them.
        """
        words, place = self.words(2 * most), torch.arange(most, device=self.device)
        keys = _order(words[:, :most], words.gather(1, counts[:, None] + place))
        return keys.where(place < counts[:, None], 2**63 - 1).argsort(stable=True)

    def whole(self, high: int) -> int:
        """Return a whole number from 0 to high - 1 to the host, which the device is not asked for: of one seed."""
        (number,) = self.wholes(high)
        return number

    def wholes(self, high: int) -> list[int]:
        """Return what `whole` does, for each of L streams."""
        blocks = [philox((self.blocks, *counters), self.key) for counters in self.streams]
        self.blocks += 1
        return [int(block[0] * high) >> 32 for block in blocks]

    def choice(self, weights: Sequence[float]) -> int:
        """Return a place among the weights, none below 0, with a probability in proportion to its weight."""
        edges = [*itertools.accumulate(weights)]
        return bisect.bisect_right(edges, self.whole(2**32) / 2**32 * edges[-1])


def normal_rows(seed: int | Sequence[int], purpose: str, first: Tensor, second: Tensor, count: int) -> Tensor:
    """Return standard normal rows (B, count): row b is a function of its two counters (B,) alone, whatever the others.

    Args:
        seed: the root seed; with S of them, rows (S, B, count).
        purpose: the stream.
        first: whole numbers below 2^32, such as classes, on the device to draw on.
        second: whole numbers below 2^63, such as indices.
        count: of numbers in a row.
    """
    counters = first[:, None], (second & _WORD)[:, None], (second >> 32)[:, None]
    blocks = -(-count // 4)
    _, key = _keys(seed, purpose, first.device, ndim=2)
    return _normal(_words_of(0, blocks, counters, key, first.device).flatten(-2))[..., :count]


def _filled(counters: Sequence[Count]) -> tuple[Count, ...]:
    return (*counters, 0, 0, 0)[:3]


def _order(high: Tensor, low: Tensor) -> Tensor:
    """Return keys of 62 bits, whose order is random."""
    return (high << 30) ^ (low >> 2)


def _counted_in_numpy(device: torch.device) -> bool:
    """Tell whether numpy counts, which takes a third of torch's time for arrays of this size."""
    return device.type == "cpu"


def _keys(
    seed: int | Sequence[int], purpose: str, device: torch.device, ndim: int
) -> tuple[tuple[int, ...], tuple[Any, ...]]:
    """Return the axis that S seeds have in front, and their keys' words: arrays or tensors of it and `ndim` more."""
    if isinstance(seed, int):
        return (), key_of(seed, purpose)
    shape, words = (1,) * ndim, zip(*(key_of(one, purpose) for one in seed), strict=True)
    if _counted_in_numpy(device):
        return (len(seed),), tuple(np.array(word).reshape(-1, *shape) for word in words)
    # By fills, since a list would be copied to the device.
    keys = (torch.stack([torch.full(shape, one, device=device) for one in word]) for word in words)
    return (len(seed),), tuple(keys)


def _words_of(
    first: int, blocks: int, counters: Sequence[int | Tensor], key: tuple[Any, ...], device: torch.device
) -> Tensor:
    """Return words (..., blocks, 4) of consecutive blocks, whose number is the first word of the counter."""
    if _counted_in_numpy(device):
        arrays = [number if isinstance(number, int) else number.numpy() for number in counters]
        words = philox([np.arange(first, first + blocks, dtype=np.int64), *arrays], key)
        return torch.from_numpy(np.stack(np.broadcast_arrays(*words), -1))
    drawn = philox([torch.arange(first, first + blocks, device=device), *counters], key)
    return torch.stack(torch.broadcast_tensors(*drawn), -1)


def _uniform(words: Tensor) -> Tensor:
    return (words >> 8).float() * 2.0**-24


def _normal(words: Tensor) -> Tensor:
    """Return as many normal numbers (..., 2n) as words, by Box and Muller (1958); none is beyond 6.8."""
    # Half a word above 0, and all its digits where it is small: the tails.
    radius = (-2 * (words[..., ::2].float() + 0.5).mul(2.0**-32).log()).sqrt()
    angle = _uniform(words[..., 1::2]) * (2 * math.pi)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], -1).flatten(-2)


@contextmanager
def seeded(seed: int, purpose: str, *counters: int) -> Iterator[None]:
    """Seed the global CPU generator for code that takes no generator (weight initialisation), then restore it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, purpose, *counters))
        yield

"""How fast a device multiplies: GFLOP/s of a large matrix product and of a 3x3 convolution."""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F

from gdd import rng
from gdd.runtime.device import clock

ROUNDS = 5
# Of matrices, and images in a convolution's batch, that keep a device busy; a slow core is done with them in seconds.
SIZE, IMAGES = {"cpu": 1024, "cuda": 8192}, {"cpu": 25, "cuda": 1000}
_DRAWN = 1024  # rows and columns that a matrix repeats


def here() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def work_clock(device: torch.device) -> float:
    """Return a time that does not go on while others have the CPU: the processor's, shared by this process's threads.

    A GPU has no such clock.
    """
    return time.process_time() / torch.get_num_threads() if device.type == "cpu" else clock(device)


class Taken(NamedTuple):
    """How long a call takes, in seconds, the device's work included."""

    alone: float  # if nobody else works on the machine
    now: float  # as busy as it is


def taken(call: Callable[[], object], device: torch.device, rounds: int = ROUNDS) -> Taken:
    """Time a call after a warm-up: the least work that it took, and the median of the time that passed."""
    worked, passed = [], []
    for _ in range(1 + rounds):
        began = work_clock(device), clock(device)
        call()
        worked.append(work_clock(device) - began[0])
        passed.append(clock(device) - began[1])
    return Taken(min(worked[1:]), statistics.median(passed[1:]))


def seconds(call: Callable[[], object], device: torch.device, rounds: int = ROUNDS) -> float:
    """Return how long `call` takes on the machine as busy as it is."""
    return taken(call, device, rounds).now


def matrix_product(device: torch.device, dtype: torch.dtype = torch.float32, size: int | None = None) -> float:
    """Return the GFLOP/s of a product of two square matrices; float32 is TF32 on a GPU if the package has set that.

    The `size` of the matrices, if it is given, is at most 1024 or a multiple of that.
    """
    work, took = matrix_product_taken(device, dtype, size)
    return work / took.now / 1e9


@torch.inference_mode()
def matrix_product_taken(
    device: torch.device, dtype: torch.dtype = torch.float32, size: int | None = None
) -> tuple[float, Taken]:
    """Return the FLOP of that product, and how long it takes."""
    size = size or SIZE[device.type]
    # Not of equal numbers, with which a GPU needs less power and so is faster.
    drawn = min(size, _DRAWN)
    tiles = torch.randn(2, drawn, drawn, generator=rng.generator(0, rng.SPEED)).to(device, dtype)
    left, right = tiles.repeat(1, size // drawn, size // drawn)
    return 2 * size**3, taken(lambda: left @ right, device)


@torch.inference_mode()
def convolution(
    device: torch.device, dtype: torch.dtype = torch.float32, batch: int | None = None, width: int = 128
) -> float:
    """Return the GFLOP/s of a 3x3 convolution of `batch` maps of 32x32, `width` channels to as many."""
    batch = batch or IMAGES[device.type]
    draw = rng.generator(0, rng.SPEED)
    images = torch.randn(batch, width, 32, 32, generator=draw).to(device, dtype)
    kernels = torch.randn(width, width, 3, 3, generator=draw).to(device, dtype)
    work = 2 * batch * 32 * 32 * width**2 * 9
    return work / seconds(lambda: F.conv2d(images, kernels, padding=1), device) / 1e9

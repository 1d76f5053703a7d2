"""How fast a machine multiplies: GFLOP/s of a large matrix product and of a 3x3 convolution; prints one JSON line.

    uv run benchmarks/peak.py --threads 1

On a GPU if there is one. bfloat16 is timed only where the hardware has it: emulated, it takes hundreds of times longer.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from gdd.config import RunConfig
from gdd.runtime.device import device_name, make_accelerator
from gdd.runtime.execution import has_bfloat16

ROUNDS = 5
SIZE = {"cpu": 2048, "cuda": 8192}  # of matrices that keep a device busy


def here() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def clock(device: torch.device) -> float:
    """Return the time when the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def seconds(call: Callable[[], object], device: torch.device, rounds: int = ROUNDS) -> float:
    """Return how long `call` takes, the device's work included: the median of some, after a warm-up."""
    times = []
    for _ in range(1 + rounds):
        began = clock(device)
        call()
        times.append(clock(device) - began)
    return statistics.median(times[1:])


@torch.inference_mode()
def matrix_product(device: torch.device, dtype: torch.dtype = torch.float32, size: int | None = None) -> float:
    """Return the GFLOP/s of a product of two square matrices; float32 is TF32 on a GPU if the package has set that."""
    size = size or SIZE[device.type]
    # Not of equal numbers, with which a GPU needs less power and so is faster.
    draw = torch.Generator(device).manual_seed(0)
    left, right = torch.randn(2, size, size, device=device, generator=draw).to(dtype)
    return 2 * size**3 / seconds(lambda: left @ right, device) / 1e9


@torch.inference_mode()
def convolution(device: torch.device, dtype: torch.dtype = torch.float32, batch: int = 100, width: int = 128) -> float:
    """Return the GFLOP/s of a 3x3 convolution of `batch` maps of 32x32, `width` channels to as many."""
    draw = torch.Generator(device).manual_seed(0)
    images = torch.randn(batch, width, 32, 32, device=device, generator=draw).to(dtype)
    kernels = torch.randn(width, width, 3, 3, device=device, generator=draw).to(dtype)
    work = 2 * batch * 32 * 32 * width**2 * 9
    return work / seconds(lambda: F.conv2d(images, kernels, padding=1), device) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--toy", action="store_true", help="sizes of a test, whose rates mean nothing")
    options = parser.parse_args()
    make_accelerator(RunConfig(threads=options.threads))
    device = here()
    size, batch, width = (64, 2, 8) if options.toy else (None, 100 if device.type == "cpu" else 1000, 128)
    result: dict[str, object] = {"device": device_name(device), "threads": options.threads}
    for dtype in (torch.float32, torch.bfloat16) if has_bfloat16(device) else (torch.float32,):
        name = str(dtype).removeprefix("torch.")
        result[f"{name} matrix product GFLOP/s"] = round(matrix_product(device, dtype, size), 1)
        result[f"{name} convolution GFLOP/s"] = round(convolution(device, dtype, batch, width), 1)
    print(json.dumps(result))


if __name__ == "__main__":
    main()

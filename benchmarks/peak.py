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

from gdd.runtime.device import device_name
from gdd.runtime.execution import has_bfloat16

ROUNDS = 5


def here() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """Return how long `call` takes, the device's work included: the median of some, after a warm-up."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    times = []
    for _ in range(1 + ROUNDS):
        wait()
        began = time.perf_counter()
        call()
        wait()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


@torch.inference_mode()
def matrix_product(device: torch.device, dtype: torch.dtype = torch.float32, size: int = 2048) -> float:
    """Return the GFLOP/s of a product of two square matrices."""
    left, right = torch.ones(2, size, size, device=device, dtype=dtype)
    return 2 * size**3 / seconds(lambda: left @ right, device) / 1e9


@torch.inference_mode()
def convolution(device: torch.device, dtype: torch.dtype = torch.float32, batch: int = 100, width: int = 128) -> float:
    """Return the GFLOP/s of a 3x3 convolution of `batch` maps of 32x32, `width` channels to as many."""
    images = torch.ones(batch, width, 32, 32, device=device, dtype=dtype)
    kernels = torch.ones(width, width, 3, 3, device=device, dtype=dtype)
    work = 2 * batch * 32 * 32 * width**2 * 9
    return work / seconds(lambda: F.conv2d(images, kernels, padding=1), device) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--toy", action="store_true", help="sizes of a test, whose rates mean nothing")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = here()
    size, batch, width = (64, 2, 8) if options.toy else (2048, 100, 128)
    result: dict[str, object] = {"device": device_name(device), "threads": options.threads}
    for dtype in (torch.float32, torch.bfloat16) if has_bfloat16(device) else (torch.float32,):
        name = str(dtype).removeprefix("torch.")
        result[f"{name} matrix product GFLOP/s"] = round(matrix_product(device, dtype, size), 1)
        result[f"{name} convolution GFLOP/s"] = round(convolution(device, dtype, batch, width), 1)
    print(json.dumps(result))


if __name__ == "__main__":
    main()

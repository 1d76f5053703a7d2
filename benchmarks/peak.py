"""How fast a machine multiplies: GFLOP/s of a large matrix product and of a 3x3 convolution; prints one JSON line.

    uv run benchmarks/peak.py --threads 1

On a GPU if there is one. bfloat16 is timed only where the hardware has it: emulated, it takes hundreds of times longer.
"""

import argparse
import json

import torch

from gdd.config import RunConfig
from gdd.runtime.device import convolution, device_name, here, make_accelerator, matrix_product
from gdd.runtime.execution import has_bfloat16


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

"""Images per second of a pretraining and a refinement step at a config's sizes; prints one JSON line.

`uv run python benchmarks/gan_step.py --config configs/mnist-cpu.yaml` (any flag of the scripts may follow).
"""

import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from gdd import pipeline
from gdd.cli.main import parse_config
from gdd.runtime.device import make_accelerator

WARM_UP, STEPS = 5, 30


def matmul_gflops(size: int = 1024, repeats: int = 10) -> float:
    """Return the rate of a large float32 matrix product, the machine's practical peak."""
    left = torch.randn(size, size)
    left @ left
    began = time.perf_counter()
    for _ in range(repeats):
        left @ left
    return 2 * size**3 * repeats / (time.perf_counter() - began) / 1e9


def main() -> None:
    config = parse_config(sys.argv[1:])
    dataset = pipeline.open_data(config.data, config.seed)
    accelerator = make_accelerator(config.run)
    result = {"config": config.name, "device": str(accelerator.device), "threads": torch.get_num_threads()}
    with tempfile.TemporaryDirectory() as folder:
        quiet = replace(config.run, root=Path(folder), log_every=10**9, grid_every=10**9, save_every=10**9)
        seconds = {}
        for steps in (WARM_UP, WARM_UP + STEPS):
            short = replace(
                config,
                name=f"steps-{steps}",
                run=quiet,
                pretrain=replace(config.pretrain, steps=steps),
                refine=replace(config.refine, steps=steps),
            )
            for stage, run in (("pretrain", pipeline.train_gan), ("refine", pipeline.distill)):
                began = time.perf_counter()
                run(short, dataset, accelerator)
                seconds[stage, steps] = time.perf_counter() - began
    for stage, part in (("pretrain", config.pretrain), ("refine", config.refine)):
        spent = seconds[stage, WARM_UP + STEPS] - seconds[stage, WARM_UP]
        result[f"{stage} images/s"] = round(STEPS * part.batch_size / spent, 1)
    result["float32 matrix product GFLOP/s"] = round(matmul_gflops(), 1)
    print(json.dumps(result))


if __name__ == "__main__":
    main()

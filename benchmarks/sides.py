"""What the benchmarks of training share: ways to execute the same work, each in a process of its own, by turns."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from gdd import pipeline
from gdd.cli.main import parse_config
from gdd.config import Config
from gdd.runtime import execution
from gdd.runtime.device import device_name, make_accelerator
from gdd.runtime.execution import Execution

# Flags of each way; the first is what the others are compared with.
WAYS = {
    "float32 eager": "--run.precision float32 --run.compile off",
    "float32 compiled": "--run.precision float32 --run.compile on",
    "bfloat16 eager": "--run.precision bfloat16 --run.compile off",
    "bfloat16 compiled": "--run.precision bfloat16 --run.compile on",
}


def way(side: str) -> Execution:
    """Return the execution that a key of `WAYS` names."""
    precision, how = side.split()
    compiled = how == "compiled" and execution.can_compile(torch.device("cpu"))
    return Execution("bfloat16" if precision == "bfloat16" else "float32", compiled)


def in_turn(file: str, sides: Sequence[str], rounds: int, arguments: Sequence[str]) -> dict[str, dict[str, float]]:
    """Run `file --side SIDE ARGUMENTS` for each side, `rounds` times over, and return medians of the JSON they print.

    The allocator and the compiler keep their state for a process, hence one for each.
    """
    results: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side in sides:
            command = [sys.executable, file, "--side", side, *arguments]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            results[side].append(json.loads(done.stdout.splitlines()[-1]))
    return {
        side: {name: statistics.median(one[name] for one in found) for name in found[0]}
        for side, found in results.items()
    }


def stage_seconds(config: Config, stage: str, warm_up: int, steps: int) -> dict[str, float]:
    """Return seconds per step of pretrain or refine: of a longer run less those of a shorter one."""
    dataset = pipeline.open_data(config.data, config.seed)
    accelerator = make_accelerator(config.run)
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        quiet = replace(config.run, root=Path(folder), log_every=10**9, grid_every=10**9, save_every=10**9)
        start = pipeline.train_gan(
            replace(config, name="start", run=quiet, pretrain=replace(config.pretrain, steps=1)), dataset, accelerator
        )
        # Twice the shorter run: what is compiled or allocated once comes in the first.
        for count in (warm_up, warm_up, warm_up + steps):
            short = replace(
                config,
                name=f"run-{len(seconds)}",
                run=quiet,
                pretrain=replace(config.pretrain, steps=count),
                refine=replace(config.refine, steps=count, pretrained=start),
            )
            began = time.perf_counter()
            (pipeline.train_gan if stage == "pretrain" else pipeline.distill)(short, dataset, accelerator)
            seconds.append(time.perf_counter() - began)
    return {"seconds": (seconds[2] - seconds[1]) / steps}


def benchmark_stage(file: str, stage: str) -> None:
    """Print images per second of a stage's step in every way, as one JSON line; flags of the scripts may be given."""
    if sys.argv[1:2] == ["--side"]:
        config = parse_config([*sys.argv[3:], *WAYS[sys.argv[2]].split()])
        print(json.dumps(stage_seconds(config, stage, 4, 32 if stage == "pretrain" else 16)))
        return
    config = parse_config(sys.argv[1:])
    found = in_turn(file, list(WAYS), 2, sys.argv[1:])
    part = config.pretrain if stage == "pretrain" else config.refine
    threads = config.run.threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    base = found["float32 eager"]["seconds"]
    print(
        json.dumps(
            {
                "config": config.name,
                "stage": stage,
                "device": device_name(device),
                "images/s": {way: round(part.batch_size / one["seconds"], 1) for way, one in found.items()},
                "ratio to float32 eager": {way: round(base / one["seconds"], 2) for way, one in found.items()},
            }
        )
    )

"""What the benchmarks of training share: ways to execute the same work, by turns."""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from gdd import pipeline
from gdd.cli.main import parse_config
from gdd.config import Config
from gdd.config.gan import ProxyConfig
from gdd.runtime import execution, graphs
from gdd.runtime.device import clock, device_name, here, make_accelerator, matrix_product, peak_memory_mb
from gdd.runtime.execution import Execution
from gdd.runtime.run import Run, Step
from gdd.training import distil, guidance

# Flags of each way; the first is what the others are compared with. A GPU replays steps unless it is to be eager.
WAYS = {
    f"{precision} {how}": f"--run.precision {precision} --run.compile {'on' if how == 'compiled' else 'off'}"
    for precision in ("float32", "bfloat16")
    for how in ("eager", "replayed" if here().type == "cuda" else "compiled")
}


# Flags of a test, whose rates mean nothing.
TOY = (
    "--gan.width 4 --gan.noise_dim 8 --pretrain.batch_size 8 --refine.batch_size 8 --run.threads 1 "
    "--refine.pool.members [convnet3-w4] --refine.pool.steps_before 1 --refine.pool.steps_between 1 "
    "--refine.pool.batch_size 8 --matching.pool.main convnet3-w4 --matching.batch_real 8 "
    "--matching.outer 2 --matching.inner 1"
)


def add_toy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--toy", action="store_true", help="sizes of a test, whose rates mean nothing")


def read_flags(description: str | None, sides: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return `side` and `toy` from the command line, and the flags of the scripts that are there too."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=form, allow_abbrev=False)
    parser.add_argument("--side", choices=sides, help=argparse.SUPPRESS)
    add_toy(parser)
    options, flags = parser.parse_known_args()
    return options, [*flags, *TOY.split()] if options.toy else flags


def read_sizes(
    parser: argparse.ArgumentParser, sides: Sequence[str], toy: Mapping[str, object]
) -> tuple[argparse.Namespace, list[str]]:
    """Read the sizes that `parser` asks for, or those of a test, and the flags with which a side gets the same."""
    own = [*vars(parser.parse_args([]))]
    parser.add_argument("--side", choices=sides, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=2)
    add_toy(parser)
    options = parser.parse_args()
    flags = [part for name in own for part in (f"--{name}", str(getattr(options, name)))]
    if options.toy:
        vars(options).update(toy, rounds=1)
        flags.append("--toy")
    return options, flags


def ways(toy: bool) -> list[str]:
    """Return the keys of `WAYS` in whose precision the device computes; for a test, only the first."""
    precisions = ("float32", "bfloat16") if execution.has_bfloat16(here()) else ("float32",)
    return [way for way in WAYS if way.startswith(precisions)][: 1 if toy else None]


def way(side: str) -> Execution:
    """Return the execution that a key of `WAYS` names."""
    precision, how = side.split()
    compiled = how == "compiled" and execution.can_compile(here())
    return Execution("bfloat16" if precision == "bfloat16" else "float32", compiled)


def peak_of(side: str, toy: bool) -> float:
    """Return the GFLOP/s of a matrix product in a side's precision, in this process's arithmetic."""
    dtype = torch.bfloat16 if side.startswith("bfloat16") else torch.float32
    return matrix_product(here(), dtype, 64 if toy else None)


def in_turn(
    file: str,
    sides: Sequence[str],
    rounds: int,
    arguments: Sequence[str],
    measure: Callable[[str], dict[str, float]],
) -> dict[str, dict[str, float]]:
    """Measure each side, `rounds` times over, and return medians; on a GPU here, and each is told as it comes.

    On a CPU by `file --side SIDE ARGUMENTS`, which prints what `measure` returns: the allocator and the compiler keep
    their state for a process. A GPU is lent by the minute, of which a process takes five seconds to start; and a
    test is measured as on one.
    """
    results: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side in sides:
            if here().type == "cuda" or "--toy" in arguments:
                if here().type == "cuda":
                    torch.cuda.empty_cache()
                    torch.cuda.reset_peak_memory_stats()
                with taken_as(side):
                    results[side].append(measure(side))
                print(f"{side}: {results[side][-1]}", file=sys.stderr, flush=True)
                continue
            command = [sys.executable, file, "--side", side, *arguments]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            results[side].append(json.loads(done.stdout.splitlines()[-1]))
    return {
        side: {name: statistics.median(one[name] for one in found) for name in found[0]}
        for side, found in results.items()
    }


@contextlib.contextmanager
def taken_as(side: str) -> Iterator[None]:
    """Let a GPU replay steps in the block only if a side says so."""
    with patch.object(graphs, "can_capture", graphs.can_capture if "replayed" in side else lambda: False):
        yield


def stage_seconds(config: Config, stage: str, warm_up: int, steps: int) -> float:
    """Return seconds per step of pretrain or refine after some to warm up, in a second run in this process.

    Timed from the start of one step to that of another, between which nothing is chosen, logged or saved.
    """
    dataset = pipeline.open_data(config.data, config.seed)
    accelerator = make_accelerator(config.run)
    gan = replace(config.gan, ema_decays=config.gan.ema_decays[:1], proxy=ProxyConfig())
    marks = {warm_up: 0.0, warm_up + steps: 0.0}
    loop = Run.loop

    def timed_loop(*arguments: Any) -> Iterator[Step]:
        for step in loop(*arguments):
            if step.index in marks:
                marks[step.index] = clock(accelerator.device)
            yield step

    with tempfile.TemporaryDirectory() as folder:
        quiet = replace(config.run, root=Path(folder), log_every=10**9, grid_every=10**9, save_every=10**9)
        config = replace(config, gan=gan, run=quiet)
        start = pipeline.train_gan(
            replace(config, name="start", pretrain=replace(config.pretrain, steps=1)), dataset, accelerator
        )
        for name in ("first", "second"):  # what is compiled or allocated once comes in the first
            run = replace(
                config,
                name=name,
                pretrain=replace(config.pretrain, steps=warm_up + steps + 1),
                refine=replace(config.refine, steps=warm_up + steps + 1, pretrained=start),
            )
            with patch.object(Run, "loop", timed_loop):
                (pipeline.train_gan if stage == "pretrain" else pipeline.distill)(run, dataset, accelerator)
    began, ended = marks.values()
    return (ended - began) / steps


def benchmark_stage(file: str, stage: str, description: str | None) -> None:
    """Print images per second of a stage's step in every way, as one JSON line; flags of the scripts may be given."""
    options, flags = read_flags(description, list(WAYS))

    def measure(side: str) -> dict[str, float]:
        config = parse_config([*flags, *WAYS[side].split()])
        steps = 2 if options.toy else {"pretrain": 32, "refine": 16}[stage] if here().type == "cpu" else 96
        seconds = stage_seconds(config, stage, 1 if options.toy else 4 if here().type == "cpu" else 64, steps)
        memory = peak_memory_mb(here())  # before the large matrices
        return {"seconds": seconds, "memory": memory, "peak": peak_of(side, options.toy)}

    if options.side:
        print(json.dumps(measure(options.side)))
        return
    config = parse_config(flags)
    rounds = 1 if options.toy or here().type == "cuda" else 2
    found = in_turn(file, ways(options.toy), rounds, sys.argv[1:], measure)
    batch = config.pretrain.batch_size if stage == "pretrain" else config.refine.batch_size
    spec = pipeline.open_data(config.data, config.seed).spec
    make_accelerator(config.run)  # decides what the device's name says
    base = found["float32 eager"]["seconds"]
    flop = distil.adversarial_flop(config, stage, spec)
    if stage == "refine":
        flop += guidance.guidance_flop(config, spec)
    flop /= (config.pretrain if stage == "pretrain" else config.refine).steps
    rates = {way: flop / one["seconds"] / 1e9 for way, one in found.items()}
    print(
        json.dumps(
            {
                "config": config.name,
                "data": spec.name,
                "stage": stage,
                "device": device_name(here()),
                "images/s": {way: round(batch / one["seconds"], 1) for way, one in found.items()},
                "ratio to float32 eager": {way: round(base / one["seconds"], 2) for way, one in found.items()},
                **against_peak(rates, found),
            }
        )
    )


def against_peak(rates: Mapping[str, float], found: Mapping[str, Mapping[str, float]]) -> dict[str, object]:
    """Return GFLOP/s of each side, what a matrix product reaches in its precision, the share of that, and memory."""
    return {
        "GFLOP/s": {side: round(rate, 1) for side, rate in rates.items()},
        "peak GFLOP/s": {side: round(one["peak"], 1) for side, one in found.items()},
        "share of the peak": {side: round(rate / found[side]["peak"], 4) for side, rate in rates.items()},
        "peak memory MB": {side: round(one["memory"]) for side, one in found.items()},
    }

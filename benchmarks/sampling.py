"""Images per second drawn from a generator as a stored set, a stream and shards, beside a plain loop; prints one JSON.

    uv run benchmarks/sampling.py --shape 3 32 32 --width 32

The plain loop is what code of papers does: batches of 100 from the global generator, kept as float tensors and saved.
All ways take turns in one process, and each figure is the median of the rounds; an untrained generator serves, for its
weights do not change the time.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from gdd import rng
from gdd.config import RunConfig
from gdd.data.pixels import Normalizer
from gdd.data.spec import DatasetSpec
from gdd.evaluation import sources
from gdd.evaluation.batches import GeneratedStream
from gdd.formats import webdataset
from gdd.models.gan import DimGenerator, Generator
from gdd.runtime.device import clock, device_name, here, make_accelerator, matrix_product, peak_memory_mb
from gdd.sampling import generator_file, sample, set_file
from gdd.sampling.generator_file import LoadedGenerator

CLASSES, NOISE_DIM, PLAIN_BATCH = 10, 100, 100


def untrained(folder: Path, shape: tuple[int, int, int], width: int) -> LoadedGenerator:
    """Return a generator as `gdd sample` would load it."""
    names, statistic = tuple(map(str, range(CLASSES))), (0.5,) * shape[0]
    spec = DatasetSpec("benchmark", *shape, names, statistic, statistic, flip=False)
    with rng.seeded(0, "benchmark"):
        generator = DimGenerator(shape, CLASSES, width, NOISE_DIM)
    return generator_file.load(generator_file.save(folder, generator, spec, {"method": "gan", "seconds": 0.0}))


def gflop(generator: Generator, device: torch.device) -> float:
    """Return the GFLOP of one image, two per multiplication and addition, of convolutions and matrix products."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        generator(torch.zeros(1, generator.noise_dim, device=device), torch.zeros(1, dtype=torch.long, device=device))
    return counter.get_total_flops() / 1e9


@torch.no_grad()
def plain(generator: Generator, ipc: int, device: torch.device, folder: Path) -> None:
    images, labels = [], torch.arange(generator.num_classes).repeat_interleave(ipc)
    for batch in labels.split(PLAIN_BATCH):
        images.append(generator(torch.randn(len(batch), generator.noise_dim, device=device), batch.to(device)).cpu())
    torch.save((torch.cat(images), labels), folder / "plain.pt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=(3, 32, 32), help="channels, height, width of an image")
    parser.add_argument("--width", type=int, default=32, help="channels of the generator")
    parser.add_argument("--generator", help="one of gdd's, such as zoo:cifar10, instead of an untrained one")
    parser.add_argument("--ipc", type=int, default=100, help="images per class that each way draws, of 10 classes")
    parser.add_argument("--rounds", type=int, default=5, help="of which the median is taken")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--toy", action="store_true", help="sizes of a test, whose rates mean nothing")
    options = parser.parse_args()
    if options.toy:
        options.shape, options.width, options.ipc, options.rounds = (1, 8, 8), 4, 2, 1
    accelerator = make_accelerator(RunConfig(threads=options.threads))
    device, ipc = here(), options.ipc

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        loaded = untrained(folder, tuple(options.shape), options.width)
        if options.generator is not None:
            found = sources.read(options.generator).generator
            assert found is not None
            loaded = found
        classes = loaded.spec.num_classes
        images = ipc * classes
        normalize = Normalizer(loaded.spec.mean, loaded.spec.std, device)

        def stored_set(_: int) -> None:
            made = sample.sample_set_together(loaded, ipc, 0, accelerator)
            assert made is not None  # this is the main process
            set_file.save(folder / "set.safetensors", made)

        def stream(_: int) -> None:
            GeneratedStream(loaded, ipc, 0, normalize).batch(0, None)

        def shards(turn: int) -> None:
            plan = webdataset.ShardPlan(loaded.hash, 0, ipc, 16 * classes, loaded.spec)
            webdataset.write_shards(folder / f"shards-{turn}", plan, loaded, accelerator, range(plan.shards))

        ways: dict[str, Callable[[int], None]] = {
            "set": stored_set,
            "stream": stream,
            "shards": shards,
            "plain": lambda _: plain(loaded.generator, ipc, device, folder),
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(1 + options.rounds):  # the first warms up
            for way, draw in ways.items():
                began = clock(device)
                draw(turn)
                seconds[way].append(clock(device) - began)
        work = gflop(loaded.generator, device)

    memory = peak_memory_mb(device)  # before the large matrices
    peak = matrix_product(device, size=64 if options.toy else None)
    rates = {way: images / statistics.median(times[1:]) for way, times in seconds.items()}
    result = {
        "device": device_name(device),
        "threads": options.threads,
        "shape": list(loaded.spec.shape),
        "width": loaded.generator.width,
        "images": images,
        "GFLOP per image": work,
        "peak GFLOP/s": round(peak, 1),
        "peak memory MB": round(memory, 1),
        "images/s": {way: round(rate, 1) for way, rate in rates.items()},
        "share of the peak": {way: round(rate * work / peak, 4) for way, rate in rates.items()},
        "rate / plain": {way: round(rate / rates["plain"], 3) for way, rate in rates.items()},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

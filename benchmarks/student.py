"""Images per second of a student's training and test, against a loop as paper code has it; prints one JSON line.

`uv run python benchmarks/student.py --arch convnet3 --ipc 10 --threads 1`. The sides take turns:

- `plain`: batches and test images through DataLoaders, one loss and one accuracy read at every step;
- the others: the package, in float32 and bfloat16, eager and compiled, its setting of the C library's allocator too.
"""

import argparse
import json

import numpy as np
import torch
import torch.nn.functional as F
from sides import WAYS, against_peak, in_turn, peak_of, read_sizes, way, ways
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from gdd import rng
from gdd.config import RunConfig
from gdd.data.pixels import Normalizer
from gdd.data.splits import Split
from gdd.evaluation.batches import Fixed, StudentBatches
from gdd.evaluation.recipe import Recipe
from gdd.evaluation.student import examined
from gdd.models import registry
from gdd.models.cost import TRAINING, classifier_flop
from gdd.runtime.device import device_name, here, make_accelerator, peak_memory_mb, seconds
from gdd.training.classifier import fit
from gdd.training.optimizers import sgd

CLASSES, SIDE = 10, 32


def plain_epoch(network: nn.Module, loader: DataLoader, optimizer: torch.optim.Optimizer | None) -> float:
    """Train, or test without an optimiser, on all batches of a loader and return the accuracy."""
    network.train(optimizer is not None)
    device = next(network.parameters()).device
    right, seen, total = 0, 0, 0.0
    for images, labels in loader:
        images, labels = images.to(device), labels.to(device)
        answer = network(images)
        loss = F.cross_entropy(answer, labels)
        right += int(np.sum(np.equal(np.argmax(answer.detach().cpu().numpy(), 1), labels.cpu().numpy())))
        total += loss.item() * len(labels)
        seen += len(labels)
        if optimizer is not None:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return right / seen


def measure(side: str, options: argparse.Namespace) -> dict[str, float]:
    """Return seconds per training image and per test image, peak memory, and GFLOP/s of a matrix product."""
    device = here()
    if side != "plain" or device.type == "cuda":  # on a CPU also the C library's allocator
        make_accelerator(RunConfig(threads=options.threads))
    torch.set_num_threads(options.threads)
    draw = torch.Generator().manual_seed(0)
    count, steps, tests = options.ipc * CLASSES, options.steps, options.tests
    images = torch.randint(256, (count + tests, 3, SIDE, SIDE), generator=draw, dtype=torch.uint8)
    labels = torch.arange(count + tests) % CLASSES
    mean, std = (0.5,) * 3, (0.25,) * 3
    with rng.seeded(0, f"{rng.INIT}-{rng.STUDENT}"):
        network = registry.build(options.arch, (3, SIDE, SIDE), CLASSES).to(device)
    if side == "plain":
        pixels = Normalizer(mean, std).from_u8(images)
        train = DataLoader(TensorDataset(pixels[:count], labels[:count]), 256, shuffle=True)
        test = DataLoader(TensorDataset(pixels[count:], labels[count:]), 256)
        optimizer = sgd(network, 0.01)

        def training() -> object:
            for _ in range(steps):
                plain_epoch(network, train, optimizer)
            return None

        def testing() -> object:
            with torch.no_grad():
                plain_epoch(network, test, None)
            return None
    else:
        chosen, normalize = way(side), Normalizer(mean, std, device)
        chosen.place(network)
        images, labels = images.to(device), labels.to(device)
        data = Fixed(images[:count], labels[:count], normalize)
        recipe = Recipe("dc", lr=0.01, epochs=steps, batch_size=256)
        batches, optimizer = StudentBatches(data, recipe, 0, rng.STUDENT), sgd(network, 0.01, chosen.fused)
        part = Split(images[count:], labels[count:])

        def training() -> object:
            return fit(network, batches, range(batches.total), optimizer, execution=chosen)

        def testing() -> object:
            return examined(network, part, normalize, chosen).correct

    train_seconds, test_seconds = seconds(training, device, 1), seconds(testing, device, 1)
    memory = peak_memory_mb(device)  # before the large matrices
    return {
        "train": train_seconds / (steps * count),
        "test": test_seconds / tests,
        "memory": memory,
        "peak": peak_of(side, options.toy),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="convnet3")
    parser.add_argument("--ipc", type=int, default=10, help="images per class, of ten")
    parser.add_argument("--steps", type=int, default=8, help="epochs that are timed")
    parser.add_argument("--tests", type=int, default=1000, help="test images, a multiple of 500")
    parser.add_argument("--threads", type=int, default=1)
    toy = {"arch": "convnet3-w4", "ipc": 1, "steps": 1, "tests": 500}
    options, flags = read_sizes(parser, ["plain", *WAYS], toy)
    if options.side:
        print(json.dumps(measure(options.side, options)))
        return
    sides = ["plain", *ways(options.toy)]
    found = in_turn(__file__, sides, options.rounds, flags, lambda side: measure(side, options))
    make_accelerator(RunConfig(threads=options.threads))  # decides what the device's name says
    flop = classifier_flop(options.arch, (3, SIDE, SIDE), CLASSES)
    result: dict[str, object] = {"arch": options.arch, "ipc": options.ipc, "device": device_name(here())}
    for what, passes in (("train", TRAINING), ("test", 1)):
        base = found["plain"][what]
        result[f"{what} images/s"] = {side: round(1 / one[what], 1) for side, one in found.items()}
        result[f"{what} ratio to plain"] = {side: round(base / one[what], 2) for side, one in found.items()}
        rates = {side: passes * flop / one[what] / 1e9 for side, one in found.items()}
        result |= {
            key if key.startswith("peak") else f"{what} {key}": value
            for key, value in against_peak(rates, found).items()
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

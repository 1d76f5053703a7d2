"""Training images per second of every student in float32 and bfloat16, at batches of 32 to 512; prints JSON at the end.

`python benchmarks/precision.py`: on a GPU, where steps are replayed. `auto` is what `run.precision auto` would take; it
shall be as fast as float32, to a twentieth, for all of them.
"""

import argparse
import json
import sys

import torch
from sides import add_toy

from gdd import rng
from gdd.config import RunConfig
from gdd.data.pixels import Normalizer
from gdd.evaluation.batches import Fixed, StudentBatches
from gdd.evaluation.recipe import Recipe
from gdd.models import registry
from gdd.models.cost import classifier_flop
from gdd.runtime.device import device_name, here, make_accelerator, seconds
from gdd.runtime.execution import Execution, Precision, has_bfloat16, resolve
from gdd.training.classifier import Fit
from gdd.training.optimizers import sgd

CLASSES, SHAPE = 10, (3, 32, 32)


def rate(arch: str, precision: Precision, batch: int, steps: int) -> float:
    """Return the images of a second, in steps that follow on some to warm up."""
    device, chosen = here(), Execution(precision)
    with rng.seeded(0, rng.INIT):
        network = chosen.place(registry.build(arch, SHAPE, CLASSES).to(device))
    images = torch.randint(256, (batch, *SHAPE), generator=rng.generator(0, "benchmark"), dtype=torch.uint8)
    labels = (torch.arange(batch) % CLASSES).to(device)
    data = Fixed(images.to(device), labels, Normalizer((0.5,) * 3, (0.25,) * 3, device))
    batches = StudentBatches(data, Recipe("dc", lr=0.01, epochs=1, batch_size=batch), 0, rng.STUDENT)
    training = Fit(network, batches.drawn, sgd(network, 0.01, chosen.fused), prepare=batches.prepare, execution=chosen)
    training(range(4))  # of which the third compares a captured step with an eager one
    return batch * steps / seconds(lambda: training(range(steps)), device, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archs", nargs="+", default=[*registry.FAMILIES])
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 128, 512])
    parser.add_argument("--steps", type=int, default=30)
    add_toy(parser)
    options = parser.parse_args()
    if options.toy:
        options.archs, options.batches, options.steps = ["convnet3-w4"], [4], 1
    make_accelerator(RunConfig(threads=1))
    device = here()
    precisions: tuple[Precision, ...] = ("float32", "bfloat16") if has_bfloat16(device) else ("float32",)
    found: dict[str, dict[str, object]] = {}
    slower = []
    for arch in options.archs:
        auto = resolve("auto", device, classifier_flop(arch, SHAPE, CLASSES))
        for batch in options.batches:
            rates = {precision: round(rate(arch, precision, batch, options.steps), 1) for precision in precisions}
            found[f"{arch}, batch {batch}"] = dict[str, object](auto=auto, **rates)
            print(f"{arch}, batch {batch}: {rates}, auto {auto}", file=sys.stderr, flush=True)
            if rates[auto] < 0.95 * rates["float32"]:
                slower.append(f"{arch}, batch {batch}")
    print(json.dumps({"device": device_name(device), "images/s": found, "auto slower than float32": slower}))


if __name__ == "__main__":
    main()

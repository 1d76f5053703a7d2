"""Images per second of students of several seeds trained one after another, and all at once; prints one JSON line.

`uv run python benchmarks/together.py --arch convnet3 --seeds 10`: students of random 32x32x3 images in ten classes,
each with its own, as gdd/evaluation trains them, in every way to execute them; `--images stream` generates new ones of
a residual generator at every step.
"""

import argparse
import json

import torch
from sides import WAYS, against_peak, in_turn, peak_of, read_sizes, way, ways

from gdd import rng
from gdd.config import RunConfig
from gdd.data.pixels import Normalizer
from gdd.data.spec import DatasetSpec
from gdd.evaluation.batches import Fixed, GeneratedStream, Images, StackedBatches, StudentBatches
from gdd.evaluation.recipe import Recipe
from gdd.evaluation.student import train
from gdd.models import registry
from gdd.models.cost import TRAINING, classifier_flop
from gdd.models.gan import make_generator
from gdd.runtime.device import device_name, here, make_accelerator, peak_memory_mb, seconds
from gdd.sampling.generator_file import LoadedGenerator
from gdd.training.classifier import cross_entropy
from gdd.training.together import Stacked, each_own

CLASSES, SHAPE = 10, (3, 32, 32)
SPEC = DatasetSpec("benchmark", *SHAPE, tuple("0123456789"), (0.5,) * 3, (0.25,) * 3, flip=False)


def measure(side: str, options: argparse.Namespace) -> dict[str, float]:
    """Return seconds per image of either, the GPU's peak memory of either, and GFLOP/s of a matrix product."""
    make_accelerator(RunConfig(threads=options.threads))
    device, chosen, count = here(), way(side), options.ipc * CLASSES
    recipe = Recipe("dc", lr=0.01, epochs=options.steps, batch_size=count)
    with rng.seeded(0, rng.INIT_GAN):
        generator = make_generator("residual", SHAPE, CLASSES, options.width, 128)
    untrained = LoadedGenerator(generator.to(device).eval(), SPEC, "untrained", 0, {})
    normalize, labels = Normalizer((0.5,) * 3, (0.25,) * 3, device), (torch.arange(count) % CLASSES).to(device)
    networks, batches = [], []
    for seed in range(options.seeds):
        with rng.seeded(seed, f"{rng.INIT}-{rng.STUDENT}"):
            networks.append(chosen.place(registry.build(options.arch, SHAPE, CLASSES).to(device)))
        images = torch.randint(256, (count, *SHAPE), generator=rng.generator(seed, "benchmark"), dtype=torch.uint8)
        data: Images = Fixed(images.to(device), labels, normalize)
        if options.images == "stream":
            data = GeneratedStream(untrained, options.ipc, seed, normalize)
        batches.append(StudentBatches(data, recipe, seed, rng.STUDENT))

    def in_sequence() -> None:
        for network, own in zip(networks, batches, strict=True):
            train(network, own, execution=chosen)

    def at_once() -> None:
        stacked = Stacked(networks)
        train(stacked, StackedBatches(batches), each_own([cross_entropy] * options.seeds), chosen)
        stacked.give_back()

    found = {}
    for name, call in (("alone", in_sequence), ("together", at_once)):
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        found[name] = seconds(call, device, 1) / (options.seeds * options.steps * count)
        found[f"memory {name}"] = peak_memory_mb(device)
    return {**found, "peak": peak_of(side, options.toy)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="convnet3")
    parser.add_argument("--seeds", type=int, default=10, help="students")
    parser.add_argument("--ipc", type=int, default=10, help="images per class, all of them in each step")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--images", choices=["fixed", "stream"], default="fixed", help="stream: new at every step")
    parser.add_argument("--width", type=int, default=64, help="of the generator of a stream")
    parser.add_argument("--threads", type=int, default=1)
    toy = {"width": 2, "arch": "convnet3-w4", "seeds": 2, "ipc": 1, "steps": 1}
    options, flags = read_sizes(parser, list(WAYS), toy)
    if options.side:
        print(json.dumps(measure(options.side, options)))
        return
    own = ("arch", "seeds", "ipc", "steps", "images", "width", "threads")
    found = in_turn(__file__, ways(options.toy), options.rounds, flags, lambda side: measure(side, options))
    make_accelerator(RunConfig(threads=options.threads))  # decides what the device's name says
    flop = TRAINING * classifier_flop(options.arch, SHAPE, CLASSES)
    result: dict[str, object] = {name: getattr(options, name) for name in own} | {"device": device_name(here())}
    for name, title in (("alone", "one after another"), ("together", "together")):
        result[f"{title}, images/s"] = {side: round(1 / one[name], 1) for side, one in found.items()}
        measured = {side: {**one, "memory": one[f"memory {name}"]} for side, one in found.items()}
        rates = {side: flop / one[name] / 1e9 for side, one in found.items()}
        result |= {f"{title}, {key}": value for key, value in against_peak(rates, measured).items()}
    result["ratio"] = {side: round(one["alone"] / one["together"], 2) for side, one in found.items()}
    print(json.dumps(result))


if __name__ == "__main__":
    main()

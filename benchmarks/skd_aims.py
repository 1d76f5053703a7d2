"""What SKD's loss asks of a sample: the loss of other real images of the class, of a generator's, and the least.

    python benchmarks/skd_aims.py fashion_mnist --lessons 400

A ConvNet3 of width 16 learns so many batches of 64 real images; then the loss (tau 2, standardized logits) between each
validation image and one of its class is taken: a random other validation image, a sample of `zoo:NAME`, and the class's
mean distribution, which has the least loss that any single answer can have. Prints one JSON line.
"""

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor

from gdd import rng, zoo
from gdd.data.batches import Batches
from gdd.data.pixels import Normalizer
from gdd.data.readers import open_dataset
from gdd.losses.logits import skd, standardize
from gdd.models import registry
from gdd.sampling import generator_file, sample
from gdd.training.classifier import fit
from gdd.training.optimizers import sgd

TAU = 2.0


def losses(real: Tensor, fake: Tensor, random: rng.Draws) -> dict[str, float]:
    """Return the mean loss of real logits (N, K) of one class against each kind of counterpart; `fake` is (M, K)."""
    count = len(real)
    others = (torch.arange(count) + 1 + random.integers(count - 1, count)) % count  # any but itself
    answers = torch.softmax(standardize(real) / TAU, 1)
    mean = answers.mean(0)
    return {
        "other real": skd(real, real[others], TAU).item(),
        "samples": skd(real, fake[random.integers(len(fake), count)], TAU).item(),
        "mean answer": TAU**2 * (answers * (answers.log() - mean.log())).sum(1).mean().item(),
    }


def measure(name: str, lessons: int, seed: int, root: Path) -> dict[str, float]:
    """Return the means over classes of one member's losses, and its accuracy in percent."""
    dataset = open_dataset(name, root, val_fraction=0.1, seed=0)
    spec, val = dataset.spec, dataset.val
    normalize = Normalizer(spec.mean, spec.std)
    with rng.seeded(seed, "skd-aims"):
        network = registry.build("convnet3-w16", spec.shape, spec.num_classes)
    batches = Batches(*dataset.train, 64, seed, "skd-aims")

    def lesson(step: int) -> tuple[Tensor, Tensor]:
        images_u8, labels = batches(step)
        return normalize.from_u8(images_u8), labels

    fit(network, lesson, range(lessons), sgd(network, 0.01))
    network.eval()
    samples = sample.sample_set(generator_file.load(zoo.generator_path(f"zoo:{name}")), 50, seed)
    with torch.no_grad():
        real, fake = (network(normalize.from_u8(images)) for images in (val.images_u8[:], samples.images))
    random = rng.Draws(seed, "skd-aims")
    of_classes = [
        losses(real[val.labels == label], fake[samples.labels == label], random) for label in range(spec.num_classes)
    ]
    means = {kind: sum(one[kind] for one in of_classes) / len(of_classes) for kind in of_classes[0]}
    return {"accuracy": 100 * (real.argmax(1) == val.labels).float().mean().item(), **means}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=zoo.names(), help="with a generator in the zoo")
    parser.add_argument("--lessons", type=int, default=400, help="training steps of the member, at least 1")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the member and the samples")
    parser.add_argument("--root", type=Path, default=Path("data"), help="where the data lie")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = [measure(options.dataset, options.lessons, seed, options.root) for seed in options.seeds]
    shown = {kind: [round(one[kind], 3) for one in found] for kind in found[0]}
    print(json.dumps({"dataset": options.dataset, "lessons": options.lessons, **shown}))


if __name__ == "__main__":
    main()

"""Image updates per second of gradient matching against a plain loop, and the share of the measured peak; prints JSON.

`uv run python benchmarks/matching.py --config configs/cifar10-gm.yaml` (flags such as
`--matching.ipc 10` may follow). The sides take turns:

- the others: the package, in float32 and bfloat16, eager and compiled;
- `plain`: a loop as one would write it: a DataLoader per class, one batch per class, the network built anew, each
  epoch of the network through a DataLoader;
- `plain, kept memory`: the same with gdd's setting of the C library's allocator, to tell the two gains apart.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, replace

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from sides import WAYS, against_peak, in_turn, peak_of, read_flags, way, ways
from torch.utils.data import DataLoader, TensorDataset

from gdd import pipeline
from gdd.cli.main import parse_config
from gdd.cli.summary import cost_of
from gdd.config import Config, ConfigError, MatchingConfig
from gdd.data.batches import ClassBatches
from gdd.data.pixels import Normalizer
from gdd.data.readers import Dataset
from gdd.losses.distances import distance
from gdd.models import registry
from gdd.runtime.device import clock, device_name, here, make_accelerator, peak_memory_mb
from gdd.runtime.execution import Execution
from gdd.training.matching import FreshPool, Matcher, first_images, loops

PLAIN = ("plain", "plain, kept memory")


def gdd_iteration(
    config: Config, dataset: Dataset, accelerator: Accelerator, execution: Execution
) -> Callable[[int], object]:
    """Return `Matcher.iterate` for the settings that `require_plain` lets pass."""
    spec, settings, seed, device = dataset.spec, config.matching, config.seed, accelerator.device
    images_u8, labels = dataset.train.images_u8.to(device), dataset.train.labels
    real = ClassBatches(images_u8, labels, spec.num_classes, Normalizer(spec.mean, spec.std, device), seed)
    pool = FreshPool(
        *(spec.shape, spec.num_classes),
        **asdict(settings.pool),
        iterations=settings.iterations,
        seed=seed,
        device=device,
        execution=execution,
    )
    outer, inner = loops(settings)
    matcher = Matcher(
        first_images(settings, real, seed),
        real,
        pool,
        objective=settings.objective,
        distance=settings.distance,
        outer=outer,
        inner=inner,
        inner_first=settings.inner_first,
        batch_real=settings.batch_real,
        batch_train=settings.batch_train,
        lr_image=0.1,
        lr_network=settings.lr_network,
        augmentations=(),
        seed=seed,
        accelerator=accelerator,
    )
    return matcher.iterate


def plain_iteration(config: Config, dataset: Dataset, device: torch.device) -> Callable[[int], None]:
    """Return a function that does what `Matcher.iterate` does, one class and one DataLoader at a time."""
    spec, settings = dataset.spec, config.matching
    outer, inner = loops(settings)
    pixels = Normalizer(spec.mean, spec.std).from_u8(dataset.train.images_u8[:])
    labels = dataset.train.labels
    by_class = [TensorDataset(pixels[labels == c], labels[labels == c]) for c in range(spec.num_classes)]
    images = torch.randn(spec.num_classes, settings.ipc, *spec.shape, device=device, requires_grad=True)
    image_optimizer = torch.optim.SGD([images], 0.1, momentum=0.5)
    targets = torch.arange(spec.num_classes, device=device).repeat_interleave(settings.ipc)

    def iterate(_: int) -> None:
        network = registry.build(settings.pool.main, spec.shape, spec.num_classes).to(device)
        parameters = list(network.parameters())
        optimizer = torch.optim.SGD(parameters, settings.lr_network)
        for turn in range(outer):
            loss = torch.zeros((), device=device)
            for c in range(spec.num_classes):
                batch, truth = next(iter(DataLoader(by_class[c], settings.batch_real, shuffle=True)))
                answer = F.cross_entropy(network(batch.to(device)), truth.to(device))
                target = [gradient.detach() for gradient in torch.autograd.grad(answer, parameters)]
                answer = F.cross_entropy(network(images[c]), targets[c * settings.ipc :][: settings.ipc])
                loss = loss + distance(torch.autograd.grad(answer, parameters, create_graph=True), target)
            image_optimizer.zero_grad()
            loss.backward()
            image_optimizer.step()
            if turn == outer - 1:
                break
            loader = DataLoader(TensorDataset(images.detach().flatten(0, 1), targets), 256, shuffle=True)
            for _ in range(inner):
                for batch, truth in loader:
                    optimizer.zero_grad()
                    F.cross_entropy(network(batch), truth).backward()
                    optimizer.step()

    return iterate


def work(config: Config, dataset: Dataset) -> float:
    """Return the GFLOP of one iteration: three forward passes per real image and per image that trains the network.

    The second derivative of the synthetic images comes on top and is not counted.
    """
    spec, settings = dataset.spec, config.matching
    outer, inner = loops(settings)
    network = registry.build(settings.pool.main, spec.shape, spec.num_classes)
    images = torch.zeros(2, *spec.shape)
    _, forward, _ = cost_of(network, lambda: network(images))
    real = outer * sum(min(settings.batch_real, int(n)) for n in dataset.train.labels.bincount())
    return 3 * forward * (real + (outer - 1) * inner * settings.ipc * spec.num_classes)


def require_plain(config: Config) -> None:
    """Refuse settings that the plain loop does not have."""
    settings, default = config.matching, MatchingConfig()
    for name in ("objective", "distance", "augment", "init", "inner_first", "lr_image", "batch_train"):
        if getattr(settings, name) != getattr(default, name):
            raise ConfigError(f"matching.{name} is {getattr(settings, name)!r}, expected its default in this benchmark")
    if settings.pool.kind != "main" or "-bn" in settings.pool.main:
        raise ConfigError("the pool is not one network without batch norm, as this benchmark expects")


def measure(side: str, config: Config, toy: bool) -> dict[str, float]:
    """Return seconds per iteration of one side, its GFLOP, peak memory, and GFLOP/s of a matrix product."""
    device, threads = here(), config.run.threads or torch.get_num_threads()
    accelerator = None
    if side != "plain" or device.type == "cuda":  # on a CPU also the C library's allocator
        accelerator = make_accelerator(replace(config.run, threads=threads))
    torch.set_num_threads(threads)
    dataset = pipeline.open_data(config.data, config.seed)
    iterate: Callable[[int], object]
    if side in WAYS:
        assert accelerator is not None
        iterate = gdd_iteration(config, dataset, accelerator, way(side))
    else:
        iterate = plain_iteration(config, dataset, device)
    if loops(config.matching)[0] == 1:  # a long iteration needs no warm-up
        iterate(0)
    began = clock(device)
    for iteration in range(1, config.matching.iterations + 1):
        iterate(iteration)
    seconds = (clock(device) - began) / config.matching.iterations
    memory = peak_memory_mb(device)  # before the large matrices
    return {"seconds": seconds, "work": work(config, dataset), "memory": memory, "peak": peak_of(side, toy)}


def main() -> None:
    options, given = read_flags(__doc__, [*PLAIN, *WAYS])
    config = parse_config(given)
    short = parse_config([*given, *shortened(config).split()])
    if options.side:
        print(json.dumps(measure(options.side, short, options.toy)))
        return
    require_plain(config)
    outer, _ = loops(config.matching)
    # The setting of the C library's allocator is for CPUs.
    sides = [*(PLAIN if here().type == "cpu" else PLAIN[:1]), *ways(options.toy)]
    rounds = 2 if outer == 1 and not options.toy else 1  # minutes each
    found = in_turn(__file__, sides, rounds, sys.argv[1:], lambda side: measure(side, short, options.toy))
    make_accelerator(config.run)  # decides what the device's name says
    seconds = {side: one["seconds"] for side, one in found.items()}
    summary = {
        "config": config.name,
        "data": pipeline.open_data(config.data, config.seed).spec.name,
        "ipc": config.matching.ipc,
        "device": device_name(here()),
        "image updates per second": {side: round(min(outer, 2) / value, 4) for side, value in seconds.items()},
        "ratio to plain": {side: round(seconds["plain"] / value, 2) for side, value in seconds.items()},
        **against_peak({side: one["work"] / one["seconds"] for side, one in found.items()}, found),
    }
    print(json.dumps(summary))


def shortened(config: Config) -> str:
    """Return the flags of a run that is long enough to measure."""
    outer, inner = loops(config.matching)
    if outer <= 2:
        return f"--run.snapshots [] --matching.iterations {3 if here().type == 'cpu' else 30}"
    # A whole iteration takes minutes: two of its updates, with as many epochs per update as all of them have.
    epochs = round(2 * inner * (outer - 1) / outer)
    return f"--run.snapshots [] --matching.iterations 1 --matching.outer 2 --matching.inner {epochs}"


if __name__ == "__main__":
    main()

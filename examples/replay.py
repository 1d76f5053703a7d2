"""Class-incremental learning: what a network keeps of earlier tasks if it may store generators of them, or real images.

python examples/replay.py [STEPS] [--dataset mnist|cifar10|digits] [--seeds 0 1 2]

A network with an output for each of ten classes learns five tasks of two classes, one after the other. While it learns
one, half of each batch is new and half is replayed from a memory of the tasks before, all their classes in turn:

generators    a generator per task, distilled from its images; all of them are streamed as one
random real   as many bytes of random real images
herded real   as many bytes of real images whose mean feature stays closest to their class's (Rebuffi et al. 2017)
all real      all images of the tasks before: the ceiling
nothing       the new half alone: the floor

After each task, real test images of the classes so far are classified among all ten; they serve nothing else. The same
command goes on where it was stopped.
"""

import argparse
import itertools
import math
import statistics
from collections.abc import Iterator
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset
from torchvision.transforms.v2.functional import normalize

import gdd
from gdd import rng
from gdd.data.splits import Split, shuffled
from gdd.models import registry
from gdd.report.intervals import Estimate, estimate
from gdd.runtime.checkpoint import read_json, write_json
from gdd.sampling.curate import herding, standardized

TASKS = [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
MEMORIES = ["generators", "random real", "herded real", "all real", "nothing"]
HALF = 32  # new images of a batch, and replayed ones
GANS = {  # two classes need less noise than ten
    "digits": {"noise_dim": 32},
    "mnist": {"noise_dim": 32},
    "cifar10": {"noise_dim": 64, "arch": "residual", "loss": "hinge", "ema_decays": [0.999]},
}
RATES = {"digits": {"lr": 1e-3}, "mnist": {"lr": 1e-3}, "cifar10": {"lr": 2e-4, "lr_discriminator": 8e-4}}

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("steps", type=int, nargs="?", default=500, help="of the network, for each task")
parser.add_argument("--dataset", choices=GANS, default="mnist", help="which lies in data/")
parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="each of generators, memories and networks")
parser.add_argument("--gan-steps", type=int, default=4000, help="of each task's generator")
parser.add_argument("--gan-width", type=int, default=16, help="of each task's generator, which decides its bytes")
parser.add_argument("--out", type=Path, help="folder of the results, runs/replay-DATASET unless named")


def of_classes(split: Split, labels: list[int]) -> Split:
    return split.subset(torch.isin(split.labels, torch.tensor(labels)).nonzero().flatten())


def joined(splits: list[Split]) -> Split:
    images_u8, labels = map(torch.cat, zip(*splits, strict=True))
    return Split(images_u8, labels)


def distil(task: list[int], seed: int) -> gdd.DistilledGenerator:
    """Return the generator of a task's classes, which keep their names."""
    parts = [of_classes(split, task) for split in (train, test)]
    images, tested = (TensorDataset(part.images_u8, part.labels - task[0]) for part in parts)
    images.classes = [spec.class_names[label] for label in task]
    return gdd.distill(
        {"name": images, "val_fraction": 0.0},
        tested,  # or a fifth of the images would be held out; nothing reads it
        name=f"seed{seed}-task{TASKS.index(task)}",
        seed=seed,
        gan={**GANS[settings.dataset], "width": settings.gan_width},
        pretrain={"steps": settings.gan_steps, **RATES[settings.dataset]},
        refine={"steps": settings.gan_steps // 4 + 1, "loss": "none", "schedule": "cosine", **RATES[settings.dataset]},
        run={"root": out / "generators", "threads": torch.get_num_threads()},
        score=False,
    ).load()


def batches(split: Split, random: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield random images in [0, 1] and their labels without end, classes in turn, as a generator's stream does."""
    members = [(split.labels == label).nonzero().flatten() for label in split.labels.unique()]
    turns = itertools.cycle(members)
    while True:
        chosen = [turn[torch.randint(len(turn), (), generator=random)] for turn in itertools.islice(turns, HALF)]
        yield split.images_u8[torch.stack(chosen)] / 255, split.labels[torch.stack(chosen)]


def stored(
    memory: str, task: list[int], generator: gdd.DistilledGenerator, network: nn.Module, seed: int
) -> gdd.DistilledGenerator | Split:
    """Return what a memory stores of a task that the network has just learned."""
    if memory == "generators":
        return generator
    if memory == "all real":
        return of_classes(train, task)
    parts = []
    for label in task:
        part = of_classes(train, [label])
        count = min(len(part.labels), generator.bytes // part.images_u8[0].nbytes // len(task))
        if memory == "random real":
            order = shuffled(part, label, seed)[:count]
        else:
            with torch.no_grad():
                inputs = normalize(part.images_u8 / 255, spec.mean, spec.std)
                order = herding(standardized(torch.cat([network.embed(some) for some in inputs.split(500)])), count)
        parts.append(part.subset(order))
    return joined(parts)


def learn(network: nn.Module, new: Iterator, old: Iterator | None) -> None:
    """Train on half a batch of new images, and half a batch of old ones if there are any, at every step."""
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(settings.steps):
        halves = [next(new)] if old is None else [next(new), next(old)]
        images, labels = map(torch.cat, zip(*halves, strict=True))
        loss = cross_entropy(network(normalize(images, spec.mean, spec.std)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def accuracy(network: nn.Module, task: list[int]) -> float:
    """Return the share of a task's test images, in percent, that are classified correctly among all classes."""
    images_u8, labels = of_classes(test, task)
    inputs = normalize(images_u8 / 255, spec.mean, spec.std)
    answers = torch.cat([network(some).argmax(1) for some in inputs.split(500)])
    return 100 * (answers == labels).float().mean().item()


def run(memory: str, generators: list[gdd.DistilledGenerator], seed: int) -> dict:
    """Learn all tasks; return the accuracies on those so far after each, and the bytes that the memory came to."""
    with rng.seeded(seed, "replay-network"):
        network = registry.build("convnet3-w32", spec.shape, spec.num_classes)
    draws = [rng.generator(seed, f"replay-{half}") for half in ("new", "old")]  # every run has the same new images
    kept, accuracies = [], []
    for number, task in enumerate(TASKS):
        if not kept:
            old = None
        elif memory == "generators":
            # Its labels are the dataset's, for TASKS are in order.
            old = iter(gdd.mix(kept).stream(HALF, len(TASKS) * seed + number))
        else:
            old = batches(joined(kept), draws[1])
        learn(network, batches(of_classes(train, task), draws[0]), old)
        accuracies.append([accuracy(network, earlier) for earlier in TASKS[: number + 1]])
        print(f"seed {seed}, {memory}: accuracy {statistics.mean(accuracies[-1]):.1f} after task {number + 1}")
        if memory != "nothing" and number < len(generators):
            kept.append(stored(memory, task, generators[number], network, seed))
    # Labels take no bytes: they follow from the order.
    sizes = [part.images_u8.nbytes if isinstance(part, Split) else part.bytes for part in kept]
    return {"accuracies": accuracies, "bytes": sum(sizes)}


def forgetting(accuracies: list[list[float]]) -> float:
    """Return the best earlier accuracy on a task minus the final one, averaged over tasks (Chaudhry et al. 2018)."""
    *earlier, final = accuracies
    best = [max(row[task] for row in earlier[task:]) for task in range(len(earlier))]
    return statistics.mean(before - after for before, after in zip(best, final, strict=False))


def report(results: dict[str, list[dict]]) -> None:
    """Write table.md and accuracy.png: means over tasks, then over seeds with 95 % intervals."""
    tasks = range(1, len(TASKS) + 1)
    lines = ["| memory | KB | " + " | ".join(f"after task {task}" for task in tasks) + " | forgetting |"]
    lines.append("| :-- " + "| --: " * (len(TASKS) + 2) + "|")
    figure = Figure((9, 4), layout="constrained")
    whole, near = figure.subplots(1, 2)  # the floor would press the other lines together
    for memory, runs in results.items():
        means = [estimate([statistics.mean(run["accuracies"][task - 1]) for run in runs]) for task in tasks]
        size = statistics.mean(run["bytes"] for run in runs) / 1000
        cells = [in_words(value) for value in (*means, estimate([forgetting(run["accuracies"]) for run in runs]))]
        lines.append(f"| {memory} | {size:,.0f} | " + " | ".join(cells) + " |")
        reach = None if len(runs) == 1 else [value.half_width for value in means]
        for axes in [whole] if memory == "nothing" else [whole, near]:
            axes.errorbar(tasks, [value.mean for value in means], reach, label=memory, marker="o", capsize=3)
            axes.set(xlabel="tasks learned", ylabel="accuracy on their classes (%)", xticks=tasks)
    whole.legend()
    figure.savefig(out / "accuracy.png", dpi=150)
    (out / "table.md").write_text("\n".join(lines) + "\n")
    print(*lines, "", f"accuracy in percent, {settings.dataset}, {len(settings.seeds)} seeds; also in {out}", sep="\n")


def in_words(value: Estimate) -> str:
    return f"{value.mean:.1f}" if math.isnan(value.half_width) else f"{value.mean:.1f} ± {value.half_width:.1f}"


if __name__ == "__main__":
    settings = parser.parse_args()
    out = settings.out or Path("runs") / f"replay-{settings.dataset}"
    data = gdd.open_dataset(settings.dataset, val_fraction=0.0)
    spec, train, test = data.spec, data.train, data.test()
    asked = {key: value for key, value in vars(settings).items() if key not in ("seeds", "out")}
    results = {memory: [] for memory in MEMORIES}
    for seed in settings.seeds:
        generators = [distil(task, seed) for task in TASKS[:-1]]  # the last one is never replayed
        for memory in MEMORIES:
            path = out / f"seed{seed}-{memory.replace(' ', '-')}.json"
            if not path.exists():
                write_json(path, {"settings": asked, **run(memory, generators, seed)})
            results[memory].append(read_json(path))
            if results[memory][-1]["settings"] != asked:
                parser.error(f"{path} has other settings than {asked}: name another folder with --out")
    report(results)

"""Every hot step on a card that is not there, and what it asks of it.

`python tests/fake_gpu/hot_steps.py` prints the table.

A step is built as a run builds it, with narrow networks and small batches, in the precision that the rules choose on a
GPU. It is taken once to begin with, which may copy what is copied once, and then counted.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import torch
from card import CLASSES, CUDA, Card, card
from torch import Tensor, nn

from gdd.config import (
    Config,
    EvaluateConfig,
    GanConfig,
    MatchingConfig,
    MatchingPoolConfig,
    RecipeConfig,
    RefineConfig,
    RefinePoolConfig,
)
from gdd.data.pixels import Normalizer, u8_to_pm1
from gdd.data.readers import Dataset
from gdd.data.spec import DatasetSpec
from gdd.data.splits import Split
from gdd.evaluation import grid, student
from gdd.evaluation.images import RealImages, StudentImages
from gdd.evaluation.recipe import Conditions, Job
from gdd.evaluation.sources import FLOOR, STREAM_CEILING, Source
from gdd.evaluation.student import StudentTrainer, examined
from gdd.models.gan import make_discriminator, make_generator
from gdd.models.registry import FAMILIES
from gdd.runtime import execution
from gdd.runtime.execution import Execution, Precision
from gdd.sampling import sample
from gdd.sampling.generator_file import LoadedGenerator
from gdd.training import guidance, matching, matching_loss
from gdd.training.distil import gan_trainer, real_batches
from gdd.training.gan import GanTrainer

SPEC = DatasetSpec("fake", 3, 16, 16, tuple("abcdefghij"[:CLASSES]), (0.5,) * 3, (0.25,) * 3, flip=True)
BATCH = 12
Step = Callable[[int], object]


class Accelerator:
    """What gdd asks of accelerate's, of one process on the card."""

    process_index, num_processes, is_main_process = 0, 1, True

    def __init__(self, device: torch.device = CUDA) -> None:
        self.device = device

    def prepare(self, *parts: Any) -> tuple[Any, ...]:
        """Move networks to the card and optimisers with them; fake weights are others than those on the CPU."""
        moved = dict[int, Tensor]()
        for part in parts:
            if isinstance(part, nn.Module):
                before = list(part.parameters())
                moved |= {id(one): there for one, there in zip(before, part.to(self.device).parameters(), strict=True)}
            else:
                for group in part.param_groups:
                    group["params"] = [moved[id(one)] for one in group["params"]]
        return parts

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def gather(self, rows: Tensor) -> Tensor:
        return rows

    def reduce(self, values: Tensor, how: str) -> Tensor:
        return values


class Run:
    """What stages ask of `runtime.run.Run`."""

    device, rank, world_size, is_main, accelerator = CUDA, 0, 1, True, Accelerator()

    def __init__(self, precision: Precision | Literal["auto"] = "auto") -> None:
        self.asked = precision

    def precision(self, flop: Iterable[float]) -> Precision:
        return execution.resolve(self.asked, CUDA)  # as of networks that are not as narrow as these

    def execution(self, networks: list[nn.Module], precision: Precision, flop: float) -> Execution:
        return execution.decide(precision, "auto", CUDA, networks, flop)


def dataset() -> Dataset:
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(256, (60, *SPEC.shape), generator=draw, dtype=torch.uint8)
    train = Split(images, torch.arange(60) % SPEC.num_classes)
    held_out = train.subset(torch.arange(30))
    return Dataset(SPEC, train, held_out, lambda: held_out)


def there(number: float) -> Tensor:
    """Return a step or a rate as a captured step finds it."""
    return torch.full((), number, device=CUDA)


def _gan(**settings: Any) -> tuple[Any, Any]:
    run, config = Run(), Config(gan=GanConfig(width=8, noise_dim=8, **settings))
    return gan_trainer(config, "pretrain", SPEC, run), real_batches(dataset(), BATCH, 0, "pretrain", run)


def gan_of(execution: Execution, accelerator: Accelerator) -> GanTrainer:
    """Return a trainer of DiM's networks in some precision."""
    settings = GanConfig(arch="dim", noise_dim=8)
    sizes = "dim", SPEC.shape, SPEC.num_classes, 8
    return GanTrainer(
        make_generator(*sizes, settings.noise_dim),
        make_discriminator(*sizes),
        loss="ns",
        lr=lambda step: 1e-3,
        lr_discriminator=lambda step: 1e-3,
        betas=(0.0, 0.99),
        ema_decays=(0.9,),
        aux_weight=1.0,
        gradient_penalty=10.0,
        r1=0.0,
        r1_every=16,
        augmentations=(),
        seed=0,
        stage="pretrain",
        accelerator=accelerator,
        execution=execution,
    )


def generator(**settings: Any) -> Step:
    gan, batches = _gan(**settings)

    def step(index: int) -> None:
        _, labels = batches(index)
        fake = gan.generate(there(index), labels)
        loss = gan.adversarial_loss(there(index), fake, labels)
        gan.update_generator(there(gan.lr(index)), fake, *torch.autograd.grad(loss, fake))

    return step


def discriminator(**settings: Any) -> Step:
    gan, batches = _gan(r1_every=1, **settings)

    def step(index: int) -> None:
        images_u8, labels = batches(index)
        rate, penalised = there(gan.lr_discriminator(index)), gan.penalises(index)
        gan.update_discriminator(there(index), rate, u8_to_pm1(images_u8), labels, penalised=penalised)

    return step


MEMBERS = {"members": ("convnet-w4-d2", "convnet-bn-w4-d1"), "batch_size": BATCH}


def _guidance(pool: RefinePoolConfig, **settings: Any) -> guidance.Guidance:
    config = Config(refine=RefineConfig(pool=pool, **settings))
    data, run = dataset(), Run()
    return guidance.make_guidance(config, data, real_batches(data, BATCH, 0, "refine", run), run)


def refinement(ages: bool, **settings: Any) -> Step:
    life = {"ages": (1, 2)} if ages else {"steps_before": 1}
    term = _guidance(RefinePoolConfig(**MEMBERS, **life), **settings)
    data = dataset().train.subset(torch.arange(BATCH)).to(CUDA)
    fake, adversarial = (torch.zeros(BATCH, *SPEC.shape, device=CUDA) for _ in range(2))
    fake.requires_grad_()
    network = term.pool.network(1)

    def step(index: int) -> None:
        others = term.others(index)
        term.gradient(network, there(index), data.images_u8, fake, data.labels, adversarial, *others)

    return step


def lesson(arch: str, **settings: Any) -> Step:
    lessons = _guidance(RefinePoolConfig(**MEMBERS, **settings)).pool.lessons
    member = lessons.beginner(arch, 0)
    return lambda index: lessons.teach(member, range(index, index + 1))


def _loaded(arch: str) -> LoadedGenerator:
    return LoadedGenerator(make_generator(arch, SPEC.shape, SPEC.num_classes, 8, 8).eval(), SPEC, "hash", 0, {})


def students(
    arch: str,
    count: int = 1,
    precision: Precision | Literal["auto"] = "auto",
    kind: str = FLOOR,
    protocol: str = "fixed",
    teacher: str = "none",
    recipe: RecipeConfig | None = None,
) -> Callable[[Card], None]:
    """Return what trains and scores students of some seeds at once, and leaves the counts of their last step."""
    recipe = recipe or RecipeConfig(epochs=2)
    data, run = dataset(), Run(precision)
    train, val = data.train.to(CUDA), data.val.to(CUDA)
    own = {"generator": _loaded("residual")} if kind == "generator" else {}
    settings = EvaluateConfig(archs=(arch,), recipe=recipe, teacher=teacher, teacher_arch="convnet3-w4")
    conditions = Conditions.of(settings, SPEC)
    conditions = replace(conditions, precision=run.precision([]))
    jobs = [Job(Source("it", kind, "hash", **own), 4, protocol, arch, seed) for seed in range(count)]
    executions = grid.executions_of(jobs, conditions, data, run, 1)
    real = RealImages(train, val, lambda: val)
    images = StudentImages(real, SPEC, CUDA, conditions.recipe.label_temperature, count)
    trainer = StudentTrainer(images, conditions, executions, Path("none"), "config")

    for job in jobs if kind == STREAM_CEILING else ():
        images.of(job).images._sizes = data.train.labels.bincount().tolist()  # which no fake tensor knows

    def call(counting: Card) -> None:
        last: dict[str, int] = {}

        class Counted(student.Fit):
            def __call__(self, steps: range) -> Tensor:
                super().__call__(steps[:-1])
                counting.counted.clear()
                value = super().__call__(steps[-1:])
                last.clear()
                last.update(counting.counted)
                return value

        # A teacher of fake tensors has nothing to keep.
        with patch.object(student, "Fit", Counted), patch.object(student.Teacher, "save"):
            trainer.score(jobs)
        counting.counted.clear()
        counting.counted.update(last)

    return call


def test_pass(arch: str) -> Step:
    run, held_out = Run(), dataset().val.to(CUDA)
    with torch.device("cpu"):
        network = student.registry.build(arch, SPEC.shape, SPEC.num_classes)
    chosen = run.execution([network], run.precision([]), 0)
    chosen.place(network.to(CUDA))
    normalize = Normalizer(SPEC.mean, SPEC.std, CUDA)
    return lambda index: examined(network, held_out, normalize, chosen)


def sampling(arch: str, stored: bool) -> Step:
    loaded = _loaded(arch)
    if stored:
        return lambda index: sample.sample_set(loaded, sample.CHUNK, 0, CUDA)
    return lambda index: sample.stream_batch(loaded, 0, index, index + 1, CUDA)


def _matcher(main: str, **settings: Any) -> tuple[matching.Matcher, nn.Module]:
    pool = MatchingPoolConfig(main=main)
    config = Config(matching=MatchingConfig(batch_real=8, batch_train=BATCH, ipc=2, pool=pool, **settings))
    matcher = matching._matcher(config, dataset(), Run())
    return matcher, matcher.pool.network(0)


def image_step(main: str, **settings: Any) -> Step:
    matcher, network = _matcher(main, **settings)
    return lambda index: matcher._update(network, 0, index)


def network_step(main: str, **settings: Any) -> Step:
    matcher, network = _matcher(main, inner=1, **settings)
    optimizer = torch.optim.SGD(network.parameters(), 0.01, fused=matcher.pool.execution.fused)
    return lambda index: matcher._train(network, optimizer, 0, index)


def statistics_step(main: str) -> Step:
    matcher, network = _matcher(main)
    return lambda index: matching_loss.freeze_statistics(network, matcher.real, index)


_AUGMENT = "color_crop_cutout_flip_scale_rotate"
_DSA = RecipeConfig(name="dsa", epochs=2)
_ROBUST = RecipeConfig(name="robust", epochs=2)
_NARROW = {"mlp": "mlp-w16", "lenet": "lenet", "vit": "vit-w8-d1"}

STEPS: dict[str, Callable[[], Any]] = {
    "generator, dim ns": partial(generator, arch="dim"),
    "generator, dim wgan-gp": partial(generator, arch="dim", loss="wgan-gp"),
    "generator, residual hinge": partial(generator, arch="residual", loss="hinge"),
    "generator, residual hinge, augmented": partial(generator, arch="residual", loss="hinge", augment=_AUGMENT),
    "discriminator, dim ns": partial(discriminator, arch="dim", r1=0.0),
    "discriminator, dim ns, R1": partial(discriminator, arch="dim", r1=0.2),
    "discriminator, dim wgan-gp": partial(discriminator, arch="dim", loss="wgan-gp"),
    "discriminator, residual hinge": partial(discriminator, arch="residual", loss="hinge"),
    "discriminator, residual hinge, R1": partial(discriminator, arch="residual", loss="hinge", r1=0.2),
    "discriminator, residual hinge, augmented": partial(discriminator, arch="residual", loss="hinge", augment=_AUGMENT),
    **{
        f"refine, {loss}, {'ages' if ages else 'living'}": partial(refinement, ages, loss=loss)
        for loss in ("skd", "log_mse", "features", "gradient")
        for ages in (False, True)
    },
    "refine, skd, optimal pairs": partial(refinement, True, pairing="optimal"),
    "refine, skd, balanced": partial(refinement, True, balance=1.0),
    "lesson, convnet3": partial(lesson, "convnet3-w8"),
    "lesson, resnet18 bn": partial(lesson, "resnet18-bn-w4"),
    "lesson, augmented": partial(lesson, "convnet3-w8", augmented=True),
    "lesson, up to an accuracy": partial(lesson, "convnet3-w8", max_accuracy=0.9),
    **{
        f"student, {base}{', stack' * (count > 1)}": partial(students, _NARROW.get(base, f"{base}-w4"), count)
        for base in FAMILIES
        for count in ((1,) if base in ("resnet34", "resnet50") else (1, 2))  # they are resnet18's, and long
    },
    **{
        f"student, {name}{', stack' * (count > 1)}": partial(students, arch, count, **how)
        for name, arch, how in (
            ("resnet10 bn", "resnet10-bn-w4", {}),
            ("resnet10 bn, float32", "resnet10-bn-w4", {"precision": "float32"}),
            ("alexnet bn, float32", "alexnet-bn-w4", {"precision": "float32"}),
            ("alexnet bn, DropPath", "alexnet-bn-w4", {"recipe": _ROBUST}),
            ("resnet10 bn, DropPath", "resnet10-bn-w4", {"recipe": _ROBUST}),
            ("convnet3, in batches", "convnet3-w4", {"recipe": RecipeConfig(epochs=2, batch_size=6)}),
            ("convnet3, DSA", "convnet3-w4", {"recipe": _DSA}),
            ("convnet3, DC's augmentation", "convnet3-w4", {"recipe": RecipeConfig(epochs=2, augment="dc")}),
            ("convnet3, average", "convnet3-w4", {"recipe": RecipeConfig(epochs=2, average=0.9)}),
            ("convnet3, teacher", "convnet3-w4", {"teacher": "set"}),
            ("convnet3, stream", "convnet3-w4", {"kind": "generator", "protocol": "stream"}),
            ("convnet3, real stream", "convnet3-w4", {"kind": STREAM_CEILING, "protocol": "stream"}),
        )
        for count in (1, 2)
    },
    "matching, images": partial(image_step, "convnet-w4-d2"),
    "matching, images, bn": partial(image_step, "convnet-bn-w4-d2"),
    "matching, images, DSA": partial(image_step, "convnet-w4-d2", augment="dsa"),
    "matching, images, embedding": partial(image_step, "convnet-w4-d2", objective="embedding"),
    "matching, network": partial(network_step, "convnet-w4-d2"),
    "matching, network, DSA": partial(network_step, "convnet-w4-d2", augment="dsa"),
    "matching, statistics": partial(statistics_step, "resnet10-bn-w4"),
    "test pass": partial(test_pass, "resnet10-bn-w4"),
    "sampling, dim, set": partial(sampling, "dim", True),
    "sampling, residual, stream": partial(sampling, "residual", False),
}


def measured(name: str) -> dict[str, int]:
    """Return the operations, copies and reads of a step."""
    with card() as counting:
        made = STEPS[name]()
        if name.startswith("student"):
            made(counting)
        else:
            made(0)
            counting.counted.clear()
            made(1)
        return {what: counting.counted[what] for what in ("operations", "copies", "reads")}


def main() -> None:
    print(f"{'step':45} operations copies reads")
    for name in STEPS:
        operations, copies, reads = measured(name).values()
        print(f"{name:45} {operations:10} {copies:6} {reads:5}", flush=True)


if __name__ == "__main__":
    main()

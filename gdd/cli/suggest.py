"""Settings for a user's own images, from what worked on similar ones (docs/results.md)."""

import itertools
import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from functools import reduce
from operator import getitem
from statistics import median_low
from typing import Any, NamedTuple

from gdd.config import Config, read_as, to_plain
from gdd.data.readers import Dataset
from gdd.models.layers import Shape

_SIDE, _LARGE_SIDE = 32, 64  # pixels that larger images are reduced to: on a CPU, and on a GPU
_LONG = 120  # minutes from which on a CPU keeps images of 64 pixels as they are, which cost four times as much as 32
_SMALLEST = 16  # pixels, of data.size
_FEW = 2000  # training images up to which the defaults serve, which were chosen on 1,300
_MANY_CLASSES = 20  # from which on every block of the generator should know the class
_MOST_PASSES = 50  # over the training images; no run of docs/results.md had more
_MOST_STEPS = 20_000  # of the same, unless more are needed for ENOUGH passes
ENOUGH = 20  # passes; with fewer a GAN has hardly begun
_FEWEST_STEPS = 300
_BETWEEN = 500  # steps from one choice of a generator to the next, at least: a choice costs about 150 of them
_SHARE = 1 / 3  # of the minutes, that scoring may take; the rest is the GAN's
_SEEN = 100  # images in a step of a student, below which fewer images per class would be a poor lesson
# How much is scored, from more to less: architectures, seeds, protocols, whether classes have ten images, and epochs.
_SCORES: tuple[tuple[tuple[str, ...], tuple[int, ...], tuple[str, ...], bool, int | None], ...] = (
    (("convnet3-w24", "resnet18-bn-w8", "alexnet-bn-w8", "mlp"), (0, 1, 2), ("fixed", "stream"), True, None),
    (("convnet3-w24", "resnet18-bn-w8"), (0, 1, 2), ("stream",), True, None),
    (("convnet3-w24", "resnet18-bn-w8"), (0, 1, 2), ("stream",), False, None),
    (("convnet3-w24", "resnet18-bn-w8"), (0,), ("stream",), False, None),
    *((("convnet3-w24",), (0,), ("stream",), False, epochs) for epochs in (None, 100, 30)),
)
_OF_GAN = ("pretrain", "refine")  # stages
MinutesOf = Callable[[Config, Sequence[str]], float]


class Setting(NamedTuple):
    """A setting and what it is chosen for."""

    key: str  # such as gan.arch
    value: Any  # JSON
    why: str  # a few words, or none


def side_for(sizes: Counter[tuple[int, int]], on_gpu: bool, minutes: float) -> int:
    """Return the pixels of the shorter side that images are reduced to: 64 on a GPU, or if there is time for them."""
    fit = len(sizes) == 1 and max(next(iter(sizes))) <= _LARGE_SIDE
    return _LARGE_SIDE if on_gpu or (fit and minutes >= _LONG) else _SIDE


def size_for(sizes: Counter[tuple[int, int]], side: int) -> tuple[int, int] | None:
    """Return (H, W) to resize images to, or None if they may stay as they are.

    Args:
        sizes: how many images have this height and width.
        side: pixels of the shorter side, at most; images that are nearly square at the median become square.
    """
    if len(sizes) == 1 and all(_SMALLEST <= length <= side for length in next(iter(sizes))):
        return None
    height, width = (median_low(sides) for sides in zip(*sizes.elements(), strict=True))
    short = max(_SMALLEST, min(side, height, width) // 4 * 4)
    ratio = max(height, width) / min(height, width)
    long = short if ratio < 1.25 else min(8, ratio) * short // 4 * 4
    return (short, int(long)) if height <= width else (int(long), short)


def default_of(key: str) -> Any:
    """Return the default of a setting such as gan.arch, as JSON."""
    return reduce(getitem, key.split("."), to_plain(Config()))


def config_of(settings: Sequence[Setting]) -> Config:
    """Return the defaults with these settings; ConfigError if one cannot be."""
    return read_as(Config, nested(settings))


def nested(settings: Sequence[Setting]) -> dict[str, Any]:
    """Return settings as sections within sections."""
    values: dict[str, Any] = {}
    for key, value, _ in settings:
        *sections, name = key.split(".")
        place = values
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = value
    return values


def suggest(
    data: Sequence[Setting], dataset: Dataset, on_gpu: bool, minutes: float, estimate: MinutesOf
) -> list[Setting]:
    """Return settings with which distilling and scoring take at most so many minutes, if so few can do.

    Args:
        data: what names and resizes the images.
        dataset: the images, opened so.
        on_gpu: whether there is a GPU.
        minutes: for all of it.
        estimate: returns the minutes that stages of a config take.
    """
    count, classes = len(dataset.train.labels), dataset.spec.num_classes
    most_ipc = min(10, int(dataset.train.labels.bincount(minlength=classes).min()))
    networks = _networks(dataset, on_gpu, _FEWEST_STEPS)
    scored, scoring = list[Setting](), 0.0
    for archs, seeds, protocols, ten, epochs in _SCORES:
        ipc = most_ipc if ten else min(most_ipc, -(-_SEEN // classes))
        scored = _scores(archs, seeds, protocols, ipc, count < _FEW, epochs, dataset.spec.shape)
        scoring = estimate(config_of([*data, *networks, *scored]), ["evaluate"])
        if scoring <= _SHARE * minutes:
            break

    def learning(steps: int) -> float:
        return estimate(config_of([*data, *_networks(dataset, on_gpu, steps)]), _OF_GAN)

    batch = config_of([*data, *networks]).pretrain.batch_size
    most = min(max(_MOST_STEPS, _enough_steps(count, batch)), max(1500, _MOST_PASSES * count // batch))
    possible = range(_FEWEST_STEPS, most + 1)
    steps = possible[max(0, bisect_right(possible, minutes - scoring, key=learning) - 1)]
    suggested = [*data, *_networks(dataset, on_gpu, _two_digits(steps)), *scored]
    return [setting for setting in suggested if setting.value != default_of(setting.key)]


def minutes_enough(data: Sequence[Setting], dataset: Dataset, on_gpu: bool, estimate: MinutesOf) -> float:
    """Return the minutes that let the GAN see every training image `ENOUGH` times."""
    batch = config_of([*data, *_networks(dataset, on_gpu, _FEWEST_STEPS)]).pretrain.batch_size
    steps = _enough_steps(len(dataset.train.labels), batch)
    return estimate(config_of([*data, *_networks(dataset, on_gpu, steps)]), _OF_GAN) / (1 - _SHARE)


def _enough_steps(count: int, batch: int) -> int:
    """Return the steps of `ENOUGH` passes over so many images, rounded up to two digits."""
    steps = -(-ENOUGH * count // batch)
    return next(more for more in itertools.count(steps) if _two_digits(more) >= steps)


def _two_digits(number: float) -> int:
    unit = 10 ** max(0, math.floor(math.log10(number)) - 1)
    return int(number // unit * unit)


def _networks(dataset: Dataset, on_gpu: bool, steps: int) -> list[Setting]:
    """Return the settings of the GAN and of its training for so many steps."""
    spec, count = dataset.spec, len(dataset.train.labels)
    length = Setting("pretrain.steps", steps, "as the minutes allow; more are better, up to a point")
    larger = [Setting("gan.size", "medium", "a GPU has room for it; not measured")] if on_gpu else []
    if count < _FEW:
        return [*larger, length]
    residual = spec.channels == 3 or spec.num_classes > _MANY_CLASSES
    rates: dict[str, Any] = {"lr": 2e-4, "lr_discriminator": 8e-4} if residual else {"lr": 5e-4}
    refined: dict[str, Any] = {"lr": 5e-5, "lr_discriminator": 2e-4} if residual else {"lr": 2e-4}
    settings = list(larger)
    if residual:
        why = "colour" if spec.channels == 3 else "many classes"
        settings = [
            Setting("gan.arch", "residual", f"{why}: networks that know the class in every block"),
            *larger,
            Setting("gan.loss", "hinge", ""),
        ]
    settings.append(Setting("gan.ema_decays", [0.999 if steps >= 4000 else 0.998], ""))
    if len(dataset.val.labels) >= max(200, 5 * spec.num_classes) and steps >= 2 * _BETWEEN:
        every = max(_BETWEEN, steps // 10)
        settings.append(Setting("gan.proxy.every", every, "keeps the best of several generators, by validation images"))
    settings += [length, Setting("pretrain.batch_size", 64, "")]
    settings += [Setting(f"pretrain.{key}", rate, "") for key, rate in rates.items()]
    settings += [Setting("pretrain.schedule", "cosine", ""), Setting("refine.batch_size", 64, "")]
    settings += [Setting(f"refine.{key}", rate, "") for key, rate in refined.items()]
    settings.append(Setting("refine.schedule", "cosine", ""))
    return [
        *settings,
        Setting("refine.pool.members", _pool(spec.channels, on_gpu), "SKD's, as wide as suits the images"),
    ]


def _pool(channels: int, on_gpu: bool) -> list[str]:
    """Return SKD's networks, which it asks about images: wider for colour, and on a GPU."""
    convnet, resnet = (128, 32) if on_gpu else (32, 16) if channels == 3 else (24, 8)
    return [f"convnet3-w{convnet}", f"resnet10-w{resnet}", f"resnet18-w{resnet}"]


def _scores(
    archs: tuple[str, ...],
    seeds: tuple[int, ...],
    protocols: tuple[str, ...],
    ipc: int,
    few: bool,
    epochs: int | None,
    shape: Shape,
) -> list[Setting]:
    """Return the settings of an evaluation."""
    return [
        Setting("evaluate.ipc", [ipc], "images per class, as the minutes and the smallest class allow"),
        Setting("evaluate.protocols", list(protocols), ""),
        Setting("evaluate.archs", _deep_enough(archs, shape), "students, as many as the minutes allow"),
        Setting("evaluate.seeds", list(seeds), "one student says nothing of chance: three give an interval"),
        Setting("evaluate.all_epochs", Config().evaluate.all_epochs if few else 1, "passes of the ceiling"),
        Setting("evaluate.recipe.epochs", epochs, "short lessons, as the minutes allow"),
    ]


def _deep_enough(archs: Sequence[str], shape: Shape) -> list[str]:
    """Return the students with a ConvNet of four blocks for images of 64 pixels, as the field has it, not of three."""
    large = min(shape[1:]) >= _LARGE_SIDE
    return ["convnet-w24-d4" if large and arch == "convnet3-w24" else arch for arch in archs]

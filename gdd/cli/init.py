"""`gdd init`: what images are like, and a config for them."""

import json
import math
import re
import shlex
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from gdd.cli.command import Command, printable
from gdd.config import Config, ConfigError, DataConfig
from gdd.data.places import LISTED, TINY_IMAGENET, locate, namesake

if TYPE_CHECKING:
    from gdd.cli.suggest import Setting
    from gdd.data.encoded import Listing, Survey
    from gdd.data.readers import Dataset
    from gdd.data.splits import RawDataset

_TINY = 20  # images of a class that are few
_UNEVEN = 5  # times as many images in the largest class as in the smallest that are worth a word
_NAMED = 5  # classes or files that are named
_SHOWN = (
    *("data.size", "gan.arch", "gan.size", "pretrain.steps", "refine.steps", "refine.loss", "refine.pool.members"),
    *("evaluate.ipc", "evaluate.archs"),
)
_STAGES = ("pretrain", "refine", "evaluate")


def _add_arguments(parser: ArgumentParser) -> None:
    where = "the images, as in data.name: a folder, a .npz, .tar, .parquet or .arrow file, or a name such as mnist"
    parser.add_argument("path", type=str, help=where)
    column = "column of labels, where Arrow or Parquet files or a table beside images have several"
    parser.add_argument("--data.label", type=str | None, default=None, help=column)
    parser.add_argument("--out", type=Path | None, default=None, help="the YAML file to write; null: NAME.yaml here")
    parser.add_argument("--minutes", type=float, default=60.0, help="for distilling and scoring on this machine")


def _init(options: Namespace, console: Console) -> None:
    same = namesake(options.path, DataConfig().root)
    if same is not None:
        raise ConfigError(f"{same}, or rename the folder to look at the other")
    kind, place = locate(options.path, DataConfig().root)
    name = re.sub(r"[^\w.-]+", "-", place.resolve().stem if place.is_file() else place.resolve().name).strip("-.")
    name = options.path if kind in ("digits", "torchvision", TINY_IMAGENET) else name or "images"
    out = options.out or Path(f"{name}.yaml")
    if out.exists():
        raise ConfigError(f"{out} is there already and is not overwritten; name another file with --out")
    if not 0 < options.minutes < float("inf"):
        raise ConfigError(f"--minutes is {options.minutes}, expected a number above 0")

    from gdd import pipeline
    from gdd.cli import summary
    from gdd.cli.suggest import ENOUGH, Setting, config_of, default_of, minutes_enough, side_for, size_for, suggest
    from gdd.data.readers import divided, list_images, title_of
    from gdd.runtime import checkpoint
    from gdd.runtime.device import device_name, make_accelerator

    accelerator = make_accelerator(Config().run)
    device, began = accelerator.device, time.perf_counter()
    on_gpu = device.type == "cuda"
    data = [Setting("name", name, ""), Setting("data.name", options.path, "")]
    if options.data.label is not None:
        data.append(Setting("data.label", options.data.label, ""))
    later = ""
    if kind in LISTED:
        later = "; decoded images are kept for later commands"
        listing = list_images(kind, place, options.data.label)
        sizes = _look(listing, console).sizes
        size = size_for(sizes, side_for(sizes, on_gpu, options.minutes))
        raw = _decoded(listing, size, console)
        dataset = divided(options.path, title_of(options.path, place), raw, DataConfig().val_fraction, 0)
    else:
        shape = pipeline.open_data(config_of(data).data, 0).spec.shape
        sizes = Counter([shape[1:]])
        size = size_for(sizes, side_for(sizes, on_gpu, options.minutes))
    if size is not None:
        data.append(Setting("data.size", list(size), "height and width that all images are resized to"))
    if kind not in LISTED:
        dataset = pipeline.open_data(config_of(data).data, 0)
    spec = dataset.spec
    _say(console, "read", f"in {time.perf_counter() - began:.0f} s{later}")
    for note in _notes(dataset):
        _say(console, "note", note)

    measured = summary.speed(Config(), device)

    def estimate(config: Config, stages: Sequence[str]) -> float:
        jobs = pipeline.plan(config, dataset, []) if "evaluate" in stages else []
        return summary.estimated_minutes(config, dataset, accelerator, stages, jobs, measured)

    settings = suggest(data, dataset, on_gpu, options.minutes, estimate)
    config = config_of(settings)
    pipeline.check_networks(config, spec.shape, spec.num_classes)
    minutes, machine = estimate(config, _STAGES), device_name(device)
    command = f"gdd distill --config {shlex.quote(str(out))}"
    chosen = {setting.key for setting in settings}
    defaults = [f"{key} {_scalar(default_of(key))}" for key in _SHOWN if key not in chosen]
    header = [
        f"command: {command}",
        f"data: {spec.num_classes} classes of {spec.height}x{spec.width}x{spec.channels}, "
        f"{len(dataset.train.labels):,} training and {len(dataset.val.labels):,} validation images",
        f"minutes: about {summary.rounded(minutes)}, estimated on {machine}",
        *([f"defaults that are kept: {', '.join(defaults)}"] if defaults else []),
        "Written by gdd init, to be edited; gdd distill --help and docs/configuration.md explain every setting.",
    ]
    text = "".join(f"# {line}\n" for line in header) + "\n" + _yaml(settings)
    with checkpoint.creating(out):
        checkpoint.write_atomically(out, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    _say(console, "time", f"about {summary.rounded(minutes)} to distil and score on {machine}")
    seen = config.pretrain.steps * config.pretrain.batch_size / len(dataset.train.labels)
    if seen < ENOUGH:
        enough = minutes_enough(data, dataset, on_gpu, estimate)
        _say(
            console,
            "note",
            f"{options.minutes:g} minutes are too few: the GAN sees each image {seen:.1f} times, fewer than {ENOUGH}; "
            f"--minutes {math.ceil(enough)} would do, and fewer or smaller images, or a GPU, would need less",
        )
    _say(console, "wrote", f"{out}; next: {command}")


def _say(console: Console, title: str, text: str) -> None:
    console.print(f"{title:8} {printable(text)}", soft_wrap=True)


def _look(listing: "Listing", console: Console) -> "Survey":
    """Say what a listing and its images' headers tell, and refuse what cannot be distilled."""
    from gdd.data.encoded import survey

    names, train, test = listing.class_names, listing.train, listing.test
    counts = train.labels.bincount(minlength=len(names)).tolist()
    tested = "no test part: a fifth of each class is held out" if test is None else f"{len(test.labels):,} to test"
    _say(console, "images", f"{listing.place}: {len(train.labels):,} to train, {tested}")
    few, many = min(counts), max(counts)
    each = f"{few:,}" if few == many else f"{few:,} ({names[counts.index(few)]}) to {many:,} "
    each += "" if few == many else f"({names[counts.index(many)]})"
    _say(console, "classes", f"{len(names)}, of {each} training images each")
    for note in listing.notes:
        _say(console, "note", note)
    images = survey(*(part for part in (train, test) if part is not None))
    total = images.sizes.total()
    if total:
        high, wide = zip(*images.sizes, strict=True)
        several = f"{len(images.sizes):,} sizes, {min(high)} to {max(high)} high, {min(wide)} to {max(wide)} wide"
        _say(console, "size", f"{high[0]}x{wide[0]} (height x width)" if len(images.sizes) == 1 else several)
        mixed = f"{images.grey:,} grey images and {total - images.grey:,} in colour: all become colour"
        colour = "grey" if images.grey == total else "colour" if images.grey == 0 else mixed
        _say(console, "pixels", colour)
    least = 2 if test is not None else 3  # one of each to train with, to validate and, without a test part, to test
    small = [name for name, count in zip(names, counts, strict=True) if count < least]
    if small:
        raise ConfigError(
            f"{listing.place} cannot be distilled as it is: {_listed(small, 'class')} with fewer than {least} training "
            "images; add images to each, or remove it"
        )
    if images.broken:
        _raise_broken(listing, images.broken, console)
    return images


def _decoded(listing: "Listing", size: tuple[int, int] | None, console: Console) -> "RawDataset":
    """Decode all images, once, and refuse a dataset in which some cannot be."""
    from gdd.data import encoded

    broken: list[str] = []
    raw = encoded.read_listing(listing, size, None, broken)
    raw.read_test()
    if broken:
        _raise_broken(listing, broken, console)
    return raw


def _raise_broken(listing: "Listing", broken: list[str], console: Console) -> None:
    for sentence in broken[:_NAMED]:  # of a damaged one, or of one that is too large
        _say(console, "broken", sentence)
    raise ConfigError(f"{listing.place} has {len(broken):,} images that cannot be used: replace them or remove them")


def _listed(names: Sequence[str], kind: str) -> str:
    shown = ", ".join(map(repr, names[:_NAMED])) + (", ..." if len(names) > _NAMED else "")
    return f"{kind} {shown} is" if len(names) == 1 else f"{len(names):,} classes ({shown}) are"


def _notes(dataset: "Dataset") -> list[str]:
    """Warn of images that can be distilled, but not well."""
    from gdd.data.mapped import parts_of
    from gdd.data.spec import order_of_numbers

    counts = dataset.train.labels.bincount(minlength=dataset.spec.num_classes).tolist()
    tiny = [name for name, count in zip(dataset.spec.class_names, counts, strict=True) if count < _TINY]
    notes = [order] if (order := order_of_numbers(dataset.spec.class_names)) else []
    flat = (part.flatten(1) for part in parts_of(dataset.train.images_u8))
    blank = sum(int((part.amin(1) == part.amax(1)).sum()) for part in flat)
    if blank:
        notes.append(
            f"{blank:,} of {len(dataset.train.labels):,} training images have one colour alone: nothing is seen on "
            "them (what is transparent is taken for white, so white drawings on it vanish)"
        )
    if tiny:
        shown = ", ".join(tiny[:_NAMED]) + (", ..." if len(tiny) > _NAMED else "")
        notes.append(f"fewer than {_TINY} images to learn from in {shown}: a generator will copy or miss them")
    if max(counts) > _UNEVEN * min(counts):
        notes.append(
            f"uneven classes: the GAN sees the largest {max(counts) / min(counts):.0f} times as often as the smallest; "
            "a score is the share of all test images, so large classes count more in it"
        )
    return notes


def _yaml(settings: "Sequence[Setting]") -> str:
    """Return settings as YAML, each with its comment."""
    lines: list[str] = []
    before: list[str] = []
    for key, value, why in settings:
        *sections, name = key.split(".")
        for depth, section in enumerate(sections):
            if before[: depth + 1] != sections[: depth + 1]:
                lines.append(f"{'  ' * depth}{section}:")
                before = sections[: depth + 1]
        before = sections
        comment = f"  # {why}" if why else ""
        lines.append(f"{'  ' * len(sections)}{name}: {_scalar(value)}{comment}")
    return "\n".join(lines) + "\n"


def _scalar(value: Any) -> str:
    """Return a value as YAML: as JSON, but 5e-05 without an exponent, since YAML would read text."""
    return f"{value:.10f}".rstrip("0") if isinstance(value, float) else json.dumps(value)


COMMANDS = (Command("init", "look at your own images and write a config for them", _add_arguments, _init),)

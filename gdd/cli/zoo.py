"""`gdd zoo`."""

from jsonargparse import ArgumentParser, Namespace
from rich import box
from rich.console import Console
from rich.table import Table

from gdd import zoo
from gdd.cli.command import Command
from gdd.zoo import Mean

_HEADS = ("name", "student", "steps", "random real", "generator", "fresh real")
_NOTE = (
    "Students' accuracy on the real test images in percent after so many steps, mean ± half width of the 95 % "
    "t-interval over their seeds, by what they were trained on. The manifest of each, in {}, says more. gdd sample "
    "zoo:NAME draws images."
)


def _add_arguments(parser: ArgumentParser) -> None:
    """Take none."""


def _shown(mean: Mean) -> str:
    return f"{mean.mean:.1f}" + ("" if mean.half_width is None else f" ± {mean.half_width:.1f}")


def _zoo(options: Namespace, console: Console) -> None:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for head in _HEADS:
        table.add_column(head, justify="left" if head in _HEADS[:2] else "right", no_wrap=True)
    for name in zoo.names():
        one = zoo.manifest(name)
        channels, height, width = one.shape
        size, made = f"{height}x{width}x{channels}, {one.bytes / 1e6:.1f} MB", f"made in {one.seconds / 60:.0f} min"
        scores = [
            (score.arch, f"{score.steps:,}", *map(_shown, (score.floor, score.generator, score.ceiling)))
            for score in one.scores
        ]
        table.add_row("\n".join([f"{zoo.PREFIX}{name}", size, made, ""]), *map("\n".join, zip(*scores, strict=True)))
    console.print(table, _NOTE.format(zoo.HOME), soft_wrap=True)


COMMANDS = (Command("zoo", "list the generators that come with gdd, and what they are worth", _add_arguments, _zoo),)

"""`gdd report` and `gdd zoo`: what runs have shown, and what comes with gdd."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from rich import box
from rich.console import Console
from rich.table import Table

from gdd import zoo
from gdd.cli.command import Command, require_free
from gdd.zoo import Mean

_HEADS = ("name", "student", "steps", "random real", "generator", "fresh real")
_NOTE = (
    "Students' accuracy on the real test images in percent after so many steps, mean ± half width of the 95 % "
    "t-interval over their seeds, by what they were trained on. The manifest of each, in {}, says more. gdd sample "
    "zoo:NAME draws images."
)


def _add_arguments(parser: ArgumentParser) -> None:
    runs = "run folder of gdd evaluate; with --html that of any stage, or of a run with several of them"
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="+", help=runs)
    parser.add_argument("--html", metavar="OUT", type=Path, help="write one web page of all runs, and change none")
    parser.add_argument("--mixed", action="store_true", help="let rows of different precision share a table")


def _report(options: Namespace, console: Console) -> None:
    if options.html is not None:
        _write_page(options, console)
        return
    from gdd.report import statistics, tables

    for folder in options.runs:
        rows = statistics.require_rows(folder)
        paths = tables.write_evaluation(folder, rows, options.mixed)
        console.print(tables.Terminal(tables.sections(rows, brief=True, mixed=options.mixed)))
        console.print(f"wrote {', '.join(map(str, paths))}", soft_wrap=True)


def _write_page(options: Namespace, console: Console) -> None:
    require_free("--html", options.html)
    from gdd import pipeline
    from gdd.report import page

    size = page.write_page(options.html, options.runs, pipeline.open_data, options.mixed)
    console.print(f"wrote {options.html} ({size / 1e6:.1f} MB)", soft_wrap=True)


def _take_none(parser: ArgumentParser) -> None:
    """Add no argument: gdd zoo has none."""


def _shown(mean: Mean) -> str:
    return f"{mean.mean:.1f}" + ("" if mean.half_width is None else f" ± {mean.half_width:.1f}")


def _zoo(options: Namespace, console: Console) -> None:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for head in _HEADS:
        table.add_column(head, justify="left" if head in _HEADS[:2] else "right", no_wrap=True)
    for name in zoo.names():
        manifest = zoo.manifest(name)
        channels, height, width = manifest.shape
        size = f"{height}x{width}x{channels}, {manifest.bytes / 1e6:.1f} MB"
        made = f"made in {manifest.seconds / 60:.0f} min"
        scores = [
            (score.arch, f"{score.steps:,}", *map(_shown, (score.floor, score.generator, score.ceiling)))
            for score in manifest.scores
        ]
        table.add_row("\n".join([f"{zoo.PREFIX}{name}", size, made, ""]), *map("\n".join, zip(*scores, strict=True)))
    console.print(table, _NOTE.format(zoo.HOME), soft_wrap=True)


COMMANDS = (
    Command("report", "write an evaluation's tables and picture again, or runs as a web page", _add_arguments, _report),
    Command("zoo", "list the generators that come with gdd, and what they are worth", _take_none, _zoo),
)

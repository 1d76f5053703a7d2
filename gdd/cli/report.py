"""`gdd report`."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from gdd.cli.command import Command
from gdd.cli.outputs import require_free


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
        rows = statistics.read_rows(folder)
        paths = tables.write(folder, rows, options.mixed)
        console.print(tables.Terminal(tables.sections(rows, brief=True, mixed=options.mixed)))
        console.print(f"wrote {', '.join(map(str, paths))}", soft_wrap=True)


def _write_page(options: Namespace, console: Console) -> None:
    require_free("--html", options.html)
    from gdd import pipeline
    from gdd.report import page

    size = page.write(options.html, options.runs, pipeline.open_data, options.mixed)
    console.print(f"wrote {options.html} ({size / 1e6:.1f} MB)", soft_wrap=True)


COMMANDS = (
    Command("report", "write an evaluation's tables and picture again, or runs as a web page", _add_arguments, _report),
)

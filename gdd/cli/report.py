"""`gdd report`."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from gdd.cli.command import Command


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="run folder of gdd evaluate, with its rows.jsonl")
    parser.add_argument("--mixed", action="store_true", help="let rows of different precision share a table")


def _report(options: Namespace, console: Console) -> None:
    from gdd.report import statistics, tables

    rows = statistics.read_rows(options.folder)
    paths = tables.write(options.folder, rows, options.mixed)
    console.print(tables.Terminal(tables.sections(rows, brief=True, mixed=options.mixed)))
    console.print(f"wrote {', '.join(map(str, paths))}", soft_wrap=True)


COMMANDS = (Command("report", "write an evaluation's tables and picture again", _add_arguments, _report),)

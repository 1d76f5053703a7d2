"""`gdd report`."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from gdd.cli.command import Command


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="run folder of evaluate.py, with its rows.jsonl")


def _report(options: Namespace, console: Console) -> None:
    from gdd.report import statistics

    rows = statistics.read_rows(options.folder)
    paths = statistics.write(options.folder, rows)
    console.print(statistics.table(rows))
    console.print(f"wrote {', '.join(map(str, paths))}")


COMMANDS = (Command("report", "write an evaluation's statistics and picture again", _add_arguments, _report),)

"""`gdd reproduce`: published numbers, and whether they come out."""

import itertools
from argparse import SUPPRESS
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from gdd import published
from gdd.cli.command import Command, add_array, add_settings, array_of, read_config
from gdd.config import Config, ConfigError, DataConfig
from gdd.config.stages import REPRODUCE
from gdd.published import Cell, Key, Student
from gdd.runtime.array import Array

if TYPE_CHECKING:
    from gdd.report.tables import Section

# Flags that leave some numbers out, and what they look at.
_NARROWING: dict[str, Callable[[Cell], object]] = {
    "ipc": lambda cell: cell.row.ipc,
    "iterations": lambda cell: cell.row.iterations,
    "row": lambda cell: cell.row.name,
    "student": lambda cell: cell.student,
}


def _add_arguments(parser: ArgumentParser) -> None:
    add_settings(parser)
    add_array(parser)
    which = "a paper such as 2402.13007, or one of its tables, 2402.13007/table4; none: all are listed, none is run"
    parser.add_argument("which", type=str, nargs="?", default=None, help=which)
    parser.add_argument("--ipc", type=int, nargs="+", help="only rows of so many images per class")
    parser.add_argument("--iterations", type=int, nargs="+", help="only rows of so many iterations")
    parser.add_argument("--row", type=str, nargs="+", help="only rows of these names")
    parser.add_argument("--student", type=str, nargs="+", help="only columns of these students")
    files = "folder of the files that the paper's authors published"
    parser.add_argument("--files", type=Path, default=Path("data/published"), help=files)
    again = "train students anew whose scores come with gdd"
    parser.add_argument("--again", action="store_true", default=SUPPRESS, help=again)
    parser.set_defaults(name=REPRODUCE)


def _chosen(options: Namespace) -> list[Cell]:
    """Return the numbers that the command line asks for."""
    cells = published.cells(options.which)
    for name, of in _NARROWING.items():
        wanted, known = options[name] or [], {of(cell) for cell in cells} - {None}
        if not known >= {*wanted}:
            listed = ", ".join(map(str, sorted(known, key=str))) or "none: no row says it"
            raise ConfigError(f"--{name} is {', '.join(map(str, wanted))}, expected some of {listed}")
        cells = [cell for cell in cells if not wanted or of(cell) in wanted]
    return cells


def _config(options: Namespace) -> Config:
    """Return the settings, of which only those of the run and the place of the data are the user's."""
    config = read_config(options)
    data = DataConfig(root=config.data.root, download=config.data.download)
    used = Config(name=config.name, run=config.run, data=data)
    for name in (field.name for field in fields(Config)):
        if getattr(config, name) != getattr(used, name):
            raise ConfigError(f"a setting of {name} is given, expected none: the papers decide them")
    return used


def _reproduce(options: Namespace, console: Console) -> None:
    cells = _chosen(options)
    config = _config(options)
    array = array_of(options, config)
    known = {number: {one.key: one for one in published.students(number)} for number in published.papers()}
    from gdd.report.tables import Terminal

    if options.which is None:
        if options.get("again", False):
            raise ConfigError("--again is given without a paper, expected one beside it")
        console.print(Terminal([_overview(config, cells, known)]))
        return
    students = {} if options.get("again", False) else known[cells[0].paper]
    if _train(config, cells, students, options.files, options.dry_run, console, array):
        console.print(Terminal(_tables(cells, students)))


def _tables(cells: Sequence[Cell], students: dict[Key, Student]) -> "list[Section]":
    from gdd.report import verdicts

    paper, sections = published.papers()[cells[0].paper], []
    for table in dict.fromkeys(cell.table for cell in cells):
        judged = [verdicts.judge(cell, students) for cell in cells if cell.table == table]
        sections.append(verdicts.numbers_section(f"{cells[0].paper}, {table}: {verdicts.tally(judged)}", judged, paper))
    return sections


def _overview(config: Config, cells: Sequence[Cell], known: dict[str, dict[Key, Student]]) -> "Section":
    """Return a line per published row, with what its missing students would take here."""
    from gdd.cli import summary
    from gdd.pipeline import reproduce
    from gdd.report import verdicts
    from gdd.runtime.device import here

    takes, judged = dict[tuple[str, str, int], str](), list[verdicts.Judged]()
    at = summary.speed(config, here())
    for line, of_line in itertools.groupby(cells, verdicts.line_of):
        own = [*of_line]
        paper, students = published.papers()[own[0].paper], known[own[0].paper]
        missing = [key for released in (False, True) for key in verdicts.missing(own, students, released)]
        if missing:
            takes[line] = summary.rounded(reproduce.flop_of(paper, missing, own[0].dataset) / at.others / 60)
            waits = [made.takes for made in reproduce.waiting(paper, missing).values()]
            if any(text.startswith("a GPU") for text in waits):
                takes[line] = "a GPU"  # whose minutes are not known
            elif waits:
                takes[line] += " and a set"
        judged += [verdicts.judge(cell, students) for cell in own]
    return verdicts.overview(judged, takes)


def _train(
    config: Config,
    cells: Sequence[Cell],
    students: dict[Key, Student],
    files: Path,
    dry_run: bool,
    console: Console,
    array: Array | None,
) -> bool:
    """Train the students that are missing and add them; False of a dry run.

    First as the paper's text says, then as its released code does, for the numbers that are not confirmed yet.
    """
    from gdd import pipeline
    from gdd.cli import summary
    from gdd.pipeline import reproduce
    from gdd.report import tables, verdicts
    from gdd.runtime.device import make_accelerator

    number = cells[0].paper
    paper = published.papers()[number]

    def page(dataset: str, found: list[Student]) -> str:
        of_dataset = [cell for cell in published.cells(number) if cell.dataset == dataset]
        return tables.page(paper.title, _tables(of_dataset, {**students, **{one.key: one for one in found}}))

    accelerator = make_accelerator(config.run)
    try:
        at = summary.speed(config, accelerator.device)
        for dataset in dict.fromkeys(cell.dataset for cell in cells):
            own = [cell for cell in cells if cell.dataset == dataset]
            # All training images are the paper's; students see none of them.
            data = replace(config.data, name=dataset, val_fraction=0.0)
            named = replace(config, name=f"{config.name}-{number}-{dataset}", data=data)
            students.update((one.key, one) for one in reproduce.scored_before(named, paper))

            told_of = any(cell.equation for cell in own)  # by a text; not so of logs
            more = "more " if told_of else ""
            for released, how in ((False, "as the paper says"), (True, f"{more}as the released code does")):
                missing = verdicts.missing(own, students, released)
                absent = reproduce.waiting(paper, missing)
                for name, made in absent.items():
                    console.print(f"waits    {name}, {made.takes}: {made.command}", soft_wrap=True)
                missing = [key for key in missing if key.set not in absent]
                minutes = summary.rounded(reproduce.flop_of(paper, missing, dataset) / at.others / 60)
                if missing or released != told_of:
                    count = f"{len(missing)} student{'s' * (len(missing) != 1)}"
                    told = f"train and score {count} for {len(own)} published number{'s' * (len(own) > 1)} of {dataset}"
                    console.print(f"work     {told}, {how}: about {minutes}", soft_wrap=True)
                reproduce.check_published(paper, missing, files)
                if missing and not dry_run:
                    with pipeline.open_inputs(named, accelerator, [], array=array) as inputs:
                        arms = reproduce.arms_of(paper, missing, files, inputs.dataset)
                        found = reproduce.reproduce(named, inputs, paper, arms, partial(page, dataset))
                    students.update((one.key, one) for one in found)
    finally:
        accelerator.end_training()
    return not dry_run


COMMANDS = (
    Command("reproduce", "list published numbers, and find out whether they come out", _add_arguments, _reproduce),
)

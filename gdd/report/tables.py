"""How tables are shown: in a terminal, as Markdown, and rows as CSV."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group
from rich.table import Table
from rich.text import Text

from gdd.evaluation.row import Row
from gdd.runtime.checkpoint import write_atomically


@dataclass(frozen=True)
class Section:
    """One table of one protocol; what is fixed in a table of streams says so."""

    title: str
    notes: list[str]
    headers: list[str]
    lines: list[list[str]]


def terminal(sections: Sequence[Section]) -> Group:
    """Return the sections for rich to print."""
    shown: list[Table | Text] = []
    for section in sections:
        # As Text, since a user's folder name may hold brackets, which rich would read as markup.
        table = Table(title=Text(section.title), title_justify="left")
        for index, header in enumerate(section.headers):
            table.add_column(Text(header), justify="right" if index else "left", overflow="fold")
        for line in section.lines:
            table.add_row(*map(Text, line))
        shown += [table, *map(Text, section.notes)]
    return Group(*shown)


def page(heading: str, sections: Sequence[Section]) -> str:
    """Return the sections as Markdown."""
    blocks = [f"# {heading}"]
    for section in sections:
        marks = [":--", *["--:"] * (len(section.headers) - 1)]
        lines = [[cell.replace("|", "\\|") for cell in line] for line in [section.headers, marks, *section.lines]]
        body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        blocks += [f"## {section.title}", body, *section.notes]
    return "\n\n".join(blocks) + "\n"


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write all fields of all rows, library versions as JSON."""

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0].to_dict()))
            writer.writeheader()
            for row in rows:
                writer.writerow({**row.to_dict(), "versions": json.dumps(row.versions)})

    write_atomically(path, write)

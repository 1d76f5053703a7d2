"""Tables in a terminal and as Markdown, and rows as CSV; fixed and stream never share a column."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pandas import DataFrame, Series
from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table
from rich.text import Text

from gdd.evaluation.row import Row
from gdd.evaluation.sources import CEILING, FIXED_REAL, REAL_NAMES, ROLES, STREAM_CEILING, Protocol
from gdd.report import plots, statistics
from gdd.report.intervals import Estimate
from gdd.runtime.checkpoint import write_atomically

LINE_WIDTH = 100  # characters of a line in a terminal
_LEAST = 26  # characters that a source's name keeps there
_GAP = 2  # characters between columns

TITLES: dict[Protocol, str] = {
    "fixed": "fixed: exactly IPC stored images per class, the same every epoch",
    "stream": "stream: new samples every epoch, as many steps and images per step as fixed",
}
_DIFFERENCES = "difference in points, paired by seed"
_SHARE = "share: percent of the accuracy of fresh real images, paired by seed"


@dataclass(frozen=True)
class Section:
    """One table of one protocol; what is fixed in a table of streams says so."""

    title: str  # above it
    notes: list[str]  # below it
    headers: list[str]  # of the columns, the first of which names sources
    lines: list[list[str]]  # cells, of one or more lines
    # headers of the columns that a terminal shows if it has room, those it keeps longest first
    optional: Sequence[str] = ()


NO_CEILING = "No student was trained on all real images, so this table has no ceiling."


@dataclass(frozen=True)
class Terminal:
    """Sections for rich to print in at most `LINE_WIDTH` characters.

    No cell is wrapped: names of sources are shortened, columns without room left out and told below the table. A note
    of several tables stands below the last of them alone, unless it speaks of one table.
    """

    sections: Sequence[Section]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, shown = min(LINE_WIDTH, options.max_width), list[Section]()
        for section in reversed(self.sections):
            said = {note for other in shown for note in other.notes} - {NO_CEILING}
            shown.append(replace(section, notes=[note for note in section.notes if note not in said]))
        blocks = [block for section in reversed(shown) for block in _fitted(section, width)]
        yield from console.render(Group(*blocks), options.update(max_width=width))


def _fitted(section: Section, width: int) -> list[Table | Text]:
    # As Text, since a user's folder name may hold brackets, which rich would read as markup.
    columns = [list(column) for column in zip(section.headers, *section.lines, strict=True)]
    widths = [max(cell_len(part) for cell in column for part in cell.split("\n")) for column in columns]
    optional = [section.headers.index(header) for header in section.optional]
    shown, room = [0], width - min(widths[0], _LEAST)
    for index in [*(index for index in range(1, len(columns)) if index not in optional), *optional]:
        if _GAP + widths[index] > room:
            break
        shown.append(index)
        room -= _GAP + widths[index]
    columns[0] = _shortened(columns[0], min(widths[0], _LEAST) + room)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for index in sorted(shown):
        table.add_column(Text(section.headers[index]), justify="right" if index else "left", no_wrap=True)
    for line in zip(*(columns[index][1:] for index in sorted(shown)), strict=True):
        table.add_row(*map(Text, line))
    hidden = ", ".join(header for index, header in enumerate(section.headers) if index not in shown)
    notes = [f"No room here for: {hidden}. The Markdown file has it all."] if hidden else []
    return [Text(section.title, style="bold"), table, *map(Text, [*section.notes, *notes, ""])]


def _shortened(cells: Sequence[str], width: int) -> list[str]:
    """Cut long names in the middle, or where different names stay different."""
    names = {line for cell in cells for line in cell.split("\n")}

    def cut(head: int) -> dict[str, str]:
        tail = width - 1 - head
        return {name: name if len(name) <= width else f"{name[:head]}…{name[len(name) - tail :]}" for name in names}

    middle = width // 2
    ways = map(cut, sorted(range(width), key=lambda head: abs(head - middle)))
    short = next((way for way in ways if len({*way.values()}) == len(names)), cut(middle))
    return ["\n".join(short[line] for line in cell.split("\n")) for cell in cells]


def page(heading: str, sections: Sequence[Section]) -> str:
    """Return the sections as Markdown."""
    blocks = [f"# {heading}"]
    for section in sections:
        blocks += [f"## {section.title}", markdown(section), *section.notes]
    return "\n\n".join(blocks) + "\n"


def markdown(section: Section) -> str:
    """Return a section's table alone as Markdown."""
    marks = [":--", *["--:"] * (len(section.headers) - 1)]
    lines = [[cell.replace("|", "\\|") for cell in line] for line in [section.headers, marks, *section.lines]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_csv(path: Path, rows: DataFrame) -> None:
    """Write all fields of all rows, library versions as JSON."""
    table = rows.assign(versions=rows["versions"].map(json.dumps))
    write_atomically(path, lambda temporary: table.to_csv(temporary, index=False))


def sections(rows: Sequence[Row], brief: bool, mixed: bool = False) -> list[Section]:
    """Return the tables of an evaluation: for each recipe fixed and stream apart, each with its differences.

    `brief`, for a terminal, leaves out intervals and library versions; `mixed` lets precisions share a table.
    """
    return [
        section
        for part in statistics.by_recipe(statistics.frame(rows), mixed)
        for protocol in TITLES
        if (part["protocol"] == protocol).any()
        for section in (
            _accuracies(part, protocol, brief),
            *share_sections(part, protocol),
            *_differences(part, protocol, brief),
        )
    ]


def _accuracies(rows: DataFrame, protocol: Protocol, brief: bool) -> Section:
    shown = rows[(rows["protocol"] == protocol) | rows["kind"].isin(FIXED_REAL)]
    summary = statistics.summarise(shown)
    archs, most = shown["arch"].unique(), most_seeds(summary["accuracy"])
    summary["score"] = [_score(accuracy, most, brief) for accuracy in summary["accuracy"]]
    lines, teachers = [], statistics.teachers(shown)
    for _, cells in summary.groupby(["source", "ipc"], sort=False, dropna=False):
        first = cells.iloc[0]
        costs = [f"{first.distinct_images_seen:,}", f"{first.bytes / 1024:,.1f}", f"{first.optimizer_steps:,}"]
        scores = cells.set_index("arch")["score"].reindex(archs, fill_value="")
        lines.append([*name_and_ipc(first, protocol), *costs, *teacher_of(first, teachers), *scores])
    cost_heads = ["images seen", "KiB", "steps"]
    plus = "standard deviation" + ("" if brief else f" (± {spread()})")
    title = f"{rows['dataset'].iloc[0]}, {TITLES[protocol]}"
    teacher_head = ["teacher"] if teachers else []
    headers = ["trained on", "IPC", *cost_heads, *teacher_head, *archs]
    below = notes(shown, protocol, plus, brief)
    if not shown["kind"].isin([CEILING, STREAM_CEILING]).any():
        below.insert(1, NO_CEILING)
    return Section(title, below, headers, lines, [*teacher_head, *cost_heads])


def teacher_of(row: Row, teachers: dict[tuple[str, int | None], Estimate]) -> list[str]:
    """Return the cell with the accuracy of a line's teachers, or no cell if no line has teachers."""
    if not teachers:
        return []
    accuracy = teachers.get((row.source, row.ipc))
    return [interval(accuracy, accuracy.n) if accuracy else ""]


def share_sections(rows: DataFrame, protocol: Protocol, replicates: bool = False) -> Iterator[Section]:
    """Yield the table of streams as shares of fresh real images, if both were scored."""
    streams = rows[rows["protocol"] == protocol]
    pairs = statistics.shares(streams, replicates)
    if pairs.empty:
        return
    archs, most = pairs["arch"].unique(), most_seeds(pairs["share"])
    pairs["text"] = [interval(share, most) for share in pairs["share"]]
    # Students that stop early flatter a generator, so a share says after how many steps.
    lines = [
        [source, str(ipc), f"{steps:,}", *cells.set_index("arch")["text"].reindex(archs, fill_value="")]
        for (source, ipc, steps), cells in pairs.groupby(["source", "ipc", "optimizer_steps"], sort=False)
    ]
    title = f"{rows['dataset'].iloc[0]}, {_SHARE}, ± {spread(replicates)}"
    yield Section(title, limits(streams, replicates), ["trained on", "IPC", "steps", *archs], lines)


def _differences(rows: DataFrame, protocol: Protocol, brief: bool) -> Iterator[Section]:
    """Yield the table of refined minus pretrained generators if both are there."""
    scored = rows[rows["protocol"] == protocol]
    differences = statistics.refinement(scored)
    if differences.empty:
        return
    archs, most = differences["arch"].unique(), most_seeds(differences["points"])
    differences["text"] = [interval(points, most, "+") for points in differences["points"]]
    header, minus = ("refined −\npretrained", "\n") if brief else ("difference", " − ")
    lines = [
        [f"{a}{minus}{b}", str(ipc), *cells.set_index("arch")["text"].reindex(archs, fill_value="")]
        for (a, b), pair in differences.groupby(["source", "source_b"], sort=False)
        for ipc, cells in pair.groupby("ipc", sort=False)
    ]
    title = f"{rows['dataset'].iloc[0]}, {protocol}: {_DIFFERENCES}, ± {spread()}"
    yield Section(title, limits(scored), [header, "IPC", *archs], lines)


def most_seeds(estimates: Sequence[Estimate]) -> int:
    """Return the number of values in the fullest cell, failed students counted."""
    return max(estimate.n + estimate.lost for estimate in estimates)


def name_and_ipc(row: Row, protocol: Protocol) -> tuple[str, str]:
    """Return a line's first two cells; floor and ceilings carry their role, and "fixed" in a table of streams."""
    role = ROLES.get(row.kind)
    name = row.source if role is None else f"{row.source} ({role}{'' if protocol == row.protocol else ', fixed'})"
    return name, "all" if row.ipc is None else str(row.ipc)


def _score(accuracy: Estimate, most: int, brief: bool) -> str:
    text = f"{accuracy.mean:.1f}"
    if accuracy.n > 1:
        text += f" ± {accuracy.std:.1f}" + ("" if brief else f" (± {accuracy.half_width:.1f})")
    return _counted(text, accuracy, most)


def interval(value: Estimate, most: int, sign: Literal["", "+"] = "") -> str:
    """Return mean ± half width if known; n is shown if it is not `most`, a plus if `sign` is +."""
    text = f"{value.mean:{sign}.1f}" + ("" if math.isnan(value.half_width) else f" ± {value.half_width:.1f}")
    return _counted(text, value, most)


def _counted(text: str, value: Estimate, most: int) -> str:
    """Return a mean's text with how many students failed, or with n if it is not `most`."""
    if value.n == 0:
        return "failed"
    if value.failed:
        return f"{text}, {value.failed} of {value.students} failed"
    return text if value.n == most else f"{text}, n = {value.n}"


def notes(rows: DataFrame, protocol: Protocol, spread: str, brief: bool, replicates: bool = False) -> list[str]:
    """Return the notes of a table: its scale, what ± means, seeds, recipe and device."""
    scale = "Test accuracy in percent after the last step"
    if rows["seed"].nunique() > 1 or (replicates and _distillations(rows) > 1):
        scale += f", mean ± {spread}"
    lines = [f"{scale}; {facts(rows, protocol, replicates)}.", *pretrained(rows), *limits(rows, replicates)]
    lines += failures(rows)
    if not brief:
        lines.append(
            "A student seed sets the student and draws its set from a generator or from real data; a stored set stays "
            "the same, so its spread over students is that of students alone."
        )
        row = rows.iloc[0]
        library = ", ".join(f"{name} {version}" for name, version in row.versions.items())
        lines.append(f"{library}; git {row.git_revision or 'unknown'}; recipe hash {row.recipe_hash}.")
    return lines


def spread(replicates: bool = False) -> str:
    """Return what ± means; intervals of replicates are not Student's t alone."""
    return f"half width of the 95 % {'interval' if replicates else 't-interval'}"


def pretrained(rows: DataFrame) -> list[str]:
    """Return which networks of which rows had learned from other images; nothing if none had."""
    names = dict.fromkeys(name for names in rows["pretrained"] for name in names)
    told = []
    for name in names:
        taken = rows[[name in names for names in rows["pretrained"]]]
        sources = "" if set(taken["source"]) == set(rows["source"]) else f" for {', '.join(taken['source'].unique())}"
        told.append(f"{name}{sources}")
    return [f"Began with weights that were learned from other images: {'; '.join(told)}."] if told else []


def failures(rows: DataFrame) -> list[str]:
    """Return how many students failed, and why the first of them did; nothing if none did."""
    reasons = rows["failure"].dropna()
    if not len(reasons):
        return []
    return [
        f"{len(reasons)} of {len(rows)} students failed and are part of no mean; rows.csv says why, of the first: "
        f"{reasons.iloc[0]}."
    ]


def _distillations(rows: DataFrame) -> int:
    """Return how many distillations the sources have at most; 0 if there are real images alone."""
    distilled = rows[~rows["kind"].isin(REAL_NAMES)]
    return max(distilled.groupby(["source", "ipc"])["source_hash"].nunique(), default=0)


def limits(rows: DataFrame, replicates: bool = False) -> list[str]:
    """Return what a table's intervals say of another distillation; nothing if it has none."""
    n = _distillations(rows)
    if n == 0 or (not replicates and rows["seed"].nunique() == 1):
        return []
    if not replicates:
        return ["Every ± is over student seeds of one distillation, so it says nothing about another distillation."]
    if n == 1:
        return [
            "With n = 1 distillation seed there is no interval, so nothing can be said about another distillation; ± "
            "of the accuracy of real images, which are not distilled, is over student seeds."
        ]
    if rows["seed"].nunique() == 1:
        return [
            "With one student seed ± is over distillation seeds alone, and what compares with real images has none, "
            "for one draw of them does not tell how much draws differ: more student seeds (evaluate.seeds) do."
        ]
    return [
        "Each distillation seed counts once, by the mean over its student seeds, and ± counts the chance of both, with "
        "the draws of real images; that of the accuracy of real images, which are not distilled, is over student seeds."
    ]


def _seeds(rows: DataFrame, replicates: bool) -> str:
    """Return n and the seeds that it counts."""
    students = f"student seed{'s' * (rows['seed'].nunique() > 1)} ({_listed(rows['seed'])})"
    n = _distillations(rows) if replicates else 0
    if n == 0:
        return f"n = {rows['seed'].nunique()} {students}"
    known = rows["distillation_seed"].dropna()
    seeds = _listed(known) or "unknown"
    among = "among " if known.nunique() > n else ""
    return f"n = {n} distillation seed{'s' * (n > 1)} ({among}{seeds}), each with {rows['seed'].nunique()} {students}"


def _listed(seeds: Series) -> str:
    return ", ".join(map(str, sorted(seeds.unique())))


def facts(rows: DataFrame, protocol: Protocol, replicates: bool = False) -> str:
    """Return n, seeds, recipe, labels and device in one line."""
    ceiling = rows["kind"] == CEILING
    students = rows if ceiling.all() else rows[~ceiling]
    epochs = ", ".join(f"{epochs:,}" for epochs in sorted(students["epochs"].unique()))
    others = sorted(set(rows["epochs"]) - set(students["epochs"]))
    more = "".join(f" ({epochs:,} on all real images)" for epochs in others)
    scored = rows[rows["protocol"] == protocol]
    labels = scored["label_kind"].unique()
    if len(labels) > 1:
        sources = rows.groupby("label_kind")["source"].unique()
        labels = [f"{kind} for {', '.join(sources[kind])}" for kind in labels]
    row = scored.iloc[0]
    return (
        f"{_seeds(rows, replicates)}, {row.total:,} test images; recipe {row.recipe}, "
        f"{epochs} epochs{more}, augmentation {row.augment}; labels: {'; '.join(labels)}; "
        f"{' and '.join(rows['precision'].unique())}; device: {', '.join(rows['device'].unique())}"
    )


def write_evaluation(folder: Path, rows: Sequence[Row], mixed: bool = False) -> list[Path]:
    """Write rows.csv, table.md and accuracy.png (a picture per recipe and precision) and return their paths."""
    sheet, markdown = folder / "rows.csv", folder / "table.md"
    table = statistics.frame(rows)
    write_csv(sheet, table)
    text = page("Evaluation", sections(rows, brief=False, mixed=mixed))
    write_atomically(markdown, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    paths, parts = [sheet, markdown], statistics.by_recipe(table, mixed)
    for part in parts:
        row = part.iloc[0]
        picture = folder / ("accuracy.png" if len(parts) == 1 else f"accuracy-{row.recipe_hash}-{row.precision}.png")
        facts_of_bars = f"Bars: mean; whiskers: 95 % t-interval; {facts(part, row.protocol)}."
        note = " ".join([facts_of_bars, *failures(part)])
        title = f"{row.dataset}: student accuracy on the test part"
        plots.draw_bars(picture, statistics.summarise(part), title, note)
        paths.append(picture)
    return paths

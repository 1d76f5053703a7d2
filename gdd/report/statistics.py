"""Statistics over seeds, and the tables and files that carry them; fixed and stream never share a column."""

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from rich.console import Group
from scipy import stats

from gdd.config import ConfigError
from gdd.evaluation import grid
from gdd.evaluation.row import Row
from gdd.evaluation.sources import CEILING, FLOOR, Kind, Protocol
from gdd.report import bars, tables
from gdd.report.tables import Section
from gdd.runtime.checkpoint import write_atomically

TITLES: dict[Protocol, str] = {
    "fixed": "fixed: exactly IPC stored images per class, the same every epoch",
    "stream": "stream: new samples every epoch, as many steps and images per step as fixed",
}


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, in percent (points for a difference).

    Args:
        mean: of the values.
        std: of the sample (n - 1); nan for one value.
        half_width: of the 95 % confidence interval by Student's t; nan for one value.
        n: values.
    """

    mean: float
    std: float
    half_width: float
    n: int


@dataclass(frozen=True)
class Summary:
    """One cell of a table: all seeds of one source, IPC, protocol and architecture."""

    source: str
    kind: Kind
    ipc: int | None
    protocol: Protocol
    arch: str
    seeds: tuple[int, ...]
    accuracy: Estimate
    first: Row


@dataclass(frozen=True)
class Difference:
    """One source minus another, paired by seed."""

    a: str
    b: str
    ipc: int | None
    protocol: Protocol
    arch: str
    points: Estimate


def estimate(values: Sequence[float]) -> Estimate:
    """Return mean, sample standard deviation and the half width of the 95 % t-interval."""
    n = len(values)
    if n < 2:
        return Estimate(values[0], math.nan, math.nan, n)
    std = statistics.stdev(values)
    return Estimate(statistics.fmean(values), std, float(stats.t.ppf(0.975, n - 1)) * std / math.sqrt(n), n)


def read_rows(folder: Path) -> list[Row]:
    """Return the rows of an evaluation's run folder; ConfigError if it has none."""
    rows = grid.read_rows(folder)
    if not rows:
        raise ConfigError(f"{folder} has no row in {grid.ROWS}; a run folder of evaluate.py was expected")
    return rows


def _by_recipe(rows: Iterable[Row]) -> list[list[Row]]:
    """Part rows that were trained under different conditions, for they do not compare.

    A folder may also hold one name's rows from before and after it was distilled anew, or the ceiling's of several
    numbers of epochs; hashes and epochs then tell them. Stored sets may share a name, each at its own IPC.
    """
    parts: dict[str, list[Row]] = {}
    for row in rows:
        parts.setdefault(row.recipe_hash, []).append(row)
    for part in parts.values():
        known = {(row.source, row.ipc, row.source_hash) for row in part}
        names = Counter((name, ipc) for name, ipc, _ in known)
        part[:] = [
            replace(row, source=f"{row.source} ({row.source_hash[:6]})") if names[row.source, row.ipc] > 1 else row
            for row in part
        ]
        if len({row.epochs for row in part if row.kind == CEILING}) > 1:
            part[:] = [
                replace(row, source=f"{row.source}, {row.epochs:,} epoch{'s' * (row.epochs > 1)}")
                if row.kind == CEILING
                else row
                for row in part
            ]
    return list(parts.values())


def summarise(rows: Sequence[Row]) -> list[Summary]:
    """Return a summary per source, IPC, protocol and architecture: floor first, ceiling last, else as given."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        key = (row.recipe_hash, row.epochs, row.source, row.source_hash, row.ipc, row.protocol, row.arch)
        groups.setdefault(key, []).append(row)
    summaries = [
        Summary(
            source=found[0].source,
            kind=found[0].kind,
            ipc=found[0].ipc,
            protocol=found[0].protocol,
            arch=found[0].arch,
            seeds=tuple(row.seed for row in found),
            accuracy=estimate([row.accuracy for row in found]),
            first=found[0],
        )
        for found in groups.values()
    ]
    place = {FLOOR: 0, CEILING: 2}
    return sorted(summaries, key=lambda summary: place.get(summary.kind, 1))


def by_line(rows: Sequence[Row]) -> tuple[dict[tuple[str, int | None], dict[str, Summary]], list[str], int]:
    """Return summaries by (source, IPC) and architecture, all architectures, and the most seeds of a cell."""
    lines: dict[tuple[str, int | None], dict[str, Summary]] = {}
    summaries = summarise(rows)
    for summary in summaries:
        lines.setdefault((summary.source, summary.ipc), {})[summary.arch] = summary
    archs = list(dict.fromkeys(row.arch for row in rows))
    return lines, archs, max(summary.accuracy.n for summary in summaries)


def differences(rows: Sequence[Row], a: str, b: str) -> list[Difference]:
    """Return source `a` minus source `b` for every IPC, protocol and architecture, over the seeds both have.

    A seed fixes the student's initialisation, order and augmentation and the generators' noise, so that the
    paired interval is narrower than one of two independent means.
    """
    found: dict[tuple[object, ...], dict[int, dict[str, Row]]] = {}
    for row in rows:
        if row.source in (a, b):
            cell = found.setdefault((row.recipe_hash, row.ipc, row.protocol, row.arch), {})
            cell.setdefault(row.seed, {})[row.source] = row
    result = []
    for seeds in found.values():
        pairs = [pair for pair in seeds.values() if len(pair) == 2]
        if pairs:
            first = pairs[0][a]
            points = estimate([pair[a].accuracy - pair[b].accuracy for pair in pairs])
            result.append(Difference(a, b, first.ipc, first.protocol, first.arch, points))
    return result


def refinement(rows: Sequence[Row]) -> list[Difference]:
    """Return every refined generator minus every pretrained one."""

    def names(stage: str) -> list[str]:
        return list(dict.fromkeys(row.source for row in rows if row.kind == "generator" and row.stage == stage))

    pairs = [(a, b) for a in names("refine") for b in names("pretrain") if a != b]
    return [difference for a, b in pairs for difference in differences(rows, a, b)]


def _sections(rows: Sequence[Row], brief: bool) -> list[Section]:
    """Return the sections of each recipe and protocol; `brief` leaves out what a terminal has no room for."""
    sections = []
    for part in _by_recipe(rows):
        for protocol in TITLES:
            if any(row.protocol == protocol for row in part):
                sections += [_section(part, protocol, brief), _difference_section(part, protocol)]
    return [section for section in sections if section is not None]


def _section(rows: Sequence[Row], protocol: Protocol, brief: bool) -> Section:
    shown = [row for row in rows if row.protocol == protocol or row.kind in (FLOOR, CEILING)]
    lines, archs, most = by_line(shown)
    body = []
    for cells in lines.values():
        first = next(iter(cells.values()))
        row = first.first
        line = [name_of(first, protocol), "all" if row.ipc is None else str(row.ipc)]
        line.append(f"{row.distinct_images_seen:,}")
        if not brief:
            line += [f"{row.bytes / 1024:,.1f}", f"{row.optimizer_steps:,}"]
        body.append(line + [_cell(cells[arch].accuracy, most, brief) if arch in cells else "" for arch in archs])
    headers = ["trained on", "IPC", "images seen", *([] if brief else ["KiB", "steps"]), *archs]
    first_row = next(row for row in shown if row.protocol == protocol)
    title = f"{first_row.dataset}, {TITLES[protocol]}"
    spread = "standard deviation" + ("" if brief else " (± half width of the 95 % t-interval)")
    return Section(title, notes(shown, protocol, spread, brief), headers, body)


def name_of(summary: Summary, protocol: Protocol) -> str:
    """Return a source's name in the table of a protocol; floor and ceiling say that they are, and are always fixed."""
    role = {FLOOR: "floor", CEILING: "ceiling"}.get(summary.kind)
    if role is None:
        return summary.source
    return f"{summary.source} ({role})" if protocol == "fixed" else f"{summary.source} ({role}, fixed)"


def _cell(accuracy: Estimate, most: int, brief: bool) -> str:
    text = f"{accuracy.mean:.1f}"
    if accuracy.n > 1:
        text += f" ± {accuracy.std:.1f}" + ("" if brief else f" (± {accuracy.half_width:.1f})")
    return text if accuracy.n == most else f"{text}, n = {accuracy.n}"


def notes(rows: Sequence[Row], protocol: Protocol, spread: str, brief: bool) -> list[str]:
    """Return what stands below a table: the scale, with what follows ± if there is more than one seed, and facts."""
    scale = "Test accuracy in percent after the last step"
    if len({row.seed for row in rows}) > 1:
        scale += f", mean ± {spread}"
    found = [f"{scale}; {facts(rows, protocol)}."]
    if not brief:
        found.append(
            "A seed sets the student and draws its set from a generator or from real data; a stored set stays the "
            "same, so its spread is that of students alone."
        )
        row = rows[0]
        library = ", ".join(f"{name} {version}" for name, version in row.versions.items())
        found.append(f"{library}; git {row.git_revision or 'unknown'}; recipe hash {row.recipe_hash}.")
    return found


def facts(rows: Sequence[Row], protocol: Protocol) -> str:
    """Return n, seeds, recipe, labels and device in one line."""
    seeds = sorted({row.seed for row in rows})
    students = [row for row in rows if row.kind != CEILING] or list(rows)
    epochs = ", ".join(f"{epochs:,}" for epochs in sorted({row.epochs for row in students}))
    ceiling = {row.epochs for row in rows if row.kind == CEILING} - {row.epochs for row in students}
    more = "".join(f" ({epochs:,} on all real images)" for epochs in sorted(ceiling))
    row = next(row for row in rows if row.protocol == protocol)
    taught = {row.label_kind: "" for row in rows if row.protocol == protocol}
    if len(taught) > 1:
        for kind in taught:
            taught[kind] = " for " + ", ".join(dict.fromkeys(row.source for row in rows if row.label_kind == kind))
    labels = "; ".join(kind + sources for kind, sources in taught.items())
    devices = ", ".join(dict.fromkeys(row.device for row in rows))
    return (
        f"n = {len(seeds)} (seeds {', '.join(map(str, seeds))}), {row.total:,} test images; recipe {row.recipe}, "
        f"{epochs} epochs{more}, augmentation {row.augment}; labels: {labels}; device: {devices}"
    )


_DIFFERENCES = "difference in points, paired by seed, ± half width of the 95 % t-interval"


def _difference_section(rows: Sequence[Row], protocol: Protocol) -> Section | None:
    """Return refined minus pretrained generators; none unless both are there."""
    found = refinement([row for row in rows if row.protocol == protocol])
    archs = list(dict.fromkeys(difference.arch for difference in found))
    lines: dict[tuple[object, ...], dict[str, Estimate]] = {}
    for difference in found:
        lines.setdefault((difference.a, difference.b, difference.ipc), {})[difference.arch] = difference.points
    if not lines:
        return None
    most = max(difference.points.n for difference in found)
    body = [
        [f"{a} − {b}", str(ipc), *(interval(cells[arch], most, "+") if arch in cells else "" for arch in archs)]
        for (a, b, ipc), cells in lines.items()
    ]
    headers = ["difference", "IPC", *archs]
    return Section(f"{rows[0].dataset}, {protocol}: {_DIFFERENCES}", [], headers, body)


def interval(found: Estimate, most: int, sign: Literal["", "+"] = "") -> str:
    """Return mean ± half width; `most` is the number of seeds that need not be told, `sign` + shows a plus."""
    text = f"{found.mean:{sign}.1f}" + (f" ± {found.half_width:.1f}" if found.n > 1 else "")
    return text if found.n == most else f"{text}, n = {found.n}"


def table(rows: Sequence[Row]) -> Group:
    """Return the tables for a terminal: fixed and stream apart, each with refined minus pretrained generators."""
    return tables.terminal(_sections(rows, brief=True))


def markdown(rows: Sequence[Row]) -> str:
    """Return the same tables as Markdown, with bytes, steps, intervals and library versions."""
    return tables.page("Evaluation", _sections(rows, brief=False))


def write(folder: Path, rows: Sequence[Row]) -> list[Path]:
    """Write rows.csv, table.md and accuracy.png (one picture per recipe) and return their paths."""
    if not rows:
        raise ConfigError(f"there is no row to report in {folder}")
    sheet, page = folder / "rows.csv", folder / "table.md"
    tables.write_csv(sheet, rows)
    write_atomically(page, lambda temporary: temporary.write_text(markdown(rows)))
    paths, parts = [sheet, page], _by_recipe(rows)
    for part in parts:
        name = "accuracy.png" if len(parts) == 1 else f"accuracy-{part[0].recipe_hash}.png"
        shown = [
            bars.Bar(s.source, s.kind, s.ipc, s.protocol, s.arch, s.accuracy.mean, s.accuracy.half_width)
            for s in summarise(part)
        ]
        note = f"Bars: mean; whiskers: 95 % t-interval; {facts(part, part[0].protocol)}."
        bars.draw(folder / name, shown, f"{part[0].dataset}: student accuracy on the test part", note)
        paths.append(folder / name)
    return paths

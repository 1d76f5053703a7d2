"""Methods beside each other: named, and their rows shown in one table per protocol and two pictures."""

import itertools
import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas
from pandas import DataFrame

from gdd.config import ConfigError, read_as
from gdd.evaluation import sources
from gdd.evaluation.row import Row
from gdd.evaluation.sources import FIXED_REAL, FLOOR, GENERATOR_NAMES, REAL_NAMES, Protocol, Source
from gdd.report import choice, plots, statistics, tables
from gdd.report.choice import Point
from gdd.report.replicates import differing, groups, run_of
from gdd.report.tables import Section
from gdd.runtime.checkpoint import read_json, write_atomically, write_json

logger = logging.getLogger(__name__)

TABLES = "compare.json"
BY_IPC, BY_SECONDS, BY_LABELS = "accuracy-ipc.png", "accuracy-seconds.png", "accuracy-labels.png"
PICTURES = (BY_IPC, BY_SECONDS, BY_LABELS)  # the last is that of a comparison within a budget


@dataclass(frozen=True)
class Compared:
    """One source of a comparison."""

    # Labelled by its method; sets of one method share their label, each at its own IPC, and so do replicates.
    source: Source
    line: str  # its name in pictures: for all snapshots of a run, that of the run's last set


def compared(named: Sequence[Source], replicates: bool = False) -> list[Compared]:
    """Label the sources by their methods, in the given order; the floor comes last unless it was named.

    If wanted, `replicates` stand together under one label, which tells the settings where they differ in a method.

    Raises:
        ConfigError: there is nothing but the floor, or a replicate has the seed of another.
    """
    distinct: dict[tuple[str, str], Source] = {}
    for source in named:
        first = distinct.setdefault((source.kind, source.hash), source)
        if first is not source:
            logger.info("compare: %s is the same %s as %s and is scored once", source.label, source.kind, first.label)
    if all(source.kind == FLOOR for source in distinct.values()):
        raise ConfigError(f"there is nothing to compare with {FLOOR}, which is always there; name another source")
    by_run = groups([*distinct.values()]) if replicates else [[source] for source in distinct.values()]
    firsts = [group[0] for group in by_run]
    ends = {first.label: _end(first, firsts, run_of if replicates else _run) for first in firsts}
    last = [first for first in firsts if ends[first.label] is first]
    names = _names(last, replicates)
    lines = {end.label: _line(end, last, names) for end in last}
    labelled = []
    for first, group in zip(firsts, by_run, strict=True):
        line = lines[ends[first.label].label]
        snapshot = ends[first.label] is not first or _unfinished(first)
        label = f"{line}, iteration {first.provenance['iterations']}" if snapshot else line
        labelled += [Compared(replace(source, label=label), line) for source in group]
    if FLOOR not in [source.kind for source in firsts]:
        labelled.append(Compared(sources.read(FLOOR, REAL_NAMES[FLOOR]), REAL_NAMES[FLOOR]))
    return labelled


def _unfinished(source: Source) -> bool:
    """Tell whether a set is an early one of its run, whose end need not be compared."""
    planned = source.provenance.get("config", {}).get("matching", {}).get("iterations", 0)
    return planned > source.provenance.get("iterations", planned)


def _run(source: Source) -> Hashable:
    """Return what is equal for the sets of one run."""
    run = source.stored_ipc, source.provenance.get("fingerprint")
    return source.hash if None in run else run


def _end(source: Source, sources: Sequence[Source], run: Callable[[Source], Hashable]) -> Source:
    """Return the latest set of the run that a source is a snapshot of, or the source itself."""
    if "iterations" not in source.provenance:
        return source
    same = [other for other in sources if run(other) == run(source) and "iterations" in other.provenance]
    return max(same, key=lambda other: other.provenance["iterations"])


def _names(sources: Sequence[Source], replicates: bool) -> dict[str, str]:
    """Return the method's name by label; for `replicates` also the settings in which its sources differ."""
    methods = {source.label: _method(source) for source in sources}
    if not replicates:
        return methods
    arms = {method: [source for source in sources if methods[source.label] == method] for method in methods.values()}
    return {source.label: method + differing(source, arms[method]) for method in arms for source in arms[method]}


def _line(source: Source, others: Sequence[Source], names: dict[str, str]) -> str:
    """Return the source's name; add its path if another source of that name has the same IPC."""
    name = names[source.label]
    rivals = [
        other
        for other in others
        if other is not source
        and names[other.label] == name
        and (other.stored_ipc == source.stored_ipc or None in (other.stored_ipc, source.stored_ipc))
    ]
    place = _place(source, rivals) if rivals else ""
    return f"{name} ({place})" if place else name


def _method(source: Source) -> str:
    if source.fraction is not None:
        return f"{100 * source.fraction:g} % of real"
    if source.kind in REAL_NAMES:
        return REAL_NAMES[source.kind]
    generator = sources.generator_name(source.provenance)
    if generator is not None:
        if source.kind == "generator":
            return f"{generator}, filtered" if source.ensemble is not None else generator
        return ", ".join([f"samples of {generator}", *source.curation])
    return ", ".join([str(source.provenance.get("method") or Path(source.label).stem), *source.curation])


def _place(source: Source, others: Sequence[Source]) -> str:
    """Return the part of a file's path that tells it from the others'."""
    paths = [named.path.resolve().with_suffix("").parts for named in (source, *others) if named.path is not None]
    begin = _alike(paths)
    end = _alike([parts[begin:][::-1] for parts in paths])
    return "/".join(paths[0][begin : len(paths[0]) - end])


def _alike(paths: Sequence[tuple[str, ...]]) -> int:
    """Count the leading parts that all paths share."""
    return sum(1 for _ in itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False)))


def comparison_sections(rows: Sequence[Row], reference: str, brief: bool, replicates: bool = False) -> list[Section]:
    """Return a table per protocol, each source's difference to `reference` in it.

    `brief`, for a terminal, writes differences below accuracies instead of beside them. Of `replicates`, rows of one
    source, intervals are over the seeds of distillations and students.
    """
    table = statistics.frame(rows)
    is_reference = table["source"] == reference
    gains = statistics.differences(table[~is_reference], table[is_reference], replicates)
    return [
        section
        for protocol in tables.TITLES
        if (table["protocol"] == protocol).any()
        for section in (
            _section(table, protocol, reference, gains[gains["protocol"] == protocol], brief, replicates),
            *tables.share_sections(table, protocol, replicates),
        )
    ]


def _section(
    rows: DataFrame, protocol: Protocol, reference: str, gains: DataFrame, brief: bool, replicates: bool
) -> Section:
    scored = rows["protocol"] == protocol
    ipcs = {*rows["ipc"][scored], None}
    shown = rows[scored | (rows["kind"].isin(FIXED_REAL) & rows["ipc"].isin(ipcs))]
    summary = statistics.summarise(shown, replicates).sort_values("ipc", kind="stable")
    distilled = summary[~summary["kind"].isin(REAL_NAMES)]
    counted = distilled if replicates and not distilled.empty else summary
    archs, most = shown["arch"].unique(), tables.most_seeds(counted["accuracy"])
    compares = not gains.empty
    key = ["source", "ipc", "arch"]
    summary = summary.merge(gains[[*key, "points"]], on=key, how="left")
    summary["score"] = [tables.interval(accuracy, most) for accuracy in summary["accuracy"]]
    summary["gain"] = [
        "" if pandas.isna(points) else tables.interval(points, most, "+") for points in summary["points"]
    ]
    if brief:
        summary["score"] = (summary["score"] + "\n" + summary["gain"]).str.rstrip()
    kinds = ["score", "gain"] if compares and not brief else ["score"]
    lines, teachers = [], statistics.teachers(shown)
    for _, cells in summary.groupby(["source", "ipc"], sort=False, dropna=False):
        first = cells.iloc[0]
        scores = cells.set_index("arch")[kinds].reindex(archs, fill_value="").to_numpy().flat
        costs = [f"{first.bytes / 1024:,.1f}", _seconds(first.generator_seconds), _seconds_of_another(first, rows)]
        costs = [*tables.teacher_of(first, teachers), *costs, f"{first.distinct_images_seen:,}"]
        lines.append([*tables.name_and_ipc(first, protocol), *scores, *costs])
    heads = [arch + ending for arch in archs for ending in ("", ": difference")[: len(kinds)]]
    teacher_head = ["teacher"] if teachers else []
    cost_heads = [*teacher_head, "KiB", "seconds to distil", "seconds for another IPC", "images seen"]
    notes = tables.notes(shown, protocol, tables.spread(replicates), brief, replicates)
    if compares:
        where = "Below an accuracy" if brief else "Difference"
        paired = "by the seeds of distillation and student" if replicates else "by seed"
        notes.insert(1, f"{where}: points more than {reference} at the same IPC, paired {paired}, ± half width.")
    notes.append("Seconds for another IPC: to draw it from a generator, or (anew) to distil a stored set again.")
    title = f"{rows['dataset'].iloc[0]}, {tables.TITLES[protocol]}"
    return Section(title, notes, ["method", "IPC", *heads, *cost_heads], lines, cost_heads)


def _seconds(value: float | None) -> str:
    if value is None or pandas.isna(value):
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _seconds_of_another(row: Row, rows: DataFrame) -> str:
    """Return what a set of another IPC costs: nothing, drawing it, or distilling anew."""
    if row.kind == FLOOR:
        return "0"
    if row.kind == "generator":
        # Students of one seed share a set, whose drawing stands in the row of the first.
        fixed = (rows["source"] == row.source) & (rows["ipc"] == row.ipc) & (rows["protocol"] == "fixed")
        return _seconds(rows["seconds_generating"][fixed].max())
    seconds, optimised = _seconds(row.generator_seconds), row.kind == "set" and row.stage not in GENERATOR_NAMES
    return f"anew: {seconds}" if seconds and optimised else ""


def write_comparison(
    folder: Path,
    rows: Sequence[Row],
    shown: Sequence[Compared],
    command: str | None,
    marks: Sequence[float],
    replicates: bool = False,
    more: Sequence[Section] = (),
) -> list[Path]:
    """Write rows.csv, compare.md and .json, accuracy-ipc.png and, if a source knows its seconds, accuracy-seconds.png.

    The first of `shown` is what the others are compared with; `marks`, accuracies in percent, are dotted lines. Of
    `replicates` intervals are over the seeds of distillations and students. What has no student but
    failed ones is in no picture, and a picture of nothing is not drawn. The tables of `more` stand below the others.
    The page tells the `command` that wrote it.
    """
    shown_sections = [*comparison_sections(rows, shown[0].source.label, brief=False, replicates=replicates), *more]
    table, by_ipc, by_seconds = statistics.frame(rows), folder / BY_IPC, folder / BY_SECONDS
    points = statistics.summarise(table, replicates)
    # Ceilings that are added to what is shown stand for themselves.
    lines = {compared.source.label: compared.line for compared in shown}
    points["line"] = points["source"].map(lines).fillna(points["source"])
    points["snapshot"] = points["line"] != points["source"]
    points = points[[accuracy.n > 0 for accuracy in points["accuracy"]]]
    made = choice.distilled([(one.source.label, one.source) for one in shown])
    written = write_tables(folder, table, shown_sections, choice.points(points, made, command))
    title = f"{rows[0].dataset}: student accuracy on the test part"
    facts = " ".join(
        [
            f"Markers: mean; whiskers: 95 % interval; {tables.facts(table, rows[0].protocol, replicates)}.",
            *tables.failures(table),
        ]
    )
    drawn = plots.draw_ipc(by_ipc, points, title, facts)
    timed = plots.draw_seconds(by_seconds, points, marks, title, f"Numbers at markers and lines: IPC. {facts}")
    return [*written, *([by_ipc] if drawn else []), *([by_seconds] if timed else [])]


def write_tables(folder: Path, rows: DataFrame, shown: Sequence[Section], points: Sequence[Point]) -> list[Path]:
    """Write rows.csv, compare.md and .json, and remove the pictures of an earlier comparison in the folder."""
    text = tables.page("Comparison", shown)
    sheet, page, data = (folder / name for name in ("rows.csv", "compare.md", TABLES))
    tables.write_csv(sheet, rows)
    write_atomically(page, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    write_json(data, {"sections": [*map(asdict, shown)], "points": [*map(asdict, points)]})
    for name in PICTURES:
        (folder / name).unlink(missing_ok=True)
    return [sheet, page, data]


def read_sections(folder: Path) -> list[Section]:
    """Return the tables that `write_comparison` has written; ConfigError if they are damaged.

    The rows alone do not say what was compared with what.
    """
    path = folder / TABLES
    return read_as(list[Section], read_json(path).get("sections"), str(path))


def read_points(folder: Path) -> list[Point]:
    """Return the points that `write_comparison` has written, none if it was of an older version.

    Raises:
        ConfigError: they are damaged.
    """
    path = folder / TABLES
    return read_as(list[Point], read_json(path).get("points", []), str(path))

"""Methods beside each other: named, and their rows shown in one table per protocol and two pictures."""

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gdd.config import ConfigError
from gdd.evaluation.row import Row
from gdd.evaluation.sources import CEILING, FLOOR, Protocol, Source, file_of
from gdd.report import curves, statistics, tables
from gdd.report.statistics import Estimate
from gdd.report.tables import Section
from gdd.runtime.checkpoint import write_atomically

logger = logging.getLogger(__name__)

_REAL = {FLOOR: "random real", CEILING: "all real"}
_GENERATORS = {"refine": "SKD", "pretrain": "stage-1"}


@dataclass(frozen=True)
class ComparedSource:
    """One source of a comparison.

    Args:
        label: its name in tables; sets of one method share it, each at its own IPC.
        text: what opens it.
        line: its name in pictures; the snapshots of a run share its end's.
    """

    label: str
    text: str
    line: str


def compared_sources(named: Sequence[Source]) -> list[ComparedSource]:
    """Name what is compared, in the given order; the floor comes last unless it was named.

    Raises:
        ConfigError: there is no source but the floor.
    """
    opened: dict[tuple[str, str], Source] = {}
    for source in named:
        first = opened.setdefault((source.kind, source.hash), source)
        if first is not source:
            logger.info("compare: %s is the same %s as %s and is scored once", source.label, source.kind, first.label)
    sources = list(opened.values())
    if all(source.kind == FLOOR for source in sources):
        raise ConfigError(f"there is nothing to compare with {FLOOR}, which is always there; name another source")
    ends = {source.label: _end(source, sources) for source in sources}
    lines = {end.label: _line(end, list(ends.values())) for end in ends.values()}
    found = []
    for source in sources:
        line = lines[ends[source.label].label]
        snapshot = ends[source.label] is not source or _unfinished(source)
        label = f"{line}, iteration {source.provenance['iterations']}" if snapshot else line
        found.append(ComparedSource(label, source.label, line))
    if FLOOR not in [source.kind for source in sources]:
        found.append(ComparedSource(_REAL[FLOOR], FLOOR, _REAL[FLOOR]))
    return found


def _unfinished(source: Source) -> bool:
    """Tell whether a set is an early one of its run, whose end need not be compared."""
    planned = source.provenance.get("config", {}).get("match", {}).get("iterations", 0)
    return planned > source.provenance.get("iterations", planned)


def _end(source: Source, sources: Sequence[Source]) -> Source:
    """Return the latest set of the run that a source is a snapshot of, or the source itself."""

    def run(one: Source) -> tuple[object, ...]:
        return one.stored_ipc, one.provenance.get("fingerprint")

    if None in run(source) or "iterations" not in source.provenance:
        return source
    same = [other for other in sources if run(other) == run(source) and "iterations" in other.provenance]
    return max(same, key=lambda other: other.provenance["iterations"])


def _line(source: Source, others: Sequence[Source]) -> str:
    """Return the method's name, and where its file lies if another source of the method has the same IPC."""
    method = _method(source)
    rivals = [
        other
        for other in others
        if other is not source
        and _method(other) == method
        and (other.stored_ipc == source.stored_ipc or None in (other.stored_ipc, source.stored_ipc))
    ]
    place = _place(source.label, [other.label for other in rivals]) if rivals else ""
    return f"{method} ({place})" if place else method


def _method(source: Source) -> str:
    if source.kind in _REAL:
        return _REAL[source.kind]
    stage = _GENERATORS.get(str(source.provenance.get("stage")))
    if stage is not None:
        return f"{stage} {'generator' if source.kind == 'generator' else 'samples'}"
    return str(source.provenance.get("method") or Path(source.label).stem)


def _place(text: str, others: Sequence[str]) -> str:
    """Return what is left of a path without the beginning and the end that it shares with all others."""
    paths = [file_of(one).resolve().with_suffix("").parts for one in (text, *others)]
    begin = _alike(paths)
    end = _alike([parts[begin:][::-1] for parts in paths])
    return "/".join(paths[0][begin : len(paths[0]) - end])


def _alike(paths: Sequence[tuple[str, ...]]) -> int:
    """Return how many parts at their beginning all paths share."""
    return sum(1 for _ in itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False)))


def sections(rows: Sequence[Row], reference: str, brief: bool) -> list[Section]:
    """Return a table per protocol; `brief` writes differences below accuracies instead of beside them.

    Args:
        rows: of one evaluation.
        reference: the source that the others are compared with.
        brief: for a terminal.
    """
    names = dict.fromkeys(row.source for row in rows if row.source != reference)
    gains = {
        (found.a, found.ipc, found.protocol, found.arch): found.points
        for name in names
        for found in statistics.differences(rows, name, reference)
    }
    return [
        _section(rows, protocol, reference, gains, brief)
        for protocol in statistics.TITLES
        if any(row.protocol == protocol for row in rows)
    ]


def _section(
    rows: Sequence[Row],
    protocol: Protocol,
    reference: str,
    gains: dict[tuple[str, int | None, Protocol, str], Estimate],
    brief: bool,
) -> Section:
    compares = any(found == protocol for _, _, found, _ in gains)
    scored = {row.ipc for row in rows if row.protocol == protocol} | {None}
    shown = [row for row in rows if row.protocol == protocol or (row.kind in _REAL and row.ipc in scored)]
    lines, archs, most = statistics.by_line(shown)
    body = []
    for (name, ipc), cells in sorted(lines.items(), key=lambda line: line[0][1] or float("inf")):
        first = next(iter(cells.values()))
        row = first.first
        scores = []
        for arch in archs:
            accuracy = statistics.interval(cells[arch].accuracy, most) if arch in cells else ""
            gain = gains.get((name, ipc, protocol, arch))
            pair = [accuracy, "" if gain is None else statistics.interval(gain, most, "+")]
            scores += ["\n".join(filter(None, pair))] if brief else pair[: 1 + compares]
        costs = [f"{row.bytes / 1024:,.1f}", _seconds(row.generator_seconds), _seconds_of_another(row, rows)]
        place = [statistics.name_of(first, protocol), "all" if ipc is None else str(ipc)]
        body.append([*place, *scores, *costs, f"{row.distinct_images_seen:,}"])
    heads = [head for arch in archs for head in (arch, f"{arch}: difference")] if compares and not brief else archs
    headers = ["method", "IPC", *heads, "KiB", "seconds to distil", "seconds for another IPC", "images seen"]
    notes = statistics.notes(shown, protocol, "half width of the 95 % t-interval", brief)
    if compares:
        where = "Below an accuracy" if brief else "Difference"
        notes.insert(1, f"{where}: points more than {reference} at the same IPC, paired by seed, ± half width.")
    notes.append("Seconds for another IPC: to draw it from a generator, or (anew) to distil a stored set again.")
    title = f"{shown[0].dataset}, {statistics.TITLES[protocol]}"
    return Section(title, notes, headers, body)


def _seconds(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _seconds_of_another(row: Row, rows: Sequence[Row]) -> str:
    """Return what a set of another IPC takes: nothing, the drawing of this one, or to distil again."""
    if row.kind == FLOOR:
        return "0"
    if row.kind == "generator":
        # Students of one seed share a set, and the first of them was billed for it.
        alike = [other for other in rows if (other.source, other.ipc, other.protocol) == (row.source, row.ipc, "fixed")]
        return _seconds(max((other.seconds_generating for other in alike), default=None))
    optimised = row.kind == "set" and row.stage not in _GENERATORS and row.generator_seconds is not None
    return f"anew: {_seconds(row.generator_seconds)}" if optimised else ""


def write(folder: Path, rows: Sequence[Row], compared: Sequence[ComparedSource], marks: Sequence[float]) -> list[Path]:
    """Write rows.csv, compare.md, accuracy-ipc.png and, if any source knows its seconds, accuracy-seconds.png.

    Args:
        folder: to write to.
        rows: of one evaluation.
        compared: its sources; the others are compared with the first.
        marks: accuracies in percent that the second picture shows as dotted lines.
    """
    text = tables.page("Comparison", sections(rows, compared[0].label, brief=False))
    sheet, page, by_ipc, by_seconds = (
        folder / name for name in ("rows.csv", "compare.md", "accuracy-ipc.png", "accuracy-seconds.png")
    )
    tables.write_csv(sheet, rows)
    write_atomically(page, lambda temporary: temporary.write_text(text))
    lines = {compared.label: compared.line for compared in compared}
    points = [
        curves.Point(
            line=lines[s.source],
            kind=s.kind,
            ipc=s.ipc,
            protocol=s.protocol,
            arch=s.arch,
            mean=s.accuracy.mean,
            half_width=s.accuracy.half_width,
            seconds=s.first.generator_seconds,
            snapshot=lines[s.source] != s.source,
        )
        for s in statistics.summarise(rows)
    ]
    title = f"{rows[0].dataset}: student accuracy on the test part"
    facts = f"Markers: mean; whiskers: 95 % t-interval; {statistics.facts(rows, rows[0].protocol)}."
    curves.draw_ipc(by_ipc, points, title, facts)
    timed = curves.draw_seconds(by_seconds, points, marks, title, f"Numbers at markers and lines: IPC. {facts}")
    return [sheet, page, by_ipc, *([by_seconds] if timed else [])]

"""A comparison of equal bytes: its tables and its picture, hard and soft labels apart."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from pandas import DataFrame

from gdd.evaluation.equal_bytes import SOFT, samples_label
from gdd.evaluation.row import Row
from gdd.evaluation.sources import FLOOR, Protocol, Source
from gdd.report import choice, plots, statistics, tables
from gdd.report.compare import BY_LABELS, write_tables
from gdd.report.tables import Section

_HEADERS = ("trained on", "IPC", "bytes", "steps")


def budget_sections(
    rows: Sequence[Row], allowance: str, remarks: Sequence[str], brief: bool, replicates: bool = False
) -> list[Section]:
    """Return a table for each kind of labels, and one for streams.

    Args:
        rows: of the comparison.
        allowance: the budget in words.
        remarks: notes below the tables.
        brief: for a terminal, with fewer notes.
        replicates: whether intervals are over distillations and students.
    """
    return [
        _section(group, f"{group['dataset'].iloc[0]}, {title} within {allowance}", protocol, remarks, brief, replicates)
        for title, protocol, group in _groups(statistics.frame(rows))
    ]


def _groups(rows: DataFrame) -> Iterator[tuple[str, Protocol, DataFrame]]:
    """Yield what is compared with each other: of one kind of labels and one protocol, beside fixed random images."""
    soft = rows["label_kind"].str.startswith("stored soft")
    for labels, has_them in (("hard labels", ~soft), ("soft labels", soft)):
        for protocol in tables.TITLES:
            scored = rows["protocol"] == protocol
            if (has_them & scored).any():
                title = labels if protocol == "fixed" else f"{labels}, streamed,"
                yield title, protocol, rows[has_them & (scored | (rows["kind"] == FLOOR))]


def _section(
    rows: DataFrame, title: str, protocol: Protocol, remarks: Sequence[str], brief: bool, replicates: bool
) -> Section:
    summary = statistics.summarise(rows, replicates)
    archs, most = rows["arch"].unique(), tables.most_seeds(summary["accuracy"])
    summary["score"] = [tables.interval(accuracy, most) for accuracy in summary["accuracy"]]
    lines = []
    for _, cells in summary.groupby(["source", "ipc"], sort=False):
        first = cells.iloc[0]
        scores = cells.set_index("arch")["score"].reindex(archs, fill_value="")
        costs = [f"{first.bytes:,}", f"{first.optimizer_steps:,}"]
        lines.append([*tables.name_and_ipc(first, protocol), *costs, *scores])
    notes = tables.notes(rows, protocol, tables.spread(replicates), brief, replicates)
    return Section(title, [*notes, *remarks], [*_HEADERS, *archs], lines, ["steps"])


def write_budget(
    folder: Path,
    rows: Sequence[Row],
    allowance: str,
    remarks: Sequence[str],
    named: Sequence[Source],
    command: str | None,
    replicates: bool = False,
    more: Sequence[Section] = (),
) -> list[Path]:
    """Write what `compare.write_comparison` does, but for its pictures: accuracy-labels.png stands in their place."""
    table, picture = statistics.frame(rows), folder / BY_LABELS
    shown = [*budget_sections(rows, allowance, remarks, brief=False, replicates=replicates), *more]
    cells = statistics.summarise(table, replicates)
    cells = cells.assign(line=cells["source"])[[accuracy.n > 0 for accuracy in cells["accuracy"]]]
    labels = [(source.label, *(samples_label(source.label, soft) for soft in (False, True))) for source in named]
    made = choice.distilled([(label, one) for one, own in zip(named, labels, strict=True) for label in own])
    written = write_tables(folder, table, shown, choice.points(cells, made, command))
    groups = []
    for title, _, group in _groups(table):
        bars = statistics.summarise(group, replicates)
        groups.append((title, bars.assign(source=bars["source"].str.removesuffix(SOFT))))
    facts = tables.facts(table.assign(label_kind="as above each panel"), rows[0].protocol, replicates)
    note = " ".join([f"Bars: mean; whiskers: 95 % interval; {facts}.", *remarks, *tables.failures(table)])
    plots.draw_groups(picture, groups, f"{rows[0].dataset}: test accuracy within {allowance}", note)
    return [*written, picture]

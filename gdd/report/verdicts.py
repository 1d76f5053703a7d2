"""What gdd's students say of published numbers: whether they come out, and by how much they do not."""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from gdd.published import DATASETS, Cell, Key, Paper, Student
from gdd.report.intervals import Estimate, estimate
from gdd.report.tables import Section

Verdict = Literal["confirmed", "as released only", "refuted", "undecided", "not run"]
VERDICTS: tuple[Verdict, ...] = ("confirmed", "as released only", "refuted", "undecided", "not run")
# A published value this near to our mean counts as the same, in points, however narrow the interval is.
NEAR = 1.0
# An interval of a larger half width confirms whatever is published: it decides nothing.
WIDEST = 3.0
_WHY = "known cause, or what it takes"

RULE = (
    f"confirmed: the published value lies in the 95 % interval of our students' mean (Student's t) or within {NEAR:g} "
    "point of it, trained as the paper's text says; as released only: not so, but as the released code trains them, or "
    "no text tells of the number, which stands in a log of that code; "
    f"refuted: neither; undecided: the interval is wider than {WIDEST:g} points to either side; not run: students are "
    "missing. n is the number of students, each of a seed of its own, all of one set: the interval knows nothing of "
    "another distillation, nor of the chance in the published mean."
)
AS_RELEASED = (
    "As released, the best mean of several ways counts, as its authors chose it, and a student that diverged counts as "
    "chance, as their code counts it; elsewhere it has no accuracy and is part of no mean."
)


@dataclass(frozen=True)
class Judged:
    """A published number and what became of it."""

    cell: Cell
    equation: Estimate | None  # as the paper says; none unless all students are there
    released: Estimate | None  # as the released code does
    verdict: Verdict

    @property
    def counts(self) -> Estimate | None:
        """The mean that stands beside the published one: the one by which it is confirmed, else the equation's."""
        return self.released if self.verdict == "as released only" or not self.cell.row.ways else self.equation


def confirms(ours: Estimate, cell: Cell) -> bool:
    """Tell whether a published value lies in our interval, or near our mean; one without values confirms nothing."""
    width = max(NEAR, ours.half_width if ours.n > 1 else 0.0)
    return cell.published - width <= ours.mean <= cell.highest + width


def judge(cell: Cell, students: Mapping[Key, Student]) -> Judged:
    """Judge one published number by the students that there are."""
    equation = _best(cell.equation, students, None)
    released = _best(cell.released, students, DATASETS[cell.dataset].chance)
    verdict: Verdict = "refuted"
    if cell.row.set is None or (cell.equation and equation is None):
        verdict = "not run"
    elif equation is not None and not decides(equation):
        verdict = "undecided"
    elif equation is not None and confirms(equation, cell):
        verdict = "confirmed"
    elif cell.released and released is None:
        verdict = "not run"
    elif released is not None and not decides(released):
        verdict = "undecided"
    elif released is not None and confirms(released, cell):
        verdict = "as released only"
    return Judged(cell, equation, released, verdict)


def decides(ours: Estimate) -> bool:
    """Tell whether a mean is known well enough to judge by; that all students failed is known."""
    return ours.n <= 1 or ours.half_width <= WIDEST


def missing(cells: Iterable[Cell], students: Mapping[Key, Student], released: bool) -> list[Key]:
    """Return the students that numbers still take, each once: those of the paper's text, or of its released code.

    The released code is asked of numbers alone that the text does not confirm.
    """
    wanted: dict[Key, None] = {}
    for cell in cells:
        if not released:
            wanted |= dict.fromkeys(cell.equation)
        elif judge(cell, students).verdict not in ("confirmed", "undecided"):
            wanted |= dict.fromkeys(cell.released)
    return [key for key in wanted if key not in students]


def _best(keys: Sequence[Key], students: Mapping[Key, Student], failed: float | None) -> Estimate | None:
    """Return the highest mean of several ways, in which a student that failed counts as `failed`."""
    if not keys or any(key not in students for key in keys):
        return None
    scores: dict[str, list[float | None]] = {}
    for key in keys:
        student = students[key]
        scores.setdefault(key.way, []).append(failed if student.failed else student.accuracy)
    return max(map(estimate, scores.values()), key=lambda one: (one.n > 0, one.mean))


def tally(judged: Sequence[Judged]) -> str:
    """Say how many numbers have which verdict."""
    counts = Counter(one.verdict for one in judged)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])


def overview(judged: Sequence[Judged], takes: Mapping[tuple[str, str, int], str]) -> Section:
    """Return a line per row of the published tables: its verdicts, and what its missing students would take here.

    Args:
        judged: cells, those of a row one after the other.
        takes: by `line_of`; a row that is not there may need more than students.
    """
    lines = []
    for line, of_line in itertools.groupby(judged, lambda one: line_of(one.cell)):
        of_row = [*of_line]
        first = of_row[0].cell
        name, *sizes = _row(first)
        needed = takes.get(line) or (first.row.needs or "").partition(":")[0]
        lines.append([f"{first.paper}/{first.table}: {name}", *sizes, tally(of_row).replace(", ", "\n"), needed])
    return Section("published numbers", [RULE], ["table and row", "IPC", "iterations", "verdicts", "takes"], lines)


def line_of(cell: Cell) -> tuple[str, str, int]:
    """Return what tells the rows of all tables apart."""
    return cell.paper, cell.table, cell.place


def numbers_section(title: str, judged: Sequence[Judged], paper: Paper) -> Section:
    """Return a line per published number of a table."""
    lines = []
    for one in judged:
        cell, ours = one.cell, one.counts
        published = f"{cell.published:.2f}" + ("" if cell.row.up_to is None else f" to {cell.highest:.2f}")
        published += "" if cell.spread is None else f" (std {cell.spread:.2f})"
        lines.append(
            [
                *_row(cell),
                *(cell.student, published),
                *(_shown(one.equation) if cell.row.ways else "-", _shown(one.released) if cell.released else "-"),
                "" if ours is None or not ours.n else f"{_difference(ours, cell):+.2f}",
                one.verdict,
                _why(one, paper),
            ]
        )
    headers = ["row", "IPC", "iterations", "student", "published", "ours", "as released", "ours - published"]
    optional = ["as released", "ours - published", _WHY]
    return Section(title, [RULE, AS_RELEASED], [*headers, "verdict", _WHY], lines, optional)


def summary_section(judged: Iterable[Judged]) -> Section:
    """Return a line per published table: how many of its numbers have which verdict, and a last line of all."""
    counts: dict[str, Counter[Verdict]] = {}
    for one in judged:
        counts.setdefault(f"{one.cell.paper}, {one.cell.table}", Counter())[one.verdict] += 1
    counts["all"] = sum(counts.values(), Counter[Verdict]())
    lines = [
        [name, str(of_table.total()), *(str(of_table[verdict] or "") for verdict in VERDICTS)]
        for name, of_table in counts.items()
    ]
    return Section("numbers by verdict", [], ["table", "numbers", *VERDICTS], lines)


def waiting_section(title: str, judged: Iterable[Judged], paper: Paper) -> Section:
    """Return a line per row with numbers that are not run: whose, and what they take."""
    students: dict[tuple[str, ...], list[str]] = {}
    for one in judged:
        if one.verdict == "not run":
            students.setdefault((*_row(one.cell), _why(one, paper)), []).append(one.cell.student)
    lines = [[*row, ", ".join(whose), why] for (*row, why), whose in students.items()]
    return Section(title, [], ["row", "IPC", "iterations", "students", "what it takes"], lines)


def _difference(ours: Estimate, cell: Cell) -> float:
    """Return our mean minus the published value, of a range the nearest."""
    return ours.mean - min(max(ours.mean, cell.published), cell.highest)


def _row(cell: Cell) -> list[str]:
    iterations = "" if cell.row.iterations is None else f"{cell.row.iterations:,}"
    return [cell.row.name, str(cell.row.ipc), iterations]


def _shown(value: Estimate | None) -> str:
    if value is None:
        return "not run"
    if not value.n:
        return f"all {value.failed} failed"
    width = "" if math.isnan(value.half_width) else f" ± {value.half_width:.2f}"
    failed = f", {value.failed} failed" if value.failed else ""
    return f"{value.mean:.2f}{width} (n {value.n}{failed})"


def _why(one: Judged, paper: Paper) -> str:
    """Return the known cause of a number that does not come out, or what it would take."""
    if one.verdict == "confirmed":
        return ""
    if one.verdict == "not run" and one.cell.row.set in paper.made:
        made = paper.made[one.cell.row.set]
        return f"{made.takes}: {made.command}"
    if one.verdict == "not run":
        return one.cell.row.needs or "students alone; the set is published"
    if one.verdict == "refuted":
        asked_twice = one.cell.row.ways and one.cell.released
        return "not known" + (": as released it does not come out either" if asked_twice else "")
    return "" if one.cell.row.cause is None or one.verdict != "as released only" else paper.causes[one.cell.row.cause]

"""Keep the students of runs of `gdd reproduce`, and write docs/verdicts.md: what became of published numbers.

    python benchmarks/verdicts.py runs/reproduce/reproduce

Of several rows of one student the first counts, those that are kept before all others.
"""

import sys
from pathlib import Path

from gdd import published
from gdd.evaluation import grid
from gdd.pipeline import reproduce
from gdd.published import Key, Paper, Student
from gdd.report import verdicts
from gdd.report.tables import markdown
from gdd.report.verdicts import Judged

PAGE = Path(__file__).parents[1] / "docs/verdicts.md"
INTRODUCTION = """# Published numbers, and whether they come out

What papers of this field publish, beside what gdd's students reach on the very sets that the authors published, or on
sets that gdd distils. `uv run gdd reproduce` lists all of it, with what is missing and what that would take on your
machine; `uv run gdd reproduce 2402.13007/table4 --ipc 1 --student mlp` trains what is missing of some numbers and
judges them. The authors' files are theirs: put them in `data/published`, or name their folder by `--files`; gdd knows
their checksums.

{summary}

{rule}

{as_released}

Students are trained by the recipe that the paper names; the test images are read once, after the last step. Each line
below is made from rows in `gdd/published` by `python benchmarks/verdicts.py`, and a test holds that it is what they
give. Numbers of one paper are not independent: a log and two tables ask the same students. And where only the interval
decided, one true number in twenty would be refuted by chance.
"""


def keep(folders: list[Path]) -> None:
    """Add the students of run folders to those that are kept."""
    rows = [row for folder in folders for row in grid.read_rows(folder)]
    for number, paper in published.papers().items():
        known = {one.key: one for one in reversed([*published.students(number), *reproduce.students_of(paper, rows)])}
        if known:
            published.write_students(published.HOME / f"{number}.csv", known.values())


def page() -> str:
    """Return the page."""
    students = {number: {one.key: one for one in published.students(number)} for number in published.papers()}
    judged = [verdicts.judge(cell, students[cell.paper]) for cell in published.cells()]
    summary = markdown(verdicts.summary_section(judged))
    text = [INTRODUCTION.format(summary=summary, rule=verdicts.RULE, as_released=verdicts.AS_RELEASED)]
    for number, paper in published.papers().items():
        text += _of_paper(number, paper, students[number], [one for one in judged if one.cell.paper == number])
    return "\n".join(text)


def _of_paper(number: str, paper: Paper, students: dict[Key, Student], judged: list[Judged]) -> list[str]:
    devices = ", ".join(sorted({one.device for one in students.values()}))
    precisions = " and ".join(sorted({one.precision for one in students.values()}))
    text = [
        f"## arXiv {number}\n",
        f"[{paper.title}]({paper.url}): {len(judged)} numbers, {verdicts.tally(judged)}; "
        f"{len(students):,} students in {precisions or 'no precision yet'}, on {devices or 'no machine yet'}.\n",
    ]
    for table, of in paper.tables.items():
        of_table = [one for one in judged if one.cell.table == table]
        run = [one for one in of_table if one.verdict != "not run"]
        text.append(f"### {number}, {table} ({of.dataset}): {verdicts.tally(of_table)}\n")
        for section in (verdicts.numbers_section("", run, paper), verdicts.waiting_section("", of_table, paper)):
            text += [markdown(section) + "\n"] if section.lines else []
    return text


if __name__ == "__main__":
    keep([*map(Path, sys.argv[1:])])
    PAGE.write_text(page())
    print(f"wrote {PAGE}")

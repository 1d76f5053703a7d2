"""What papers of this field publish: every number as data, how it is had, and what gdd's students said of it; no torch.

A paper has two files here, called by its number. `NUMBER.yaml` holds its tables, the sets that its authors published,
and the ways in which students are trained for them. `NUMBER.csv` holds a line per student that has been trained so far,
in the order of `Student`; `benchmarks/verdicts.py` adds to it. Another paper is another pair of files.
"""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import yaml
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass as checked

from gdd.config import ConfigError, EvaluateConfig, did_you_mean, read_as, require
from gdd.config.fields import STRICT

HOME = Path(__file__).parent
SEEDS = 5  # students of a cell, where its row does not say otherwise


class Images(NamedTuple):
    """What of a dataset decides recipes and costs."""

    shape: tuple[int, int, int]  # channels, height and width
    num_classes: int
    flip: bool  # whether mirroring keeps the class
    test_images: int

    @property
    def chance(self) -> float:
        """The accuracy of guessing, in percent."""
        return 100 / self.num_classes


DATASETS = {
    "mnist": Images((1, 28, 28), 10, False, 10_000),
    "fashion_mnist": Images((1, 28, 28), 10, True, 10_000),
    "svhn": Images((3, 32, 32), 10, False, 26_032),
    "cifar10": Images((3, 32, 32), 10, True, 10_000),
    "cifar100": Images((3, 32, 32), 100, True, 10_000),
}


@checked(frozen=True, config=STRICT)
class Row:
    """A row of a published table."""

    name: str  # as the paper calls it
    ipc: int  # images per class
    published: tuple[float | None, ...]  # accuracy of each of the table's students, in percent; none: not given
    # How the paper says that students were trained; of several the best mean counts. None: no text tells of the number.
    ways: tuple[str, ...] = ()
    iterations: int | None = None  # of the distillation
    spread: tuple[float | None, ...] | None = None  # standard deviations, where they are given
    up_to: float | None = None  # the highest accuracy, where a range is given, whose lowest is `published`
    set: str | None = None  # on which they were trained; none: it has to be distilled first
    released: tuple[str, ...] = ()  # ways of the released code, where these differ; of several the best mean counts
    released_set: str | None = None  # the released code's set, where it is another
    cause: str | None = None  # why the number may not come out, by a name among the causes
    seeds: dict[str, int] = field(default_factory=dict)  # students of an architecture, where they are not SEEDS
    needs: str | None = None  # what a row without a set would take


@checked(frozen=True, config=STRICT)
class Table:
    """A published table."""

    dataset: str  # a name of DATASETS
    students: Annotated[tuple[str, ...], Field(min_length=1)]  # architectures, a column each
    rows: tuple[Row, ...]

    @model_validator(mode="after")
    def _has_a_number_for_each_student(self) -> "Table":
        require(self.dataset in DATASETS, "dataset", self.dataset, f"one of {', '.join(DATASETS)}")
        for row in self.rows:
            require(bool(row.ways or row.released), f"ways of {row.name}", row.ways, "some, or released ones")
            require({*row.seeds} <= {*self.students}, f"seeds of {row.name}", row.seeds, "students of the table")
            for key, values in (("published", row.published), ("spread", row.spread or row.published)):
                count = len(self.students)
                require(len(values) == count, f"{key} of {row.name}", values, f"{count} numbers, one per student")
        return self


@checked(frozen=True, config=STRICT)
class Made:
    """A set, or a generator that students are trained on a stream of, which gdd distils itself."""

    path: str  # of its file, which is there once it is finished
    ipc: int  # images per class, of a stream in an epoch
    command: str  # that makes it
    takes: str  # how long, and on what
    iterations: int  # of a set's distillation, or steps of a generator's refinement
    method: str | None = None  # that a generator was refined by, as its file says; none: it is a set

    @property
    def protocol(self) -> Literal["fixed", "stream"]:
        """How students take it."""
        return "fixed" if self.method is None else "stream"


@checked(frozen=True, config=STRICT)
class Paper:
    """A paper's tables, and all that its numbers are had from."""

    title: str
    url: str
    ways: dict[str, EvaluateConfig]  # what differs from the recipe dc, by name
    tables: dict[str, Table]
    files_from: str = ""  # where its authors have published the files
    files: dict[str, str] = field(default_factory=dict)  # checksums (SHA-256) by name
    # File, place in it, and images per class, by name.
    sets: dict[str, tuple[str, int, int]] = field(default_factory=dict)
    made: dict[str, Made] = field(default_factory=dict)  # further sets by name
    causes: dict[str, str] = field(default_factory=dict)  # why numbers may not come out

    def ipc(self, name: str) -> int:
        """Return the images per class of a set."""
        return self.made[name].ipc if name in self.made else self.sets[name][2]

    @model_validator(mode="after")
    def _names_what_is_there(self) -> "Paper":
        for file, _, _ in self.sets.values():
            require(file in self.files, "sets", file, "a name of files")
        for row in (row for table in self.tables.values() for row in table.rows):
            for key, names, known in (
                ("set", {row.set, row.released_set} - {None}, self.sets | self.made),
                ("ways", {*row.ways, *row.released}, self.ways),
                ("cause", {row.cause} - {None}, self.causes),
            ):
                require(names <= {*known}, f"{key} of {row.name}", sorted(map(str, names)), f"names of {key}")
        return self


@dataclass(frozen=True)
class Cell:
    """One published number, and what decides whether it comes out."""

    paper: str  # its number
    table: str
    dataset: str
    place: int  # of its row in the table
    row: Row
    student: str  # architecture
    published: float  # percent
    spread: float | None  # standard deviation, if it is given

    @property
    def highest(self) -> float:
        """Percent; the published value itself where no range is given."""
        return self.published if self.row.up_to is None else self.row.up_to

    @property
    def equation(self) -> list["Key"]:
        """The students that the paper's text asks for; none of a number whose set has to be distilled first."""
        return self._students(self.row.set, self.row.ways)

    @property
    def released(self) -> list["Key"]:
        """The students that the released code trains, if it does not do what the text says."""
        return self._students(self.row.released_set or self.row.set, self.row.released)

    def _students(self, of_set: str | None, ways: Sequence[str]) -> list["Key"]:
        seeds = range(self.row.seeds.get(self.student, SEEDS))
        return [] if of_set is None else [Key(of_set, way, self.student, seed) for way in ways for seed in seeds]


class Key(NamedTuple):
    """What tells a student from others; its precision does not."""

    set: str  # name in its paper
    way: str  # name in its paper
    arch: str
    seed: int


@dataclass(frozen=True)
class Student:
    """One student that was trained for a number: what `evaluation.row.Row` says of it."""

    set: str  # these four are its `Key`
    way: str
    arch: str
    seed: int
    correct: int  # of the test images
    total: int
    failed: bool  # whether its logits were not finite, so that it has no accuracy
    teacher_accuracy: float | None  # percent, of one that has a teacher
    train_loss: float  # of the last step
    seconds: float  # of its training
    precision: str
    device: str
    torch: str  # its version
    git_revision: str | None
    set_hash: str
    recipe_hash: str

    @property
    def key(self) -> Key:
        return Key(self.set, self.way, self.arch, self.seed)

    @property
    def accuracy(self) -> float | None:
        """Percent of the test images; none of a student that failed."""
        return None if self.failed else 100 * self.correct / self.total


def papers() -> dict[str, Paper]:
    """Return all papers by their numbers."""
    return {path.stem: _paper(path) for path in sorted(HOME.glob("*.yaml"))}


@cache
def _paper(path: Path) -> Paper:
    return read_as(Paper, yaml.safe_load(path.read_text()), path.name)


def cells(which: str | None = None) -> list[Cell]:
    """Return the numbers of all papers, of a paper `2402.13007`, or of a table `2402.13007/table4`.

    ConfigError if there is no such paper or table.
    """
    number, _, table = (which or "").partition("/")
    known = papers()
    if which is not None and number not in known:
        listed = ", ".join(known)
        raise ConfigError(f"{number} is no paper here, expected one of {listed}{did_you_mean(number, known)}")
    if table and table not in known[number].tables:
        listed = ", ".join(known[number].tables)
        raise ConfigError(
            f"{table} is no table of {number}, expected one of {listed}{did_you_mean(table, known[number].tables)}"
        )
    return [
        Cell(paper_number, name, of_name.dataset, place, row, student, published, spread)
        for paper_number, paper in known.items()
        if which is None or paper_number == number
        for name, of_name in paper.tables.items()
        if table in ("", name)
        for place, row in enumerate(of_name.rows)
        for student, published, spread in zip(
            of_name.students, row.published, row.spread or (None,) * len(row.published), strict=True
        )
        if published is not None
    ]


def students(paper: str) -> list[Student]:
    """Return the students that are kept of a paper; ConfigError if the file is damaged."""
    path = HOME / f"{paper}.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [_student(line, path) for line in csv.DictReader(file)]


def _student(line: dict[str, str], path: Path) -> Student:
    values: dict[str, object] = {name: value or None for name, value in line.items()}
    numbers = {"seed": int, "correct": int, "total": int, "train_loss": float, "seconds": float}
    if line.get("teacher_accuracy"):
        numbers["teacher_accuracy"] = float
    for name, kind in numbers.items():
        try:
            values[name] = kind(line[name])
        except (KeyError, TypeError, ValueError):
            raise ConfigError(f"{name} of {path} is {line.get(name)}, expected a number") from None
    values["failed"] = {"True": True, "False": False}.get(line.get("failed", ""))
    return read_as(Student, values, path.name)


def write_students(path: Path, found: Iterable[Student]) -> None:
    """Write students as `students` reads them, each once, in order."""
    ordered: Sequence[Student] = sorted({one.key: one for one in found}.values(), key=lambda one: one.key)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [one.name for one in fields(Student)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(one) for one in ordered)

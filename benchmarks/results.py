"""The tables of README.md and docs/results.md that are made from what gdd/zoo keeps: rows of students, and audits.

    python benchmarks/results.py

A table stands between the comments `<!-- table: NAME -->` and `<!-- end of table -->`, and is written anew.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pandas import DataFrame

from gdd import zoo
from gdd.evaluation import audit, grid
from gdd.evaluation.sources import FLOOR, STREAM_CEILING
from gdd.report import statistics
from gdd.report.intervals import Estimate

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/results.md")
MARK = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)
TITLES = {"digits": "digits", "mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "cifar10": "CIFAR-10"}


@dataclass(frozen=True)
class Students:
    """What students of one architecture reach after so many steps."""

    arch: str
    steps: int
    floor: Estimate  # on random real images
    generator: Estimate  # on its stream
    ceiling: Estimate  # on fresh real images
    over: Estimate  # points more than the floor
    share: Estimate  # of the ceiling, in percent


def worth() -> Iterator[list[str]]:
    """A line per generator: what its first students reach, and the shares of all its students."""
    yield [
        *("", "file, KB", "random real (floor)", "generator", "fresh real (ceiling)", "share after 300 steps"),
        *("worst to best", "share after more steps"),
    ]
    for name, title in TITLES.items():
        short, *longer = parts(name)
        shares = [of.share.mean for of in short]
        first = short[0]
        yield [
            *(title, size(name), mean(first.floor), mean(first.generator), mean(first.ceiling)),
            *(f"{mean(first.share)} %", f"{min(shares):.1f} to {max(shares):.1f} %"),
            ", ".join(f"{mean(of.share)} % ({of.steps:,})" for part in longer for of in part) or "not measured",
        ]


def generators() -> Iterator[list[str]]:
    """After 300 steps, a line per generator and architecture."""
    yield ["", "KB", "minutes", "student", "random real", "generator", "over random real", "fresh real", "share", "n"]
    for name, title in TITLES.items():
        facts = [title, size(name), f"{zoo.manifest(name).seconds / 60:,.0f}"]
        for of in parts(name)[0]:
            scores = [mean(of.floor), interval(of.generator), interval(of.over, "+"), mean(of.ceiling)]
            yield [*facts, of.arch, *scores, interval(of.share), str(of.generator.n)]
            facts = ["", "", ""]


def longer() -> Iterator[list[str]]:
    """After more steps, a line per generator, number of steps and architecture."""
    yield ["", "student", "steps", "random real", "generator", "fresh real", "share", "n"]
    for name, title in TITLES.items():
        for of in (of for part in parts(name)[1:] for of in part):
            scores = (interval(score) for score in (of.floor, of.generator, of.ceiling, of.share))
            yield [title, of.arch, f"{of.steps:,}", *scores, str(of.generator.n)]
            title = ""


def audits() -> Iterator[list[str]]:
    """A line per generator: what its audit found."""
    yield [
        *("", "held out", "near copies, %", "exact copies", "nearer to training, %", "AUC of membership"),
        "true positives at 1 %, %",
    ]
    yield ["expected if nothing is remembered", "", "1.0", "0", "50", "0.5", "1.0"]
    for name, title in TITLES.items():
        found = json.loads((zoo.HOME / name / audit.AUDIT_FILE).read_text())
        attack = found["membership"]
        yield [
            *(title, f"{found['n_held_out']:,} {found['held_out']}", percent(found["near_copies"])),
            *(f"{found['copies']:,}", percent(found["nearer_to_training"])),
            f"{attack['auc']:.3f} ({attack['low']:.3f} to {attack['high']:.3f})",
            f"{100 * attack['tpr_at_1_percent_fpr']:.1f}",
        ]


def parts(name: str) -> list[list[Students]]:
    """Return a generator's students, those of each number of steps together, the fewest first."""
    by_recipe = statistics.by_recipe(statistics.frame(grid.read_rows(zoo.HOME / name)))
    return sorted((list(students(rows)) for rows in by_recipe), key=lambda part: part[0].steps)


def students(rows: DataFrame) -> Iterator[Students]:
    """Return the students of each architecture in rows of one number of steps."""
    (steps,) = set(rows["optimizer_steps"])
    generator, floor = rows[rows["kind"] == "generator"], rows[rows["kind"] == FLOOR]
    # The floor's images are fixed, the generator's a stream, and only rows of one protocol are paired.
    over = statistics.differences(generator, floor.assign(protocol="stream")).set_index("arch")["points"]
    share = statistics.shares(rows).set_index("arch")["share"]
    accuracy = statistics.summarise(rows).set_index(["arch", "kind"])["accuracy"]
    for arch in rows["arch"].unique():
        low, made, high = (accuracy[arch, kind] for kind in (FLOOR, "generator", STREAM_CEILING))
        yield Students(arch, steps, low, made, high, over[arch], share[arch])


def size(name: str) -> str:
    return f"{zoo.manifest(name).bytes / 1e3:,.0f}"


def mean(value: Estimate) -> str:
    return f"{value.mean:.1f}"


def interval(value: Estimate, sign: str = "") -> str:
    return f"{value.mean:{sign}.1f}" + ("" if math.isnan(value.half_width) else f" ± {value.half_width:.1f}")


def percent(proportion: dict[str, float]) -> str:
    share, low, high = (100 * proportion[key] for key in ("share", "low", "high"))
    return f"{share:.1f} ({low:.1f} to {high:.1f})"


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """Return lines, of which the first is the head, as a table; columns of numbers stand to the right."""
    head, *body = lines
    numeric = [all(re.match(r"[-+\d]|$|not ", line[column]) for line in body) for column in range(len(head))]
    rule = ["--:" if right else ":--" for right in numeric]
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, rule, *body))


TABLES: dict[str, Callable[[], Iterator[list[str]]]] = {
    "worth": worth,
    "generators": generators,
    "longer": longer,
    "audits": audits,
}


def written(text: str) -> str:
    """Return a page's text with its tables made anew."""
    return MARK.sub(lambda found: found[1] + markdown([*TABLES[found[2]]()]) + found[3], text)


def main() -> None:
    for page in PAGES:
        path = ROOT / page
        path.write_text(written(path.read_text()))
        print(f"wrote {page}")


if __name__ == "__main__":
    main()

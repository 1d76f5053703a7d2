"""What each part of the recipe `robust` is worth to students that a set was not distilled with, at equal steps.

    python benchmarks/overfitting.py SOURCE [SOURCE ...] --archs A B --out FOLDER --steps 1000 [--arms plain KD] FLAGS

Sources are those of `evaluate.sources`; random real images are scored only if named. FLAGS are settings, such as
`--data.name mnist --evaluate.seeds '[0, 1, 2]' --evaluate.teacher_arch convnet3-w24`. Every student takes as many steps
of 100 images, or of all if there are fewer, and an arm is scored with those networks alone that
have what it changes.
FOLDER gets the rows of each arm and overfitting.md: a table per source and IPC; of several real:fraction=SHARE also
fractions.png, each further network beside the first. What is finished is not done again.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator
from rich.console import Console

from gdd import pipeline
from gdd.cli.command import opened
from gdd.cli.main import parse_config
from gdd.config import ConfigError
from gdd.evaluation.named import fraction_of
from gdd.evaluation.row import Row
from gdd.models import registry
from gdd.report import plots
from gdd.report.intervals import estimate
from gdd.report.tables import interval

STEP = 100  # images
_SHORTCUT, _DROP = "pooled shortcuts", "--evaluate.recipe.drop_path phases"
_KD, _RECIPE = "--evaluate.teacher set", "--evaluate.recipe.name robust"
# What an arm changes, flag by flag; the first is what the others are compared with.
ARMS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "shortcut": (_SHORTCUT,),
    "DropPath": (_DROP,),
    "KD": (_KD,),
    "DropPath and KD": (_DROP, _KD),
    "recipe": (_RECIPE, "--evaluate.recipe.drop_path off"),
    "all": (_SHORTCUT, _RECIPE, _DROP, _KD),
}


def has_shortcut(arch: str) -> bool:
    return registry.parse(arch).shortcut is not None


def has_paths(arch: str) -> bool:
    with torch.device("meta"):
        return registry.build(arch, (3, 32, 32), 10, drop_path=True).paths > 0


def student(arch: str, arm: str) -> str | None:
    """Return the network that stands for `arch` in an arm; none if it lacks what the arm changes, of all parts some."""
    parts, pooled = ARMS[arm], has_shortcut(arch)
    lacks = (_SHORTCUT in parts and not pooled) or (_DROP in parts and not has_paths(arch))
    if lacks and arm != "all":
        return None
    return registry.parse(f"{arch}-pooled" if _SHORTCUT in parts and pooled else arch).name


def score(arm: str, archs: Sequence[str], options: argparse.Namespace, flags: Sequence[str]) -> dict[str, list[Row]]:
    """Return the rows of an arm by the network of `archs` that each stands for."""
    students = {name: arch for arch in archs if (name := student(arch, arm))}
    if not students:
        return {}
    recipe = ["--evaluate.recipe.name", "dsa"] if _RECIPE not in ARMS[arm] else []
    own = [word for part in ARMS[arm] if part != _SHORTCUT for word in part.split()]
    length = ["--evaluate.recipe.steps", str(options.steps), "--evaluate.recipe.batch_size", str(STEP)]
    place = ["--name", arm.replace(" ", "-"), "--run.root", str(options.out), "--evaluate.protocols", "[fixed]"]
    named = ["--evaluate.sources", f"[{','.join(options.sources)}]", "--evaluate.archs", f"[{','.join(students)}]"]
    config = parse_config([*flags, *recipe, *own, *length, *place, *named])
    sources = pipeline.read_sources(config)
    with opened(config, False, Console(), ["evaluate"], sources) as inputs:
        assert inputs is not None
        wanted = {source.label for source in sources}
        jobs = [job for job in inputs.jobs if job.source.label in wanted]
        rows = pipeline.evaluate(config, inputs._replace(jobs=jobs))
    return {arch: [row for row in rows if row.arch == name] for name, arch in students.items()}


def tables(found: dict[str, dict[str, list[Row]]], archs: Sequence[str]) -> str:
    """Return a table per source and IPC: a line per arm, of each network its accuracy and what it is above plain."""
    rows = [row for arm in found.values() for of_arch in arm.values() for row in of_arch]
    parts = []
    for source, ipc in dict.fromkeys((row.source, row.ipc) for row in rows):
        parts += [f"### {source}, {ipc} images per class", ""]
        parts += ["| | " + " | ".join(f"{arch} | above plain" for arch in archs) + " |"]
        parts += ["| :-- |" + " --: |" * (2 * len(archs))]
        for arm, of_arm in found.items():
            cells = []
            for arch in archs:
                here, plain = (
                    {row.seed: row.accuracy for row in of.get(arch, []) if (row.source, row.ipc) == (source, ipc)}
                    for of in (of_arm, found["plain"])
                )
                pairs = [(here[seed], plain[seed]) for seed in here if arm != "plain"]
                above = [None if one is None or other is None else one - other for one, other in pairs]
                accuracy, points = estimate([*here.values()]), estimate(above)
                cells += [
                    interval(accuracy, len(here)) if here else "",
                    interval(points, len(here), "+") if above else "",
                ]
            parts += [f"| {arm} | {' | '.join(cells)} |"]
        parts += [""]
    return "\n".join([*parts, facts(found), ""])


def facts(found: dict[str, dict[str, list[Row]]]) -> str:
    rows = [row for of_arm in found.values() for of_arch in of_arm.values() for row in of_arch]
    seeds, one = sorted({row.seed for row in rows}), rows[0]
    return f"Student seeds {seeds}, {one.total:,} test images; {one.optimizer_steps:,} steps each; ± 95 %."


def draw(path: Path, found: dict[str, dict[str, list[Row]]], archs: Sequence[str]) -> None:
    """Write a panel per network after the first: accuracy by share of the real images, a line per arm."""
    first, *others = archs
    figure = plots.empty(3.3 * max(1, len(others)), 4)
    lines = [(first, "plain", "#5A5A5A")] + [
        ("", arm, plots.COLOURS[index % len(plots.COLOURS)]) for index, arm in enumerate(found)
    ]
    panels = figure.subplots(1, max(1, len(others)), sharey=True, squeeze=False)[0]
    for axes, other in zip(panels, others, strict=True):
        for arch, arm, colour in lines:
            curve: dict[float, list[float | None]] = {}
            for row in found[arm].get(arch or other, []):
                curve.setdefault(100 * (fraction_of(row.source) or 0), []).append(row.accuracy)
            scores = [estimate(curve[share]) for share in sorted(curve)]
            means, reach = [score.mean for score in scores], [score.half_width for score in scores]
            axes.errorbar(sorted(curve), means, reach, color=colour, marker="o", markersize=4, capsize=2, linewidth=1.3)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(sorted(curve)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_title(other, fontsize=10, loc="left")
        axes.set_xlabel("percent of the real images")
        plots.plain(axes)
    panels[0].set_ylabel("test accuracy (percent)")
    handles = [
        Line2D([], [], color=colour, marker="o", markersize=4, label=f"{arch or 'the network above a panel'}, {arm}")
        for arch, arm, colour in lines
    ]
    plots.save_picture(figure, path, handles, "Students on a share of the real images", facts(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", help="run folders, stored sets, real:random")
    parser.add_argument("--archs", nargs="+", required=True, help="students")
    parser.add_argument("--arms", choices=ARMS, nargs="+", default=[*ARMS], help="beside plain; all, if not given")
    parser.add_argument("--steps", type=int, default=1000, help="of every student")
    parser.add_argument("--out", type=Path, required=True, help="folder of the rows and the tables")
    options, flags = parser.parse_known_args()
    found: dict[str, dict[str, list[Row]]] = {}
    for arm in dict.fromkeys(["plain", *options.arms]):
        try:
            found[arm] = score(arm, options.archs, options, flags)
        except ConfigError as error:
            parser.error(str(error))
        (options.out / "overfitting.md").write_text(tables(found, options.archs))  # of the arms so far
    if len(options.archs) > 1 and all(fraction_of(source) is not None for source in options.sources):
        draw(options.out / "fractions.png", found, options.archs)
    print(tables(found, options.archs))


if __name__ == "__main__":
    main()

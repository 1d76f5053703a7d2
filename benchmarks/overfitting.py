"""What each part of the recipe `robust` is worth to students that a set was not distilled with, at equal steps.

    python benchmarks/overfitting.py SOURCE [SOURCE ...] --archs A B --out FOLDER --steps 1000 [--arms plain KD] FLAGS

Sources are those of `evaluate.sources`; random real images are scored only if named. FLAGS are settings, such as
`--data.name mnist --evaluate.seeds '[0, 1, 2]' --evaluate.teacher_arch convnet3-w24`. Every student takes as many steps
of 100 images, or of all if there are fewer, and an arm is scored with those networks alone that
have what it changes.
FOLDER gets the rows of each arm and overfitting.md: a table per source and IPC. What is finished is not done again.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from gdd import pipeline
from gdd.cli.main import parse_config
from gdd.cli.settings import opened
from gdd.evaluation.row import Row
from gdd.models import registry
from gdd.report.statistics import estimate
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
    with opened(config, False, Console(), ["evaluate"], sources) as work:
        assert work is not None
        wanted = {source.label for source in sources}
        jobs = [job for job in work.jobs if job.source.label in wanted]
        rows = pipeline.evaluate(config, work.dataset, work.accelerator, jobs)
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
                above = [None if None in pair else pair[0] - pair[1] for pair in pairs]
                accuracy, points = estimate([*here.values()]), estimate(above)
                cells += [
                    interval(accuracy, len(here)) if here else "",
                    interval(points, len(here), "+") if above else "",
                ]
            parts += [f"| {arm} | {' | '.join(cells)} |"]
        parts += [""]
    seeds = sorted({row.seed for row in rows})
    facts = f"Student seeds {seeds}, {rows[0].total:,} test images; {rows[0].optimizer_steps} steps each; ± 95 %."
    return "\n".join([*parts, facts, ""])


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
        found[arm] = score(arm, options.archs, options, flags)
        (options.out / "overfitting.md").write_text(tables(found, options.archs))  # of the arms so far
    print(tables(found, options.archs))


if __name__ == "__main__":
    main()

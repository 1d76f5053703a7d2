"""After how many steps a student has learned what fresh real images teach, and what a source is worth until then.

    python benchmarks/converged.py --out FOLDER [--sources SOURCE ...] FLAGS

Students of recipe `converged` take --first steps, then twice as many, and so on, until doubling them gains those of
real:stream less than half a point on average. Each is scored on the validation images: the test part is not read.
FLAGS are settings, such as `--data.name cifar10 --evaluate.archs '[convnet3-w24]' --evaluate.seeds '[0]'`; the sources
are those of `evaluate.sources`, as streams. Prints a line of JSON for each number of steps, and FOLDER keeps the rows.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from gdd import pipeline
from gdd.cli.command import opened
from gdd.cli.main import parse_config
from gdd.config import ConfigError
from gdd.evaluation.row import Row
from gdd.evaluation.sources import STREAM_CEILING
from gdd.report.intervals import estimate

ENOUGH = 0.5  # points


def scores(steps: int, sources: list[str], out: Path, flags: list[str]) -> list[Row]:
    """Return the rows, on validation images, of all students of these sources that take so many steps."""
    length = ["--evaluate.recipe.name", "converged", "--evaluate.recipe.steps", str(steps)]
    place = ["--run.root", str(out), "--name", "validation", "--evaluate.ceiling", "false"]
    scored = ["--evaluate.sources", f"[{','.join(sources)}]", "--evaluate.protocols", "[stream]"]
    config = parse_config([*flags, *length, *place, *scored])
    named = pipeline.read_sources(config)
    wanted = {source.label for source in named}
    with opened(config, False, Console(stderr=True), ["evaluate"], named) as inputs:
        assert inputs is not None
        held_out = replace(inputs.dataset, read_test=lambda: inputs.dataset.val)
        jobs = [job for job in inputs.jobs if job.source.label in wanted]
        return pipeline.evaluate(config, inputs._replace(dataset=held_out, jobs=jobs))


def means(rows: list[Row]) -> dict[str, dict[str, float]]:
    """Return the mean accuracy by architecture and source."""
    found: dict[str, dict[str, list[float | None]]] = {}
    for row in rows:
        found.setdefault(row.arch, {}).setdefault(row.source, []).append(row.accuracy)
    return {arch: {name: estimate(values).mean for name, values in of.items()} for arch, of in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", nargs="+", default=[], help="scored beside real:stream")
    parser.add_argument("--first", type=int, default=1250, help="steps of the shortest training")
    parser.add_argument("--out", type=Path, required=True, help="folder of the rows")
    options, flags = parser.parse_known_args()
    steps, before = options.first, dict[str, dict[str, float]]()
    while True:
        try:
            found = means(scores(steps, [*options.sources, STREAM_CEILING], options.out, flags))
        except ConfigError as error:
            parser.error(str(error))
        print(json.dumps({"steps": steps, "accuracy": found}), flush=True)
        gains = [of[STREAM_CEILING] - before[arch][STREAM_CEILING] for arch, of in found.items() if before]
        if gains and not any(gain >= ENOUGH for gain in gains):  # nan of students that all failed ends it too
            return
        steps, before = 2 * steps, found


if __name__ == "__main__":
    main()

"""What a teacher beside a generator is worth, and whether its students need the generator at all.

    python benchmarks/teacher.py SOURCE [SOURCE ...] --teachers none PATH --out FOLDER FLAGS

Students of recipe `converged` take --steps steps and imitate each of the teachers, ensembles by path, at each of
--alphas and --temperatures; `none` is hard labels alone. Sources are those of `evaluate.sources`, as streams; among
them belong real:stream, as many random real images as have the generator's bytes (real:fraction=SHARE) and images that
show nothing of the classes. Each is scored on the validation images: the test part is not read. FLAGS are settings,
such as `--data.name cifar10 --evaluate.archs '[convnet3-w24]' --evaluate.seeds '[0]'`. Prints a line of JSON for each
teacher and weight. FOLDER keeps the rows: what is scored is not scored again.
"""

import argparse
import itertools
import json
from pathlib import Path

from converged import means, scores

from gdd.config import ConfigError
from gdd.evaluation.named import NO_TEACHER


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", help="what students are trained on")
    parser.add_argument("--teachers", nargs="+", required=True, help="files of ensembles, or none")
    parser.add_argument("--alphas", nargs="+", default=["0.9"], help="shares of the teacher in the loss")
    parser.add_argument("--temperatures", nargs="+", default=["4"], help="of the teacher's answers")
    parser.add_argument("--steps", type=int, default=3000, help="of a student")
    parser.add_argument("--out", type=Path, required=True, help="folder of the rows")
    options, flags = parser.parse_known_args()
    asked = [teacher for teacher in options.teachers if teacher != NO_TEACHER]
    arms = [[NO_TEACHER]] if NO_TEACHER in options.teachers else []
    arms += [*map(list, itertools.product(asked, options.alphas, options.temperatures))]
    for arm in arms:
        named = dict(zip(("teacher", "alpha", "temperature"), arm, strict=False))
        own = [word for key, value in named.items() for word in (f"--evaluate.{key}", value)]
        try:
            found = means(scores(options.steps, options.sources, options.out, [*flags, *own]))
        except ConfigError as error:
            parser.error(str(error))
        print(json.dumps({**named, "steps": options.steps, "accuracy": found}), flush=True)


if __name__ == "__main__":
    main()

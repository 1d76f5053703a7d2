"""How long a command takes to say something: help, a refusal, its opening lines with digits and a folder.

Every command runs in a process of its own, once to compile and a few times to be measured. Seconds are printed as JSON:

    uv run benchmarks/startup.py
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from gdd.data import encoded
from gdd.runtime.device import processor

ROOT = Path(__file__).resolve().parents[1]
CLASSES, SIDE = 10, 32


def make_folder(folder: Path, count: int) -> Path:
    """Write so many random PNG files, a sixth of them to test with."""
    draw = np.random.default_rng(0)
    for index, pixels in enumerate(draw.integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)):
        place = folder / ("test" if index // CLASSES % 6 == 5 else "train") / str(index % CLASSES)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{index:05}.png")
    return folder


def seconds(command: Sequence[object], code: int, runs: int, home: Path, before: Callable[[], None]) -> float:
    """Return the median seconds of a command that has to end with this exit code; `before` precedes each run."""
    # As of an installed package: what Python compiled is kept.
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    measured = []
    for _ in range(runs + 1):
        before()
        began = time.perf_counter()
        words = [sys.executable, "-m", "gdd", *map(str, command)]
        ended = subprocess.run(words, cwd=home, env=environment, capture_output=True, text=True, check=False)
        measured.append(time.perf_counter() - began)
        if ended.returncode != code:
            raise SystemExit(f"{words} ended with {ended.returncode}: {ended.stderr}")
    return statistics.median(measured[1:] or measured)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=60_000, help="PNG files of the folder")
    parser.add_argument("--runs", type=int, default=5, help="measured runs of each command; 0 measures the first")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        images = make_folder(home / "images", options.files)
        data, dry = ["--data.name", "folder", "--data.root", images], ["distill", "--dry-run"]

        def forget() -> None:
            shutil.rmtree(images / encoded.CACHE_FOLDER, ignore_errors=True)

        def nothing() -> None:
            pass

        commands: dict[str, tuple[list[object], int, Callable[[], None]]] = {
            "help": (["--help"], 0, nothing),
            "refused range": (["distill", *data, "--refine.tau", "0"], 2, forget),
            "refused network": (["distill", *data, "--evaluate.archs", "[convent3]"], 2, forget),
            "refused size": (["distill", *data, "--evaluate.archs", "[convnet-d9]"], 2, forget),
            "digits": ([*dry], 0, nothing),
            "folder": ([*dry, *data], 0, forget),
            "folder, cached": ([*dry, *data], 0, nothing),
        }
        figures = {
            name: round(seconds(command, code, options.runs, home, before), 2)
            for name, (command, code, before) in commands.items()
        }
    print(json.dumps({"machine": processor(), "files": options.files, "runs": options.runs, "seconds": figures}))


if __name__ == "__main__":
    main()

"""All that wants measuring on a GPU, in parts of a few minutes each; a part that has its file is not run again.

    python benchmarks/gpu.py PART --out FOLDER

PART is one of those below, or all. Each command of a part leaves FOLDER/<name>.json, the line that it printed. Where
data/ holds no CIFAR-10, random images of its shape stand in, and the "data" of a result is "random".
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from scaling import random_images
from sides import add_toy

from gdd.config import ConfigError
from gdd.data.places import locate

HERE = Path(__file__).resolve().parent
PARTS = {
    "tests": {"tests": "-m pytest -q -o addopts= -p no:cacheprovider -m gpu tests/gpu"},
    "peak": {"peak": "benchmarks/peak.py"},
    "student": {
        "student-convnet3": "benchmarks/student.py --arch convnet3 --steps 100 --tests 10000 --rounds 2",
        "student-resnet18": "benchmarks/student.py --arch resnet18 --steps 50 --tests 10000 --rounds 2",
    },
    "gan": {"gan": "benchmarks/gan.py --config configs/cifar10.yaml"},
    "refine": {"refine": "benchmarks/refine.py --config configs/cifar10.yaml"},
    "matching": {
        "matching-ipc1": "benchmarks/matching.py --config configs/cifar10-gm.yaml",
        "matching-ipc10": "benchmarks/matching.py --config configs/cifar10-gm.yaml --matching.ipc 10",
    },
    "together": {
        "together-convnet3": "benchmarks/together.py --arch convnet3",
        "together-resnet18": "benchmarks/together.py --arch resnet18 --steps 50",
    },
}


def data_flags(folder: Path, toy: bool) -> list[str]:
    """Return the flags of CIFAR-10, or of random images in a file in the folder."""
    try:
        if not toy:
            locate("cifar10", HERE.parent / "data", download=False)
            return []
    except ConfigError:
        pass
    # Enough for batches of 256 images of each class beside those that validate.
    path = folder / "random.npz"
    if not path.exists():
        random_images(path, 10, 32, 12 if toy else 500)
    return ["--data.name", str(path.resolve())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=[*PARTS, "all"])
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    add_toy(parser)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for part in PARTS if options.part == "all" else [options.part]:
        commands = [*PARTS[part].items()][: 1 if options.toy else None]  # of one script, which a test tries once
        for name, text in commands:
            file = options.out / f"{name}.json"
            if file.exists():
                continue
            command = text.split()
            if "--config" in command:
                command += data_flags(options.out, options.toy)
            if options.toy and part != "tests":
                command.append("--toy")
            done = subprocess.run([sys.executable, *command], cwd=HERE.parent, stdout=subprocess.PIPE, text=True)
            last = (done.stdout.splitlines() or [""])[-1]
            if part == "tests":  # failures are a result too
                last = json.dumps({"exit code": done.returncode, "summary": last})
            elif done.returncode:
                raise SystemExit(f"{name} ended with exit code {done.returncode}")
            file.write_text(last + "\n")
            print(f"{name}: {last}", flush=True)


if __name__ == "__main__":
    main()

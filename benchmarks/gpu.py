"""All that wants measuring on a GPU, in commands of at most 150 seconds; one that has its file is not run again.

    python benchmarks/gpu.py PART... --out FOLDER

PART is one of those below, or all. It needs this checkout and its dependencies, no installation of gdd. Each command
leaves FOLDER/<name>.json, the line that it printed last, and all is told as it comes. Where data/ holds no CIFAR-10,
random images of its shape stand in, and the "data" of a result is "random".
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
SECONDS = 150
_GAN = "--config configs/cifar10.yaml"
PARTS = {
    "tests": {"tests": "-m pytest -q -o addopts= -p no:cacheprovider -m gpu tests/gpu"},
    "default": {"default": "distill.py --name default --run.overwrite true --run.root"},
    "peak": {"peak": "benchmarks/peak.py"},
    "gan": {
        "gan-w64-b128": f"benchmarks/gan.py {_GAN} --gan.width 64 --pretrain.batch_size 128",
        "gan-w64-b512": f"benchmarks/gan.py {_GAN} --gan.width 64 --pretrain.batch_size 512",
        "gan-cifar10": f"benchmarks/gan.py {_GAN}",
    },
    "refine": {"refine-w64-b128": f"benchmarks/refine.py {_GAN} --gan.width 64 --refine.batch_size 128"},
    "student": {
        "student-convnet3": "benchmarks/student.py --arch convnet3 --steps 100 --tests 10000 --rounds 1",
        "student-resnet18": "benchmarks/student.py --arch resnet18 --steps 50 --tests 10000 --rounds 1",
    },
    "together": {
        "together-convnet3": "benchmarks/together.py --arch convnet3 --rounds 1",
        "together-convnet3-stream": "benchmarks/together.py --arch convnet3 --rounds 1 --images stream",
        "together-resnet18": "benchmarks/together.py --arch resnet18 --steps 50 --rounds 1",
    },
    "precision": {"precision": "benchmarks/precision.py"},
    "sampling": {"sampling": "benchmarks/sampling.py --generator zoo:cifar10 --ipc 5000 --rounds 2"},
    "matching": {
        "matching-ipc1": "benchmarks/matching.py --config configs/cifar10-gm.yaml",
        "matching-ipc10": "benchmarks/matching.py --config configs/cifar10-gm.yaml --matching.ipc 10",
    },
}
TOLD = ("tests", "default")  # by their exit code and their last line


def data_flags(folder: Path, toy: bool) -> list[str]:
    """Return the flags of CIFAR-10, or of random images in a file in the folder."""
    sys.path.insert(0, str(HERE.parent))  # where gdd is, if it is not installed
    from scaling import random_images

    if not toy and (HERE.parent / "data" / "cifar10").exists():
        return []
    # Enough for batches of 256 images of each class beside those that validate.
    path = folder / "random.npz"
    if not path.exists():
        random_images(path, 10, 32, 12 if toy else 500)
    return ["--data.name", str(path.resolve())]


def run(name: str, text: str, folder: Path, toy: bool) -> str:
    """Run a command and return the JSON that says what it printed last, or how it ended."""
    command = text.split()
    if name == "default":
        command += [str(folder.resolve()), *(["--dry-run"] if toy else [])]
    elif "--config" in command:
        command += data_flags(folder, toy)
    if toy and name not in TOLD:
        command.append("--toy")
    paths = os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    began = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=HERE.parent,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": paths},
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        return json.dumps({"ended": f"not done in {SECONDS} s"})
    seconds, last = round(time.monotonic() - began, 1), (done.stdout.splitlines() or [""])[-1]
    if name in TOLD or done.returncode:  # failures are a result too
        return json.dumps({"exit code": done.returncode, "seconds": seconds, "summary": last})
    return last


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=[*PARTS, "all"], metavar="PART")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--toy", action="store_true", help="sizes of a test, whose rates mean nothing")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for part in PARTS if "all" in options.parts else options.parts:
        commands = [*PARTS[part].items()][: 1 if options.toy else None]  # of one script, which a test tries once
        for name, text in commands:
            file = options.out / f"{name}.json"
            if not file.exists():
                result = run(name, text, options.out, options.toy)
                file.write_text(result + "\n")
                print(f"{name}: {result}", flush=True)


if __name__ == "__main__":
    main()

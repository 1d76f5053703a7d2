"""How time and memory grow with images per class, classes, resolution and processes.

Every line is one run of the real command on random images, in a process of its own, and is printed as JSON:

    uv run benchmarks/scaling.py --axis classes
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
STEPS = 30
NETWORKS = [
    *("--gan.width", "32", "--matching.pool.main", "convnet3-w32"),
    *("--refine.pool.members", "[convnet3-w32, resnet10-w8, resnet18-w8]"),
    *("--pretrain.batch_size", "32", "--refine.batch_size", "32"),
    *("--pretrain.steps", str(STEPS), "--refine.steps", str(STEPS)),
    *("--run.log_every", "10", "--run.grid_every", "100000", "--run.save_every", "100000"),
]
VALUES = {
    "classes": (10, 100, 1000),
    "resolution": (16, 32, 64),
    "processes": (1, 2),
    "ipc": (1, 10, 100, 1000, 10_000, 100_000),
}


def measure(command: Sequence[object], processes: int = 1) -> tuple[float, float]:
    """Run a command and return its seconds and the most MiB that one of its processes had."""
    start = [sys.executable]
    if processes > 1:
        launch = "-m accelerate.commands.launch -q --multi_gpu --main_process_port 29731 --num_processes"
        start = [*start, *launch.split(), str(processes)]
    began = time.perf_counter()
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true"}
    process = subprocess.Popen([*start, *map(str, command)], stdout=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command} failed")
    return time.perf_counter() - began, usage.ru_maxrss / 2**10


def random_images(path: Path, classes: int, side: int, per_class: int = 12) -> Path:
    draw = np.random.default_rng(0)
    labels = np.arange(classes).repeat(per_class)
    images = draw.integers(0, 256, (len(labels), side, side, 3), dtype=np.uint8)
    np.savez(path, x_train=images, y_train=labels, x_test=images[::per_class], y_test=labels[::per_class])
    return path


def speed(folder: Path) -> float:
    """Return a stage's images per second after its first steps, which also warm up."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    first, last = lines[0], lines[-1]
    seconds = last["step"] / last["images_per_second"] - first["step"] / first["images_per_second"]
    return (last["step"] - first["step"]) / seconds


def stages(home: Path, data: Path, threads: int, processes: int = 1) -> dict[str, float]:
    """Measure a step of both stages, an iteration of matching, and the training of two students, at IPC 1."""
    common = ["--data.name", data, "--run.root", home, "--run.threads", threads, *NETWORKS]
    figures: dict[str, float] = {}
    _, figures["pretrain and refine, MiB"] = measure([ROOT / "distill.py", *common, "--score", "false"], processes)
    for stage in ("pretrain", "refine"):
        figures[f"{stage}, images/s"] = speed(home / "digits" / stage)
    matching = ["--method", "matching", "--matching.iterations", 4, "--matching.batch_real", 10]
    command = [ROOT / "distill.py", *common, *matching, "--run.log_every", 1, "--score", "false"]
    _, figures["matching, MiB"] = measure(command, processes)
    figures["matching, images/s"] = speed(home / "digits/matching")
    students = ["--evaluate.archs", "[convnet3-w32]", "--evaluate.seeds", "[0, 1]", "--evaluate.all_epochs", 1]
    students += ["--evaluate.ipc", "[1]", "--run.workers", 1]
    command = [ROOT / "evaluate.py", *common, *students, "--evaluate.sources", "[real:random]"]
    seconds, figures["students, MiB"] = measure(command, processes)
    rows = [json.loads(line) for line in (home / "digits/evaluate/rows.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["kind"] == "real:random"]
    figures["a student, s"] = sum(row["seconds"] for row in rows) / len(rows)
    figures["students, command, s"] = seconds
    return figures


def sampling(home: Path, ipc: int, threads: int) -> dict[str, float]:
    """Measure drawing a set and shards from a generator of 3x32x32 pixels and 10 classes."""
    generator = home / "digits/pretrain"
    if not generator.exists():
        data = random_images(home / "images.npz", 10, 32)
        measure([ROOT / "train_gan.py", "--data.name", data, "--run.root", home, *NETWORKS])
    figures: dict[str, float] = {}
    for kind in ("webdataset", "safetensors"):
        if kind == "safetensors" and ipc > 10_000:  # 300 MB of pixels; more is what shards are for
            continue
        out = home / f"{kind}-{ipc}"
        command = ["-m", "gdd", "sample", generator, "--ipc", ipc, "--format", kind, "--out", out, "--threads", threads]
        figures[f"{kind}, s"], figures[f"{kind}, MiB"] = measure(command)
        files = [path for path in (out.rglob("*") if out.is_dir() else [out]) if path.is_file()]
        figures[f"{kind}, MB on disk"] = sum(path.stat().st_size for path in files) / 1e6
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--axis", choices=VALUES, required=True)
    parser.add_argument("--values", type=int, nargs="+", help="instead of the usual ones")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads per process")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for value in options.values or VALUES[options.axis]:
            home = Path(folder) / ("ipc" if options.axis == "ipc" else str(value))
            home.mkdir(exist_ok=True)
            if options.axis == "ipc":
                figures = sampling(home, value, options.threads)
            else:
                classes = value if options.axis == "classes" else 10
                side = value if options.axis == "resolution" else 32
                processes = value if options.axis == "processes" else 1
                data = random_images(home / "images.npz", classes, side)
                figures = stages(home, data, options.threads, processes)
            rounded = {name: round(figure, 4) for name, figure in figures.items()}
            print(json.dumps({options.axis: value, "threads": options.threads, **rounded}), flush=True)


if __name__ == "__main__":
    main()

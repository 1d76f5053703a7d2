"""What the tests of whole commands share: flags for tiny networks and short recipes, and processes."""

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Every stage within a second or two.
TINY = [
    *("--gan.width", "4", "--gan.noise_dim", "8", "--gan.r1_every", "2"),
    *("--pretrain.steps", "6", "--pretrain.batch_size", "8", "--refine.steps", "4", "--refine.batch_size", "8"),
    *("--refine.pool.members", "[convnet3-w4, resnet10-w4]", "--refine.pool.redraw_every", "2"),
    *("--refine.pool.steps_before", "1", "--refine.pool.steps_between", "1", "--refine.pool.batch_size", "8"),
    *("--evaluate.archs", "[mlp-w4]", "--evaluate.seeds", "[0, 1]", "--evaluate.ipc", "[2]"),
    *("--evaluate.recipe.epochs", "3", "--evaluate.all_epochs", "1"),
    *("--run.log_every", "2", "--run.grid_every", "3", "--run.save_every", "2"),
    *("--run.threads", "1", "--run.workers", "1", "--run.precision", "float32"),
]
MATCHING = [
    *("--method", "matching", "--matching.pool.main", "convnet3-w4", "--matching.ipc", "2"),
    *("--matching.iterations", "3", "--matching.inner", "2"),
    *("--matching.batch_real", "16", "--matching.batch_train", "8"),
]
ALONE = ["--score", "false"]


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def command_of(*arguments: object, processes: int = 1) -> list[str]:
    """Return how Python is started with these arguments, on CPUs in so many processes."""
    words = list(map(str, arguments))
    if processes == 1:
        return [sys.executable, *words]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "-q", "--multi_gpu", "--num_processes"]
    return [*launch, str(processes), "--main_process_port", free_port(), *words]


def launch(*arguments: object, processes: int = 2) -> str:
    """Run a command that has to succeed, and return what it wrote to standard error."""
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true"}
    command = command_of(*arguments, processes=processes)
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stderr

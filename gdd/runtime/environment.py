"""What a result was made with: library versions, this package's revision, memory."""

import platform
import resource
import subprocess
from functools import cache
from pathlib import Path

import accelerate
import numpy as np
import torch

import gdd


def peak_memory_mb(device: torch.device) -> float:
    """Return MiB: allocated on a GPU since the last reset, or the most that the process ever had on a CPU."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if platform.system() == "Darwin" else 2**10), 1)


@cache
def git_revision() -> str | None:
    """Return the commit of the checkout that this runs from, `-dirty` if edited; none if installed."""
    home = Path(gdd.__file__).resolve().parents[1]

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(home), *arguments], capture_output=True, text=True, timeout=20)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        # An installed copy may lie in an environment inside somebody else's repository.
        if git("rev-parse", "--show-toplevel") != str(home):
            return None
        revision = git("rev-parse", "HEAD")
        return revision + ("-dirty" if git("status", "--porcelain", "--untracked-files=no") else "") or None
    except (OSError, subprocess.TimeoutExpired):
        return None


@cache
def versions() -> dict[str, str]:
    return {
        "gdd": gdd.__version__,
        "torch": torch.__version__,
        "accelerate": accelerate.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }

"""The commands that are killed: tiny, with work for so many kills, and where they leave what."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import differences
from commands import ALONE, MATCHING, ROOT, TINY, command_of

# On CPUs, where a result repeats to the bit.
ENVIRONMENT = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
# Out of step with the metrics, so that lines are later than the checkpoint that a start goes on from.
SAVING = ["--run.save_every", "3"]


@dataclass(frozen=True)
class Job:
    """A command whose work can be cut short anywhere.

    Args:
        name: as given with --jobs.
        arguments: the script with its flags, for a root folder, the prepared stage 1 and a number of kills.
        folder: that it writes to, below the root.
        final: file that is written when the work is over.
        lines: how the names of files begin that grow a line, or come one, at a time.
        progress: steps, rows or shards that a folder holds.
        compare: differences of a finished folder from the reference.
        steady: whether it writes whole files while it works, not only before and after.
    """

    name: str
    arguments: Callable[[Path, Path, int], list[str]]
    folder: str
    final: str
    progress: Callable[[Path], int]
    compare: Callable[[Path, Path], list[str]]
    lines: str = "metrics"
    steady: bool = True

    def command(self, root: Path, stage_1: Path, kills: int, processes: int) -> list[str]:
        return command_of(*self.arguments(root, stage_1, kills), processes=processes)


def _step(folder: Path) -> int:
    """Return the step of the newest checkpoint."""
    return max((int(path.stem.partition("-")[2]) for path in folder.glob("checkpoint-*.pt")), default=0)


def _rows(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("rows*.jsonl"))


def _script(name: str, root: Path, *flags: object) -> list[str]:
    return [str(ROOT / name), *TINY, *SAVING, *map(str, flags), "--run.root", str(root)]


def pretrain(root: Path, stage_1: Path, kills: int) -> list[str]:
    return _script("train_gan.py", root, "--pretrain.steps", 30 * kills)


def refine(root: Path, stage_1: Path, kills: int) -> list[str]:
    return _script("distill.py", root, "--refine.pretrained", stage_1, "--score", "false", "--refine.steps", 15 * kills)


def match(root: Path, stage_1: Path, kills: int) -> list[str]:
    flags = (*MATCHING, *ALONE, "--matching.iterations", 6 * kills, "--run.snapshots", "[5]")
    return _script("distill.py", root, *flags)


def evaluate(root: Path, stage_1: Path, kills: int) -> list[str]:
    seeds = list(range(max(1, kills // 3)))
    sources = f"[real:random, real:all, {stage_1}]"
    flags = ("--evaluate.sources", sources, "--evaluate.archs", "[mlp-w4, convnet3-w4]", "--evaluate.seeds", seeds)
    return _script("evaluate.py", root, *flags)


def sample(root: Path, stage_1: Path, kills: int) -> list[str]:
    plan = ("--format", "webdataset", "--ipc", 400 * kills, "--shard-size", 200, "--threads", 1)
    return ["-m", "gdd", "sample", str(stage_1), *map(str, plan), "--out", str(root / "shards")]


def _shards(folder: Path) -> int:
    return len(list(folder.glob("shard-*.tar")))


JOBS = {
    job.name: job
    for job in (
        Job("pretrain", pretrain, "digits/pretrain", "generator.safetensors", _step, differences.of_stage),
        Job("refine", refine, "digits/refine", "generator.safetensors", _step, differences.of_stage),
        Job("match", match, "digits/matching", "set.safetensors", _step, differences.of_stage),
        Job(
            *("evaluate", evaluate, "digits/evaluate", "rows.csv", _rows, differences.of_evaluation),
            lines="rows",
            steady=False,
        ),
        Job("sample", sample, "shards", "manifest.json", _shards, differences.of_shards, lines="shard-"),
    )
}

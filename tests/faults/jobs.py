"""The commands that are killed: tiny, with work for so many kills, and where they leave what."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

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
        steady: whether it writes whole files while it works, not only before and after.
    """

    name: str
    arguments: Callable[[Path, Path, int], list[str]]
    folder: str
    final: str
    progress: Callable[[Path], int]
    lines: str = "metrics"
    steady: bool = True

    def command(self, root: Path, stage_1: Path, kills: int, processes: int) -> list[str]:
        return command_of(*self.arguments(root, stage_1, kills), processes=processes)


def _step(folder: Path) -> int:
    """Return the step of the newest checkpoint."""
    return max((int(path.stem.partition("-")[2]) for path in folder.glob("checkpoint-*.pt")), default=0)


def _rows(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("rows*.jsonl"))


def _shards(folder: Path) -> int:
    return len(list(folder.glob("shard-*.tar")))


def _of_a_script(name: str, flags: Callable[[Path, int], Sequence[object]]) -> Callable[[Path, Path, int], list[str]]:
    """Return the arguments of one of the scripts: its flags for the prepared stage 1 and a number of kills."""
    return lambda root, stage_1, kills: [
        *(str(ROOT / name), *TINY, *SAVING, *map(str, flags(stage_1, kills)), "--run.root", str(root))
    ]


def _evaluation(stage_1: Path, kills: int) -> Sequence[object]:
    sources, seeds = f"[real:random, real:all, {stage_1}]", list(range(max(1, kills // 3)))
    return "--evaluate.sources", sources, "--evaluate.archs", "[mlp-w4, convnet3-w4]", "--evaluate.seeds", seeds


def sample(root: Path, stage_1: Path, kills: int) -> list[str]:
    plan = ("--format", "webdataset", "--ipc", 400 * kills, "--shard-size", 200, "--threads", 1)
    return ["-m", "gdd", "sample", str(stage_1), *map(str, plan), "--out", str(root / "shards")]


pretrain = _of_a_script("train_gan.py", lambda _, kills: ("--pretrain.steps", 30 * kills))
refine = _of_a_script(
    "distill.py", lambda stage_1, kills: ("--refine.pretrained", stage_1, *ALONE, "--refine.steps", 15 * kills)
)
match = _of_a_script(
    "distill.py", lambda _, kills: (*MATCHING, *ALONE, "--matching.iterations", 6 * kills, "--run.snapshots", "[5]")
)
evaluate = _of_a_script("evaluate.py", _evaluation)

JOBS = {
    job.name: job
    for job in (
        Job("pretrain", pretrain, "digits/pretrain", "generator.safetensors", _step),
        Job("refine", refine, "digits/refine", "generator.safetensors", _step),
        Job("match", match, "digits/matching", "set.safetensors", _step),
        Job("evaluate", evaluate, "digits/evaluate", "rows.csv", _rows, lines="rows", steady=False),
        Job("sample", sample, "shards", "manifest.json", _shards, lines="shard-"),
    )
}

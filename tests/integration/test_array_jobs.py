"""Students dealt to the tasks of an array job: the rows are one process's, whatever is killed, and none is doubled."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from importlib import util
from pathlib import Path

import pytest
from commands import ROOT, TINY, command_of

from gdd.evaluation.student import StudentTrainer

PATIENCE = 300  # seconds
EVALUATION = [*TINY, "--evaluate.sources", "[real:random, real:all]", "--evaluate.archs", "[mlp-w4, convnet3-w4]"]


def rows_in(folder: Path) -> list[dict[str, object]]:
    """Return the rows of a folder, in their order, without clocks and what they cost."""
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in row.items() if "seconds" not in name and name != "peak_memory_mb"}
        for row in rows
    ]


def count_in(folder: Path) -> int:
    return (folder / "rows.jsonl").read_text().count("\n") if (folder / "rows.jsonl").exists() else 0


def wait_for(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_shares_are_the_rows_of_one_process(done, tmp_path, monkeypatch):
    done("evaluate", *EVALUATION, "--run.root", tmp_path / "alone")
    alone = rows_in(tmp_path / "alone/digits/evaluate")
    line, folder = ["evaluate", *EVALUATION, "--run.root", tmp_path], tmp_path / "digits/evaluate"
    for share in ("1/3", "0/3", "2/3"):  # in any order, and none knows of the others
        assert "stopped after" in done(*line, "--share", share)
    counts = [count_in(folder / f"share-{share}") for share in range(3)]
    assert sum(counts) == len(alone) == 8
    assert max(counts) < 8
    assert not (folder / "rows.jsonl").exists()

    monkeypatch.setattr(StudentTrainer, "score", lambda *_: pytest.fail("a student was trained twice"))
    done(*line, "--share", "0/3")  # given again by hand
    done(*line)
    assert rows_in(folder) == alone
    assert (folder / "table.md").exists()
    assert not (folder / "share-0/table.md").exists()


def test_tasks_score_one_list_after_the_other(generator, tiny, submitted, done, tmp_path):
    """DD-Ranking's students stand in three lists, of which some students stand in two."""
    flags = [generator, *tiny, "--scores", "dd-ranking", "--evaluate.seeds", "[0]"]
    shares = submitted("compare", *flags)
    assert shares[:2] == ["0/2", "1/2"]
    assert len(shares) > 2
    done("compare", *flags, "--name", "alone")
    assert rows_in(tmp_path / "runs/compare/compare") == rows_in(tmp_path / "runs/alone/compare")
    assert submitted("compare", *flags) == []


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--tasks", "2"], "--tasks is given, expected --submit beside it"),
        (["--submitit.timeout_min", "5"], "--submitit is given, expected --submit beside it"),
        (["--share", "2/2"], "--share is 2/2, expected one of so many, from 0/4 to 3/4"),
        (["--share", "first"], "--share is first"),
        (["--submit", "local", "--run.precision", "auto"], "run.precision is auto, expected float32 or bfloat16"),
        (["--submit", "pbs"], "submit"),
    ],
)
def test_flags_that_do_not_fit_are_named(flags, named, refused, tiny):
    refused("evaluate", "real:random", *tiny, *flags, naming=named)


def test_a_missing_submitit_is_told_with_its_extra(refused, tiny, monkeypatch):
    monkeypatch.setattr("gdd.runtime.array.find_spec", lambda name: None)
    line = refused("evaluate", "real:random", *tiny, "--submit", "slurm")
    assert line.endswith("--submit needs submitit: pip install 'gdd[slurm]'")


def test_what_is_no_list_of_students_takes_no_flag_of_it(refused, tiny):
    refused("distill", *tiny, "--submit", "local", naming="--submit")


def task_of(share: int, root: Path) -> tuple[int, int] | None:
    """Return the process of submitit that does a share of the run, and that of the command which it has given."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words, stat = path.read_bytes().split(b"\0"), (path.parent / "stat").read_text()
        except OSError:
            continue
        if f"{share}/2".encode() in words and str(root).encode() in words:
            return int(stat.rpartition(")")[2].split()[1]), int(path.parent.name)
    return None


@pytest.mark.slow
@pytest.mark.skipif(util.find_spec("submitit") is None, reason="needs submitit")
def test_a_preempted_task_goes_on_and_a_killed_one_is_told(done, tmp_path):
    """On this machine, as on SLURM: the first is what SIGUSR2 does."""
    flags = [*EVALUATION, "--evaluate.all_epochs", "60"]
    done("evaluate", *flags, "--run.root", tmp_path / "alone")
    folder = tmp_path / "digits/evaluate"
    line = command_of(ROOT / "evaluate.py", *flags, "--run.root", tmp_path)
    line += ["--submit", "local", "--tasks", "2", "--submitit.timeout_min", "60"]
    begun = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        for share, number in enumerate((signal.SIGUSR2, signal.SIGKILL)):
            wait_for(lambda share=share: count_in(folder / f"share-{share}") or begun.poll() is not None)
            task = task_of(share, tmp_path)
            assert task is not None
            os.kill(task[share], number)
            assert count_in(folder / f"share-{share}") < 4
        said, _ = begun.communicate(timeout=PATIENCE)
    finally:
        begun.terminate()  # which ends its tasks
        begun.communicate()
    assert begun.returncode == 2, said
    assert "1 of 2 tasks failed, the first as " in said
    assert "Traceback" not in said
    logs = [path.read_text() for path in (folder / "submitit").glob("*.out")]
    assert sum("Requeued job" in log for log in logs) == 1
    assert count_in(folder / "share-0") == 4
    left = 8 - 4 - count_in(folder / "share-1")
    assert left > 0

    said = subprocess.run(line, capture_output=True, text=True, check=True).stderr
    assert f"evaluate: {8 - left} of 8 students were scored before" in said
    assert rows_in(folder) == rows_in(tmp_path / "alone/digits/evaluate")

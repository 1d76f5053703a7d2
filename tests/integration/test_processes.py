"""Two processes on CPUs: they start, share the work, find what one process finds, and write everything once."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from commands import TINY

ROOT = Path(__file__).parents[2]
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "-q"]
STEPS = 20
EXACT = ["--pretrain.steps", STEPS, "--refine.steps", STEPS, "--run.log_every", 1, "--pretrain.lr", 1e-3]
# Of a row, what tells of the clock and the machine; all else is the same on any number of processes.
OF_THE_CLOCK = ("seconds", "seconds_generating", "generator_seconds", "peak_memory_mb", "source_hash", "set_hash")


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def launch(*command: object, processes: int = 2) -> None:
    words = [str(word) for word in command]
    start = [sys.executable]
    if processes > 1:
        start = [*LAUNCH, "--multi_gpu", "--num_processes", str(processes), "--main_process_port", free_port()]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run([*start, *words], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[int, Path]:
    """The run folders of one and of two processes, both in float64, with the scores of one generator each."""
    found = {}
    for processes in (1, 2):
        root = tmp_path_factory.mktemp(f"processes-{processes}")
        driver = ROOT / "tests/integration/double.py"
        launch(driver, "distill", *TINY, *EXACT, "--run.root", root, processes=processes)
        found[processes] = root / "digits"
    return found


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["pretrain", "refine"])
def test_two_processes_find_the_losses_of_one(folders, stage):
    """In float64: Adam's steps on gradients that are zero but for rounding make float32 drift after a few steps."""
    one, two = (lines(folders[processes] / stage / "metrics.jsonl") for processes in (1, 2))
    assert [line["step"] for line in one] == [line["step"] for line in two] == list(range(1, STEPS + 1))
    for first, second in zip(one, two, strict=True):
        for name in first.keys() - {"images_per_second"}:
            assert second[name] == pytest.approx(first[name], rel=1e-5, abs=1e-5), (first["step"], name)
    assert len({line["loss/generator"] for line in one}) == STEPS


@pytest.mark.slow
def test_two_processes_write_one_tree_and_the_rows_of_one(folders):
    def keyed(processes: int) -> dict[tuple[object, ...], dict[str, object]]:
        rows = lines(folders[processes] / "evaluate/rows.jsonl")
        keys = [(row["source"], row["protocol"], row["arch"], row["seed"]) for row in rows]
        # Floor and ceiling are fixed; either stage is fixed and streamed; two seeds each.
        assert len(keys) == len(set(keys)) == 2 * (1 + 1 + 2 * 2)
        return dict(zip(keys, rows, strict=True))

    one, two = keyed(1), keyed(2)
    assert one.keys() == two.keys()
    for key, row in one.items():
        if str(key[0]).endswith("real"):  # the generators of the two runs differ by rounding
            kept = row.keys() - {*OF_THE_CLOCK, "git_revision", "config_hash"}
            assert {name: row[name] for name in kept} == {name: two[key][name] for name in kept}
        assert two[key]["optimizer_steps"] == row["optimizer_steps"]
    tree = [
        sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if "tensorboard" not in str(path))
        for folder in folders.values()
    ]
    assert tree[0] == tree[1]


@pytest.mark.slow
def test_the_same_students_get_the_same_rows(gdd, tiny, tmp_path):
    """Students are trained whole, so rows agree to the last digit in all but the clock's."""
    assert gdd("train-gan", *tiny)[0] == 0
    generator = tmp_path / "runs/digits/pretrain"
    found = []
    for processes in (1, 2):
        root = tmp_path / str(processes)
        command = [ROOT / "evaluate.py", *TINY, "--run.root", root, "--evaluate.ipc", "[1, 2]"]
        sources = f"[real:random, {generator}, real:all]"
        launch(*command, "--evaluate.sources", sources, processes=processes)
        rows = lines(root / "digits/evaluate/rows.jsonl")
        found.append({tuple(str(row[name]) for name in sorted(row.keys() - {*OF_THE_CLOCK[:4]})) for row in rows})
        assert len(found[-1]) == len(rows)
    assert found[0] == found[1]


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(
    ("flag", "code", "said"), [("--help", 0, "usage: gdd"), ("distil", 2, "'distil' is no command")]
)
def test_one_of_several_processes_leaves_without_pythons_end(processes, flag, code, said):
    """Gloo's threads may ask for Python while it ends, which aborts the process once in hundreds of starts."""
    program = "import atexit, gdd.cli; atexit.register(print, 'Python ends'); gdd.cli.script()"
    environment = {**os.environ, "WORLD_SIZE": str(processes)}
    command = [sys.executable, "-c", program, flag]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == code
    assert said in done.stdout + done.stderr
    assert ("Python ends" in done.stdout) == (processes == 1)


def test_the_launcher_shows_a_mistake_in_one_sentence():
    command = [*LAUNCH, str(ROOT / "distill.py"), "--refine.tua", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "refine.tua" in done.stderr
    assert "Traceback" not in done.stderr


def test_fewer_processes_than_asked_for_are_refused(tmp_path):
    """What `accelerate launch --cpu --num_processes 2` does is start one."""
    command = [*LAUNCH, "--cpu", "--num_processes", "2", str(ROOT / "train_gan.py"), *TINY]
    done = subprocess.run([*command, "--run.root", str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "started one" in done.stderr
    assert "--multi_gpu --num_processes N" in done.stderr
    assert not list(tmp_path.iterdir())

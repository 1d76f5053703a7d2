"""Two processes on CPUs: they start, share the work, find what one process finds, and write everything once."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from commands import ALONE, MATCHING, ROOT, TINY, command_of, launch
from generators import save_generator
from test_end_to_end import lines

from gdd.sampling import generator_file, sample, set_file

STEPS = 6
EXACT = ["--pretrain.steps", STEPS, "--refine.steps", STEPS, "--run.log_every", 1, "--pretrain.lr", 1e-3]
# Of a row, what tells of the clock and the machine; all else is the same on any number of processes.
OF_THE_CLOCK = ("seconds", "seconds_generating", "generator_seconds", "peak_memory_mb", "source_hash", "set_hash")


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[int, Path]:
    """The run folders of one and of two processes, both in float64, with the scores of one generator each."""
    roots = {processes: tmp_path_factory.mktemp(f"processes-{processes}") for processes in (1, 2)}
    for processes, root in roots.items():
        driver = ROOT / "tests/integration/run_in_float64.py"
        launch(driver, "distill", *TINY, *EXACT, "--run.root", root, processes=processes)
    return {processes: root / "digits" for processes, root in roots.items()}


@pytest.mark.parametrize("stage", ["pretrain", "refine"])
def test_two_processes_find_the_losses_of_one(folders, stage):
    """In float64: Adam's steps on gradients that are zero but for rounding make float32 drift after a few steps."""
    one, two = (lines(folders[processes] / stage / "metrics.jsonl") for processes in (1, 2))
    assert [line["step"] for line in one] == [line["step"] for line in two] == list(range(1, STEPS + 1))
    for first, second in zip(one, two, strict=True):
        for name in first.keys() - {"images_per_second", "lessons/share"}:
            assert second[name] == pytest.approx(first[name], rel=1e-5, abs=1e-5), (first["step"], name)
    assert len({line["loss/generator"] for line in one}) == STEPS


def test_two_processes_write_one_tree_and_the_rows_of_one(folders):
    def keyed(processes: int) -> dict[tuple[object, ...], dict[str, object]]:
        rows = lines(folders[processes] / "evaluate/rows.jsonl")
        keys = [(row["source"], row["protocol"], row["arch"], row["seed"]) for row in rows]
        # Floor and ceiling are fixed; either stage is fixed and streamed; two seeds each.
        assert len(keys) == len(set(keys)) == 2 * (1 + 1 + 1 + 2 * 2)
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
def test_the_same_students_get_the_same_rows(pretrained, tmp_path):
    """Students are trained whole, so rows agree to the last digit in all but the clock's."""
    rows_of, told = [], []
    for processes in (1, 2):
        root = tmp_path / str(processes)
        command = [ROOT / "evaluate.py", *TINY, "--run.root", root, "--evaluate.ipc", "[1, 2]"]
        said = launch(*command, "real:random", pretrained, "real:all", processes=processes)
        told.append(sorted(line.rpartition(",")[0] for line in said.splitlines() if "mean of 2 students" in line))
        rows = lines(root / "evaluate/evaluate/rows.jsonl")
        rows_of.append({tuple(str(row[name]) for name in sorted(row.keys() - {*OF_THE_CLOCK[:4]})) for row in rows})
        assert len(rows_of[-1]) == len(rows)
    assert rows_of[0] == rows_of[1]
    assert told[0] == told[1]
    assert len(told[0]) == len(rows_of[0]) / 2  # a line for the two seeds of each source


@pytest.mark.slow
def test_two_processes_match_the_set_of_one(matched, tmp_path):
    launch(ROOT / "distill.py", *TINY, *MATCHING, *ALONE, "--run.root", tmp_path / "two")
    one, two = matched[0] / "matching", tmp_path / "two/digits/matching"
    first, second = (set_file.load(folder / set_file.FILE) for folder in (one, two))
    assert torch.equal(first.images, second.images)
    assert first.hash == second.hash
    losses = [[line["loss/matching"] for line in lines(folder / "metrics.jsonl")] for folder in (one, two)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)


@pytest.fixture
def source(tmp_path):
    return save_generator(tmp_path)


class Thread:
    """What sampling uses of an Accelerator, with a thread for each process."""

    device = torch.device("cpu")

    def __init__(self, rank, shares, barrier):
        self.process_index, self.shares, self.barrier = rank, shares, barrier
        self.num_processes, self.is_main_process = len(shares), rank == 0

    def gather(self, share):
        self.shares[self.process_index] = share
        self.barrier.wait()
        gathered = torch.cat(self.shares)
        self.barrier.wait()
        return gathered


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
@pytest.mark.parametrize("ipc", [1, 16, 37])
def test_processes_make_the_set_of_one(processes, ipc, source, monkeypatch):
    monkeypatch.setattr(sample, "_ROUND", 2)  # several rounds, the last one not full
    loaded, sets = generator_file.load(source), [0] * processes
    shares, barrier = [None] * processes, threading.Barrier(processes, timeout=30)

    def work(rank):
        sets[rank] = sample.sample_set_together(loaded, ipc, 5, Thread(rank, shares, barrier))

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(processes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone = sample.sample_set(loaded, ipc, 5)
    assert torch.equal(sets[0].images, alone.images)
    assert torch.equal(sets[0].labels, alone.labels)
    assert (sets[0].spec, sets[0].ipc, sets[0].provenance) == (alone.spec, alone.ipc, alone.provenance)
    assert sets[1:] == [None] * (processes - 1)


@pytest.mark.slow
def test_two_processes_write_the_file_of_one(source, done, tmp_path):
    flags = ("sample", source, "--ipc", 37, "--threads", 1)
    launch("-m", "gdd", *flags, "--out", tmp_path / "two.safetensors")
    done(*flags, "--out", tmp_path / "one.safetensors")
    assert (tmp_path / "two.safetensors").read_bytes() == (tmp_path / "one.safetensors").read_bytes()


@pytest.mark.slow
def test_two_processes_write_the_shards_of_one(source, done, tmp_path):
    flags = ("sample", source, "--ipc", 37, "--format", "webdataset", "--shard-size", 25, "--threads", 1)
    # What a killed job left: a shard to keep and half of another.
    done(*flags, "--shards", "1:2", "--out", tmp_path / "two")
    (tmp_path / "two/.shard-000003.tar.99.tmp").write_bytes(b"half")
    said = launch("-m", "gdd", *flags, "--out", tmp_path / "two")
    assert said.count("5 of 5 shards, 111 images") == 1
    assert "86 images made now" in said
    done(*flags, "--out", tmp_path / "one")
    one, two = (sorted((tmp_path / name).iterdir()) for name in ("one", "two"))
    assert [path.name for path in two] == [path.name for path in one]
    assert [path.read_bytes() for path in two] == [path.read_bytes() for path in one]
    done("verify", tmp_path / "two")


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(("flag", "code", "said"), [("--help", 0, "usage: gdd"), ("distil", 2, "distil")])
def test_one_of_several_processes_leaves_without_pythons_end(processes, flag, code, said):
    """Gloo's threads may ask for Python while it ends, which aborts the process once in hundreds of starts."""
    program = "import atexit, gdd.cli; atexit.register(print, 'Python ends'); gdd.cli.script()"
    environment = {**os.environ, "WORLD_SIZE": str(processes)}
    command = [sys.executable, "-c", program, flag]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == code
    assert said in ended.stdout + ended.stderr
    assert ("Python ends" in ended.stdout) == (processes == 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "arguments", "said"),
    [
        ([], ["distill.py", "--refine.tua", "3"], "refine.tua"),
        # What `accelerate launch --cpu --num_processes 2` does is start one.
        (["--cpu", "--num_processes", "2"], ["train_gan.py", *TINY], "started one"),
    ],
)
def test_the_launcher_shows_a_mistake_in_one_sentence(launcher, arguments, said, tmp_path):
    launch = command_of("-m", "accelerate.commands.launch", "-q", *launcher)
    command = [*launch, ROOT / arguments[0], *arguments[1:], "--run.root", tmp_path]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert said in ended.stderr
    assert ("--multi_gpu --num_processes N" in ended.stderr) == bool(launcher)
    assert not [line for line in ended.stderr.split(said)[0].splitlines() if "Traceback" in line]
    assert not list(tmp_path.iterdir())

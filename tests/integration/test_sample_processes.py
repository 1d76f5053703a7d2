"""Sampling on several processes: the same bytes as on one."""

import os
import subprocess
import sys
import threading

import pytest
import torch

from gdd import rng
from gdd.data.spec import DatasetSpec
from gdd.models.gan import Generator
from gdd.sampling import generator_file, sample

SPEC = DatasetSpec("pets", 3, 16, 24, ("cat", "dog", "eel"), (0.4, 0.5, 0.6), (0.2, 0.2, 0.3), True)


@pytest.fixture
def source(tmp_path):
    with rng.seeded(0, "test"):
        generator = Generator(SPEC.shape, SPEC.num_classes, 8, 6)
    return generator_file.save(tmp_path, generator, SPEC, 8, {"method": "gan"})


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
    loaded, found = generator_file.load(source), [0] * processes
    shares, barrier = [None] * processes, threading.Barrier(processes, timeout=30)

    def work(rank):
        found[rank] = sample.sample_set_together(loaded, ipc, 5, Thread(rank, shares, barrier))

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(processes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone = sample.sample_set(loaded, ipc, 5)
    assert torch.equal(found[0].images, alone.images)
    assert torch.equal(found[0].labels, alone.labels)
    assert (found[0].spec, found[0].ipc, found[0].provenance) == (alone.spec, alone.ipc, alone.provenance)
    assert found[1:] == [None] * (processes - 1)


def launch(*arguments):
    command = [sys.executable, "-m", "accelerate.commands.launch", "-q", "--multi_gpu", "--num_processes", "2"]
    command += ["--main_process_port", "0", "-m", "gdd", *map(str, arguments)]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_two_processes_write_the_file_of_one(source, gdd, tmp_path):
    flags = ("sample", source, "--ipc", 37, "--threads", 1)
    done = launch(*flags, "--out", tmp_path / "two.safetensors")
    assert done.returncode == 0, done.stderr
    assert gdd(*flags, "--out", tmp_path / "one.safetensors")[0] == 0
    assert (tmp_path / "two.safetensors").read_bytes() == (tmp_path / "one.safetensors").read_bytes()


def test_two_processes_write_the_shards_of_one(source, gdd, tmp_path):
    flags = ("sample", source, "--ipc", 37, "--format", "webdataset", "--shard-size", 25, "--threads", 1)
    # What a killed job left: a shard to keep and half of another.
    assert gdd(*flags, "--shards", "1:2", "--out", tmp_path / "two")[0] == 0
    (tmp_path / "two/.shard-000003.tar.99.tmp").write_bytes(b"half")
    done = launch(*flags, "--out", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("5 of 5 shards, 111 images") == 1
    assert "86 images made now" in done.stderr
    assert gdd(*flags, "--out", tmp_path / "one")[0] == 0
    one, two = (sorted((tmp_path / name).iterdir()) for name in ("one", "two"))
    assert [path.name for path in two] == [path.name for path in one]
    assert [path.read_bytes() for path in two] == [path.read_bytes() for path in one]
    assert gdd("verify", tmp_path / "two")[0] == 0

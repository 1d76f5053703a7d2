"""Shared by the tests of shards: a generator and the command that samples it."""

import pytest
from generators import save_generator
from shards import IPC, SIZE


@pytest.fixture
def source(tmp_path):
    return save_generator(tmp_path / "run")


@pytest.fixture
def draw(gdd, source, tmp_path):
    """Return a function that samples shards into a folder below tmp_path and gives it and the command's result."""

    def call(folder, *flags, ipc=IPC, size=SIZE, source=source):
        where = ("--ipc", ipc, "--format", "webdataset", "--out", tmp_path / folder)
        return tmp_path / folder, gdd("sample", source, *where, "--shard-size", size, "--threads", 1, *flags)

    return call

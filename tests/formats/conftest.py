"""Shared by the tests of shards: a generator and the command that samples it."""

import pytest
from generators import save_generator


@pytest.fixture
def source(tmp_path):
    return save_generator(tmp_path / "run")


@pytest.fixture
def draw(done, source, tmp_path):
    """Return a function that samples shards of 8, 8 and 5 images into a folder below tmp_path, which it returns.

    `by` is what runs the command: `refused` where it has to end in a sentence, which is returned instead.
    """

    def call(folder, *flags, ipc=7, size=8, source=source, by=done):
        where = ("--ipc", ipc, "--format", "webdataset", "--out", tmp_path / folder)
        said = by("sample", source, *where, "--shard-size", size, "--threads", 1, *flags)
        return tmp_path / folder if by is done else said

    return call

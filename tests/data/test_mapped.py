"""Images that stay in their file: the same as those in memory to all who take rows of them, whatever their number."""

import errno
import os
import pickle
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny import save_image

from gdd import rng
from gdd.config import ConfigError
from gdd.data import mapped
from gdd.data.batches import Batches, ClassBatches
from gdd.data.encoded import CACHE_FOLDER, read_listing
from gdd.data.folder import list_folder
from gdd.data.mapped import ImageFile, MappedImages, checksum, joined, open_images, parts_of
from gdd.data.pixels import Normalizer
from gdd.data.readers import Dataset, open_dataset

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of thirty images of noise, and a test part."""
    with rng.seeded(0, "folder"):
        for part, count in (("train", 30), ("test", 3)):
            for name in ("a", "b"):
                for index in range(count):
                    pixels = torch.randint(256, (20, 16, 3), dtype=torch.uint8).numpy()
                    save_image(tmp_path / "images" / part / name / f"{index:02d}.png", pixels)
    return tmp_path / "images"


@pytest.fixture
def both(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Dataset, Dataset]:
    """The images in memory, and in a file that was just decoded."""
    in_memory = open_dataset(str(folder))
    for cache in (folder / CACHE_FOLDER).iterdir():
        cache.unlink()
    monkeypatch.setattr(mapped, "MAPPED_BYTES", 20_000)
    return in_memory, open_dataset(str(folder))


def test_a_dataset_is_the_same_in_its_file(both: tuple[Dataset, Dataset], folder: Path) -> None:
    in_memory, in_file = both
    for opened in (in_file, open_dataset(str(folder))):  # decoded, and found in the cache
        assert isinstance(opened.train.images_u8, MappedImages)
        assert isinstance(opened.val.images_u8, torch.Tensor)  # few enough to be read
        assert opened.spec == in_memory.spec
        assert opened.fingerprint == in_memory.fingerprint
        assert torch.equal(opened.train.images_u8[:], in_memory.train.images_u8[:])
        assert torch.equal(opened.val.images_u8, in_memory.val.images_u8[:])
        assert torch.equal(opened.test().images_u8[:], in_memory.test().images_u8[:])


def test_rows_are_those_of_a_tensor(both: tuple[Dataset, Dataset]) -> None:
    images, rows = both[0].train.images_u8[:], both[1].train.images_u8
    assert isinstance(rows, MappedImages)
    assert (rows.shape, len(rows), rows.numel()) == (images.shape, len(images), images.numel())
    chosen = torch.tensor([5, 0, 17, 5])
    assert torch.equal(rows[chosen], images[chosen])
    assert torch.equal(rows[2:9], images[2:9])
    assert all(torch.equal(one, other) for one, other in zip(rows.split(7), images.split(7), strict=True))
    few, many = rows.subset(chosen), rows.subset(torch.arange(40))
    assert torch.equal(few, images[chosen])
    assert isinstance(many, MappedImages)
    assert torch.equal(many[:], images[:40])
    assert torch.equal(joined(many, rows)[:], torch.cat([images[:40], images]))
    assert checksum(rows) == checksum(images)


def test_batches_are_read_ahead_and_the_same(both: tuple[Dataset, Dataset]) -> None:
    """In their order, and from any step on, as after a stop."""
    of_memory, of_file = (Batches(*dataset.train, 7, 3, "test") for dataset in both)
    for step in (0, 1, 2, 3, 9, 10, 4):
        for one, other in zip(of_memory(step), of_file(step), strict=True):
            assert torch.equal(one, other)
        assert torch.equal(of_memory.others(step), of_file.others(step))
    classes = [ClassBatches(*dataset.train, 2, Normalizer((0.5,) * 3, (0.2,) * 3, CPU), seed=3) for dataset in both]
    for one, other in zip(*(each(4, "test", 0) for each in classes), strict=True):
        assert torch.equal(classes[0].images(one), classes[1].images(other))


def test_another_process_opens_the_file(both: tuple[Dataset, Dataset]) -> None:
    """The images would not fit into what one process sends another."""
    sent = pickle.dumps(both[1].train)
    assert len(sent) < both[1].train.images_u8.numel() / 10
    assert torch.equal(pickle.loads(sent).images_u8[:], both[0].train.images_u8[:])


def test_the_file_is_one_of_safetensors(tmp_path: Path) -> None:
    file = ImageFile(tmp_path / "x.safetensors", (5, 1, 3, 2))
    file.images[:] = np.arange(30, dtype=np.uint8).reshape(5, 1, 3, 2)
    file.finish()
    loaded = load_file(tmp_path / "x.safetensors")["images"]
    assert torch.equal(loaded.flatten(), torch.arange(30, dtype=torch.uint8))
    assert torch.equal(open_images(tmp_path / "x.safetensors", (5, 1, 3, 2)), loaded)
    with pytest.raises(ValueError, match="holds more or less than"):
        open_images(tmp_path / "x.safetensors", (6, 1, 3, 2))


def test_parts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "_AT_ONCE", 100)
    images = torch.zeros(30, 1, 4, 6, dtype=torch.uint8)  # 24 bytes each
    assert [len(part) for part in parts_of(images)] == [4] * 7 + [2]


def test_a_damaged_file_is_made_anew(both: tuple[Dataset, Dataset], folder: Path, caplog) -> None:
    largest = max((folder / CACHE_FOLDER).iterdir(), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[-1] ^= 1
    for damaged in (bytes(content), bytes(content[:-5]), b""):
        largest.write_bytes(damaged)
        assert open_dataset(str(folder)).fingerprint == both[0].fingerprint
        assert "ignoring the damaged cache" in caplog.text
        caplog.clear()


@pytest.mark.parametrize("why", ["in the way", "full"])
def test_without_a_place_on_the_disk_they_are_kept_in_memory(
    folder: Path, why: str, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(mapped, "MAPPED_BYTES", 20_000)
    if why == "full":
        monkeypatch.setattr("os.posix_fallocate", full)
    else:
        (folder / CACHE_FOLDER).write_text("in the way")
    opened = open_dataset(str(folder))
    assert isinstance(opened.train.images_u8, torch.Tensor)
    assert "decoded images stay in memory, for" in caplog.text
    monkeypatch.setattr("os.sysconf", lambda _: 100)  # a machine of 10 KB
    with pytest.raises(ConfigError, match="the images take"):
        open_dataset(str(folder))
    assert why != "full" or [*(folder / CACHE_FOLDER).iterdir()] == []  # of test images, too few to matter, as well


def test_room_is_taken_before_anything_is_written(tmp_path: Path) -> None:
    """A hole that the disk has no room for would end the process."""
    ImageFile(tmp_path / "x", (100, 3, 64, 64))
    assert 512 * (tmp_path / "x").stat().st_blocks >= 100 * 3 * 64 * 64


def test_images_that_are_not_all_sound_leave_no_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the next command would take a black image for one of theirs."""
    path = folder / "train/a/07.png"
    content = bytearray(path.read_bytes())
    content[60] ^= 255  # within the pixels: the header is sound
    path.write_bytes(content)
    monkeypatch.setattr(mapped, "MAPPED_BYTES", 20_000)
    broken: list[str] = []
    listing = list_folder(folder)
    images_u8 = read_listing(listing, None, None, broken).train.images_u8
    assert isinstance(images_u8, MappedImages)
    assert len(broken) == 1
    assert int(images_u8[7:8].sum()) == 0
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"07\.png"):
            open_dataset(str(folder))


def test_what_killed_processes_of_this_machine_left_is_removed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "MAPPED_BYTES", 20_000)
    open_dataset(str(folder))
    cache = max((folder / CACHE_FOLDER).iterdir(), key=lambda path: path.stat().st_size)
    cache.unlink()
    node, dead = platform.node(), subprocess.Popen(["true"])
    dead.wait()
    names = {number: f"{cache.stem}.{node}-{number}.tmp" for number in (dead.pid, os.getppid())}
    theirs = f"{cache.stem}.elsewhere-{dead.pid}.tmp"
    for name in (*names.values(), theirs):
        (cache.parent / name).write_bytes(b"")
    open_dataset(str(folder))
    left = {path.name for path in cache.parent.glob("*.tmp")}
    assert left == {names[os.getppid()], theirs}


LIMITED = """
import resource, sys
from pathlib import Path
from gdd.data import mapped, readers
from gdd.data.batches import Batches

def learn(folder):
    dataset = readers.open_dataset(folder)
    batches = Batches(*dataset.train, 8, 0, "test")
    return dataset.fingerprint, sum(int(batches(step)[0][:, :, 0].sum()) for step in range(40))

learn(sys.argv[1])  # loads all that it needs
(limit,) = (int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if "VmData" in line)
limit = 1024 * limit + int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
mapped.MAPPED_BYTES = int(sys.argv[4])
for _ in range(2):  # decoded, then found
    print(learn(sys.argv[2]))
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    """388 MiB of images with 96 MiB to work in, beside what the imports take; in memory they would not fit."""
    for size, count in (("few", 20), ("many", 460)):
        for label, name in enumerate("ab"):
            (tmp_path / size / name).mkdir(parents=True)
            for index in range(count):
                image = Image.new("RGB", (384, 384), (index % 256, 100 * label, index // 256))
                image.save(tmp_path / size / name / f"{index}.png", compress_level=1)

    def opened(most_in_memory: int) -> subprocess.CompletedProcess[str]:
        folders = str(tmp_path / "few"), str(tmp_path / "many")
        command = [sys.executable, "-c", LIMITED, *folders, str(96 * 2**20), str(most_in_memory)]
        return subprocess.run(command, capture_output=True, text=True)

    refused = opened(2**31)
    assert refused.returncode != 0
    assert "emory" in refused.stderr
    done = opened(2**24)
    assert done.returncode == 0, done.stderr
    first, again = done.stdout.splitlines()
    assert first == again

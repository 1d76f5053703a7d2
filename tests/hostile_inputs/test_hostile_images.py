"""Images and arrays that claim, or unpack to, far more than they are."""

import io
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import guarded
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny_images import chunk, folder_of, png

from gdd.data import encoded
from gdd.data.readers import open_dataset


def jpeg(height: int, width: int) -> bytes:
    """Write a JPEG of 16 pixels and let its header claim others."""
    stream = io.BytesIO()
    Image.new("L", (16, 16)).save(stream, "JPEG")
    whole = bytearray(stream.getvalue())
    place = whole.index(b"\xff\xc0") + 5
    whole[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(whole)


def webp(side: int) -> bytes:
    """Write the header of an extended WebP (its container specification) that claims a canvas, and no image."""
    canvas = struct.pack("<I", 0) + 2 * (side - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", len(canvas)) + canvas
    return b"RIFF" + struct.pack("<I", len(body)) + body


def tiff(height: int, width: int, **more: int) -> bytes:
    """Write a grey TIFF (TIFF 6.0) of 256 bytes of pixels, whose tags may lie: t322 is tag 322."""
    tags = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: 256}
    if "t322" in more:
        tags |= {324: 8, 325: 256}
    tags |= {int(name[1:]): value for name, value in more.items()}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags))
    return b"II*\0" + struct.pack("<I", 264) + bytes(256) + struct.pack("<H", len(tags)) + entries + bytes(4)


def bmp(side: int, compression: int = 0) -> bytes:
    """Write the headers of a bitmap of 8 bits per pixel, and few pixels."""
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, compression, 0, 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 1024 + 8, 0, 0, 54 + 1024) + header + bytes(1024) + bytes([0, 4, 1, 1])


ZEROS = zlib.compress(bytes(2**28), 1)
IMAGES: dict[str, bytes] = {
    "png of 50000": png(50_000, 50_000),
    "png of 2^31": png(2**31 - 1, 2**31 - 1),
    "png of 0": png(0, 0),
    "png of 16 x 0": png(16, 0),
    "png without pixels": png(16, 16, b""),
    "jpeg of 50000": jpeg(50_000, 50_000),
    "jpeg of 65535": jpeg(65_535, 65_535),
    "jpeg of 0": jpeg(0, 16),
    "compressed text": png(16, 16, more=chunk(b"zTXt", b"Comment\0\0" + ZEROS)),
    "international text": png(16, 16, more=chunk(b"iTXt", b"Comment\0\1\0\0\0" + ZEROS)),
    "compressed profile": png(16, 16, more=chunk(b"iCCP", b"p\0\0" + ZEROS)),
    "many texts": png(16, 16, more=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**20 - 1))) * 100),
    "truncated": png(16, 16)[:-30],
    "HTML": b"<!doctype html><title>Not found</title>",
    "nothing": b"",
    "huge chunk": png(16, 16)[:33] + struct.pack(">I", 2**31 - 1) + b"zTXt" + b"x" * 100,
    "GIF": b"GIF89a" + bytes(100),
    "webp of 16383": webp(16_383),
    "tiff of 2^31": tiff(2**31 - 1, 2**31 - 1),
    "tiff of huge tiles": tiff(16, 16, t322=2**16, t323=2**15),
    "tiff of many samples": tiff(16, 16, t277=2**16 - 1),
    "bmp of 2^31": bmp(2**31 - 1),
    "bmp of runs that do not end": bmp(16, 1),
    "ppm of 2^31": b"P6 2147483647 2147483647 255 " + bytes(100),
    "ppm of a number that does not end": b"P6 " + b"9" * 10**6,
}


@pytest.mark.parametrize("case", IMAGES)
def test_a_hostile_image_is_refused(case, tmp_path):
    path = folder_of(tmp_path) / "train" / "a" / "hostile.png"
    path.write_bytes(IMAGES[case])
    for size in ([], ["--data.size", "[16, 16]"]):
        guarded.refused("train-gan", "--dry_run", "--data.name", tmp_path, *size, naming=path)


def test_a_large_image_of_few_bytes_is_refused(tmp_path):
    path = folder_of(tmp_path) / "train" / "a" / "hostile.tif"
    path.write_bytes(tiff(2**13, 2**13, t259=8))
    guarded.refused("train-gan", "--dry_run", "--data.name", tmp_path, "--data.size", "[16, 16]", naming=path)


def test_a_pipe_among_the_images_is_not_waited_for(tmp_path):
    path = folder_of(tmp_path) / "train" / "a" / "pipe.png"
    os.mkfifo(path)
    guarded.refused("train-gan", "--dry_run", "--data.name", tmp_path, naming=path)


def test_images_that_fill_the_machine_are_refused(tmp_path, refused, monkeypatch):
    folder = folder_of(tmp_path)
    monkeypatch.setattr("os.sysconf", lambda _: 100)  # a machine of 10 KB
    for source in (folder, "digits"):
        refused("train-gan", "--dry_run", "--data.name", source, "--data.size", "[64, 64]", naming="data.size")


SHAPES = [(), (10,), (10, 3, 16), (10, 2, 16, 16), (10, 3, 0, 16), (10, 3, 200, 200), (1, 1, 1, 10)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_cache_that_somebody_else_wrote_is_not_believed(shape, dtype, tmp_path, monkeypatch):
    opened = open_dataset(str(folder_of(tmp_path)), tmp_path)
    (cache,) = (tmp_path / ".gdd-cache").iterdir()
    monkeypatch.setattr(encoded, "MAX_PIXELS", 10**4)
    images = torch.zeros(shape, dtype=dtype)
    save_file({"images": images}, cache, {"crc32": str(zlib.crc32(images.numpy().tobytes()))})
    assert open_dataset(str(tmp_path), tmp_path).fingerprint == opened.fingerprint


def npy(shape: tuple[int, ...], content: bytes, descr: str = "|u1") -> bytes:
    header = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + content


def npz(path: Path, method: int = zipfile.ZIP_DEFLATED, **parts: bytes) -> Path:
    with zipfile.ZipFile(path, "w", method, compresslevel=1 if method == zipfile.ZIP_DEFLATED else None) as archive:
        for name, content in parts.items():
            archive.writestr(f"{name}.npy", content)
    return path


IMAGES_NPY = npy((20, 16, 16), bytes(range(256)) * 20)
LABELS_NPY = npy((20,), bytes([0, 1] * 10))
HUGE = npy((2**20, 16, 16), bytes(2**28))


def objects() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([{"a": 1}] * 20, dtype=object), allow_pickle=True)
    return stream.getvalue()


ARRAYS: dict[str, Callable[[Path], object]] = {
    "claims terabytes": lambda path: npz(path, x_train=npy((10**9, 32, 32), b"few"), y_train=LABELS_NPY),
    "claims half a gigabyte": lambda path: npz(path, x_train=npy((2**21, 16, 16), b"few"), y_train=LABELS_NPY),
    "claims 2^80": lambda path: npz(path, x_train=npy((2**40, 2**40), b"few"), y_train=LABELS_NPY),
    "claims less than 0": lambda path: npz(path, x_train=npy((-1, 16, 16), b"few"), y_train=LABELS_NPY),
    "unpacks to gigabytes": lambda path: npz(path, x_train=HUGE, y_train=npy((2**20,), bytes(2**20))),
    "unpacks to gigabytes by bzip2": lambda path: npz(path, zipfile.ZIP_BZIP2, x_train=HUGE, y_train=LABELS_NPY),
    "labels unpack to gigabytes": lambda path: npz(path, x_train=IMAGES_NPY, y_train=HUGE),
    "one huge item": lambda path: npz(path, x_train=npy((1,), b"few", "|V1000000000"), y_train=LABELS_NPY),
    "objects": lambda path: npz(path, x_train=objects(), y_train=LABELS_NPY),
    "objects as labels": lambda path: npz(path, x_train=IMAGES_NPY, y_train=objects()),
    "objects as names": lambda path: npz(path, x_train=IMAGES_NPY, y_train=LABELS_NPY, class_names=objects()),
    "no array": lambda path: npz(path, x_train=b"no array", y_train=LABELS_NPY),
    "a header of code": lambda path: npz(path, x_train=b"\x93NUMPY\1\0\x10\0__import__('os')", y_train=LABELS_NPY),
    "a long header": lambda path: npz(path, x_train=npy((1,) * 10**4, b""), y_train=LABELS_NPY),
    "names that lead out": lambda path: npz(path, **{"../x_train": IMAGES_NPY, "/y_train": LABELS_NPY}),
    "thousands of names": lambda path: npz(path, **{f"{index:0100}": b"" for index in range(2000)}),
    "no zip": lambda path: path.write_bytes(b"PK\3\4" + bytes(100)),
    "a pickle": lambda path: path.write_bytes(objects()),
    "a lone array": lambda path: path.write_bytes(IMAGES_NPY),
    "times": lambda path: npz(path, x_train=IMAGES_NPY, y_train=npy((20,), bytes(160), "<M8[s]")),
    "complex images": lambda path: npz(path, x_train=npy((20, 2, 1), bytes(20 * 32), "<c16"), y_train=LABELS_NPY),
    "no images": lambda path: npz(path, x_train=npy((0, 16, 16), b""), y_train=npy((0,), b"")),
    "greatest labels": lambda path: npz(path, x_train=IMAGES_NPY, y_train=npy((20,), b"\xff" * 160, "<u8")),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_hostile_arrays_are_refused(case, tmp_path):
    path = tmp_path / "hostile.npz"
    ARRAYS[case](path)
    guarded.refused("train-gan", "--dry_run", "--data.name", path, naming=path)


def test_honest_arrays_are_read(tmp_path):
    path = npz(tmp_path / "honest.npz", x_train=IMAGES_NPY, y_train=LABELS_NPY)
    assert guarded.run("train-gan", "--dry_run", "--data.name", path).code == 0


def claimed(kind: bytes, size: int, content: bytes = b"") -> bytes:
    """Return a tar file of one member, whose header may lie."""
    header = tarfile.TarInfo("0.png")
    header.type, header.size = kind, size
    return header.tobuf(tarfile.GNU_FORMAT) + content


TARS = {
    "claims terabytes": claimed(tarfile.REGTYPE, 2**43),
    "claims less than 0": claimed(tarfile.REGTYPE, -(2**40)),
    "a long extended header": claimed(tarfile.XHDTYPE, 2**20, bytes(2**20)),
    "a long name": claimed(tarfile.GNUTYPE_LONGNAME, 2**20, bytes(2**20)),
    "records that do not end": claimed(tarfile.XHDTYPE, 512, b"9" * 512),
    "sparse": claimed(tarfile.GNUTYPE_SPARSE, 2**40),
    "a link": claimed(tarfile.SYMTYPE, 0),
    "no header": b"0.png" + bytes(10**4),
}


@pytest.mark.parametrize("case", TARS)
def test_a_hostile_tar_is_refused(case, tmp_path):
    path = tmp_path / "hostile.tar"
    path.write_bytes(TARS[case])
    guarded.refused("train-gan", "--dry_run", "--data.name", path, naming=path)

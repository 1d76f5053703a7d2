"""PNG files chunk by chunk, and a tiny folder of good ones."""

import struct
import zlib
from pathlib import Path

from PIL import Image


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(height: int, width: int, pixels: bytes | None = None, more: bytes = b"") -> bytes:
    """Write a grey PNG whose header may lie: the pixels, compressed, are those of 16 x 16 unless given."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    found = zlib.compress(bytes(16 * 17)) if pixels is None else pixels
    return b"\x89PNG\r\n\x1a\n" + header + more + chunk(b"IDAT", found) + chunk(b"IEND", b"")


def folder_of(folder: Path, count: int = 5) -> Path:
    """Make two classes of good images to train and test with."""
    for name in ("train/a", "train/b", "test/a", "test/b"):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            Image.new("L", (16, 16), 20 * index).save(folder / name / f"{index}.png")
    return folder

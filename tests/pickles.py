"""Pickles and .pt files, opcode by opcode: what an attacker writes and torch.save never would."""

import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch


def function(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def number(value: int) -> bytes:
    return pickle.LONG1 + b"\x08" + struct.pack("<q", value)


def text(value: str) -> bytes:
    return pickle.BINUNICODE + struct.pack("<I", len(value.encode())) + value.encode()


def called(what: bytes, *arguments: bytes) -> bytes:
    return what + pickle.MARK + b"".join(arguments) + pickle.TUPLE + pickle.REDUCE


def zipped(pickled: bytes) -> bytes:
    """Put a pickle where torch looks for it."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.PROTO + b"\x02" + pickled + pickle.STOP)
        archive.writestr("archive/version", "3\n")
    return stream.getvalue()


def doubling(times: int) -> bytes:
    """Encode bytes as hexadecimal digits again and again; every time they double."""
    encode = function("_codecs", "encode") + pickle.BINPUT + b"\0"
    seed = called(encode, text("a" * 16), text("latin1")) + pickle.BINPUT + b"\1"
    again = called(pickle.BINGET + b"\0", pickle.BINGET + b"\1", text("hex")) + pickle.BINPUT + b"\1"
    return pickle.EMPTY_LIST + pickle.MARK + seed + again * times + pickle.APPENDS


def converted() -> bytes:
    """Spread one byte over a gigabyte of zero stride and have it converted, which takes real memory."""
    storage = function("torch", "ByteStorage")
    kept = pickle.MARK + text("storage") + storage + text("0") + text("cpu") + number(1) + pickle.TUPLE
    ordered = called(function("collections", "OrderedDict"))
    size, stride = (pickle.MARK + number(value) + pickle.TUPLE for value in (10**9, 0))
    rebuild = function("torch._utils", "_rebuild_tensor_v2")
    spread = called(rebuild, kept + pickle.BINPERSID, number(0), size, stride, pickle.NEWFALSE, ordered)
    convert = function("torch._utils", "_rebuild_device_tensor_from_cpu_tensor")
    return called(convert, spread, function("torch", "float64"), text("cpu"), pickle.NEWFALSE)


class Touch:
    """Unpickling this makes a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.mark),)


def _saved(content: object, **options: bool) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


def with_code(mark: Path) -> bytes:
    return _saved({"data": Touch(mark)})


def with_code_legacy(mark: Path) -> bytes:
    return _saved({"data": Touch(mark)}, _use_new_zipfile_serialization=False)


def deflated() -> bytes:
    """Compress half a gigabyte of zeros into half a megabyte."""
    stream = io.BytesIO(_saved({"data": torch.zeros(4)}))
    packed = io.BytesIO()
    with zipfile.ZipFile(stream) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as new:
        for name in old.namelist():
            new.writestr(name, bytes(2**29) if name.endswith("data/0") else old.read(name))
    return packed.getvalue()


def overlapping() -> bytes:
    """List one entry of a megabyte two thousand times."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"data": 1}, 2))
        archive.writestr("archive/data/0", bytes(2**20))
        archive.filelist += [archive.filelist[-1]] * 2000
    return stream.getvalue()


def two_lists() -> bytes:
    """Put a harmless zip file behind another: some readers look at the end, others at the stated place."""
    harmless, harmful = _saved({"data": 1}), zipped(called(function("builtins", "bytearray"), number(10**9)))
    return harmful + harmless


def huge_legacy_storage() -> bytes:
    """Let the older format claim a storage of 40 GB."""
    whole = _saved({"data": torch.zeros(1000)}, _use_new_zipfile_serialization=False)
    return whole.replace(pickle.BININT2 + struct.pack("<H", 1000), number(10**10))


def expanded() -> bytes:
    """Spread one number over shapes that a set has, a copy of which would take terabytes."""
    images, labels = torch.zeros(1).expand(10**9, 1, 16, 16), torch.zeros(1, dtype=torch.int64).expand(10**9)
    return _saved({"data": [[images, labels]]})


def expanded_tensor() -> bytes:
    return _saved(torch.zeros(1).expand(10**9, 10))


BOMBS: dict[str, Callable[[], bytes]] = {
    "bytearray": lambda: zipped(called(function("builtins", "bytearray"), number(10**9))),
    "tensor": lambda: zipped(called(function("torch", "FloatTensor"), number(10**9))),
    "doubling": lambda: zipped(doubling(26)),
    "converted": lambda: zipped(converted()),
    "large pickle": lambda: zipped(pickle.EMPTY_LIST + pickle.MARK + pickle.EMPTY_DICT * 3 * 10**6 + pickle.APPENDS),
    "deflated": deflated,
    "overlapping": overlapping,
    "two lists": two_lists,
    "huge legacy storage": huge_legacy_storage,
    "expanded": expanded,
    "expanded tensor": expanded_tensor,
}

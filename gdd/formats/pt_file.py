"""A stranger's .pt file: scanned before torch builds what it asks for, then loaded without running any code.

torch.load(weights_only=True) runs no foreign code, but obeys: a pickle of a hundred bytes may demand a bytearray of
gigabytes, and a compressed entry may grow without end. Plain tensors need none of that.
"""

import encodings
import hashlib
import io
import pickletools
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch

from gdd.config import ConfigError

# Both far above what a file of tensors and numbers needs; a byte of a pickle may become an object of 200.
_MOST_PICKLE = 2**20  # bytes
_LEGACY_PICKLES = 5  # of a file in torch.save's older format

_PLAIN = re.compile(
    r"collections\.OrderedDict|torch\.(\w+Storage|Size|device|(float|bfloat|int|uint|bool)\w*)"
    r"|torch\._utils\._rebuild_(tensor_v2|parameter)|_codecs\.encode"
    # numpy values, which `_STAND_INS` replace.
    r"|numpy\.(ndarray|dtype|_?core\.multiarray\.(_reconstruct|scalar))"
)
# numpy's bytes are text to be encoded as latin1; encoded again and again by one of these they double each time.
_FROM_BYTES = {"hex", "base64", "bz2", "quopri", "quotedprintable", "uu", "zip", "zlib"}


class NumpyValue:
    """Stands for every numpy value of a file, such as the accuracies beside DC's images, and keeps nothing of it.

    numpy's own functions would obey a hostile file: a dtype's pickled state may declare raw bytes to be pointers.
    """

    def __init__(self, *_: object) -> None: ...
    def __setstate__(self, _: object) -> None: ...


# numpy 2 renamed numpy.core.
_STAND_INS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (NumpyValue, f"numpy.{name}")
    for name in (
        *("ndarray", "dtype", "core.multiarray._reconstruct", "core.multiarray.scalar"),
        *("_core.multiarray._reconstruct", "_core.multiarray.scalar"),
    )
]


def load(path: Path) -> tuple[Any, str]:
    """Return what torch.save wrote, and 16 hex digits of the file's SHA-256.

    Raises:
        ConfigError: the file is missing, damaged, or needs more than tensors and numbers.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}), expected a .pt file") from error
    try:
        if data.startswith(b"PK\3\4"):  # as torch tells them apart
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                _check_zip(archive, len(data))
        else:
            stream = io.BytesIO(data)
            for _ in range(_LEGACY_PICKLES):
                _check_pickle(stream)
        # torch also warns about odd files; the errors below say the same.
        with torch.serialization.safe_globals(_STAND_INS), warnings.catch_warnings(action="ignore"):
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except _Unwanted as error:
        if error.name.startswith("torch."):
            raise ConfigError(f"{path} holds {error.name}, expected a dense tensor, numbers and lists") from error
        raise ConfigError(f"{path} would run code of its own choice ({error.name}) when read; refused") from error
    except Exception as error:  # torch raises many kinds for a damaged file
        raise ConfigError(f"{path} is damaged or was not written by torch.save") from error
    return content, hashlib.sha256(data).hexdigest()[:16]


class _Unwanted(ValueError):
    """A pickle names a function that no file of tensors and numbers needs."""

    def __init__(self, name: str) -> None:
        super().__init__(f"it needs {name}")
        self.name = name


def _check_zip(archive: zipfile.ZipFile, size: int) -> None:
    """Raise ValueError if a zip file of `size` bytes is not as torch writes it, or is damaged."""
    parts = archive.infolist()
    # torch stores its entries as they are; compressed or overlapping ones could grow without end.
    if any(part.compress_type for part in parts) or sum(part.file_size for part in parts) > size:
        raise ValueError("its parts claim more bytes than it has")
    # torch finds the list of entries by its stated place, Python from the end; of two lists each would read another.
    if parts and (parts[0].header_offset or archive.comment):
        raise ValueError("something is put before or behind its parts")
    for part in parts:
        if part.filename.lower().endswith(".pkl"):
            with archive.open(part) as stream:
                _check_pickle(stream)
    if (damaged := archive.testzip()) is not None:  # torch's reader skips the checksums that its writer stored
        raise ValueError(f"wrong checksum of {damaged}")


def _check_pickle(stream: IO[bytes]) -> None:
    """Raise ValueError if the next pickle of a stream asks for more than plain tensors."""
    begin, encodes, texts = stream.tell(), False, set()
    for operation, argument, _ in pickletools.genops(stream):
        if stream.tell() - begin > _MOST_PICKLE:
            raise ValueError(f"a pickle in it has more than {_MOST_PICKLE} bytes")
        if operation.name == "GLOBAL":
            name = str(argument).replace(" ", ".")
            if not _PLAIN.fullmatch(name):
                raise _Unwanted(name)
            encodes |= name == "_codecs.encode"
        elif isinstance(argument, str):
            texts.add(encodings.normalize_encoding(argument).lower().removesuffix("_codec").replace("_", ""))
    if encodes and texts & _FROM_BYTES:
        raise _Unwanted("_codecs.encode")

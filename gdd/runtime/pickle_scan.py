"""The scan of a stranger's .pt file before torch builds what it asks for.

torch.load(weights_only=True) runs no foreign code, but obeys: a pickle of a hundred bytes may demand a bytearray of
gigabytes, and a compressed entry may grow without end. Plain tensors need none of that.
"""

import encodings
import pickletools
import re
import zipfile
from typing import IO

# Both far above what a file of tensors and numbers needs; a byte of a pickle may become an object of 200.
MOST_BYTES = 2**20
_LEGACY_PICKLES = 5

_PLAIN = re.compile(
    r"collections\.OrderedDict|torch\.(\w+Storage|Size|device|(float|bfloat|int|uint|bool)\w*)"
    r"|torch\._utils\._rebuild_(tensor_v2|parameter)|_codecs\.encode"
    # numpy values, which dc_mtt replaces by stand-ins.
    r"|numpy\.(ndarray|dtype|_?core\.multiarray\.(_reconstruct|scalar))"
)
# numpy's bytes are text to be encoded as latin1; encoded again and again by one of these they double each time.
_FROM_BYTES = {"hex", "base64", "bz2", "quopri", "quotedprintable", "uu", "zip", "zlib"}


class Unwanted(ValueError):
    """A pickle names a function that no file of tensors and numbers needs."""

    def __init__(self, name: str) -> None:
        super().__init__(f"it needs {name}")
        self.name = name


def check_zip(archive: zipfile.ZipFile, size: int) -> None:
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


def check_legacy(stream: IO[bytes]) -> None:
    """Raise ValueError if a file of torch.save's older format asks for more than plain tensors."""
    for _ in range(_LEGACY_PICKLES):
        _check_pickle(stream)


def _check_pickle(stream: IO[bytes]) -> None:
    begin, encodes, texts = stream.tell(), False, set()
    for operation, argument, _ in pickletools.genops(stream):
        if stream.tell() - begin > MOST_BYTES:
            raise ValueError(f"a pickle in it has more than {MOST_BYTES} bytes")
        if operation.name == "GLOBAL":
            name = str(argument).replace(" ", ".")
            if not _PLAIN.fullmatch(name):
                raise Unwanted(name)
            encodes |= name == "_codecs.encode"
        elif isinstance(argument, str):
            texts.add(encodings.normalize_encoding(argument).lower().removesuffix("_codec").replace("_", ""))
    if encodes and texts & _FROM_BYTES:
        raise Unwanted("_codecs.encode")

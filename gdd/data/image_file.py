"""One PNG or JPEG file of a stranger: opened within bounds, turned upright, with 8 bits per channel."""

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image

from gdd.config import ConfigError
from gdd.data.spec import MAX_PIXELS
from gdd.data.splits import to_array

SUFFIXES = (".png", ".jpg", ".jpeg")
_GREY = ("1", "L", "LA")  # modes of Pillow without colour
# How an image is turned that a camera has stored by its sensor's rows (EXIF 2.3, tag Orientation).
_ORIENTATION = 0x0112
_TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPPED = (5, 6, 7, 8)  # those that make rows of columns


@contextmanager
def open_image(source: str | bytes, name: str) -> Iterator[Image.Image]:
    """Open a path or a file's bytes without decoding.

    Raises:
        ConfigError: it is no such image or has too many pixels; an error of Pillow's in the body becomes one as well.
    """
    try:
        if isinstance(source, str) and not os.path.isfile(source):
            raise OSError("it is no regular file")  # a pipe would be waited for without end
        stream = source if isinstance(source, str) else io.BytesIO(source)
        with Image.open(stream, formats=("PNG", "JPEG")) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            yield image
    except ConfigError:
        raise
    except Image.DecompressionBombError as error:
        raise ConfigError(f"{name} has more than {MAX_PIXELS} pixels (4096x4096)") from error
    except Exception as error:  # Pillow's parsers raise many types on damaged bytes
        reason = re.sub(r" <_io\.BytesIO [^>]*>", "", str(error))
        raise ConfigError(f"{name} is not a readable PNG or JPEG image: {reason}") from error


def is_grey(image: Image.Image) -> bool:
    """Return whether the image's file has no colour channels."""
    return _has_16_bits(image) or image.mode in _GREY


def size_of(image: Image.Image) -> tuple[int, int]:
    """Return (H, W) once the image is upright."""
    return (image.width, image.height) if _orientation(image) in _SWAPPED else (image.height, image.width)


def pixels_of(image: Image.Image, shape: tuple[int, int, int]) -> np.ndarray:
    """Decode an image, turn it upright, and return it as (C, H, W) uint8 of the given shape; transparency is dropped.

    Grey levels of 16 bits become the nearest ones of 8; of 16-bit colours Pillow itself keeps the upper 8 bits.
    """
    turn = _TURNED.get(_orientation(image))
    if turn is not None:
        image = image.transpose(turn)
    if _has_16_bits(image):
        levels = np.asarray(image).astype(np.uint32)
        image = Image.fromarray(((levels + 128) // 257).astype(np.uint8))
    return to_array(image, shape[1:], shape[0])


def _has_16_bits(image: Image.Image) -> bool:
    return image.mode == "I" or image.mode.startswith("I;16")  # a PNG has no more than 16, whatever Pillow calls it


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation that stands before the pixels, 1 if there is none or it is damaged."""
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif") or b"")
        return int(exif.get(_ORIENTATION, 1))
    except Exception:  # a camera's bytes may be anything; the pixels are what counts
        return 1

"""One image of a stranger: opened within bounds, turned upright, with 8 bits per channel and no transparency.

`is_grey`, `size_of` and `pixels_of` take any Pillow image, of a file or made in memory.
"""

import io
import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from gdd.config import ConfigError
from gdd.data.splits import to_array

# What torchvision's ImageFolder takes, in lower case. What a file is, its content says.
SUFFIXES = (".png", ".jpg", ".jpeg", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp")
_FORMATS = ("PNG", "JPEG", "PPM", "BMP", "TIFF", "WEBP")
MOST_PIXELS = 2**26  # of a file; cameras have up to 61 million, and one in colour takes 256 MiB while it is decoded
_LARGE = 2**24  # pixels beyond which a JPEG is decoded at a fraction of its size, if it is to become small
_MOST_PER_BYTE = 256  # pixels in a large file; a photograph has about one, a JPEG of one colour some 70
_GREY = ("1", "L", "LA", "La", "F")  # modes of Pillow without colour, beside those of 16 bits
_WHITE = 255
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
_WIDTH, _HEIGHT, _BITS, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 258, 322, 323  # tags of TIFF 6.0
_WORDS = (b"eXIf", b"iTXt", b"tEXt", b"zTXt")  # chunks of a PNG that may hold an orientation


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
        with Image.open(stream, formats=_FORMATS) as image:
            _require_few_pixels(image, name, os.path.getsize(source) if isinstance(source, str) else len(source))
            yield image
    except ConfigError:
        raise
    except Image.DecompressionBombError as error:  # of Pillow's own bound, which is above ours
        claimed = re.search(r"\d+", str(error))
        raise ConfigError(_too_many(name, f"{int(claimed[0]):,}" if claimed else "far too many")) from error
    except UnidentifiedImageError as error:
        raise ConfigError(f"{name} is not a readable image, expected one of {', '.join(_FORMATS)}") from error
    except Exception as error:  # Pillow's parsers raise many types on damaged bytes
        reason = re.sub(r" <_io\.BytesIO [^>]*>", "", str(error))
        raise ConfigError(f"{name} is not a readable image: {reason}") from error


def is_grey(image: Image.Image) -> bool:
    """Return whether an image has no colour channels."""
    return _has_16_bits(image) or image.mode in _GREY


def size_of(image: Image.Image) -> tuple[int, int]:
    """Return (H, W) once the image is upright."""
    tags = _tags(image)
    height, width = (image.height, image.width) if tags is None else (tags[_HEIGHT], tags[_WIDTH])
    return (width, height) if _orientation(image) in _SWAPPED else (height, width)


def pixels_of(image: Image.Image, shape: tuple[int, int, int]) -> np.ndarray:
    """Decode an image, turn it upright, lay it on white, and return it as (C, H, W) uint8 of the given shape.

    Grey levels of 16 bits become the nearest ones of 8; of 16-bit colours Pillow itself keeps the upper 8 bits. What
    is transparent shows white, as on a page: colours of transparent pixels were never meant to be seen, and most
    drawings are dark. Of several frames the first is taken.

    Raises:
        ValueError: floating-point or 32-bit levels, of which nobody tells what is white.
    """
    is_tiff = _tags(image) is not None
    turn = None if is_tiff else _TURNED.get(_orientation(image))
    if image.width * image.height > _LARGE:
        image.draft(None, (2 * max(shape[1:]), 2 * max(shape[1:])))
    white = _highest_level(image)
    if turn is not None:
        image = image.transpose(turn)
    elif is_tiff:
        image.load()  # which turns it
    if white is not None:
        image = _of_8_bits(image, white)
    if image.has_transparency_data:
        image = _on_white(image)
    return to_array(image, shape[1:], shape[0])


def _require_few_pixels(image: Image.Image, name: str, size: int) -> None:
    """Refuse an image that takes more memory than one may, or large ones of more than the `size` of its file tells."""
    pixels, sides = image.width * image.height, f"{image.height:,} x {image.width:,}"
    if pixels > MOST_PIXELS:
        raise ConfigError(_too_many(name, sides))
    if pixels > max(_LARGE, _MOST_PER_BYTE * size):
        raise ConfigError(f"{name} unpacks from {size:,} bytes to {sides} pixels: save it smaller, or remove it")
    tags = _tags(image) or {}
    tile = tags.get(_TILE_WIDTH, 1) * tags.get(_TILE_HEIGHT, 1)
    if tile > _LARGE:  # each is decoded whole, whatever the image takes of it
        raise ConfigError(f"{name} is stored in tiles of {tile:,} pixels, expected at most {_LARGE:,}")


def _too_many(name: str, pixels: str) -> str:
    side = int(MOST_PIXELS**0.5)
    return f"{name} has {pixels} pixels, more than {MOST_PIXELS:,} ({side} x {side}): save it smaller, or remove it"


def _tags(image: Image.Image) -> Any:
    """Return the tags of a TIFF, by number; None of other images."""
    return getattr(image, "tag_v2", None)


def _has_16_bits(image: Image.Image) -> bool:
    return image.mode == "I" or image.mode.startswith("I;16")


def _highest_level(image: Image.Image) -> int | None:
    """Return what white is in an image of grey levels of more than 8 bits; None of others."""
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):  # those have at most 16 bits
        kind = "floating-point" if image.mode == "F" else "32-bit"
        raise ValueError(f"it has {kind} levels, of which nobody tells what is white; save it with 8 or 16 bits")
    if not _has_16_bits(image):
        return None
    bits = (_tags(image) or {}).get(_BITS, (16,))[0]  # a TIFF may have 12
    return 2**bits - 1


def _of_8_bits(image: Image.Image, white: int) -> Image.Image:
    levels = np.asarray(image).astype(np.uint32)
    grey = Image.fromarray(((levels * _WHITE + white // 2) // white).clip(0, _WHITE).astype(np.uint8))
    if "transparency" in image.info:  # the one level that is transparent
        seen = Image.fromarray(np.where(levels == image.info["transparency"], 0, 255).astype(np.uint8))
        grey.putalpha(seen)
    return grey


def _on_white(image: Image.Image) -> Image.Image:
    """Return the image without transparency, on a white background; grey stays grey."""
    grey = image.mode in _GREY
    premultiplied = {"RGBa": "RGBA", "La": "LA"}.get(image.mode)
    image = image.convert(premultiplied) if premultiplied else image
    image = image if image.mode == "RGBA" else image.convert("RGBA")
    shown = Image.alpha_composite(Image.new("RGBA", image.size, (_WHITE,) * 4), image)
    return shown.convert("L" if grey else "RGB")


def _orientation(image: Image.Image) -> int:
    """Return the orientation that EXIF, ImageMagick's profile or XMP tells, 1 if none does or it is damaged."""
    try:
        tags = _tags(image)
        if tags is not None:
            return int(tags.get(_ORIENTATION, 1))
        if _tells_late(image):
            image.load()
        # Not that of PNG files, which decodes every image that has none.
        return int(Image.Image.getexif(image).get(_ORIENTATION, 1))
    except Exception:  # a camera's bytes may be anything; the pixels are what counts
        return 1


def _tells_late(image: Image.Image) -> bool:
    """Return whether a PNG file that is not decoded yet has words after its pixels, which Pillow reads after them."""
    file, tile = (getattr(image, name, None) for name in ("fp", "tile"))
    if image.format != "PNG" or file is None or not tile:
        return False
    place = file.tell()
    try:
        file.seek(tile[0][2] - 8)  # the header of the chunk that the pixels begin in
        kind = b"IDAT"
        while kind not in (*_WORDS, b"IEND"):
            length, kind = struct.unpack(">I4s", file.read(8))
            file.seek(length + 4, os.SEEK_CUR)
        return kind in _WORDS
    except struct.error:  # the file ends before
        return False
    finally:
        file.seek(place)

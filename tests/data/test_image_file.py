"""Images of every kind that folders hold: decoded to known pixels."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import make_classes, make_dataset

from gdd.config import ConfigError
from gdd.data.image_file import is_grey, open_image, pixels_of, size_of
from gdd.data.readers import open_dataset
from gdd.data.splits import to_array


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def decoded(content: bytes, channels: int = 3) -> np.ndarray:
    with open_image(content, "image") as image:
        return pixels_of(image, (channels, *size_of(image)))


OPTIONS = {"PNG": {}, "TIFF": {}, "JPEG": {"quality": 100}, "WEBP": {"lossless": True, "exact": True}}


def tiff(height: int, width: int, bits: int, pixels: bytes, **more: int) -> bytes:
    """Write a grey TIFF by hand (TIFF 6.0, sections 2 and 3); `more` adds tags by number, as t322."""
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(pixels)}
    tags |= {int(name[1:]): value for name, value in more.items()}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags))
    body = pixels + bytes(len(pixels) % 2)
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + struct.pack("<H", len(tags)) + entries + bytes(4)


def with_orientation(image: Image.Image, number: int, kind: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = number
    return encoded(image, kind, exif=exif, **OPTIONS[kind])


# Upper left, upper right, lower left, lower right as shown, of a stored [[0, 60], [120, 180]] (EXIF 2.3, figure of tag
# Orientation: which stored row and column is the visual top and left).
SHOWN = {
    1: [[0, 60], [120, 180]],
    2: [[60, 0], [180, 120]],
    3: [[180, 120], [60, 0]],
    4: [[120, 180], [0, 60]],
    5: [[0, 120], [60, 180]],
    6: [[120, 0], [180, 60]],
    7: [[180, 60], [120, 0]],
    8: [[60, 180], [0, 120]],
    9: [[0, 60], [120, 180]],  # no orientation
}


XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
TAGS = b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"  # EXIF 2.3: Orientation is 6
# Chunks of PNG files: of the standard, of ImageMagick, of Adobe (XMP 3, "Storage in files").
WORDS = {
    "eXIf": (b"eXIf", TAGS[6:]),
    "ImageMagick": (
        b"zTXt",
        b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n      34\n%s\n" % TAGS.hex().encode()),
    ),
    "XMP": (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
}


class TestOrientation:
    @pytest.mark.parametrize("kind", ["PNG", "JPEG"])
    @pytest.mark.parametrize("number", SHOWN)
    def test_an_image_is_turned_as_a_camera_says(self, number, kind):
        stored = np.kron([[0, 60], [120, 180]], np.ones((8, 8))).astype(np.uint8)
        found = decoded(with_orientation(Image.fromarray(stored), number, kind), 1)[0, 4::8, 4::8]
        assert np.abs(found.astype(int) - SHOWN[number]).max() <= 1

    @pytest.mark.parametrize("number", [1, 6])
    def test_turned_images_have_turned_sizes(self, number, tmp_path):
        for name in "ab":
            for index in range(3):
                path = tmp_path / name / f"{index}.jpg"
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(with_orientation(Image.new("L", (10, 6), 99), number, "JPEG"))
        assert open_dataset(str(tmp_path)).spec.shape == ((1, 6, 10) if number == 1 else (1, 10, 6))

    @pytest.mark.parametrize("kind", ["TIFF", "WEBP"])
    @pytest.mark.parametrize("number", SHOWN)
    def test_other_kinds_are_turned_once(self, number, kind):
        stored = Image.fromarray(np.kron([[0, 60], [120, 180]], np.ones((8, 12))).astype(np.uint8))
        content = with_orientation(stored.convert("RGB"), number, kind)
        with open_image(content, "image") as image:
            size = size_of(image)
            assert size == ((24, 16) if number in (5, 6, 7, 8) else (16, 24))
            found = pixels_of(image, (1, *size))
        corners = found[0][[[4, 4], [-4, -4]], [[4, -4], [4, -4]]]
        assert np.abs(corners.astype(int) - SHOWN[number]).max() <= 1

    @pytest.mark.parametrize("late", [False, True], ids=["before the pixels", "after them"])
    @pytest.mark.parametrize("words", WORDS)
    def test_what_imagemagick_and_xmp_say_of_a_png(self, words, late):
        whole = encoded(Image.fromarray(np.array([[0, 60, 120], [180, 200, 220]], np.uint8)))
        place = whole.index(b"IEND") - 4 if late else whole.index(b"IDAT") - 4
        content = whole[:place] + chunk(*WORDS[words]) + whole[place:]
        with open_image(content, "image") as image:
            assert size_of(image) == (3, 2)
        assert decoded(content, 1).tolist() == [[[180, 0], [200, 60], [220, 120]]]  # 6: a quarter turn clockwise

    def test_what_xmp_says_of_a_jpeg(self):
        content = encoded(Image.fromarray(np.kron([[0, 200]], np.ones((8, 8))).astype(np.uint8)), "JPEG", xmp=XMP)
        assert np.abs(decoded(content, 1)[0, 4::8, 4].astype(int) - [0, 200]).max() <= 1

    def test_a_damaged_orientation_leaves_the_image(self):
        content = encoded(Image.new("L", (4, 4), 7), exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + bytes(9))
        assert decoded(content, 1).tolist() == np.full((1, 4, 4), 7).tolist()


class TestDepth:
    def test_16_bits_become_the_nearest_of_8(self):
        levels = np.array([[0, 128, 129, 256], [257, 32767, 32768, 65535]], np.uint16)
        expected = np.rint(levels / 65535 * 255)
        assert expected.tolist() == [[0, 0, 1, 1], [1, 127, 128, 255]]
        content = encoded(Image.fromarray(levels))
        assert decoded(content, 1).tolist() == [expected.tolist()]
        assert decoded(content, 3).tolist() == [expected.tolist()] * 3
        with open_image(content, "image") as image:
            assert is_grey(image)

    def test_12_bits_of_a_tiff_become_the_nearest_of_8(self):
        levels = np.array([[0, 4095], [2048, 9]], np.uint16)
        packed = b"".join((int(a) << 12 | int(b)).to_bytes(3, "big") for a, b in levels)
        assert decoded(tiff(2, 2, 12, packed), 1).tolist() == [np.rint(levels / 4095 * 255).tolist()]

    @pytest.mark.parametrize("kind", [np.float32, np.int32])
    def test_levels_without_a_known_white_are_refused(self, kind):
        image = Image.fromarray(np.ones((2, 2), kind))
        with pytest.raises(ConfigError, match=r"image is not a readable image: it has .* levels"):
            decoded(encoded(image, "TIFF"))
        with pytest.raises(ValueError, match="of which nobody tells what is white"):
            pixels_of(image, (1, 2, 2))

    def test_one_bit_is_black_and_white(self):
        assert decoded(encoded(Image.fromarray(np.eye(2, dtype=bool))), 1).tolist() == [[[255, 0], [0, 255]]]


class TestColour:
    def test_cmyk_is_turned_into_rgb(self):
        # No cyan, full magenta and yellow: red.
        found = decoded(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100))
        assert np.abs(found.astype(int) - np.array([255, 0, 0])[:, None, None]).max() <= 3

    @pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
    def test_transparent_images_lie_on_white(self, kind):
        pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 4), dtype=np.uint8)
        pixels[0, :4, 3] = [0, 255, 0, 255]
        seen = pixels[..., 3:] / 255
        expected = pixels[..., :3] * seen + 255 * (1 - seen)
        found = decoded(encoded(Image.fromarray(pixels), kind, **OPTIONS[kind])).transpose(1, 2, 0)
        assert np.abs(found - expected).max() < 0.5001  # rounded

    def test_transparency_of_grey_and_of_single_levels(self):
        grey = Image.merge("LA", [Image.new("L", (2, 2), 9), Image.fromarray(np.array([[0, 255]] * 2, np.uint8))])
        levels = np.array([[300, 257]] * 2, np.uint16)
        flat = Image.fromarray(np.array([[30, 9]] * 2, np.uint8))
        contents = {
            "two channels": (encoded(grey), 9),
            "one level": (encoded(flat, transparency=30), 9),
            "one of 16 bits": (encoded(Image.fromarray(levels), transparency=300), 1),
        }
        for content, level in contents.values():
            assert decoded(content, 1).tolist() == [[[255, level]] * 2]
            with open_image(content, "image") as image:
                assert is_grey(image)

    def test_palettes(self):
        blue = Image.new("RGB", (2, 2), (0, 0, 255)).quantize(2)
        assert decoded(encoded(blue))[:, 0, 0].tolist() == [0, 0, 255]
        assert decoded(encoded(blue, transparency=0))[:, 0, 0].tolist() == [255, 255, 255]

    @pytest.mark.parametrize("mode", ["RGBa", "La", "PA"])
    def test_rarer_modes_of_images_in_memory(self, mode):
        image = Image.new("LA" if mode == "La" else "RGBA", (2, 2), (9, 0) if mode == "La" else (0, 0, 9, 0))
        if mode == "PA":
            image = Image.new("PA", (2, 2), (0, 0))
        assert pixels_of(image.convert(mode), (3, 2, 2)).tolist() == np.full((3, 2, 2), 255).tolist()

    def test_grey_and_colour_and_16_bits_share_a_folder(self, tmp_path):
        make_dataset(tmp_path, {"a": 2, "b": 2}, {"a": 1, "b": 1}, channels=1)
        Image.new("RGB", (8, 8), (255, 0, 0)).save(tmp_path / "train/b/x.png")
        Image.fromarray(np.full((8, 8), 65535, np.uint16)).save(tmp_path / "train/b/y.png")
        train = open_dataset(str(tmp_path), val_fraction=0).train
        assert train.images_u8[-2:, :, 0, 0].tolist() == [[255, 0, 0], [255, 255, 255]]
        assert train.images_u8[0, :, 0, 0].tolist() == [0, 0, 0]


def claiming(side: int) -> bytes:
    """Return a PNG whose header lies."""
    whole = encoded(Image.new("1", (1, 1)))
    return whole[:8] + chunk(b"IHDR", struct.pack(">II", side, side) + whole[24:29]) + whole[33:]


class TestLargeImages:
    def test_a_photograph_of_24_megapixels_is_read(self):
        """Two halves, of one grey level each: wherever pixels are taken from, they keep it."""
        halves = np.full((4000, 6000), 40, np.uint8)
        halves[2000:] = 200
        with open_image(encoded(Image.fromarray(halves).convert("RGB"), "JPEG"), "photo") as image:
            assert size_of(image) == (4000, 6000)
            found = pixels_of(image, (1, 32, 48))
            assert image.width * image.height <= 2**24  # a fraction of the pixels was decoded
        assert np.abs(found[0, :15].astype(int) - 40).max() <= 1
        assert np.abs(found[0, 17:].astype(int) - 200).max() <= 1

    @pytest.mark.parametrize(("side", "said"), [(8193, "8,193 x 8,193 pixels"), (20_000, "400,000,000 pixels")])
    def test_more_are_refused_with_size_and_remedy(self, side, said):
        said = rf"photo has {said}, more than 67,108,864 \(8192 x 8192\): save it smaller, or remove it"
        with pytest.raises(ConfigError, match=said):
            open_image(claiming(side), "photo").__enter__()

    def test_many_pixels_of_few_bytes_are_refused(self):
        with pytest.raises(ConfigError, match=r"photo unpacks from \d+ bytes to 4,097 x 4,097 pixels"):
            open_image(claiming(4097), "photo").__enter__()

    def test_huge_tiles_of_a_tiff_are_refused(self):
        content = tiff(16, 16, 8, bytes(256), t322=2**16, t323=2**14, t324=8, t325=256)
        with pytest.raises(ConfigError, match="is stored in tiles of 1,073,741,824 pixels"):
            decoded(content)


def test_a_cache_of_another_version_is_not_used(tmp_path, monkeypatch):
    make_classes(tmp_path, {"a": 5, "b": 5})
    open_dataset(str(tmp_path))
    before = set((tmp_path / ".gdd-cache").iterdir())
    monkeypatch.setattr("gdd.data.encoded.CACHE_VERSION", 1)
    open_dataset(str(tmp_path))
    assert len(set((tmp_path / ".gdd-cache").iterdir()) - before) == 1


def test_pixels_have_the_shape_that_is_asked_for():
    image = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    with open_image(encoded(image), "image") as opened:
        found = pixels_of(opened, (3, 4, 2))
    assert torch.equal(torch.tensor(found), torch.tensor(to_array(image, (4, 2), 3)))


def test_two_classes_will_do(tmp_path: Path):
    make_classes(tmp_path, {"a": 3, "b": 3})
    opened = open_dataset(str(tmp_path))
    assert opened.train.labels.tolist() == [0, 1]
    assert opened.val.labels.tolist() == [0, 1]
    assert opened.test().labels.tolist() == [0, 1]

"""Images of every kind that folders hold: decoded to known pixels."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import make_classes, make_dataset

from gdd.data.image_file import is_grey, open_image, pixels_of, size_of
from gdd.data.readers import open_dataset
from gdd.data.splits import to_array


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def decoded(content: bytes, channels: int = 3) -> np.ndarray:
    with open_image(content, "image") as image:
        return pixels_of(image, (channels, *size_of(image)))


def with_orientation(image: Image.Image, number: int, kind: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = number
    return encoded(image, kind, exif=exif, **({"quality": 100} if kind == "JPEG" else {}))


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

    def test_one_bit_is_black_and_white(self):
        assert decoded(encoded(Image.fromarray(np.eye(2, dtype=bool))), 1).tolist() == [[[255, 0], [0, 255]]]


class TestColour:
    def test_cmyk_is_turned_into_rgb(self):
        # No cyan, full magenta and yellow: red.
        found = decoded(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100))
        assert np.abs(found.astype(int) - np.array([255, 0, 0])[:, None, None]).max() <= 3

    def test_palettes_and_transparency(self):
        blue = Image.new("RGBA", (2, 2), (0, 0, 255, 0))
        palette = blue.convert("RGB").quantize(2)
        for content in (encoded(blue), encoded(palette), encoded(palette, transparency=0)):
            assert decoded(content)[:, 0, 0].tolist() == [0, 0, 255]
        with open_image(encoded(Image.new("LA", (2, 2), (9, 0))), "image") as image:
            assert is_grey(image)

    def test_grey_and_colour_and_16_bits_share_a_folder(self, tmp_path):
        make_dataset(tmp_path, {"a": 2, "b": 2}, {"a": 1, "b": 1}, channels=1)
        Image.new("RGB", (8, 8), (255, 0, 0)).save(tmp_path / "train/b/x.png")
        Image.fromarray(np.full((8, 8), 65535, np.uint16)).save(tmp_path / "train/b/y.png")
        train = open_dataset(str(tmp_path), val_fraction=0).train
        assert train.images_u8[-2:, :, 0, 0].tolist() == [[255, 0, 0], [255, 255, 255]]
        assert train.images_u8[0, :, 0, 0].tolist() == [0, 0, 0]


def test_a_cache_of_another_version_is_not_used(tmp_path, monkeypatch):
    make_classes(tmp_path, {"a": 5, "b": 5})
    open_dataset(str(tmp_path))
    before = set((tmp_path / ".gdd-cache").iterdir())
    monkeypatch.setattr("gdd.data.cache.VERSION", 1)
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

"""Images that a caller has in memory: kept in the run's folder, the same ones found again, others refused."""

import re

import numpy as np
import pytest
import torch
from pandas import DataFrame
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from gdd.api.data import data_settings
from gdd.config import ConfigError
from gdd.data.readers import open_dataset

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (30, 16, 16, 3), dtype=np.uint8)
LABELS = np.arange(30) % 3


class Pets(Dataset):
    classes = ("cat", "dog", "eel")

    def __init__(self, images=IMAGES):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], LABELS[index]


def opened(settings: dict):
    return open_dataset(settings["name"], val_fraction=0)


def test_names_and_paths_stay_what_they_are(tmp_path):
    assert data_settings("mnist", None, tmp_path) == {"name": "mnist"}
    assert data_settings(tmp_path / "a.npz", None, tmp_path) == {"name": str(tmp_path / "a.npz")}
    assert data_settings({"val_fraction": 0.2}, None, tmp_path) == {"val_fraction": 0.2}
    with pytest.raises(ConfigError, match="test is given beside data 'mnist'"):
        data_settings("mnist", (IMAGES, LABELS), tmp_path)


@pytest.mark.parametrize("data", [(IMAGES, LABELS), [IMAGES, LABELS.tolist()], Pets()], ids=["pair", "list", "dataset"])
def test_images_in_memory_are_read_back(tmp_path, data):
    settings = data_settings({"name": data, "size": [16, 16]}, (IMAGES[:6], LABELS[:6]), tmp_path / "mine")
    assert settings == {"name": str(tmp_path / "mine/mine.npz"), "size": [16, 16]}
    dataset = opened(settings)
    assert torch.equal(dataset.train.images_u8, torch.from_numpy(IMAGES).permute(0, 3, 1, 2))
    assert dataset.train.labels.tolist() == LABELS.tolist()
    assert dataset.test().labels.tolist() == LABELS[:6].tolist()
    assert dataset.spec.name == "mine"
    assert dataset.spec.class_names == (Pets.classes if isinstance(data, Pets) else ("0", "1", "2"))


def test_a_fifth_is_held_out_without_test_images(tmp_path):
    dataset = opened(data_settings((IMAGES, LABELS), None, tmp_path / "mine"))
    assert (len(dataset.train.labels), len(dataset.test().labels)) == (24, 6)


def test_float_tensors_of_a_torch_dataset(tmp_path):
    tensors = torch.from_numpy(IMAGES).permute(0, 3, 1, 2) / 255
    dataset = opened(data_settings(TensorDataset(tensors, torch.from_numpy(LABELS)), None, tmp_path / "mine"))
    levels = {image.tobytes() for image in IMAGES.transpose(0, 3, 1, 2)}
    assert {image.numpy().tobytes() for image in dataset.train.images_u8} < levels


def used(folder):
    """Let a stage of the run have begun."""
    (folder / "pretrain").mkdir()
    (folder / "pretrain/config.json").write_text("{}")
    return (folder / f"{folder.name}.npz").stat().st_mtime_ns


OTHERS = {
    "pixels": ((255 - IMAGES, LABELS), None),
    "labels": ((IMAGES, LABELS[::-1]), None),
    "fewer": ((IMAGES[:9], LABELS[:9]), None),
    "test part": ((IMAGES, LABELS), (IMAGES, LABELS)),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_the_same_images_are_found_again_and_others_refused(tmp_path, other):
    folder = tmp_path / "mine"
    settings = data_settings((IMAGES, LABELS), None, folder)
    written = used(folder)
    assert data_settings((IMAGES.copy(), LABELS.tolist()), None, folder) == settings
    assert (folder / "mine.npz").stat().st_mtime_ns == written
    with pytest.raises(ConfigError, match=r"mine.npz holds other images .* choose another name, or set run.overwrite"):
        data_settings(*other, folder)
    assert (
        opened(settings).train.labels.tolist()
        == opened(data_settings((IMAGES, LABELS), None, folder)).train.labels.tolist()
    )
    data_settings(*other, folder, overwrite=True)
    assert data_settings(*other, folder) == settings
    with pytest.raises(ConfigError, match="holds other images"):
        data_settings((IMAGES, LABELS), None, folder)


def test_images_that_no_stage_has_used_are_replaced(tmp_path):
    data_settings((IMAGES[:3], LABELS[:3]), None, tmp_path / "mine")  # too few, which only opening them tells
    assert len(opened(data_settings((IMAGES, LABELS), None, tmp_path / "mine")).train.labels) == 24


def test_images_that_an_earlier_version_wrote_are_the_same(tmp_path):
    """Until then floats were kept as floats, in the layout in which they were given, and numbers had no names."""
    (tmp_path / "mine").mkdir()
    np.savez(tmp_path / "mine/mine.npz", x_train=IMAGES / 255, y_train=LABELS)
    used(tmp_path / "mine")
    data_settings((IMAGES / 255, LABELS), None, tmp_path / "mine")


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/mine.npz").write_bytes(b"PK nothing")
    used(tmp_path / "mine")
    with pytest.raises(ConfigError, match=r"mine.npz is not a readable .npz file"):
        data_settings((IMAGES, LABELS), None, tmp_path / "mine")


class Labelled(Pets):
    """Labels of another kind."""

    def __init__(self, label):
        super().__init__()
        self.label = label

    def __getitem__(self, index):
        return self.images[index], self.label(LABELS[index])


class Endless(IterableDataset):
    def __iter__(self):
        return iter([])


class Counted(Endless):
    def __len__(self):
        return 3


@pytest.mark.parametrize(
    "kind", [lambda y: np.array([y]), lambda y: torch.tensor([y]), lambda y: torch.tensor(y), int, np.uint8]
)
def test_labels_of_one_number_are_taken(tmp_path, kind):
    """MedMNIST's have the shape (1,)."""
    assert (
        opened(data_settings(Labelled(kind), (IMAGES, LABELS[:, None]), tmp_path / "m")).train.labels.tolist()
        == LABELS.tolist()
    )


GREY = IMAGES[..., 0]
REFUSED = {
    "a number": (3, "data is a int, expected a name, a path"),
    "one": ((IMAGES,), "data is a tuple of 1, expected"),
    "shapes": (Pets([IMAGES[0], IMAGES[1][:8]]), "2 types or shapes, such as uint8 (16, 16, 3) and uint8 (8, 16, 3)"),
    "types": (
        Pets([IMAGES[0], IMAGES[1] / 255]),
        "2 types or shapes, such as float64 (16, 16, 3) and uint8 (16, 16, 3)",
    ),
    "none": (Pets([]), "data is a Pets of 0 items"),
    "no pairs": (TensorDataset(torch.zeros(2, 1, 8, 8)), "data is a TensorDataset whose items are a tuple of 1"),
    "rows": (IMAGES, "data is a ndarray whose items are uint8 of shape (16, 16, 3), expected a name"),
    "a table": (DataFrame({"image": [1], "label": [0]}), "data is a DataFrame without item 0"),
    "iterable": (Endless(), "data is a Endless, expected"),
    "iterable with a length": (Counted(), "data is a Counted, expected"),
    "ragged": (([IMAGES[0], IMAGES[1][:8]], [0, 1]), "2 types or shapes"),
    "two pairs": ([(IMAGES[0], 0), (IMAGES[1], 1)], "2 types or shapes, such as int64 () and uint8 (16, 16, 3)"),
    "no images": (([], []), "images of data are none"),
    "sparse": ((torch.zeros(3, 8, 8).to_sparse(), [0, 1, 2]), "images of data cannot be made an array"),
    "texts": ((np.array(["a", "b"]), [0, 1]), "images of data is <U1 of shape (2,), expected numbers"),
    "tanh": ((IMAGES / 127.5 - 1, LABELS), "the image array of data is float in [-1, 1], expected [0, 1]"),
    "0 and 1": (((GREY > 99).astype(np.uint8), LABELS), "the image array of data has no pixel above 1"),
    "twice": ((IMAGES / 255 / 255, LABELS), "the image array of data has no pixel above 1/255"),
    "whole": ((IMAGES.astype(int), LABELS), "the image array of data is int64, expected uint8"),
    "one-hot": (Labelled(lambda y: np.eye(3)[y]), "labels of data are float64 of shape (3,), expected whole numbers"),
    "one-hot whole": (
        (IMAGES, np.eye(3, dtype=int)[LABELS]),
        "label array of data is int64 of shape (30, 3), expected",
    ),
    "several": (Labelled(lambda y: [y] * (y + 1)), "labels of data are of shapes (1,) and (2,), expected whole"),
    "halves": (Labelled(lambda y: y + 0.5), "labels of data are float64 of shape (), expected whole numbers"),
    "half": ((IMAGES, LABELS + 0.5), "label array of data is float64 of shape (30,), expected integers"),
    "nan": (Labelled(lambda y: float("nan")), "labels of data are float64 of shape (), expected whole numbers"),
    "text": (Labelled(lambda y: "cat"), "a label of data is 'cat', expected numbers"),
    "letters": ((IMAGES, list("abc" * 10)), "a label of data is 'a', expected numbers"),
    "nothing": (Labelled(lambda y: None), "a label of data is None, expected numbers"),
    "fewer labels": (
        (IMAGES, LABELS[:9]),
        "label array of data is int64 of shape (9,), expected integers of shape (30,)",
    ),
    "from 1": ((IMAGES, LABELS + 1), "the label array of data holds 3 different labels from 1 to 3, expected 0 to 2"),
    "negative": ((IMAGES, LABELS - 1), "the label array of data holds 3 different labels from -1 to 1"),
    "names": (Pets(IMAGES[:2]), "data.classes is <U3 of shape (3,), expected 2 different texts"),
}


@pytest.mark.parametrize(("data", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_dataset_is_refused_in_a_sentence_and_not_written(tmp_path, data, words):
    with pytest.raises(ConfigError, match=re.escape(words)) as raised:
        data_settings(data, None, tmp_path / "mine")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    ("test", "words"),
    [
        ((IMAGES / 127.5 - 1, LABELS), "the image array of test is float in [-1, 1]"),
        ((IMAGES, LABELS + 1), "test has labels 1 to 3, expected 0 to 2 as data has"),
        ((IMAGES, LABELS / 1), "the label array of test is float64"),
    ],
)
def test_a_test_part_is_refused_before_it_is_written(tmp_path, test, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        data_settings((IMAGES, LABELS), test, tmp_path / "mine")
    assert not (tmp_path / "mine").exists()
    for data in ({"size": [8, 8]}, {"name": "mnist"}):
        with pytest.raises(ConfigError, match="test is given beside"):
            data_settings(data, (IMAGES, LABELS), tmp_path / "mine")


UNUSUAL = {
    "gradient": torch.from_numpy(IMAGES / 255).requires_grad_(),
    "bfloat16": torch.from_numpy(IMAGES // 255).bfloat16(),
    "mirrored": IMAGES[:, :, ::-1],
    "big-endian": (IMAGES / 255).astype(">f4"),
    "a list of tensors": [*torch.from_numpy(IMAGES)],
    "bool": torch.from_numpy(IMAGES > 127),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_arrays_of_any_kind_are_read(tmp_path, name):
    images = UNUSUAL[name]
    expected = np.stack([np.asarray(image.detach().float() if torch.is_tensor(image) else image) for image in images])
    expected = (expected * 255).round() if name in ("gradient", "bfloat16", "big-endian", "bool") else expected
    found = opened(data_settings((images, LABELS), (IMAGES, LABELS), tmp_path / "mine")).train.images_u8
    assert np.array_equal(found.permute(0, 2, 3, 1), expected)


PHOTO = Image.fromarray(IMAGES[0]).resize((20, 12), Image.Resampling.BICUBIC)


def of_16_bits(mode: str) -> Image.Image:
    return Image.fromarray(np.arange(240).reshape(12, 20).astype(np.uint16) * 257).convert(mode)


# Every mode that a file can have, and what it becomes is what a file of it becomes.
FILES = {mode: PHOTO.convert(mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK")} | {
    "I;16": of_16_bits("I;16"),
    "I": of_16_bits("I"),
    "turned": PHOTO.copy(),
}
FILES["turned"].getexif()[0x0112] = 6
FILES["turned"].info["exif"] = FILES["turned"].getexif().tobytes()


class Pictures(Dataset):
    """The same picture but for one pixel, in two classes."""

    def __init__(self, *pictures):
        self.pictures = pictures

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return self.pictures[index % len(self.pictures)], index % 2


@pytest.mark.parametrize("name", FILES)
def test_images_of_pillow_become_what_their_files_become(tmp_path, name):
    suffix = "jpg" if FILES[name].mode == "CMYK" else "png"
    for label in "ab":
        for number in range(2):
            path = tmp_path / f"files/{label}/{number}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            FILES["I;16" if name == "I" else name].save(
                path, **({"exif": FILES[name].info["exif"]} if name == "turned" else {})
            )
    with Image.open(path) as read:
        picture = read.copy() if suffix == "jpg" else FILES[name]  # JPEG loses something
    data = Pictures(picture)
    made = opened(data_settings(data, data, tmp_path / "mine"))
    stored = open_dataset(str(tmp_path / "files"), val_fraction=0)
    assert made.spec.shape == stored.spec.shape
    assert torch.equal(made.train.images_u8[0], stored.train.images_u8[0])


@pytest.mark.parametrize("mode", ["HSV", "YCbCr", "RGBX", "PA", "RGBa"])
def test_modes_that_no_file_has_become_the_colours_they_stand_for(tmp_path, mode):
    opaque = {"PA": PHOTO.convert("P"), "RGBa": PHOTO.convert("RGBA")}.get(mode, PHOTO)
    data = Pictures(opaque.convert(mode))
    made = opened(data_settings(data, data, tmp_path / "mine")).train.images_u8[0]
    expected = np.asarray(opaque.convert("RGB")).transpose(2, 0, 1).astype(int)
    assert np.abs(made.numpy().astype(int) - expected).max() <= 6  # HSV and YCbCr have 8 bits of their own


def test_grey_images_among_coloured_ones_become_coloured(tmp_path):
    data = Pictures(PHOTO.convert("L"), PHOTO)
    made = opened(data_settings(data, data, tmp_path / "mine"))
    assert made.spec.shape == (3, 12, 20)
    assert torch.equal(made.train.images_u8[0], torch.from_numpy(np.array(PHOTO.convert("L"))).expand(3, -1, -1))


def test_floats_of_pillow_are_those_of_arrays(tmp_path):
    data = Pictures(Image.fromarray(np.asarray(PHOTO.convert("L"), np.float32) / 255))
    made = opened(data_settings(data, data, tmp_path / "mine"))
    assert np.array_equal(made.train.images_u8[0, 0], np.asarray(PHOTO.convert("L")))
    with pytest.raises(ConfigError, match=r"the image array of data is float in \[.*\], expected \[0, 1\]"):
        data_settings(Pictures(PHOTO.convert("F")), None, tmp_path / "other")


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (PHOTO.convert("L").convert("I"), "has no pixel above 1 and would be black"),  # 8 bits are no 16 bits
        (Image.fromarray(np.full((12, 20), 70000, np.int32)), "mode I cannot be read: levels are 70000 to 70000"),
        (Image.fromarray(np.full((12, 20), -1, np.int32)), "mode I cannot be read: levels are -1 to -1"),
        (PHOTO.convert("LA").convert("La"), "mode La cannot be read"),
    ],
)
def test_images_of_pillow_that_are_none_are_refused(tmp_path, picture, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        data_settings(Pictures(picture), None, tmp_path / "mine")

"""Images that a caller has in memory: kept in the run's folder, the same ones found again, others refused."""

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

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


def test_the_same_images_are_found_again_and_others_refused(tmp_path):
    settings = data_settings((IMAGES, LABELS), None, tmp_path / "mine")
    written = (tmp_path / "mine/mine.npz").stat().st_mtime_ns
    assert data_settings((IMAGES.copy(), LABELS), None, tmp_path / "mine") == settings
    assert (tmp_path / "mine/mine.npz").stat().st_mtime_ns == written
    for other in ((255 - IMAGES, LABELS), (IMAGES, LABELS[::-1]), (IMAGES[:9], LABELS[:9])):
        with pytest.raises(ConfigError, match=r"mine.npz holds other images .* choose another name"):
            data_settings(other, None, tmp_path / "mine")
    with pytest.raises(ConfigError, match="holds other images"):  # a test part where there was none
        data_settings((IMAGES, LABELS), (IMAGES, LABELS), tmp_path / "mine")


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/mine.npz").write_bytes(b"PK nothing")
    with pytest.raises(ConfigError, match=r"mine.npz is not a readable .npz file"):
        data_settings((IMAGES, LABELS), None, tmp_path / "mine")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (3, "data is a int, expected a name, a path"),
        ((IMAGES,), "data is a tuple, expected"),
        (
            Pets([IMAGES[0], IMAGES[1][:8]]),
            r"of 2 shapes, such as \[\(8, 16, 3\), \(16, 16, 3\)\], expected one",
        ),
        (Pets([]), "data is a Pets of 0 items"),
        (TensorDataset(torch.zeros(2, 1, 8, 8)), "data is a TensorDataset of 2 items"),
    ],
)
def test_what_is_no_dataset_is_refused(tmp_path, data, words):
    with pytest.raises(ConfigError, match=words):
        data_settings(data, None, tmp_path / "mine")
    assert not (tmp_path / "mine").exists()

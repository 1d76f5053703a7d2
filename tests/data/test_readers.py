"""What `open_dataset` does with its options, whatever the data."""

import os
import time
from pathlib import Path

import pytest
from tiny import make_dataset, refuses

from gdd.data.readers import Dataset, open_dataset
from gdd.data.spec import order_of_numbers

REAL_DATA = Path(__file__).parents[2] / "data"


class TestOptions:
    def test_unknown_name_lists_the_names_and_the_nearest(self) -> None:
        refuses("expected digits, mnist, fashion_mnist, cifar10, cifar100, svhn, tiny_imagenet, folder", "cifar-10")
        refuses("did you mean 'cifar10'?", "cifar-10")
        refuses("did you mean 'fashion_mnist'?", "FashionMNIST")

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"size": (0, 8)}, "data.size is (0, 8), expected [height, width]"),
            ({"size": (8,)}, "data.size is (8,), expected [height, width]"),
            ({"channels": 2}, "data.channels is 2, expected 1 or 3"),
            ({"val_fraction": 0.6}, "data.val_fraction is 0.6, expected a number in [0, 0.5]"),
            ({"val_fraction": float("nan")}, "data.val_fraction is nan"),
        ],
    )
    def test_bad_options(self, options: dict[str, object], sentence: str) -> None:
        refuses(sentence, "digits", **options)


class TestNames:
    @pytest.mark.parametrize("name", ["digits", "mnist"])
    def test_a_folder_called_like_a_known_dataset_is_told(self, name, tmp_path, monkeypatch, caplog):
        monkeypatch.chdir(tmp_path)
        make_dataset(tmp_path / name, {"cat": 4, "dog": 4}, {"cat": 1, "dog": 1})
        sentence = f"{name} is the name of a known dataset and a folder here: write ./{name} for the folder"
        if name == "digits":
            assert open_dataset(name).spec.num_classes == 10
            assert sentence in caplog.text
        else:
            refuses(sentence, name)
        assert open_dataset(f"./{name}").spec.class_names == ("cat", "dog")

    def test_a_path_that_is_not_utf8_is_refused(self, tmp_path):
        place = tmp_path / os.fsdecode(b"caf\xe9")
        make_dataset(place, {"a": 4, "b": 4}, {"a": 1, "b": 1})
        refuses("caf\\xe9 is not UTF-8: rename it", place)

    @pytest.mark.parametrize(
        ("names", "label"),
        [
            (["0", "1", "10", "11", "2"], 2),
            ([str(number) for number in range(10)], None),
            (["08", "09", "10"], None),
            (["1", "10", "2", "x"], None),
        ],
    )
    def test_numbers_that_sort_as_texts_are_told(self, names, label):
        said = order_of_numbers(names)
        assert (said is None) == (label is None)
        assert said is None or f"label {label} is class {names[label]!r}" in said


@pytest.mark.skipif(not (REAL_DATA / "cifar10" / "train").is_dir(), reason="needs data/cifar10")
@pytest.mark.slow
def test_real_cifar10() -> None:
    def timed() -> tuple[Dataset, float]:
        start = time.perf_counter()
        return open_dataset("cifar10", REAL_DATA), time.perf_counter() - start

    timed()
    cifar, seconds = timed()
    assert cifar.train.labels.bincount().tolist() == [4500] * 10
    assert cifar.test().labels.bincount().tolist() == [1000] * 10
    means = cifar.train.images_u8.float().div(255).mean((0, 2, 3))
    assert means.tolist() == pytest.approx(cifar.spec.mean, abs=2e-3)
    assert seconds < 10  # 0.9 s on two idle cores; the margin is for a busy machine

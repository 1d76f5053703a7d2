"""What `open_dataset` does with its options, whatever the data."""

import time
from pathlib import Path

import pytest
from tiny import refuses

from gdd.data.readers import Dataset, open_dataset

REAL_DATA = Path(__file__).parents[2] / "data"


class TestOptions:
    def test_unknown_name_lists_the_names_and_the_nearest(self) -> None:
        refuses("expected digits, mnist, fashion_mnist, cifar10, cifar100, svhn, folder", "cifar-10")
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

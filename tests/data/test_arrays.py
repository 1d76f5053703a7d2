"""Digits, torchvision's files and .npz files; nothing is downloaded."""

import gzip
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import levels, refuses, same
from torchvision import datasets

from gdd.data import arrays
from gdd.data.readers import open_dataset


class TestDigits:
    def test_shape_counts_and_statistics(self) -> None:
        digits = open_dataset("digits", Path("nowhere"))
        train, val, test = digits.train, digits.val, digits.test()
        assert digits.spec.shape == (1, 16, 16)
        assert digits.spec.class_names == tuple("0123456789")
        assert not digits.spec.flip
        assert len(train.labels) + len(val.labels) + len(test.labels) == 1797
        assert len(test.labels) == pytest.approx(0.2 * 1797, abs=5)
        for split in (train, val, test):
            assert split.images_u8.dtype == torch.uint8
            assert split.labels.dtype == torch.int64
            assert len(split.labels.unique()) == 10
        pixels = torch.cat([train.images_u8, val.images_u8]).double() / 255
        assert digits.spec.mean[0] == pytest.approx(pixels.mean().item(), abs=5e-5)
        assert digits.spec.std[0] == pytest.approx(pixels.std(correction=0).item(), abs=5e-5)

    def test_16_levels_become_255(self) -> None:
        digits = open_dataset("digits", Path("nowhere"), size=(8, 8))
        assert digits.train.images_u8.max() == 255
        assert len(digits.train.images_u8.unique()) == 17

    def test_seed_moves_val_but_neither_test_nor_spec(self) -> None:
        first, again, other = (open_dataset("digits", Path("nowhere"), seed=seed) for seed in (0, 0, 1))
        assert same(first.val, again.val)
        assert first.fingerprint == again.fingerprint
        assert not same(first.val, other.val)
        assert first.fingerprint != other.fingerprint
        assert same(first.test(), other.test())
        assert first.spec == other.spec

    def test_val_fraction_zero(self) -> None:
        digits = open_dataset("digits", Path("nowhere"), val_fraction=0)
        assert digits.val.images_u8.shape == (0, 1, 16, 16)
        assert len(digits.fingerprint) == 16

    def test_three_channels_repeat_one(self) -> None:
        grey = open_dataset("digits", Path("nowhere"), size=(12, 20))
        colour = open_dataset("digits", Path("nowhere"), size=(12, 20), channels=3)
        assert grey.spec.shape == (1, 12, 20)
        assert torch.equal(colour.train.images_u8, grey.train.images_u8.expand(-1, 3, -1, -1))
        assert colour.spec.mean == grey.spec.mean * 3


class TestNpz:
    @staticmethod
    def save(path: Path, **changes: object) -> Path:
        rng = np.random.default_rng(0)
        arrays: dict[str, object] = {
            "x_train": rng.integers(0, 256, (30, 8, 10, 3), np.uint8),
            "y_train": np.arange(30) % 3,
            "x_test": rng.integers(0, 256, (6, 8, 10, 3), np.uint8),
            "y_test": np.arange(6) % 3,
        }
        arrays.update(changes)
        np.savez(path, **{name: array for name, array in arrays.items() if array is not None})  # type: ignore[arg-type]
        return path

    def test_channels_last_and_first_agree(self, tmp_path: Path) -> None:
        last = self.save(tmp_path / "last.npz")
        with np.load(last) as stored:
            images = {name: stored[name].transpose(0, 3, 1, 2) for name in ("x_train", "x_test")}
        first = self.save(tmp_path / "first.npz", **images)
        opened = [open_dataset(str(path), tmp_path) for path in (last, first)]
        assert opened[0].spec.shape == (3, 8, 10)
        assert opened[0].spec.name == "last"
        assert opened[0].spec.class_names == ("0", "1", "2")
        assert opened[0].fingerprint == opened[1].fingerprint
        assert same(opened[0].test(), opened[1].test())
        assert opened[0].val.labels.bincount().tolist() == [1, 1, 1]

    def test_float_and_greyscale(self, tmp_path: Path) -> None:
        levels = np.arange(240).reshape(30, 8, 1).repeat(8, axis=2)
        as_u8 = self.save(tmp_path / "u8.npz", x_train=levels.astype(np.uint8), x_test=None, y_test=None)
        as_float = self.save(tmp_path / "f.npz", x_train=levels / 255, x_test=None, y_test=None)
        opened = [open_dataset(str(path), tmp_path) for path in (as_u8, as_float)]
        assert opened[0].spec.shape == (1, 8, 8)
        assert opened[0].fingerprint == opened[1].fingerprint
        assert opened[0].test().labels.bincount().tolist() == [2, 2, 2]

    def test_class_names_are_read(self, tmp_path: Path) -> None:
        named = self.save(tmp_path / "x.npz", class_names=np.array(["owl", "cat", "ant"]))
        opened = open_dataset(str(named), tmp_path)
        assert opened.spec.class_names == ("owl", "cat", "ant")
        assert opened.fingerprint == open_dataset(str(self.save(tmp_path / "y.npz")), tmp_path).fingerprint

    def test_resized(self, tmp_path: Path) -> None:
        opened = open_dataset(str(self.save(tmp_path / "x.npz")), tmp_path, size=(4, 6), channels=1)
        assert opened.spec.shape == opened.test().images_u8.shape[1:] == (1, 4, 6)

    @pytest.mark.parametrize(
        ("changes", "sentence"),
        [
            ({"x_train": None}, "holds no x_train, only y_train, x_test, y_test"),
            ({"y_test": None}, "holds no y_test, only x_train, y_train, x_test"),
            ({"x_train": np.zeros((30, 8, 8), np.int64)}, "is int64, expected uint8, bool or float in [0, 1]"),
            ({"x_train": np.full((30, 8, 8), 2.0)}, "is float in [2, 2], expected [0, 1]"),
            ({"x_train": np.full((30, 8, 8), 1.002, np.float32)}, "is float in [1.002, 1.002], expected [0, 1]"),
            ({"x_train": np.linspace(-0.002, 1, 1920).reshape(30, 8, 8)}, "is float in [-0.002, 1], expected [0, 1]"),
            ({"x_train": np.ones((30, 8, 8), np.uint8)}, "has no pixel above 1 and would be black, expected uint8"),
            ({"x_train": np.full((30, 8, 8), 1 / 255)}, "has no pixel above 1/255 and would be black, expected"),
            ({"x_train": np.full((30, 8, 8), np.nan)}, "is float in [nan, nan], expected [0, 1]"),
            ({"x_train": np.zeros((30, 8, 8, 5), np.uint8)}, "has shape (30, 8, 8, 5), expected (N, H, W)"),
            ({"x_train": np.zeros((30, 3, 8, 3), np.uint8)}, "has shape (30, 3, 8, 3), expected (N, H, W)"),
            ({"x_train": np.zeros((30, 64), np.uint8)}, "has shape (30, 64), expected (N, H, W)"),
            ({"x_train": np.zeros((0, 8, 8), np.uint8)}, "has shape (0, 8, 8), expected at least one pixel"),
            ({"y_train": np.arange(29) % 3}, "of shape (29,), expected integers of shape (30,)"),
            ({"y_train": np.zeros((30, 3), int)}, "of shape (30, 3), expected integers of shape (30,)"),
            ({"y_train": np.zeros((1, 30), int)}, "of shape (1, 30), expected integers of shape (30,)"),
            ({"y_train": np.zeros(30)}, "is float64 of shape (30,), expected integers"),
            ({"x_test": np.full((6, 8, 10, 3), 255.0)}, "x_test of"),
            ({"x_test": np.ones((6, 8, 10, 3), np.uint8)}, "x_test of"),
            ({"y_test": np.zeros(6)}, "y_test of"),
            ({"y_test": np.full(6, 3)}, "test part of x has labels 3 to 3, expected 0 to 2"),
            ({"x_test": np.full((6, 8, 8, 3), 9, np.uint8)}, "have shape (3, 8, 8), train images have (3, 8, 10)"),
            ({"y_train": np.arange(30) % 3 + 1}, "3 different labels from 1 to 3, expected 0 to 2"),
            ({"y_train": np.arange(30) % 3 * 2}, "3 different labels from 0 to 4, expected 0 to 2"),
            ({"y_train": np.zeros(30, int)}, "holds one class, expected at least 2"),
            ({"y_train": np.array([{}] * 30)}, "is not a readable .npz file"),
            ({"class_names": np.array(["a", "b"])}, "is <U1 of shape (2,), expected 3 different texts"),
            ({"class_names": np.array(["a", "b", "a"])}, "is <U1 of shape (3,), expected 3 different texts"),
            ({"class_names": np.arange(3)}, "is int64 of shape (3,), expected 3 different texts"),
            ({"class_names": np.array(["a", "b", None])}, "is not a readable .npz file"),
        ],
    )
    def test_errors(self, tmp_path: Path, changes: dict[str, object], sentence: str) -> None:
        refuses(sentence, self.save(tmp_path / "x.npz", **changes))

    def test_what_rounding_adds_to_0_and_1_is_taken_off(self, tmp_path: Path) -> None:
        """As torchvision's antialiased resizing does, which gives 1.0000002."""
        levels = (np.arange(1920) % 256).reshape(30, 8, 8) / 255
        beyond = np.where(levels == 1, 1.0019, np.where(levels == 0, -0.0019, levels))
        exact, over = (
            self.save(tmp_path / f"{name}.npz", x_train=x.astype(np.float32), x_test=None, y_test=None)
            for name, x in (("exact", levels), ("over", beyond))
        )
        assert open_dataset(str(exact)).fingerprint == open_dataset(str(over)).fingerprint

    def test_bool_is_black_and_white(self, tmp_path: Path) -> None:
        mask = np.arange(30 * 64).reshape(30, 8, 8) % 3 == 0
        opened = open_dataset(str(self.save(tmp_path / "x.npz", x_train=mask, x_test=mask[:6])), val_fraction=0)
        assert torch.equal(opened.train.images_u8[:, 0], torch.from_numpy(mask) * torch.tensor(255, dtype=torch.uint8))
        assert opened.test().images_u8.unique().tolist() == [0, 255]

    def test_labels_may_be_a_column(self, tmp_path: Path) -> None:
        column = self.save(
            tmp_path / "column.npz", y_train=np.arange(30)[:, None] % 3, y_test=np.arange(6)[:, None] % 3
        )
        row = self.save(tmp_path / "row.npz")
        opened = [open_dataset(str(path)) for path in (column, row)]
        assert opened[0].fingerprint == opened[1].fingerprint
        assert same(opened[0].test(), opened[1].test())

    def test_drawings_unpack_to_far_more_and_a_bomb_is_told_what_to_do(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def drawn(name: str, count: int, save=np.savez_compressed) -> Path:
            images = np.zeros((count, 64, 64), np.uint8)  # compressed, a 900th of it is left
            images[:, 3, 3] = 255
            save(tmp_path / name, x_train=images, y_train=np.arange(count) % 2)
            return tmp_path / name

        assert len(open_dataset(str(drawn("many.npz", 8200)), val_fraction=0).train.labels) == 6560  # 34 MB
        monkeypatch.setattr(arrays, "MOST_UNPACKED", 2**20)
        refuses("if it is yours, write it with np.savez, which does not compress", drawn("few.npz", 300))
        open_dataset(str(drawn("plain.npz", 300, np.savez)))

    def test_missing_and_damaged_file(self, tmp_path: Path) -> None:
        refuses("none.npz was not found", tmp_path / "none.npz")
        (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 cut off")
        refuses("bad.npz is not a readable .npz file", tmp_path / "bad.npz")


class TestTorchvision:
    @staticmethod
    def write_mnist(root: Path, train: int = 40, test: int = 20) -> Path:
        """Write MNIST's four files, with images whose pixels are their index."""
        raw = root / "MNIST" / "raw"
        raw.mkdir(parents=True)
        for part, count in (("train", train), ("t10k", test)):
            images = np.arange(count, dtype=np.uint8).repeat(28 * 28)
            header = np.array([0x803, count, 28, 28], ">i4").tobytes()
            (raw / f"{part}-images-idx3-ubyte").write_bytes(header + images.tobytes())
            labels = (np.arange(count) % 10).astype(np.uint8)
            header = np.array([0x801, count], ">i4").tobytes()
            (raw / f"{part}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())
        return raw

    def test_mnist(self, tmp_path: Path) -> None:
        self.write_mnist(tmp_path)
        mnist = open_dataset("mnist", tmp_path, val_fraction=0.25)
        assert mnist.spec.shape == (1, 28, 28)
        assert mnist.spec.class_names == tuple("0123456789")
        assert (mnist.spec.mean, mnist.spec.std, mnist.spec.flip) == ((0.1307,), (0.3081,), False)
        assert mnist.val.labels.bincount().tolist() == [1] * 10
        assert torch.equal(mnist.train.images_u8[:, 0, 5, 5] % 10, mnist.train.labels)
        assert levels(mnist.test()) == set(range(20))

    def test_mnist_in_colour_infers_three_statistics(self, tmp_path: Path) -> None:
        self.write_mnist(tmp_path)
        spec = open_dataset("mnist", tmp_path, size=(32, 32), channels=3).spec
        assert spec.shape == (3, 32, 32)
        assert spec.mean == (round(19.5 / 255, 4),) * 3

    def test_cifar10_batches(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = tmp_path / "cifar-10-batches-py"
        folder.mkdir()
        pixels = np.arange(20, dtype=np.uint8).repeat(3072).reshape(20, 3072)
        for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
            batch = {"data": pixels, "labels": [i % 10 for i in range(20)]}
            (folder / name).write_bytes(pickle.dumps(batch))
        names = [f"class{i}" for i in range(10)]
        (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": names}))
        refuses("cifar10 below", "cifar10", tmp_path)  # the checksums of the true files do not match
        monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda self: True)
        monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda path, md5: True)
        cifar = open_dataset("cifar10", tmp_path)
        assert cifar.spec.shape == (3, 32, 32)
        assert cifar.spec.class_names == tuple(names)
        assert len(cifar.train.labels) == 90
        assert torch.equal(cifar.train.images_u8[:, 2, 31, 31] % 10, cifar.train.labels)

    @pytest.mark.parametrize(
        ("name", "file"),
        [
            ("mnist", "MNIST/raw/train-images-idx3-ubyte"),
            ("fashion_mnist", "FashionMNIST/raw/train-images-idx3-ubyte"),
            ("cifar10", "cifar-10-batches-py/data_batch_1"),
            ("cifar100", "cifar-100-python/train"),
            ("svhn", "train_32x32.mat"),
        ],
    )
    def test_missing(self, tmp_path: Path, name: str, file: str) -> None:
        refuses(
            f"{name} was not found: looked for {tmp_path / file}; add --data.download true to download it, "
            "or set --data.root to the folder that holds it",
            name,
            tmp_path,
        )

    def test_missing_test_file_is_found_before_training(self, tmp_path: Path) -> None:
        (self.write_mnist(tmp_path) / "t10k-labels-idx1-ubyte").unlink()
        refuses("t10k-labels-idx1-ubyte; add --data.download", "mnist", tmp_path)

    def test_damaged_test_file_is_found_before_training(self, tmp_path: Path) -> None:
        path = self.write_mnist(tmp_path) / "t10k-images-idx3-ubyte"
        path.write_bytes(path.read_bytes()[:-1])
        refuses(f"mnist below {path.parent} is damaged", "mnist", tmp_path)

    @pytest.mark.parametrize(
        ("part", "change", "sentence"),
        [
            *((part, slice(keep), "") for part in ("images-idx3", "labels-idx1") for keep in (0, 3, 10, 30)),
            ("images-idx3", gzip.compress, ""),
            (
                "labels-idx1",
                lambda whole: whole[:7] + b"\x1e" + whole[8:38],
                "mnist holds 40 images but 30 labels",
            ),
        ],
    )
    def test_damaged(self, tmp_path: Path, part: str, change, sentence: str) -> None:
        path = self.write_mnist(tmp_path) / f"train-{part}-ubyte"
        whole = path.read_bytes()
        path.write_bytes(whole[change] if isinstance(change, slice) else change(whole))
        refuses(sentence or f"mnist below {path.parent} is damaged", "mnist", tmp_path)

    def test_failed_download(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def offline(self: object) -> None:
            raise RuntimeError("no network")

        monkeypatch.setattr(datasets.MNIST, "download", offline)
        refuses(f"mnist could not be downloaded to {tmp_path}: no network", "mnist", tmp_path, download=True)

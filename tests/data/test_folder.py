"""Image folders and their cache, from folders of a few images with known pixels."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save
from tiny import constant, levels, make_classes, make_dataset, refuses, same, save_image

from gdd.config import ConfigError
from gdd.data import folder as folder_module
from gdd.data.readers import open_dataset


class TestFolder:
    def test_splits_share_no_image(self, tmp_path: Path) -> None:
        make_dataset(tmp_path, {"b": 20, "a": 40}, {"a": 3, "b": 2})
        opened = open_dataset("folder", tmp_path)
        assert opened.spec.class_names == ("a", "b")
        assert opened.spec.shape == (3, 8, 8)
        assert opened.train.labels.bincount().tolist() == [36, 18]
        assert opened.val.labels.bincount().tolist() == [4, 2]
        assert levels(opened.train) | levels(opened.val) == set(range(60))
        assert not levels(opened.train) & levels(opened.val)
        assert levels(opened.test()) == set(range(200, 205))
        assert opened.test().labels.tolist() == [0, 0, 0, 1, 1]

    def test_labels_follow_the_class_folder(self, tmp_path: Path) -> None:
        make_dataset(tmp_path, {"b": 20, "a": 40}, {"a": 3, "b": 2})
        opened = open_dataset(str(tmp_path), Path("nowhere"))
        for split in (opened.train, opened.val):
            assert torch.equal(split.labels, (split.images_u8[:, 0, 0, 0] < 20).long())

    def test_without_test_a_fifth_is_held_out_for_every_seed(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        make_classes(tmp_path, {"a": 10, "b": 20})
        first, other = (open_dataset("folder", tmp_path, seed=seed) for seed in (0, 1))
        assert "no test folder" in caplog.text
        assert first.test().labels.bincount().tolist() == [2, 4]
        assert same(first.test(), other.test())
        assert levels(first.train) | levels(first.val) | levels(first.test()) == set(range(30))
        assert not levels(first.test()) & (levels(first.train) | levels(first.val))

    def test_train_without_test_is_split_likewise(self, tmp_path: Path) -> None:
        make_classes(tmp_path / "flat", {"a": 10, "b": 20})
        make_classes(tmp_path / "nested" / "train", {"a": 10, "b": 20})
        flat, nested = (open_dataset(str(tmp_path / name), tmp_path) for name in ("flat", "nested"))
        assert same(flat.test(), nested.test())
        assert flat.fingerprint == nested.fingerprint

    def test_greyscale_is_one_channel_unless_told(self, tmp_path: Path) -> None:
        make_dataset(tmp_path, {"a": 4, "b": 4}, {"a": 1, "b": 1}, channels=1)
        grey, colour = open_dataset("folder", tmp_path), open_dataset("folder", tmp_path, channels=3)
        assert grey.spec.channels == 1
        assert colour.spec.channels == 3
        assert torch.equal(colour.test().images_u8, grey.test().images_u8.expand(-1, 3, -1, -1))

    def test_one_colour_image_makes_all_three_channels(self, tmp_path: Path) -> None:
        make_dataset(tmp_path, {"a": 4, "b": 4}, {"a": 1, "b": 1}, channels=1)
        red = np.zeros((8, 8, 3), np.uint8)
        red[..., 0] = 255
        save_image(tmp_path / "train" / "a" / "red.PNG", red)
        opened = open_dataset("folder", tmp_path, val_fraction=0)
        assert opened.train.images_u8[4, :, 0, 0].tolist() == [255, 0, 0]
        assert opened.test().images_u8.shape == (2, 3, 8, 8)

    def test_not_square_keeps_height_and_width(self, tmp_path: Path) -> None:
        make_dataset(tmp_path, {"a": 4, "b": 4}, {"a": 1, "b": 1}, height=6, width=10)
        assert open_dataset("folder", tmp_path).spec.shape == (3, 6, 10)

    def test_suffixes_in_any_case_and_hidden_files_skipped(self, tmp_path: Path) -> None:
        make_dataset(tmp_path, {"a": 2, "b": 2}, {"a": 1, "b": 1})
        for name in ("x.JPG", "y.Jpeg"):
            save_image(tmp_path / "train" / "a" / name, constant(100))
        (tmp_path / "train" / "a" / "._x.png").write_bytes(b"resource fork")
        (tmp_path / "train" / "a" / "notes.txt").write_text("not an image")
        assert open_dataset("folder", tmp_path, val_fraction=0).train.labels.tolist() == [0, 0, 0, 0, 1, 1]

    def test_mixed_sizes_are_named_then_resized(self, tmp_path: Path) -> None:
        make_dataset(tmp_path, {"a": 4, "b": 4}, {"a": 1, "b": 1})
        save_image(tmp_path / "train" / "b" / "wide.png", constant(7, height=4, width=12))
        refuses("2 sizes (height x width: 8x8, 4x12)", "folder", tmp_path)
        refuses("--data.size '[32, 32]'", "folder", tmp_path)
        opened = open_dataset("folder", tmp_path, size=(5, 9), val_fraction=0)
        assert opened.spec.shape == (3, 5, 9)
        assert opened.train.images_u8[-1].unique().tolist() == [7]
        assert opened.test().images_u8.shape == (2, 3, 5, 9)

    def test_test_images_of_another_size_are_refused_before_training(self, tmp_path: Path) -> None:
        make_dataset(tmp_path, {"a": 4, "b": 4}, {"a": 1, "b": 1})
        save_image(tmp_path / "test" / "b" / "wide.png", constant(7, height=4, width=12))
        refuses("2 sizes", "folder", tmp_path)

    def test_test_images_that_change_size_later_are_refused(self, tmp_path: Path) -> None:
        make_dataset(tmp_path, {"a": 4, "b": 4}, {"a": 1, "b": 1})
        opened = open_dataset("folder", tmp_path)
        for name in "ab":
            save_image(tmp_path / "test" / name / "000.png", constant(7, height=4, width=12))
        with pytest.raises(ConfigError, match=r"test images of .* have shape \(3, 4, 12\), train images have"):
            opened.test()

    def test_statistics_are_those_of_the_pixels(self, tmp_path: Path) -> None:
        half = constant(0)
        half[:4, :, 1] = 255
        for name in ("train/a/0.png", "train/a/1.png", "train/b/0.png", "train/b/1.png"):
            save_image(tmp_path / name, half)
        make_classes(tmp_path / "test", {"a": 1, "b": 1})
        spec = open_dataset("folder", tmp_path).spec
        assert spec.mean == (0.0, 0.5, 0.0)
        assert spec.std == (0.0039, 0.5, 0.0039)  # one grey level instead of 0
        assert not spec.flip

    def test_cifar10_as_a_folder_carries_its_constants(self, tmp_path: Path) -> None:
        make_dataset(tmp_path / "cifar10", {"cat": 4, "dog": 4}, {"cat": 1, "dog": 1})
        spec = open_dataset("cifar10", tmp_path).spec
        assert spec.name == "cifar10"
        assert spec.mean == (0.4914, 0.4822, 0.4465)
        assert spec.flip

    def test_palette_and_transparency(self, tmp_path: Path) -> None:
        make_dataset(tmp_path, {"a": 4, "b": 4}, {"a": 1, "b": 1})
        blue = Image.new("RGBA", (8, 8), (0, 0, 255, 0))
        blue.save(tmp_path / "train" / "b" / "y.png")
        blue.convert("RGB").quantize(2).save(tmp_path / "train" / "b" / "z.png")
        opened = open_dataset("folder", tmp_path, val_fraction=0)
        assert opened.train.images_u8[-2:, :, 0, 0].tolist() == [[0, 0, 255]] * 2


class TestFolderErrors:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return make_dataset(tmp_path, {"a": 4, "b": 4}, {"a": 1, "b": 1})

    def test_missing(self, tmp_path: Path) -> None:
        refuses(f"looked for {tmp_path / 'none'}; set --data.root", "folder", tmp_path / "none")

    def test_test_without_train(self, tmp_path: Path) -> None:
        make_classes(tmp_path / "test", {"a": 1, "b": 1})
        refuses("holds a test folder but no train folder", "folder", tmp_path)

    def test_other_classes_in_test(self, folder: Path) -> None:
        make_classes(folder / "test", {"c": 1})
        refuses("hold different classes: c", "folder", folder)

    def test_empty_class(self, folder: Path) -> None:
        (folder / "train" / "c").mkdir()
        refuses(f"class folder {folder / 'train' / 'c'} holds no .png", "folder", folder)

    def test_one_class(self, tmp_path: Path) -> None:
        make_classes(tmp_path, {"a": 3})
        refuses("holds 1 class folders, expected at least 2", "folder", tmp_path)

    def test_class_of_one_image(self, folder: Path) -> None:
        make_classes(folder / "train", {"c": 1})
        make_classes(folder / "test", {"c": 1})
        refuses("class 'c' of", "folder", folder)
        assert len(open_dataset("folder", folder, val_fraction=0).train.labels) == 9

    def test_class_of_one_image_without_test(self, tmp_path: Path) -> None:
        make_classes(tmp_path, {"a": 5, "b": 1})
        refuses("has 1 train image, too few to split", "folder", tmp_path)

    @pytest.mark.parametrize("side", [4097, 20000])
    def test_image_bomb(self, folder: Path, side: int) -> None:
        bomb = folder / "train" / "b" / "bomb.png"
        Image.new("1", (side, side)).save(bomb)
        refuses(f"{bomb} has more than 16777216 pixels (4096x4096)", "folder", folder, size=(8, 8))

    def test_16_bit(self, folder: Path) -> None:
        deep = folder / "train" / "b" / "deep.png"
        Image.fromarray(np.zeros((8, 8), np.uint16)).save(deep)
        refuses(f"{deep} has pixel mode I;16, expected 8 bits", "folder", folder)


class TestCache:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return make_dataset(tmp_path, {"a": 4, "b": 4}, {"a": 1, "b": 1})

    @pytest.fixture
    def decoded(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """How many images each decoding read."""
        counts: list[int] = []
        decode = folder_module._decode
        monkeypatch.setattr(
            folder_module, "_decode", lambda files, shape: counts.append(len(files)) or decode(files, shape)
        )
        return counts

    def test_second_open_reads_no_image(self, folder: Path, decoded: list[int]) -> None:
        first = open_dataset("folder", folder)
        assert decoded == [8]  # test is untouched until asked for
        test = first.test()
        assert decoded == [8, 2]
        second = open_dataset("folder", folder)
        assert same(second.train, first.train)
        assert same(second.test(), test)
        assert decoded == [8, 2]

    def test_seed_and_fraction_share_one_cache(self, folder: Path, decoded: list[int]) -> None:
        open_dataset("folder", folder)
        open_dataset("folder", folder, seed=3, val_fraction=0.5)
        assert decoded == [8]

    def test_size_and_channels_have_their_own(self, folder: Path, decoded: list[int]) -> None:
        open_dataset("folder", folder)
        assert open_dataset("folder", folder, size=(4, 4)).spec.shape == (3, 4, 4)
        assert open_dataset("folder", folder, channels=1).spec.shape == (1, 8, 8)
        assert decoded == [8, 8, 8]

    def test_changed_file_rebuilds(self, folder: Path, decoded: list[int]) -> None:
        before = open_dataset("folder", folder, val_fraction=0)
        changed = folder / "train" / "a" / "000.png"
        save_image(changed, constant(99))
        os.utime(changed, ns=(0, time.time_ns() + 10**9))
        after = open_dataset("folder", folder, val_fraction=0)
        assert decoded == [8, 8]
        assert after.train.images_u8[0].unique().tolist() == [99]
        assert after.fingerprint != before.fingerprint

    def test_added_and_renamed_files_rebuild(self, folder: Path, decoded: list[int]) -> None:
        open_dataset("folder", folder)
        save_image(folder / "train" / "a" / "new.png", constant(99))
        open_dataset("folder", folder)
        (folder / "train" / "a" / "new.png").rename(folder / "train" / "b" / "new.png")
        assert open_dataset("folder", folder, val_fraction=0).train.labels.bincount().tolist() == [4, 5]
        assert decoded == [8, 9, 9]

    @pytest.mark.parametrize("damage", ["empty", "truncated", "flipped", "text", "foreign"])
    def test_damaged_cache_is_rebuilt(
        self, folder: Path, decoded: list[int], damage: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        before = open_dataset("folder", folder)
        (cache,) = (folder / ".gdd-cache").iterdir()
        whole = cache.read_bytes()
        flipped = whole[:-1] + bytes([whole[-1] ^ 1])
        foreign = save({"other": torch.zeros(1)})
        cache.write_bytes(
            {
                "empty": b"",
                "truncated": whole[:-5],
                "flipped": flipped,
                "text": b"x" * 500,
                "foreign": foreign,
            }[damage]
        )
        after = open_dataset("folder", folder)
        assert same(after.train, before.train)
        assert "damaged cache" in caplog.text
        assert decoded == [8, 8]
        open_dataset("folder", folder)
        assert decoded == [8, 8]

    def test_unwritable_place_is_a_warning(
        self, folder: Path, decoded: list[int], caplog: pytest.LogCaptureFixture
    ) -> None:
        (folder / ".gdd-cache").write_text("a file where the cache folder would be")
        open_dataset("folder", folder)
        open_dataset("folder", folder)
        assert "are not cached" in caplog.text
        assert decoded == [8, 8]

    def test_leaves_no_unfinished_file_and_is_no_class(self, tmp_path: Path) -> None:
        make_classes(tmp_path, {"a": 5, "b": 5})
        for _ in range(2):
            opened = open_dataset("folder", tmp_path)
            opened.test()
            assert opened.spec.class_names == ("a", "b")
        assert [path.suffix for path in (tmp_path / ".gdd-cache").iterdir()] == [".safetensors"] * 2

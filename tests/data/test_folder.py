"""Image folders and their cache, from folders of a few images with known pixels."""

import os
import shutil
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save
from tiny import constant, levels, make_classes, make_dataset, refuses, same, save_image
from torchvision.datasets import ImageFolder

from gdd.config import ConfigError
from gdd.data import encoded
from gdd.data.encoded import EncodedPart
from gdd.data.folder import Files, in_order, labels_of, list_folder
from gdd.data.readers import open_dataset


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four images of two classes to train with, one of each to test."""
    return make_dataset(tmp_path, {"a": 4, "b": 4}, {"a": 1, "b": 1})


class TestFolder:
    def test_splits_share_no_image(self, tmp_path: Path) -> None:
        make_dataset(tmp_path, {"b": 20, "a": 40}, {"a": 3, "b": 2})
        opened = open_dataset(str(tmp_path), Path("nowhere"))
        assert opened.spec.class_names == ("a", "b")
        assert opened.spec.shape == (3, 8, 8)
        assert opened.train.labels.bincount().tolist() == [36, 18]
        assert opened.val.labels.bincount().tolist() == [4, 2]
        assert levels(opened.train) | levels(opened.val) == set(range(60))
        assert not levels(opened.train) & levels(opened.val)
        assert levels(opened.test()) == set(range(200, 205))
        assert opened.test().labels.tolist() == [0, 0, 0, 1, 1]
        for split in (opened.train, opened.val):
            assert torch.equal(split.labels, (split.images_u8[:, 0, 0, 0] < 20).long())

    def test_without_test_a_fifth_is_held_out_for_every_seed(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        make_classes(tmp_path, {"a": 10, "b": 20})
        first, other = (open_dataset("folder", tmp_path, seed=seed) for seed in (0, 1))
        assert "no test part" in caplog.text
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

    @pytest.mark.parametrize("suffix", ["webp", "tif", "TIFF", "bmp", "ppm", "pgm", "JPEG"])
    def test_every_kind_that_imagefolder_takes_to_any_depth(self, suffix, folder):
        for name in (f"x.{suffix}", f"session2/monday/y.{suffix}"):
            path = folder / "train" / "b" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            kind = {"tif": "TIFF", "ppm": "PPM", "pgm": "PPM"}.get(suffix.lower(), suffix.upper())
            Image.fromarray(constant(99, channels=1 if suffix == "pgm" else 3)).save(path, kind)
        found = open_dataset("folder", folder, val_fraction=0).train
        assert found.labels.tolist() == [0] * 4 + [1] * 6
        assert (found.images_u8[-2:].int() - 99).abs().max() <= 1

    def test_it_reads_what_imagefolder_reads(self, tmp_path):
        make_classes(tmp_path, {"b": 2, "a": 3, "B": 2})
        make_classes(tmp_path / "a", {"deep": 2, "deep/er": 1}, start=50)
        theirs = ImageFolder(str(tmp_path))
        ours = list_folder(tmp_path)
        assert list(ours.class_names) == theirs.classes
        files = [ours.train.images.name(row) for row in ours.train.rows.tolist()]
        assert sorted(zip(files, ours.train.labels.tolist(), strict=True)) == sorted(theirs.samples)

    def test_what_is_left_out_is_told_with_counts(self, folder, caplog):
        for name in ("train/a/x.gif", "train/a/y.gif", "train/b/in/z.avif", "train/b/notes"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(b"")
        make_classes(folder / "valid", {"a": 3, "b": 2})
        save_image(folder / "train/loose.png", constant(1))
        save_image(folder / "loose.png", constant(1))
        assert levels(open_dataset("folder", folder, val_fraction=0).train) == set(range(8))
        assert "2 .gif, 1 without extension, 1 .avif" in caplog.text
        assert "4 files of" in caplog.text
        assert f"1 images of {folder}/train lie outside its class folders" in caplog.text
        assert f"1 images of {folder} lie outside its parts" in caplog.text
        assert f"{folder}/valid (5 images) is not used" in caplog.text

    def test_forms_of_unicode_are_one_name(self, tmp_path):
        for part, form in (("train", "NFC"), ("test", "NFD")):
            make_classes(tmp_path / part, {unicodedata.normalize(form, name): 3 for name in ("caf\u00e9", "th\u00e9")})
        opened = open_dataset(str(tmp_path))
        assert opened.spec.class_names == ("caf\u00e9", "th\u00e9")
        assert opened.test().labels.tolist() == [0] * 3 + [1] * 3
        make_classes(tmp_path / "train", {unicodedata.normalize("NFD", "caf\u00e9"): 1})
        refuses("two folders that are called caf\u00e9, in two forms of Unicode", tmp_path)

    def test_a_class_that_is_not_utf8_is_refused(self, folder):
        make_classes(folder / "train", {os.fsdecode(b"caf\xe9"): 2})
        refuses(f"class folder {folder}/train/caf\\xe9 is not UTF-8: rename it", folder)

    def test_links_are_followed_once(self, folder):
        for name in ("x", "y"):
            (folder / "train/a" / name).symlink_to("..")
        for depth in range(40):  # else 2^40 folders
            place = folder / "train/b" / str(depth)
            place.mkdir()
            for name in "lr":
                (place / name).symlink_to(f"../{depth + 1}")
        assert len(list_folder(folder).train.labels) >= 8

    def test_mixed_sizes_are_named_then_resized(self, folder: Path) -> None:
        save_image(folder / "train" / "b" / "wide.png", constant(7, height=4, width=12))
        refuses("2 sizes (height x width: 8x8, 4x12)", "folder", folder)
        refuses("--data.size '[32, 32]'", "folder", folder)
        opened = open_dataset("folder", folder, size=(5, 9), val_fraction=0)
        assert opened.spec.shape == (3, 5, 9)
        assert opened.train.images_u8[-1].unique().tolist() == [7]
        assert opened.test().images_u8.shape == (2, 3, 5, 9)

    def test_test_images_of_another_size_are_refused_before_training(self, folder: Path) -> None:
        save_image(folder / "test" / "b" / "wide.png", constant(7, height=4, width=12))
        refuses("2 sizes", "folder", folder)

    @pytest.mark.parametrize("size", [None, (8, 8)])
    def test_a_damaged_test_image_is_refused_before_training(self, size, folder):
        open_dataset("folder", folder, size=size)  # train is in its cache now
        (folder / "test/b/000.png").write_bytes(b"no image")
        refuses(f"{folder}/test/b/000.png is not a readable image", "folder", folder, size=size)

    def test_test_images_of_another_size_are_refused_beside_a_cache(self, folder):
        open_dataset("folder", folder)
        save_image(folder / "test" / "b" / "wide.png", constant(7, height=4, width=12))
        refuses("2 sizes", "folder", folder)

    def test_test_images_that_change_size_later_are_refused(self, folder: Path) -> None:
        opened = open_dataset("folder", folder)
        for name in "ab":
            save_image(folder / "test" / name / "000.png", constant(7, height=4, width=12))
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

    def test_palette_and_transparency(self, folder: Path) -> None:
        blue = Image.new("RGBA", (8, 8), (0, 0, 255, 0))
        blue.save(folder / "train" / "b" / "y.png")
        blue.convert("RGB").quantize(2).save(folder / "train" / "b" / "z.png")
        opened = open_dataset("folder", folder, val_fraction=0)
        assert opened.train.images_u8[-2:, :, 0, 0].tolist() == [[255, 255, 255], [0, 0, 255]]


def beside(folder: Path, **added: dict[str, int]) -> None:
    """Add classes to the train or test part of the usual folder."""
    make_dataset(folder, {"a": 4, "b": 4} | added.get("train", {}), {"a": 1, "b": 1} | added.get("test", {}))


def with_image(make: Callable[[], Image.Image]) -> Callable[[Path], None]:
    return lambda folder: (beside(folder), make().save(folder / "train/b/odd.png"))


WRONG = {
    "missing": (lambda folder: None, "looked for {folder}; set --data.root"),
    "no train": (lambda folder: make_classes(folder / "test", {"a": 1, "b": 1}), "a test folder but no train folder"),
    "other classes": (lambda folder: beside(folder, test={"c": 1}), "hold different classes: c"),
    "empty class": (
        lambda folder: (beside(folder), (folder / "train/c").mkdir()),
        "class folder {folder}/train/c holds no .png",
    ),
    "one class": (lambda folder: make_classes(folder, {"a": 3}), "holds 1 class folders, expected at least 2"),
    "one image": (lambda folder: beside(folder, train={"c": 1}, test={"c": 1}), "class 'c' of"),
    "one, no test": (lambda folder: make_classes(folder, {"a": 5, "b": 1}), "has 1 train image, too few to split"),
    "bomb": (with_image(lambda: Image.new("1", (8193, 8193))), "b/odd.png has 8,193 x 8,193 pixels, more than"),
}


@pytest.mark.parametrize(("prepare", "sentence"), WRONG.values(), ids=WRONG)
def test_a_folder_that_will_not_do_is_refused(prepare, sentence: str, tmp_path: Path) -> None:
    prepare(tmp_path / "images")
    refuses(sentence.format(folder=tmp_path / "images"), "folder", tmp_path / "images", size=(8, 8))


def test_a_class_of_one_image_will_do_without_validation(tmp_path: Path) -> None:
    beside(tmp_path, train={"c": 1}, test={"c": 1})
    assert len(open_dataset("folder", tmp_path, val_fraction=0).train.labels) == 9


class TestCache:
    @pytest.fixture
    def decoded(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """How many images each decoding read."""
        counts: list[int] = []
        decode = encoded.decode
        monkeypatch.setattr(encoded, "decode", lambda part, *how: counts.append(len(part.labels)) or decode(part, *how))
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

    @pytest.mark.parametrize(
        "damage",
        [
            lambda whole: b"",
            lambda whole: whole[:-5],
            lambda whole: whole[:-1] + bytes([whole[-1] ^ 1]),
            lambda whole: b"x" * 500,
            lambda whole: save({"other": torch.zeros(1)}),
        ],
        ids=["empty", "truncated", "flipped", "text", "foreign"],
    )
    def test_damaged_cache_is_rebuilt(self, folder: Path, decoded: list[int], damage, caplog) -> None:
        before = open_dataset("folder", folder)
        (cache,) = (folder / ".gdd-cache").iterdir()
        cache.write_bytes(damage(cache.read_bytes()))
        for _ in range(2):
            assert same(open_dataset("folder", folder).train, before.train)
        assert "damaged cache" in caplog.text
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


def part_of(files: list[str]) -> EncodedPart:
    return EncodedPart(Files(files), torch.arange(len(files)), torch.zeros(len(files)))


class TestParallelDecoding:
    @pytest.fixture
    def files(self, tmp_path: Path) -> list[str]:
        """Images of several classes with pixels of their own."""
        draw = np.random.default_rng(0)
        paths = [tmp_path / name / f"{index:02}.png" for name in "abc" for index in range(15)]
        for path in paths:
            save_image(path, draw.integers(0, 256, (8, 8, 3)))
        return [str(path) for path in paths]

    def test_threads_give_what_one_gives_in_the_same_order(self, files: list[str]) -> None:
        one, several = (encoded.decode(part_of(files), (3, 8, 8), threads) for threads in (1, 5))
        assert torch.equal(one, several)
        for index in (0, 20, 44):
            assert np.array_equal(np.asarray(Image.open(files[index])).transpose(2, 0, 1), one[index].numpy())

    def test_of_several_bad_files_the_first_is_named(self, files: list[str]) -> None:
        for index in (44, 21, 20):
            Path(files[index]).write_bytes(Path(files[index]).read_bytes()[:60])
        for threads in (1, 5):
            with pytest.raises(ConfigError, match=files[20]):
                encoded.decode(part_of(files), (3, 8, 8), threads)

    def test_large_images_use_threads_and_leave_no_half_cache(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(encoded, "_LARGE", 64)
        monkeypatch.setattr("os.cpu_count", lambda: 3)
        monkeypatch.setattr(encoded, "pixels_of", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            open_dataset("folder", folder)
        assert not (folder / ".gdd-cache").exists()


# Labels from a table beside the images, in the layouts of Tiny-ImageNet and of others.


def numbered(folder: Path, names: list[str], start: int = 0) -> list[str]:
    """Write images whose level is their running number."""
    for level, name in enumerate(names, start):
        save_image(folder / name, constant(level))
    return [str(folder / name) for name in names]


@pytest.fixture
def tiny_imagenet(tmp_path: Path) -> Path:
    """Its layout: images within folders of classes, a table of the validation images, words of some classes."""
    for label, name in enumerate(("n02", "n01")):
        for index in range(5):
            path = tmp_path / "train" / name / "images" / f"{name}_{index}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(constant(100 * label + index)).save(path)
        (tmp_path / "train" / name / f"{name}_boxes.txt").write_text("0\t0\t1\t1\n")
    numbered(tmp_path / "val/images", ["val_0.png", "val_1.png", "val_2.png"], 200)
    table = "val_1.png\tn01\t0\t0\t62\t60\nval_0.png\tn02\t1\t1\t2\t2\nval_2.png\tn02\t1\t1\t2\t2\n"
    (tmp_path / "val/val_annotations.txt").write_text(table)
    (tmp_path / "words.txt").write_text("n00\tentity\nn01\tgoldfish, Carassius auratus\nn02\tcentipede\n")
    return tmp_path


class TestTinyImageNet:
    def test_train_to_any_depth_and_val_as_it_is(self, tiny_imagenet):
        found = list_folder(tiny_imagenet)
        assert found.class_names == ("goldfish", "centipede")  # in the order of n01, n02
        assert found.train.labels.tolist() == [0] * 5 + [1] * 5
        assert found.test is None
        notes = "\n".join(found.notes)
        assert "2 files of" in notes
        assert "2 .txt" in notes
        assert f"{tiny_imagenet}/val (3 images) is not used" in notes
        assert "words.txt" in notes

    def test_by_name_it_is_tested_on_its_validation_part_with_the_fields_constants(self, tiny_imagenet):
        numbered(tiny_imagenet / "test/images", ["test_0.png", "test_1.png"], 250)
        root = tiny_imagenet.parent / "data"
        root.mkdir()
        tiny_imagenet.rename(root / "tiny-imagenet-2")
        opened = open_dataset("tiny_imagenet", root)
        assert opened.test().images_u8[:, 0, 0, 0].tolist() == [200, 201, 202]
        assert opened.test().labels.tolist() == [1, 0, 1]
        assert opened.spec.name == "tiny_imagenet"
        assert opened.spec.flip
        assert len(opened.train.labels) + len(opened.val.labels) == 10

    def test_by_name_its_validation_part_has_to_have_labels(self, tiny_imagenet):
        (tiny_imagenet / "val/val_annotations.txt").unlink()
        with pytest.raises(ConfigError, match=r"nothing tells the labels of the images in .*val, expected a table"):
            list_folder(tiny_imagenet, test="val")
        shutil.rmtree(tiny_imagenet / "val")
        with pytest.raises(ConfigError, match=r"has no folder val, expected the images of its test part there"):
            list_folder(tiny_imagenet, test="val")

    def test_by_name_one_folder_is_looked_for(self, tmp_path):
        for found in ("none", "tiny-imagenet-20 and tiny-imagenet-200"):
            with pytest.raises(
                ConfigError, match=f"looked for one folder .* in .*, found {found}; unpack tiny-imagenet"
            ):
                open_dataset("tiny_imagenet", tmp_path)
            for name in ("tiny-imagenet-20", "tiny-imagenet-200"):
                (tmp_path / name).mkdir(exist_ok=True)

    def test_val_called_test_has_the_labels_of_its_table(self, tiny_imagenet):
        (tiny_imagenet / "val").rename(tiny_imagenet / "test")
        test = open_dataset(str(tiny_imagenet)).test()
        assert test.images_u8[:, 0, 0, 0].tolist() == [200, 201, 202]
        assert test.labels.tolist() == [1, 0, 1]

    def test_a_test_part_without_labels_is_left_out(self, tiny_imagenet):
        numbered(tiny_imagenet / "test/images", ["test_0.png", "test_1.png"], 250)
        found = list_folder(tiny_imagenet)
        assert found.test is None
        assert any("test (2 images) is not used: nothing tells the labels" in note for note in found.notes)
        opened = open_dataset(str(tiny_imagenet))
        assert not {250, 251} & levels(opened.train)

    def test_words_that_are_not_clear_are_not_taken(self, tiny_imagenet):
        for words in ("n01\tfish\nn02\tfish\n", "n01\tfish\n", "n01\tfish\nn02\t\n", "\xff"):
            (tiny_imagenet / "words.txt").write_text(words, "latin-1")
            assert list_folder(tiny_imagenet).class_names == ("n01", "n02")

    def test_a_label_that_train_lacks_is_named(self, tiny_imagenet):
        (tiny_imagenet / "val").rename(tiny_imagenet / "test")
        (tiny_imagenet / "test/val_annotations.txt").write_text("val_0.png\tn03\nval_1.png\tn01\n")
        refuses("val_annotations.txt has labels that train does not have: n03", tiny_imagenet)


TABLES = {
    "a header": ("labels.csv", "file_name,label\n0.png,b\n1.png,a\n2.png,b\n3.png,a\n"),
    "a table of other facts": ("meta.csv", "id,age,class\n0,9,b\n1,9,a\n2,9,b\n3,9,a\n"),
    "two columns of any name": ("x.csv", "image,species\n0.png,b\n1.png,a\n2.png,b\n3.png,a\n"),
    "tabs": ("x.tsv", "image\tspecies\n0.png\tb\n1.png\ta\n2.png\tb\n3.png\ta\n"),
    "semicolons and a mark of bytes": ("x.csv", "\ufeffimage;species\r\n0.png;b\r\n1.png;a\r\n2.png;b\r\n3.png;a\r\n"),
    "no header": ("x.csv", "0.png,b\n1.png,a\n2.png,b\n3.png,a\n"),
    "spaces": ("annotations.txt", "0.png b\n1.png a\n\n2.png b\n3.png a\n"),
    "places below the dataset": (
        "x.csv",
        "label,file\nb,images/0.png\na,images/1.png\nb,./images/2.png\na,images/3.png\n",
    ),
    "quotes": ("x.csv", '"image","species"\n"0.png","b"\n"1.png","a"\n"2.png","b"\n"3.png","a"\n'),
}


class TestTables:
    @pytest.mark.parametrize("case", TABLES)
    def test_images_beside_a_table(self, case, tmp_path):
        name, text = TABLES[case]
        numbered(tmp_path / "images", [f"{index}.png" for index in range(4)])
        (tmp_path / name).write_text(text, "utf-8", newline="")
        found = list_folder(tmp_path)
        assert found.class_names == ("a", "b")
        assert found.train.labels.tolist() == [1, 0, 1, 0]
        assert found.notes == ()

    def test_a_table_of_each_part_and_images_that_none_names(self, tmp_path):
        numbered(tmp_path / "train", ["x0.png", "x1.png", "x2.png", "x3.png", "more.png"])
        numbered(tmp_path / "test", ["y0.png", "y1.png"], 200)
        (tmp_path / "train.csv").write_text("id,label\nx0,10\nx1,9\nx2,10\nx3,9\ngone,9\n")
        (tmp_path / "test.csv").write_text("id,label\ny0,9\ny1,10\n")
        (tmp_path / "sample_submission.csv").write_text("id,label\ny0,9\ny1,9\n")
        found = list_folder(tmp_path)
        assert found.class_names == ("9", "10")  # numbers in their order
        assert found.train.labels.tolist() == [1, 0, 1, 0]
        assert found.test is not None
        assert found.test.labels.tolist() == [0, 1]
        notes = "\n".join(found.notes)
        assert "1 images of" in notes
        assert "1 rows of" in notes

    def test_several_columns_ask_for_a_choice(self, tmp_path):
        numbered(tmp_path, [f"{index}.png" for index in range(4)])
        table = "file,fine_label,coarse_label\n0.png,cat,pet\n1.png,dog,pet\n2.png,cow,farm\n3.png,hen,farm\n"
        (tmp_path / "x.csv").write_text(table)
        refuses("has the columns fine_label, coarse_label, of which several may be labels: choose one", tmp_path)
        refuses("but data.label is 'label'", tmp_path, label="label")
        assert list_folder(tmp_path, "coarse_label").train.labels.tolist() == [1, 1, 0, 0]
        assert list_folder(tmp_path, "fine_label").class_names == ("cat", "cow", "dog", "hen")

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("0.png,a\n1.png,\n", "line 2 of {table} has no label for 1.png"),
            ("0.png,a\n0.png,b\n", "gives 0.png two labels, a and b"),
            ("0.png\n1.png\n", "{table} has one column"),
            ("0.png,a\n1.png,a\n", "has the label 'a' alone"),
            ('0.png,"a\n', "{table} is not a readable table"),
            ("../0.png,a\n/etc/passwd,b\n", "or a table of labels beside the images"),  # nothing but found images
        ],
    )
    def test_a_table_that_will_not_do_is_named(self, text, sentence, tmp_path):
        numbered(tmp_path / "images", ["0.png", "1.png"])
        (tmp_path / "x.csv").write_text(text)
        refuses(sentence.format(table=tmp_path / "x.csv"), tmp_path)

    def test_two_tables_are_named(self, tmp_path):
        numbered(tmp_path, ["0.png", "1.png"])
        for name in ("x.csv", "y.csv"):
            (tmp_path / name).write_text("0.png,a\n1.png,b\n")
        refuses("2 tables name images of", tmp_path)

    def test_bytes_that_are_no_text_are_named(self, tmp_path):
        numbered(tmp_path, ["0.png", "1.png"])
        (tmp_path / "x.csv").write_bytes(b"0.png,\xff\n")
        refuses("x.csv is not a readable table", tmp_path)

    def test_folders_of_classes_come_before_a_table(self, tmp_path):
        make_classes(tmp_path, {"a": 3, "b": 3})
        (tmp_path / "x.csv").write_text("000.png,c\n")
        found = list_folder(tmp_path)
        assert found.class_names == ("a", "b")
        assert any("1 .csv" in note for note in found.notes)

    def test_a_name_of_two_images_means_none(self, tmp_path):
        images = numbered(tmp_path, ["a/0.png", "b/0.png", "b/1.png"])
        (tmp_path / "x.csv").write_text("0.png,x\na/0.png,y\n1.png,z\n")
        found = labels_of(images, tmp_path, [tmp_path / "x.csv"], None)
        assert found is not None
        assert found.labels == ["y", None, "z"]
        assert found.unused == 1


def test_numbers_are_in_the_order_of_numbers():
    assert in_order(["10", "9", "10"]) == ["9", "10"]
    assert in_order(["10", "9", "x"]) == ["10", "9", "x"]

"""WebDataset shards, written by Python's tarfile, by webdataset and by hand."""

import io
import tarfile
from pathlib import Path

import pytest
import webdataset
from PIL import Image
from tiny import refuses

from gdd.data.readers import open_dataset
from gdd.data.shards import list_shards


def png(level: int) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (8, 8), level).save(stream, "PNG")
    return stream.getvalue()


def samples(labels: list[int], start: int = 0) -> dict[str, bytes]:
    """Return images whose level is their running number, and their labels."""
    files: dict[str, bytes] = {}
    for index, label in enumerate(labels, start):
        files |= {f"{index:03}.png": png(index), f"{index:03}.cls": str(label).encode()}
    return files


def write(path: Path, files: dict[str, bytes], **options: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def levels(path: Path, **options: object) -> tuple[list[int], list[int]]:
    opened = open_dataset(str(path), val_fraction=0, **options)
    return opened.train.images_u8[:, 0, 0, 0].tolist(), opened.test().images_u8[:, 0, 0, 0].tolist()


class TestReading:
    @pytest.mark.parametrize("train", ["train/a.tar", "pets-train-000000.tar"])
    def test_parts_by_folder_or_by_name(self, train, tmp_path):
        write(tmp_path / train, samples([0, 1, 0, 1]))
        write(tmp_path / train.replace("train", "test"), samples([1, 0], 200))
        assert levels(tmp_path) == ([0, 1, 2, 3], [200, 201])
        opened = open_dataset(str(tmp_path), val_fraction=0)
        assert opened.spec.class_names == ("0", "1")
        assert opened.train.labels.tolist() == [0, 1, 0, 1]
        assert opened.test().labels.tolist() == [1, 0]

    def test_no_image_of_a_test_or_validation_shard_is_trained_on(self, tmp_path, caplog):
        write(tmp_path / "train0000.tar", samples([0, 1, 0, 1]))
        write(tmp_path / "test0000.tar", samples([1, 0], 200))
        write(tmp_path / "val0000.tar", samples([1, 0, 1], 210))
        (tmp_path / "val0001.tar").write_bytes(b"damaged")
        assert levels(tmp_path) == ([0, 1, 2, 3], [200, 201])
        assert f"{tmp_path}/val (images that cannot be counted) is not used" in caplog.text
        (tmp_path / "val0001.tar").unlink()
        assert list_shards(tmp_path).notes[0].startswith(f"{tmp_path}/val (3 images) is not used")

    def test_a_fifth_is_held_out_of_one_part(self, tmp_path):
        write(tmp_path / "shards/0.tar", samples([0, 1] * 5))
        write(tmp_path / "shards/1.tar", samples([0, 1] * 5, 10))
        train, test = levels(tmp_path / "shards")
        assert len(test) == 4
        assert sorted(train + test) == list(range(20))

    def test_a_single_file_and_its_cache(self, tmp_path, monkeypatch):
        path = write(tmp_path / "pets.tar", samples([0, 1] * 3))
        first = levels(path)
        assert open_dataset(str(path)).spec.name == "pets"
        monkeypatch.setattr("gdd.data.encoded.decode", None)
        assert levels(path) == first

    @pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    def test_long_names_in_every_format(self, kind, tmp_path):
        folder = "directory/" * 13 if kind == tarfile.USTAR_FORMAT else "ordner-größe/" * 30
        files = {f"{folder}{name}": content for name, content in samples([0, 1] * 3).items()}
        assert sum(map(len, levels(write(tmp_path / "a.tar", files, format=kind)))) == 6

    def test_shards_of_the_webdataset_library(self, tmp_path):
        with webdataset.TarWriter(str(tmp_path / "a.tar")) as sink:
            for index in range(6):
                sink.write({"__key__": f"x/{index}", "jpg": Image.new("RGB", (8, 8)), "cls": index % 2, "json": {}})
        opened = open_dataset(str(tmp_path / "a.tar"), val_fraction=0)
        assert opened.spec.shape == (3, 8, 8)
        assert opened.train.labels.tolist() == [0, 1, 0, 1]

    def test_folders_of_images_beside_an_archive_stay_folders(self, tmp_path):
        for name in "ab":
            (tmp_path / name).mkdir()
            for index in range(3):
                (tmp_path / name / f"{index}.png").write_bytes(png(9))
        write(tmp_path / "all.tar", samples([0, 1]))
        assert open_dataset(str(tmp_path)).spec.class_names == ("a", "b")


def special(kind: bytes, name: str = "000.png") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info.tobuf(tarfile.USTAR_FORMAT)


def claims(size: int) -> bytes:
    info = tarfile.TarInfo("000.png")
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def long_header() -> bytes:
    info = tarfile.TarInfo("long")
    info.size, info.type = 2**17, tarfile.XHDTYPE
    return info.tobuf(tarfile.USTAR_FORMAT) + bytes(2**17)


GOOD = samples([0, 1] * 3)
BAD: dict[str, tuple[dict[str, bytes] | bytes, str]] = {
    "nothing": (b"", "a.tar is not a readable tar file"),
    "text": (b"<!doctype html>" * 99, "a.tar is not a readable tar file"),
    "end alone": (bytes(1024), "a.tar holds no samples"),
    "out of the archive": ({"../0.png": png(0), "../0.cls": b"0"}, "'../0.png', which leads out of the archive"),
    "absolute": ({"/tmp/0.png": png(0), "/tmp/0.cls": b"0"}, "'/tmp/0.png', which leads out of the archive"),
    "a link": (special(tarfile.SYMTYPE), "000.png of {path} is a link or a special file"),
    "a hard link": (special(tarfile.LNKTYPE), "is a link or a special file"),
    "a device": (special(tarfile.CHRTYPE), "is a link or a special file"),
    "terabytes": (claims(2**40), "is cut off or damaged: 000.png would take 1099511627776 of 0 bytes"),
    "a negative size": (claims(0).replace(b"00000000000\0" * 1, b"\xff" * 12, 1), "a.tar"),
    "a long extended header": (long_header(), "an extended header of 131072 bytes"),
    "no label": (GOOD | {"x.png": png(1)}, "sample x of {path} has .png, expected one of .png, .jpg, .jpeg, .ppm, "),
    "no image": (GOOD | {"x.cls": b"1"}, "sample x of {path} has .cls, expected"),
    "two images": (GOOD | {"x.png": png(1), "x.jpg": png(1), "x.cls": b"1"}, "has .png, .jpg, .cls, expected one"),
    "a label in words": (GOOD | {"x.png": png(1), "x.cls": b"cat"}, "x.cls of {path} is no label"),
    "a negative label": (GOOD | {"x.png": png(1), "x.cls": b"-1"}, "x.cls of {path} is no label"),
    "a long label": (GOOD | {"x.png": png(1), "x.cls": b"1" * 30}, "x.cls of {path} is no label"),
    "labels left out": (samples([0, 2] * 3), "holds 2 different labels from 0 to 2, expected 0 to 1"),
    "no image bytes": (GOOD | {"x.png": b"GIF89a", "x.cls": b"1"}, "x.png of {path} is not a readable image"),
    "half an image": (
        {name: content[:45] for name, content in GOOD.items()},
        ".png of {path} is not a readable image",
    ),
}


class TestRefusals:
    @pytest.mark.parametrize("case", BAD)
    def test_a_bad_archive_is_named(self, case, tmp_path):
        content, sentence = BAD[case]
        path = tmp_path / "a.tar"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            write(path, content)
        refuses(sentence.format(path=path), path)

    @pytest.mark.parametrize("kept", [100, 700, 1500])
    def test_a_truncated_archive_is_named(self, kept, tmp_path):
        path = write(tmp_path / "a.tar", GOOD)
        path.write_bytes(path.read_bytes()[:kept])
        refuses(str(path), path)

    def test_a_test_label_that_train_lacks_is_named(self, tmp_path):
        write(tmp_path / "train/a.tar", GOOD)
        write(tmp_path / "test/a.tar", samples([0, 2]))
        refuses("the test part of", tmp_path)

    def test_a_test_part_alone_is_named(self, tmp_path):
        write(tmp_path / "pets-test.tar", GOOD)
        refuses("holds no train part", tmp_path)

    def test_a_missing_file_is_named(self, tmp_path):
        refuses("set --data.name to an existing .tar file", tmp_path / "a.tar")

"""Arrow and Parquet files in the layout of Hugging Face's datasets 5.2, written with pyarrow."""

import io
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tiny import refuses

from gdd.config import ConfigError
from gdd.data import places
from gdd.data.arrow import list_arrow
from gdd.data.readers import open_dataset

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

FEATURES = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}


def png(level: int) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (8, 8), level).save(stream, "PNG")
    return stream.getvalue()


def table(
    labels: list[int | None], start: int = 0, features: dict[str, Any] | None = None, images: list[Any] | None = None
) -> Any:
    """Return images whose level is their running number, and their labels, as the library stores them."""
    stored = images or [{"bytes": png(start + index), "path": None} for index in range(len(labels))]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    described = json.dumps({"info": {"features": FEATURES if features is None else features}})
    schema = pa.schema([("image", kind), ("label", pa.int64())], {"huggingface": described})
    return pa.table({"image": pa.array(stored, kind), "label": pa.array(labels, pa.int64())}, schema=schema)


def to_parquet(path: Path, rows: Any, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(rows, path, **options)
    return path


def to_stream(path: Path, rows: Any, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.ipc.new_stream(str(path), rows.schema, **options) as writer:
        writer.write_table(rows, max_chunksize=3)
    return path


def saved(folder: Path, rows: Any, listed: str = "data-00000-of-00001.arrow", **state: Any) -> Path:
    """Write what `Dataset.save_to_disk` does."""
    to_stream(folder / "data-00000-of-00001.arrow", rows)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": listed}], **state}))
    return folder


def contents(path: Path) -> tuple[list[int], list[int], list[int]]:
    opened = open_dataset(str(path), val_fraction=0)
    assert opened.spec.class_names == ("cat", "dog")
    test = opened.test()
    assert [level % 2 for level in test.images_u8[:, 0, 0, 0].tolist()] == test.labels.tolist()
    pixels = opened.train.images_u8[:, 0, 0, 0].tolist()
    return pixels, opened.train.labels.tolist(), test.images_u8[:, 0, 0, 0].tolist()


TRAIN, TEST = table([0, 1] * 4), table([0, 1], 200)
KNOWN = (list(range(8)), [0, 1] * 4, [200, 201])


class TestReading:
    def test_a_dataset_dict_on_disk(self, tmp_path):
        for part, rows in (("train", TRAIN), ("test", TEST)):
            saved(tmp_path / part, rows)
        (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
        to_stream(tmp_path / "train/cache-0123.arrow", TRAIN)  # what `map` leaves beside the data
        assert contents(tmp_path) == KNOWN

    @pytest.mark.parametrize("options", [{}, {"row_group_size": 3}, {"use_dictionary": False, "compression": "zstd"}])
    def test_parquet_files_of_the_hub(self, options, tmp_path):
        to_parquet(tmp_path / "train-00000-of-00002.parquet", TRAIN.slice(0, 4), **options)
        to_parquet(tmp_path / "train-00001-of-00002.parquet", TRAIN.slice(4), **options)
        to_parquet(tmp_path / "test-00000-of-00001.parquet", TEST, **options)
        assert contents(tmp_path) == KNOWN

    @pytest.mark.parametrize("inner", ["plain_text", "data", "."])
    def test_a_clone_of_the_hub(self, inner, tmp_path):
        place = tmp_path / "cifar10"
        for part, rows in (("train", TRAIN), ("test", TEST), ("validation", TEST)):
            to_parquet(place / inner / f"{part}-00000-of-00001.parquet", rows)
        (place / "README.md").write_text("the card")
        assert contents(place) == KNOWN
        (note,) = list_arrow(place).notes
        assert "validation (2 images) is not used" in note

    def test_a_clone_of_several_datasets_asks_for_a_choice(self, tmp_path):
        for name in ("cropped", "full"):
            to_parquet(tmp_path / name / "train-00000-of-00001.parquet", TRAIN)
        refuses(f"holds 2 datasets of Parquet files: name one of {tmp_path}/cropped, {tmp_path}/full", tmp_path)

    def test_a_validation_part_of_a_dataset_dict_is_told(self, tmp_path):
        for part, rows in (("train", TRAIN), ("test", TEST), ("validation", TEST)):
            saved(tmp_path / part, rows)
        (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test", "validation"]}')
        assert contents(tmp_path) == KNOWN
        assert list_arrow(tmp_path).notes[0].startswith(f"{tmp_path}/validation (2 images) is not used")

    def test_one_of_several_label_columns_can_be_chosen(self, tmp_path):
        kinds = {"image": FEATURES["image"], "fine_label": FEATURES["label"], "coarse_label": FEATURES["label"]}
        rows = table([0, 1] * 4, features=kinds)
        columns = rows.append_column("coarse_label", pa.array([0] * 4 + [1] * 4))
        columns = columns.rename_columns(["image", "fine_label", "coarse_label"])
        path = to_parquet(tmp_path / "a.parquet", columns.replace_schema_metadata(rows.schema.metadata))
        refuses("2 columns of ClassLabel (fine_label, coarse_label), expected one, or one called 'label': choose", path)
        refuses("but data.label is 'other'", path, label="other")
        opened = open_dataset(str(path), val_fraction=0, label="coarse_label")
        assert set(opened.train.images_u8[opened.train.labels == 1, 0, 0, 0].tolist()) < {4, 5, 6, 7}

    @pytest.mark.parametrize(
        "write", [lambda path: to_parquet(path / "x.parquet", TRAIN), lambda path: saved(path, TRAIN)]
    )
    def test_one_part_is_split(self, write, tmp_path):
        train, _, test = contents(write(tmp_path / "own"))
        assert len(test) == 2
        assert sorted(train + test) == list(range(8))

    def test_usual_names_are_taken_of_several_columns(self, tmp_path):
        kinds = {"coarse": FEATURES["label"], **FEATURES}
        rows = table([0, 1] * 4, features=kinds).append_column("coarse", pa.array([0] * 8))
        assert contents(to_parquet(tmp_path / "a.parquet", rows))[1]

    def test_decoded_once(self, tmp_path, monkeypatch):
        path = to_parquet(tmp_path / "a.parquet", TRAIN)
        first = contents(path)
        monkeypatch.setattr("gdd.data.encoded.decode", None)
        assert contents(path) == first


def without_metadata() -> Any:
    return TRAIN.replace_schema_metadata(None)


def of_texts() -> Any:
    return TRAIN.set_column(0, "image", pa.array(["a.png"] * 8))


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "no features": (without_metadata, "has no features of Hugging Face's datasets"),
    "no image column": (
        lambda: table([0, 1], features={"label": FEATURES["label"]}),
        "no column of Image, expected one",
    ),
    "no label column": (lambda: table([0, 1], features={"image": FEATURES["image"]}), "no column of ClassLabel"),
    "a column that is described only": (lambda: TRAIN.drop_columns("label"), "no column of ClassLabel"),
    "names that are none": (
        lambda: table([0, 1], features=FEATURES | {"label": {"_type": "ClassLabel", "names": ["a", "a"]}}),
        "ClassLabel 'label' has names ['a', 'a'], expected different texts",
    ),
    "features that are no list": (lambda: table([0, 1], features={"image": 3}), "cannot be read"),
    "a label above": (lambda: table([0, 1, 2]), "row 2 of {path} has label 2, expected 0 to 1"),
    "a label below": (lambda: table([0, -1]), "row 1 of {path} has label -1, expected 0 to 1"),
    "no label": (lambda: table([0, None]), "{path} has 1 rows without a label"),
    "labels in words": (
        lambda: TRAIN.set_column(1, "label", pa.array(["cat"] * 8)),
        "'label' is string, expected integers",
    ),
    "images in words": (of_texts, "'image' is string, expected a struct with the bytes"),
    "a path alone": (
        lambda: table([0, 1] * 3, images=[{"bytes": None, "path": "/etc/passwd"}] * 6),
        " of {path} has no image bytes, and its path is not followed",
    ),
    "no image at all": (lambda: table([0, 1] * 3, images=[None] * 6), "of {path} has no image bytes"),
    "other bytes": (
        lambda: table([0, 1] * 3, images=[{"bytes": b"GIF89a", "path": None}] * 6),
        "of {path} is not a readable image",
    ),
    "no rows": (lambda: TRAIN.slice(0, 0), "{path} holds no rows"),
    "a class without images": (lambda: table([0] * 5), "class 'dog' of {path} has no train image"),
}


class TestRefusals:
    @pytest.mark.parametrize("write", [to_parquet, to_stream], ids=["parquet", "arrow"])
    @pytest.mark.parametrize("case", BAD)
    def test_bad_rows_are_named(self, case, write, tmp_path):
        make, sentence = BAD[case]
        path = write(tmp_path / f"a.{'parquet' if write is to_parquet else 'arrow'}", make())
        refuses(sentence.format(path=path), path)

    @pytest.mark.parametrize("write", [to_parquet, to_stream], ids=["parquet", "arrow"])
    @pytest.mark.parametrize("damage", [lambda _: b"", lambda whole: whole[:300], lambda whole: b"x" * len(whole)])
    def test_damaged_files_are_named(self, write, damage, tmp_path):
        path = write(tmp_path / f"a.{'parquet' if write is to_parquet else 'arrow'}", TRAIN)
        path.write_bytes(damage(path.read_bytes()))
        refuses(f"{path} cannot be read", path)

    def test_any_changed_byte_is_read_or_refused(self, tmp_path):
        """Of a stream, whose offsets lead to memory: nothing but a sentence may come of it."""
        whole = to_stream(tmp_path / "a.arrow", TRAIN).read_bytes()
        for place in range(0, len(whole), 41):
            path = tmp_path / f"{place}.arrow"
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
            with suppress(ConfigError):
                open_dataset(str(path)).test()

    @pytest.mark.parametrize("kind", ["parquet", "arrow"])
    def test_a_file_that_unpacks_to_far_more_is_named(self, kind, tmp_path):
        large = table([0, 1], images=[{"bytes": bytes(2**25), "path": None}, {"bytes": png(1), "path": None}])
        if kind == "parquet":
            path = to_parquet(tmp_path / "a.parquet", large, use_dictionary=False, compression="zstd")
        else:
            path = to_stream(tmp_path / "a.arrow", large, options=pa.ipc.IpcWriteOptions(compression="zstd"))
        refuses(f"{path} unpacks from {path.stat().st_size} bytes to", path)

    def test_a_pointer_of_git_lfs_is_told(self, tmp_path):
        (tmp_path / "a.parquet").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
        refuses("is a pointer of Git LFS: git lfs pull fetches", tmp_path / "a.parquet")

    def test_names_that_are_not_utf8_are_refused(self, tmp_path):
        halves = {"label": {"_type": "ClassLabel", "names": ["caf\udce9", "dog"]}}
        refuses("not UTF-8", to_parquet(tmp_path / "a.parquet", table([0, 1] * 4, features=FEATURES | halves)))

    def test_files_of_both_kinds_are_named(self, tmp_path):
        to_parquet(tmp_path / "a.parquet", TRAIN)
        to_stream(tmp_path / "a.arrow", TRAIN)
        refuses(f"{tmp_path} holds both Arrow and Parquet files", tmp_path)

    def test_a_million_rows_of_one_image_are_named(self, tmp_path):
        one = table([0, 1])
        rows = pa.concat_tables([one] * 2**14)
        path = to_parquet(tmp_path / "a.parquet", rows.take(pa.array([0] * 2**20)), row_group_size=2**20)
        assert path.stat().st_size < 2**20
        refuses("claims 1048576 rows in", path)

    @pytest.mark.parametrize(
        ("state", "sentence"),
        [
            ({"listed": "../data.arrow"}, "lacks ../data.arrow, which its state.json lists"),
            ({"_indices_files": [{"filename": "indices.arrow"}]}, "selects rows by an index"),
            ({"_data_files": 3}, "state.json cannot be read"),
        ],
    )
    def test_a_state_of_other_files_is_named(self, state, sentence, tmp_path):
        refuses(sentence, saved(tmp_path, TRAIN, **state))

    def test_files_of_other_classes_are_named(self, tmp_path):
        other = FEATURES | {"label": {"_type": "ClassLabel", "names": ["a", "b"]}}
        to_parquet(tmp_path / "train-0.parquet", TRAIN)
        to_parquet(tmp_path / "test-0.parquet", table([0, 1], features=other))
        refuses("have different ClassLabel names", tmp_path)
        to_parquet(tmp_path / "train-1.parquet", table([0, 1], features=other))
        refuses("train-1.parquet has other columns or ClassLabel names than", tmp_path)

    def test_splits_without_train_are_named(self, tmp_path):
        saved(tmp_path / "validation", TRAIN)
        (tmp_path / "dataset_dict.json").write_text('{"splits": ["validation"]}')
        refuses("holds no train part", tmp_path)

    def test_without_pyarrow_the_extra_is_named(self, tmp_path, monkeypatch):
        path = to_parquet(tmp_path / "a.parquet", TRAIN)
        monkeypatch.setattr(places, "find_spec", lambda _: None)
        refuses(f"{path} needs pyarrow to be read: pip install 'gdd[hf]'", path)

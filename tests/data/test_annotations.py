"""Labels from a table beside the images, in the layouts of Tiny-ImageNet and of others."""

from pathlib import Path

import pytest
from PIL import Image
from tiny import constant, levels, make_classes, refuses, save_image

from gdd.data.folder import in_order, labels_of, list_folder
from gdd.data.readers import open_dataset


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

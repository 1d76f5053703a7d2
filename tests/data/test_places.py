"""Which part of a dataset a name tells, for names that people give."""

from pathlib import Path

import pytest

from gdd.config import ConfigError
from gdd.data.places import folders, note, part_files, part_folders

TRAIN = ["train", "Train", "TRAIN", "training", "Training", "train_set", "train2017", "trainset", "Training Images"]
TEST = ["test", "Test", "TEST", "Testing", "test_set", "testset", "test-images"]
HELD = ["val", "valid", "Validation", "VAL", "val2017", "eval", "evaluation", "dev", "holdout", "held-out", "hold_out"]
CLASSES = ["cat", "valley", "contest", "latest", "constraint", "medieval", "device", "tester", "testament"]


def make(place: Path, names: list[str], inner: bool = True) -> Path:
    for name in names:
        (place / name / "a" if inner else place / name).mkdir(parents=True)
    return place


class TestFolders:
    @pytest.mark.parametrize("train", TRAIN)
    @pytest.mark.parametrize("test", TEST)
    def test_train_and_test_by_any_name(self, train, test, tmp_path):
        found = part_folders(make(tmp_path, [train, test]))
        assert found == (tmp_path / train, tmp_path / test, [])

    @pytest.mark.parametrize("held", HELD)
    def test_a_validation_part_is_neither(self, held, tmp_path):
        found = part_folders(make(tmp_path, ["train", held, "other"]))
        assert found is not None
        assert (found.train, found.test) == (tmp_path / "train", None)
        assert sorted(found.unused) == sorted([tmp_path / held, tmp_path / "other"])

    def test_words_among_others(self, tmp_path):
        found = part_folders(make(tmp_path, ["seg_train", "seg_test", "seg_pred"]))
        assert found == (tmp_path / "seg_train", tmp_path / "seg_test", [tmp_path / "seg_pred"])

    def test_classes_have_no_part(self, tmp_path):
        assert part_folders(make(tmp_path, CLASSES)) is None

    def test_a_train_is_a_class_beside_buses(self, tmp_path):
        assert part_folders(make(tmp_path, ["train", "bus"], inner=False)) is None

    @pytest.mark.parametrize("held", [*TEST, *HELD])
    def test_a_part_among_classes_is_refused(self, held, tmp_path):
        with pytest.raises(ConfigError, match=f"a {held} folder but no train folder; put the classes"):
            part_folders(make(tmp_path, ["cat", "dog", held], inner=False))

    def test_two_folders_for_one_part_are_refused(self, tmp_path):
        with pytest.raises(ConfigError, match="holds Training, train, expected one folder for the train part"):
            part_folders(make(tmp_path, ["train", "Training", "test"]))

    def test_a_link_makes_a_test_part_of_a_validation_part(self, tmp_path):
        make(tmp_path, ["train", "val"])
        (tmp_path / "test").symlink_to("val")
        found = part_folders(tmp_path)
        assert found == (tmp_path / "train", tmp_path / "test", [])

    def test_what_archivers_leave_is_hidden(self, tmp_path):
        make(tmp_path, ["__MACOSX", ".cache", "train"])
        assert folders(tmp_path) == [tmp_path / "train"]

    def test_long_numbers_take_no_time(self, tmp_path):
        assert part_folders(make(tmp_path, ["1" * 200, "2" * 200])) is None


def files(place: Path, names: list[str]) -> Path:
    for name in names:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).touch()
    return place


class TestFiles:
    @pytest.mark.parametrize(
        ("train", "test"),
        [
            ("train0000.tar", "test0000.tar"),
            ("Train.tar", "Test.tar"),
            ("TRAIN-1.TAR", "TEST-1.TAR"),
            ("petsTrain0.tar", "petsTest0.tar"),
            ("pets_training_01.tar", "pets_testing_01.tar"),
            ("train-00000-of-00001.tar", "test-00000-of-00001.tar"),
            ("Training/0.tar", "Testing/0.tar"),
        ],
    )
    def test_parts_by_any_name(self, train, test, tmp_path):
        found = part_files(files(tmp_path, [train, test]), (".tar",))
        assert found == ([tmp_path / train], [tmp_path / test], {})

    @pytest.mark.parametrize("held", ["val0.tar", "validation-00.tar", "eval.tar", "petsHoldout0.tar", "unlabeled.tar"])
    def test_others_are_left_out_and_listed(self, held, tmp_path):
        found = part_files(files(tmp_path, ["train0.tar", held]), (".tar",))
        assert found.train == [tmp_path / "train0.tar"]
        assert list(found.unused.values()) == [[tmp_path / held]]

    @pytest.mark.parametrize(
        "names",
        [
            ["petstrain.tar", "petstest.tar"],  # no word apart
            ["a.tar", "avalidation.tar"],
            ["train-test.tar", "train.tar"],
            ["0.tar", "test0.tar"],
            ["val0.tar", "test0.tar"],
        ],
    )
    def test_files_whose_part_cannot_be_told_are_named(self, names, tmp_path):
        with pytest.raises(ConfigError) as error:
            part_files(files(tmp_path, names), (".tar",))
        assert any(name in str(error.value) for name in names)

    @pytest.mark.parametrize("names", [["0.tar", "1.tar"], ["contest-0.tar", "contest-1.tar"], ["a.tar", "b.tar"]])
    def test_files_without_any_part_are_train(self, names, tmp_path):
        assert part_files(files(tmp_path, names), (".tar",)) == ([tmp_path / name for name in names], None, {})


def test_a_note_says_how_to_use_a_part():
    said = note(Path("pets"), "val", 24)
    assert said.startswith("pets/val (24 images) is not used")
    assert said.endswith("to score on these, call them test")
    assert note(Path("pets"), "extra", None).endswith("call it train or test to use it")

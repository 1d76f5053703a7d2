"""Other projects' .pt files: what does not fit is refused in one sentence."""

import pickle

import numpy as np
import pytest
import torch
from foreign_files import COLOUR, GREY, LABELS, dc_file, mtt_files, normalised, refusal, saved

from gdd.data.spec import DatasetSpec
from gdd.formats import dc_mtt, pt_file
from gdd.sampling import set_file


@pytest.mark.parametrize("rate", [torch.zeros(2), torch.tensor(float("nan")), "0.1", torch.tensor(1)])
def test_what_is_no_rate_is_refused(rate, tmp_path):
    path = saved(tmp_path / "lr.pt", rate)
    sentence = refusal(dc_mtt.read_mtt, *mtt_files(tmp_path, LABELS), GREY, path)
    assert f"{path} holds" in sentence
    assert "expected one finite number" in sentence


def test_an_object_of_an_unknown_class_is_refused(tmp_path):
    path = dc_file(tmp_path / "x.pt", normalised(GREY), args=GREY)
    assert "would run code of its own choice (gdd.data.spec.DatasetSpec)" in refusal(dc_mtt.read_dc, path, GREY)


def test_a_dtype_that_declares_bytes_to_be_pointers_stays_a_stand_in(tmp_path):
    """numpy's own dtype takes this state, and its arrays would then follow the bytes as addresses."""

    class Crafted:
        def __reduce__(self):
            state = (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0)
            return np.dtype, ("V8", False, True), state

    path = saved(tmp_path / "x.pt", Crafted())
    assert type(pt_file.load(path)[0]) is pt_file.NumpyValue


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_damaged_files_are_refused(legacy, tmp_path):
    path = dc_file(tmp_path / "x.pt", normalised(GREY))
    if legacy:
        saved(path, {"data": [[normalised(GREY), LABELS]]}, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    for part in (b"", whole[:20], whole[: len(whole) // 2], whole[:-30], b"not a pickle", pickle.dumps({"data": []})):
        path.write_bytes(part)
        assert refusal(dc_mtt.read_dc, path, GREY) == f"{path} is damaged or was not written by torch.save"


def test_a_flipped_bit_of_a_pixel_is_noticed(tmp_path):
    images = torch.full((6, *GREY.shape), 1.5)
    path = dc_file(tmp_path / "x.pt", images)
    data = bytearray(path.read_bytes())
    data[data.index(images.numpy().tobytes())] ^= 1
    path.write_bytes(data)
    assert "is damaged" in refusal(dc_mtt.read_dc, path, GREY)


def test_what_is_no_file_is_refused(tmp_path):
    assert f"{tmp_path / 'none.pt'} cannot be read" in refusal(dc_mtt.read_dc, tmp_path / "none.pt", GREY)
    assert f"{tmp_path} cannot be read" in refusal(dc_mtt.read_dc, tmp_path, GREY)


NAN = torch.full((6, *GREY.shape), float("nan"))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"images": 1}, "holds a dict of images, expected a dict whose 'data' lists pairs"),
        ({}, "holds a dict of nothing, expected a dict whose 'data'"),
        (torch.zeros(2), "holds torch.float32 (2,), expected a dict whose 'data'"),
        ({"data": []}, "holds a list of 0, expected a dict whose 'data'"),
        ({"data": torch.zeros(2)}, "holds torch.float32 (2,), expected a dict whose 'data'"),
        ({"data": [[normalised(GREY)]]}, "is a list of 1, expected images and labels"),
        ({"data": [[normalised(GREY), LABELS.tolist()]]}, "the labels of {path} are a list of 6, expected a dense"),
        ({"data": [[normalised(GREY).tolist(), LABELS]]}, "the images of {path} are a list of 6, expected a dense"),
        ({"data": [[normalised(GREY).to_sparse(), LABELS]]}, "expected a dense tensor"),
        ({"data": [[normalised(GREY).to("meta"), LABELS]]}, "expected a dense tensor"),
        ({"data": [[normalised(GREY), LABELS.float()]]}, "are torch.float32 (6,), expected integers (N,)"),
        ({"data": [[normalised(GREY), LABELS > 0]]}, "are torch.bool (6,), expected integers (N,)"),
        ({"data": [[normalised(GREY), LABELS[:, None]]]}, "are torch.int64 (6, 1), expected integers (N,)"),
        ({"data": [[normalised(GREY), LABELS[:4]]]}, "has 6 images for 4 labels"),
        ({"data": [[normalised(GREY)[:0], LABELS[:0]]]}, "has 0 images for 0 labels"),
        ({"data": [[normalised(COLOUR), LABELS]]}, "are torch.float32 (6, 3, 6, 4), expected normalised float"),
        ({"data": [[normalised(GREY)[0], LABELS]]}, "(1, 6, 4), expected normalised float (N, C, H, W)"),
        ({"data": [[normalised(GREY).byte(), LABELS]]}, "are torch.uint8 (6, 1, 6, 4), expected normalised float"),
        ({"data": [[normalised(GREY), LABELS + 1]]}, "the labels of {path} go from 1 to 3, expected 0 to 2"),
        ({"data": [[normalised(GREY), LABELS - 1]]}, "the labels of {path} go from -1 to 1, expected 0 to 2"),
        (
            {"data": [[normalised(GREY), torch.tensor([0, 0, 1, 1, 1, 2])]]},
            "has 1 images of class 'eel' but 3 of 'dog'",
        ),
        ({"data": [[normalised(GREY), LABELS.clamp_max(1)]]}, "has 0 images of class 'eel' but 4 of 'dog'"),
        ({"data": [[NAN, LABELS]]}, "the images of {path} hold NaN or infinite values"),
    ],
)
def test_what_does_not_fit_is_refused(content, expected, tmp_path):
    path = saved(tmp_path / "x.pt", content)
    sentence = refusal(dc_mtt.read_dc, path, GREY)
    assert expected.format(path=path) in sentence
    assert str(path) in sentence


def test_a_set_of_fewer_classes_is_refused(tmp_path):
    spec = DatasetSpec("many", 1, 6, 4, tuple("abcdefg"), GREY.mean, GREY.std, False)
    path = dc_file(tmp_path / "x.pt", normalised(GREY))
    sentence = refusal(dc_mtt.read_dc, path, spec)
    assert sentence.endswith(
        "has 0 images of class 'd' but 2 of 'a', expected the same number of each of the 7 of many"
    )


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (torch.zeros(6, 4), "are torch.float32 (6, 4), expected integers (N,) or soft float labels (N, 3) for grey"),
        (torch.zeros(6), "are torch.float32 (6,), expected integers (N,) or soft"),
        (torch.zeros(6, 3, dtype=torch.int64), "are torch.int64 (6, 3), expected integers (N,) or soft"),
        (torch.full((6, 3), float("nan")), "hold NaN or infinite values"),
        (torch.full((6, 3), float("-inf")), "hold NaN or infinite values"),
        ({"labels": LABELS}, "are a dict of labels, expected a dense tensor"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, expected, tmp_path):
    images_path, labels_path = mtt_files(tmp_path, labels)
    assert f"the labels of {labels_path} {expected}" in refusal(dc_mtt.read_mtt, images_path, labels_path, GREY)


def test_a_file_that_cannot_be_written_is_said_so(tmp_path):
    synthetic = set_file.SyntheticSet(torch.zeros(3, *GREY.shape), torch.arange(3), GREY, 1)
    (tmp_path / "file").write_text("")
    inside = tmp_path / "file/x.pt"
    assert f"{inside} cannot be written" in refusal(dc_mtt.write_dc, synthetic, inside)
    same = tmp_path / "x.pt"
    assert "expected two files" in refusal(dc_mtt.write_mtt, synthetic, same, tmp_path / "." / "x.pt")
    assert not same.exists()

"""Other projects' .pt files: what comes in is what they hold, to the stated rounding."""

import pickle

import numpy as np
import pytest
import torch
from foreign_files import COLOUR, GREY, LABELS, dc_file, mtt_files, normalised, refusal, saved

from gdd import rng
from gdd.data.spec import DatasetSpec
from gdd.formats import dc_mtt, pt_file
from gdd.sampling import set_file

E = 2.0**-24  # float32's largest relative rounding error
SLACK = 1 + 1e-6  # terms of second order, and float64's own rounding


def constants(spec):
    """Return mean and std as float64 tensors of the float32 values that classifiers are fed with."""
    return (torch.tensor(values).double().view(1, -1, 1, 1) for values in (spec.mean, spec.std))


@pytest.mark.parametrize("spec", [GREY, COLOUR], ids=["grey", "colour"])
def test_pixels_are_the_normalised_ones_undone(spec, tmp_path):
    images = normalised(spec)
    synthetic = dc_mtt.read_dc(dc_file(tmp_path / "x.pt", images), spec)
    mean, std = constants(spec)
    assert torch.equal(synthetic.images, (images.double() * std + mean).float())
    assert synthetic.images.min() < 0 < 1 < synthetic.images.max()
    assert torch.equal(synthetic.labels, LABELS)
    assert (synthetic.ipc, synthetic.spec, synthetic.soft_labels) == (2, spec, None)


@pytest.mark.parametrize("spec", [GREY, COLOUR], ids=["grey", "colour"])
def test_a_file_survives_to_the_stated_rounding(spec, tmp_path):
    labels = torch.arange(3).repeat_interleave(200)
    images = normalised(spec, 600)
    synthetic = dc_mtt.read_dc(dc_file(tmp_path / "a.pt", images, labels), spec)
    dc_mtt.write_dc(synthetic, tmp_path / "b.pt")
    written = torch.load(tmp_path / "b.pt", weights_only=True)
    assert written["accs_all_exps"] == {}
    (again, kept), *others = written["data"]
    assert not others
    assert again.dtype == torch.float32
    assert torch.equal(kept, labels)
    _, std = constants(spec)
    difference, at_pixels = (again.double() - images.double()).abs(), synthetic.images.double().abs() / std
    assert (difference <= E * (at_pixels + again.double().abs()) * SLACK).all()
    assert (difference <= 2 * E * at_pixels * SLACK).all()
    # No looser bound would do: somewhere the first is reached to nine tenths.
    assert (difference / (at_pixels + again.double().abs())).max() > 0.9 * E


@pytest.mark.parametrize("spec", [GREY, COLOUR], ids=["grey", "colour"])
def test_a_float_set_survives_to_the_stated_rounding(spec, tmp_path):
    images = 1.5 * torch.randn(6, *spec.shape, generator=rng.generator(1, "test"))
    synthetic = set_file.SyntheticSet(images, LABELS, spec, 2)
    dc_mtt.write_mtt(synthetic, tmp_path / "images.pt", tmp_path / "labels.pt")
    again = dc_mtt.read_mtt(tmp_path / "images.pt", tmp_path / "labels.pt", spec)
    mean, _ = constants(spec)
    difference, offset = (again.images.double() - images.double()).abs(), (images.double() - mean).abs()
    assert (difference <= E * (offset + again.images.double().abs()) * SLACK).all()
    assert (difference <= 2 * E * offset * SLACK).all()
    assert torch.equal(again.labels, LABELS)


def test_every_grey_level_of_a_set_survives(tmp_path):
    spec = DatasetSpec("levels", 3, 16, 16, ("a", "b"), COLOUR.mean, COLOUR.std, False)
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, -1, -1).contiguous()
    dc_mtt.write_dc(set_file.SyntheticSet(levels, torch.arange(2), spec, 1), tmp_path / "x.pt")
    again = dc_mtt.read_dc(tmp_path / "x.pt", spec)
    assert torch.equal((again.images * 255).round().to(torch.uint8), levels)
    assert torch.allclose(again.images * 255, levels.float(), atol=255 * 3 * 2 * E, rtol=0)


def test_images_are_ordered_by_class_and_keep_their_order_within(tmp_path):
    images = normalised(GREY)
    labels = torch.tensor([2, 0, 1, 0, 2, 1])
    shuffled = dc_mtt.read_dc(dc_file(tmp_path / "x.pt", images, labels), GREY)
    ordered = dc_mtt.read_dc(dc_file(tmp_path / "y.pt", images[[1, 3, 2, 5, 0, 4]]), GREY)
    assert shuffled.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert torch.equal(shuffled.images, ordered.images)


def test_index_picks_one_set_of_several(tmp_path):
    several = [[normalised(GREY, seed=seed), LABELS] for seed in range(3)]
    path = saved(tmp_path / "x.pt", {"data": several})
    alone = [dc_mtt.read_dc(dc_file(tmp_path / "y.pt", images), GREY).images for images, _ in several]
    for index, expected in ((0, 0), (1, 1), (-1, 2), (-3, 0)):
        chosen = dc_mtt.read_dc(path, GREY, index)
        assert torch.equal(chosen.images, alone[expected])
        assert chosen.provenance["index"] == expected
    assert torch.equal(dc_mtt.read_dc(path, GREY).images, alone[2])
    for index in (3, -4):
        assert f"index is {index}, but {path} holds 3 sets, expected -3 to 2" in refusal(
            dc_mtt.read_dc, path, GREY, index
        )


def test_provenance_says_where_a_set_is_from(tmp_path):
    import hashlib

    path = dc_file(tmp_path / "res_DC.pt", normalised(GREY))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    expected = {"method": "dc", "imported": "res_DC.pt", "sha256": digest, "format": "dc", "index": 0}
    assert dc_mtt.read_dc(path, GREY, method="dc").provenance == expected
    assert dc_mtt.read_dc(path, GREY).provenance["method"] is None


def written_by_numpy_1(path, content):
    """Save as numpy 1 did: its names within numpy.core."""
    saved(path, content, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    assert b"numpy._core." in data
    path.write_bytes(data.replace(b"numpy._core.", b"numpy.core."))
    return path


@pytest.mark.parametrize("save", [saved, written_by_numpy_1], ids=["numpy 2", "numpy 1"])
def test_accuracies_that_numpy_made_are_left_alone(save, tmp_path):
    accuracies = {"ConvNet": [np.float64(0.5), np.float32(0.25), np.arange(3.0), np.array(["a"]), np.int64(3)]}
    images = normalised(GREY)
    path = save(tmp_path / "x.pt", {"data": [[images, LABELS]], "accs_all_exps": accuracies})
    plain = dc_mtt.read_dc(dc_file(tmp_path / "y.pt", images), GREY)
    assert torch.equal(dc_mtt.read_dc(path, GREY).images, plain.images)
    assert not set(pt_file._STAND_INS) & set(torch.serialization.get_safe_globals())


def test_images_as_numpy_arrays_are_no_tensors(tmp_path):
    path = dc_file(tmp_path / "x.pt", normalised(GREY).numpy())
    assert f"the images of {path} are NumpyValue, expected a dense tensor" in refusal(dc_mtt.read_dc, path, GREY)


def saved_on_cuda(path, content):
    saved(path, content, _use_new_zipfile_serialization=False)
    data, cpu, cuda = path.read_bytes(), b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0"
    assert cpu in data
    path.write_bytes(data.replace(cpu, cuda))
    return path


@pytest.mark.parametrize(
    ("save", "change"),
    [
        (lambda path, content: saved(path, content, _use_new_zipfile_serialization=False), torch.clone),
        (saved_on_cuda, torch.clone),
        (saved, torch.nn.Parameter),
        (saved, lambda images: images.clone().requires_grad_()),
        (saved, torch.Tensor.double),
        (saved, lambda images: images.half()),
        (saved, lambda images: images.bfloat16()),
    ],
    ids=["legacy", "cuda", "parameter", "gradient", "float64", "float16", "bfloat16"],
)
def test_every_kind_of_tensor_is_read(save, change, tmp_path):
    images = normalised(GREY).bfloat16().float()  # so that no type loses a bit
    expected = dc_mtt.read_dc(dc_file(tmp_path / "x.pt", images), GREY)
    found = dc_mtt.read_dc(save(tmp_path / "y.pt", {"data": [[change(images), LABELS.int()]]}), GREY)
    assert torch.equal(found.images, expected.images)
    assert not found.images.requires_grad
    assert torch.equal(found.labels, expected.labels)
    images_file = save(tmp_path / "z.pt", change(images))
    found = dc_mtt.read_mtt(images_file, save(tmp_path / "labels.pt", LABELS), GREY)
    assert torch.equal(found.images, expected.images)


def test_soft_logits_keep_every_bit(tmp_path):
    logits = torch.randn(6, 3, generator=rng.generator(2, "test"))
    logits[torch.arange(6), LABELS.flip(0)] += 9
    synthetic = dc_mtt.read_mtt(*mtt_files(tmp_path, logits), GREY)
    assert synthetic.provenance["soft_labels"] == "logits"
    assert synthetic.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert synthetic.soft_labels.dtype == torch.float32
    assert torch.equal(synthetic.soft_labels, logits[[4, 5, 2, 3, 0, 1]])
    dc_mtt.write_mtt(synthetic, tmp_path / "i.pt", tmp_path / "l.pt")
    assert torch.equal(torch.load(tmp_path / "l.pt", weights_only=True), synthetic.soft_labels)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16], ids=str)
def test_soft_probabilities_become_logarithms_and_come_back(dtype, tmp_path):
    logits = torch.randn(6, 3, generator=rng.generator(3, "test"), dtype=torch.float64)
    logits[torch.arange(6), LABELS] += 4
    probabilities = logits.softmax(1).to(dtype)
    probabilities[0] = torch.tensor([1, 0, 0])
    synthetic = dc_mtt.read_mtt(*mtt_files(tmp_path, probabilities), GREY)
    assert synthetic.provenance["soft_labels"] == "probabilities"
    assert torch.equal(synthetic.labels, LABELS)
    assert synthetic.soft_labels.dtype == torch.float32
    assert synthetic.soft_labels.isfinite().all()
    assert torch.allclose(synthetic.soft_labels.softmax(1).double(), probabilities.double(), atol=1e-3, rtol=0)
    dc_mtt.write_mtt(synthetic, tmp_path / "i.pt", tmp_path / "l.pt")
    again, given = torch.load(tmp_path / "l.pt", weights_only=True), probabilities.double()
    assert again.dtype == torch.float32
    least = torch.finfo(torch.float32).tiny
    bound = E * given * (1 - given.clamp_min(least).log()) * SLACK + (given == 0) * least * 1.01
    assert ((again.double() - given).abs() <= bound).all()


def test_rows_that_sum_to_more_than_one_are_logits(tmp_path):
    soft = torch.eye(3)[LABELS]
    soft[5] *= 1.001
    synthetic = dc_mtt.read_mtt(*mtt_files(tmp_path, soft), GREY)
    assert synthetic.provenance["soft_labels"] == "logits"
    assert torch.equal(synthetic.soft_labels, soft)


@pytest.mark.parametrize(
    "rate", [0.125, torch.tensor(0.125), torch.tensor([0.125]).double(), torch.nn.Parameter(torch.tensor(0.125))]
)
def test_a_learned_rate_is_kept(rate, tmp_path):
    files = mtt_files(tmp_path, LABELS)
    synthetic = dc_mtt.read_mtt(*files, GREY, saved(tmp_path / "lr.pt", rate), method="mtt")
    assert synthetic.provenance["learned_lr"] == 0.125
    assert (synthetic.provenance["method"], synthetic.provenance["format"]) == ("mtt", "mtt")
    set_file.save(tmp_path / "set.safetensors", synthetic)
    assert set_file.load(tmp_path / "set.safetensors").provenance == synthetic.provenance


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_a_learned_label_that_favours_another_class_leaves_its_image_in_its_own(kind, tmp_path, caplog):
    """Of a published set of 100 images, 5 labels had come to favour another class than that of their image."""
    caplog.set_level("INFO")
    soft = 6 * torch.eye(3)[torch.arange(12) // 4]
    soft[1] = torch.tensor([5.9, 6.1, 0.0])
    soft = soft.softmax(1) if kind == "probabilities" else soft
    images = normalised(GREY, 12)
    synthetic = dc_mtt.read_mtt(*mtt_files(tmp_path, soft, images), GREY)
    assert synthetic.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert synthetic.soft_labels.argmax(1).tolist() == [0, 1, 0, 0] + [1] * 4 + [2] * 4
    dc_mtt.write_mtt(synthetic, tmp_path / "i.pt", tmp_path / "l.pt")
    assert torch.allclose(torch.load(tmp_path / "i.pt", weights_only=True), images, atol=1e-6)  # in their order
    assert "1 of 12 favour another class" in caplog.text


def test_labels_decide_where_the_order_is_not_that_of_the_classes(tmp_path):
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    assert dc_mtt.read_mtt(*mtt_files(tmp_path, 6 * torch.eye(3)[labels]), GREY).labels.tolist() == [0, 0, 1, 1, 2, 2]
    moved = torch.tensor([0, 1, 2, 0, 1, 1])  # neither
    assert "has 1 images of class 'eel' but 3" in refusal(
        dc_mtt.read_mtt, *mtt_files(tmp_path, 6 * torch.eye(3)[moved]), GREY
    )


@pytest.mark.parametrize("pack", [list, tuple])
def test_a_lone_pair_in_0_to_1_is_read(pack, tmp_path, caplog):
    """As IDC saves it."""
    images = torch.rand(6, *GREY.shape, generator=rng.generator(6, "test"))
    path = saved(tmp_path / "data.pt", pack([images, LABELS]))
    synthetic = dc_mtt.read_dc(path, GREY, space="unit")
    assert torch.equal(synthetic.images, images)
    assert synthetic.provenance["space"] == "unit"
    assert not caplog.text
    dc_mtt.read_dc(path, GREY)
    assert (
        f"{path}: all values are within [0, 1], as of images that were never normalised; if so, add --space unit"
        in (caplog.text)
    )


def test_two_pairs_are_no_lone_pair(tmp_path):
    content = [[normalised(GREY), LABELS]] * 2
    assert "holds a list of 2, expected a dict whose 'data'" in refusal(
        dc_mtt.read_dc, saved(tmp_path / "x.pt", content), GREY
    )


@pytest.mark.parametrize(
    ("space", "expected"), [("unit", "is it in [0, 1]?"), ("normalized", "by grey's mean and std?")]
)
def test_pixels_of_another_space_are_told(space, expected, tmp_path, caplog):
    dc_mtt.read_mtt(*mtt_files(tmp_path, LABELS, 255 * torch.rand(6, *GREY.shape)), GREY, space=space)
    assert "pixels are far from [0, 1]" in caplog.text
    assert expected in caplog.text


def test_normalised_images_are_read_without_a_word(tmp_path, caplog):
    caplog.set_level("INFO")
    dc_mtt.read_mtt(*mtt_files(tmp_path, 6 * torch.eye(3)[LABELS]), GREY)
    dc_mtt.read_dc(dc_file(tmp_path / "x.pt", normalised(GREY)), GREY)
    assert not caplog.text


# Other projects' .pt files: what does not fit is refused in one sentence.


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

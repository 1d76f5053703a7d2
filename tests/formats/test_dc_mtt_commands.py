"""The commands that import and export other projects' .pt files."""

from dataclasses import replace

import pytest
import torch
from foreign_files import dc_file, saved
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from gdd import rng
from gdd.sampling import set_file


@pytest.fixture
def digits_file(tmp_path):
    images = torch.randn(20, 1, 16, 16, generator=rng.generator(4, "test"))
    return dc_file(tmp_path / "res_DC.pt", images, torch.arange(10).repeat_interleave(2))


def test_the_command_imports_and_exports_dc(done, digits_file, tmp_path):
    out = tmp_path / "sets/dc.safetensors"
    flags = ("--format", "dc", "--dataset", "digits", "--method", "dc", "--index", "-1", "--out", out)
    line = done("import", digits_file, *flags)
    synthetic = set_file.load(out)
    low, high = synthetic.images.min().item(), synthetic.images.max().item()
    pixels = f"pixels from {low:.3g} to {high:.3g}"
    assert line == f"wrote {out}: 20 images of 10 classes, 2 of each, {pixels}, hard labels\n"
    assert synthetic.provenance["method"] == "dc"
    done("export", out, "--to", "dc", "--out", tmp_path / "again.pt")
    paths = (tmp_path / "again.pt", digits_file)
    again, original = (torch.load(path, weights_only=True)["data"][0][0] for path in paths)
    assert torch.allclose(again, original, atol=1e-6, rtol=0)


def test_the_command_imports_and_exports_mtt(done, tmp_path):
    labels = torch.arange(10).repeat_interleave(2)
    images = torch.randn(20, 1, 16, 16, generator=rng.generator(5, "test"))
    soft = 0.91 * torch.eye(10)[labels] + 0.009
    files = [saved(tmp_path / f"{name}.pt", value) for name, value in zip("ilr", (images, soft, 0.5), strict=True)]
    out = tmp_path / "mtt.safetensors"
    flags = ["--format", "mtt", "--dataset", "digits", "--labels", files[1], "--lr", files[2], "--out", out]
    assert done("import", files[0], *flags).endswith("soft (probabilities) labels, learned learning rate 0.5\n")
    assert torch.equal(set_file.load(out).labels, labels)
    images_out, labels_out = tmp_path / "images_again.pt", tmp_path / "labels_again.pt"
    done("export", out, "--to", "mtt", "--out", images_out, "--labels", labels_out)
    assert torch.allclose(torch.load(images_out, weights_only=True), images, atol=1e-6, rtol=0)
    assert torch.allclose(torch.load(labels_out, weights_only=True), soft, atol=1e-6, rtol=0)


@pytest.fixture
def numbered(tmp_path):
    """A folder whose classes are called by numbers, and a set of as many."""

    def call(names):
        for number, name in enumerate(names):
            for index in range(3):
                path = tmp_path / "numbers" / name / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("L", (16, 16), 20 * number + index).save(path)
        images = torch.rand(len(names), 1, 16, 16, generator=rng.generator(6, "test"))
        return tmp_path / "numbers", dc_file(tmp_path / "x.pt", images, torch.arange(len(names)))

    return call


@pytest.mark.parametrize(
    ("names", "noted"),
    [(map(str, range(12)), True), (map(str, range(1, 11)), True), (map(str, range(10)), False), ("ab1", False)],
)
def test_classes_whose_numbers_are_sorted_as_text_are_noted(names, noted, numbered, done, caplog, tmp_path):
    dataset, file = numbered([*names])
    done("import", file, "--format", "dc", "--dataset", dataset, "--out", tmp_path / "s.safetensors")
    assert ("are numbers sorted as text: labels 0, 1, 2, 3 are classes" in caplog.text) == noted


def test_images_in_0_to_1_keep_their_pixels(numbered, done, tmp_path):
    dataset, file = numbered("abc")
    flags = ("--format", "dc", "--space", "unit", "--dataset", dataset, "--out", tmp_path / "s.safetensors")
    done("import", file, *flags)
    images = torch.load(file, weights_only=True)["data"][0][0]
    assert torch.equal(set_file.load(tmp_path / "s.safetensors").images, images)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--format", "dc", "--labels", "l.pt"], "--labels is l.pt, expected none with --format dc"),
        (["--format", "dc", "--lr", "l.pt"], "--lr is l.pt, expected none with --format dc"),
        (["--format", "mtt"], "--labels is not given"),
        (["--format", "mtt", "--labels", "l.pt", "--index", "0"], "--index is 0, expected none with --format mtt"),
        (["--format", "mtt", "--labels", "nowhere.pt"], "nowhere.pt cannot be read"),
        (["--format", "dc", "--index", "1"], "index is 1, but"),
        (["--format", "dc", "--dataset", "digit"], "did you mean 'digits'"),
        (["--format", "tar"], "format"),
        ([], "format"),
    ],
)
def test_the_import_command_refuses(flags, expected, refused, digits_file, tmp_path):
    out = tmp_path / "x.safetensors"
    dataset = [] if "--dataset" in flags else ["--dataset", "digits"]
    refused("import", digits_file, "--out", out, *dataset, *flags, naming=expected)
    assert not out.exists()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--to", "mtt"], "--labels is not given"),
        (["--to", "npz", "--labels", "l.pt"], "--labels is l.pt, expected none with --to npz"),
        (["--to", "dc", "--labels", "l.pt"], "--labels is l.pt, expected none with --to dc"),
    ],
)
def test_the_export_command_refuses(flags, expected, refused, tmp_path):
    refused("export", tmp_path / "set.safetensors", "--out", tmp_path / "x.pt", *flags, naming=expected)


# What ddranking 0.2.0's evaluators take, in what `gdd export` writes.


@pytest.fixture
def drawn(done, generator, tmp_path):
    """A set as gdd draws it, three images per class."""
    path = tmp_path / "drawn.safetensors"
    done("sample", generator, "--ipc", "3", "--out", path)
    return path


def test_tensors_are_normalised_and_ordered_by_class(done, drawn, tmp_path):
    files = tmp_path / "images.pt", tmp_path / "labels.pt"
    done("export", drawn, "--to", "mtt", "--out", files[0], "--labels", files[1])
    images, labels = (torch.load(path, weights_only=True) for path in files)
    stored = set_file.load(drawn)
    spec = stored.spec
    assert (images.dtype, tuple(images.shape)) == (torch.float32, (30, *spec.shape))
    wanted = v2.Normalize(spec.mean, spec.std)(stored.images / 255)
    assert torch.allclose(images, wanted, atol=1e-6, rtol=1e-6)
    # Its label-robust score of soft labels takes the hard ones from the order alone.
    assert labels.dtype == torch.int64
    assert labels.tolist() == [label for label in range(10) for _ in range(3)]


def test_soft_labels_are_logits(done, drawn, tmp_path):
    logits = torch.randn(30, 10, generator=rng.generator(0, "test"))
    soft, files = tmp_path / "soft.safetensors", (tmp_path / "images.pt", tmp_path / "labels.pt")
    set_file.save(soft, replace(set_file.load(drawn), soft_labels=logits))
    done("export", soft, "--to", "mtt", "--out", files[0], "--labels", files[1])
    assert torch.equal(torch.load(files[1], weights_only=True), logits)


def test_a_folder_has_the_labels_of_the_set(done, drawn, tmp_path):
    done("export", drawn, "--to", "folder", "--out", tmp_path / "folder")
    folder, stored = ImageFolder(str(tmp_path / "folder/train")), set_file.load(drawn)
    assert folder.targets == stored.labels.tolist()
    pixels = torch.stack([v2.functional.pil_to_tensor(image)[:1] for image, _ in folder])
    assert torch.equal(pixels, stored.images)

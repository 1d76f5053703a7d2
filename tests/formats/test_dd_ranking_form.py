"""What ddranking 0.2.0's evaluators take, in what `gdd export` writes.

They load nothing themselves: `compute_metrics` gets a tensor of images, normalised like the test images and ordered by
class, IPC of each, with hard labels or logits beside it; or the root of an ImageFolder.
"""

from dataclasses import replace

import pytest
import torch
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from gdd import rng
from gdd.sampling import set_file


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

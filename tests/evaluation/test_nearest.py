"""The nearest real images are those of the definition, in whatever parts they are compared."""

import pytest
import torch
from torch import Tensor

from gdd.evaluation import nearest as module
from gdd.evaluation.nearest import nearest


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


# Of 27 pixels: one image at once on either side, two and a rest, all; also with few distances at once.
@pytest.mark.parametrize(("values", "pairs"), [(1, 1), (60, 2**22), (2**22, 2**22), (2**22, 6)])
@pytest.mark.parametrize("count", [1, 3, 7])
def test_by_its_definition(values, pairs, count, monkeypatch):
    monkeypatch.setattr(module, "_VALUES", values)
    monkeypatch.setattr(module, "_PAIRS", pairs)
    images, real = noise(0, 5, 3, 3, 3), noise(1, 7, 3, 3, 3)
    all_distances = (images[:, None].double() - real[None].double()).flatten(2).norm(dim=2) / 255
    expected = all_distances.sort(dim=1)
    distances, rows = nearest(images, real, count)
    assert torch.equal(rows, expected.indices[:, :count])
    assert distances.flatten().tolist() == pytest.approx(expected.values[:, :count].flatten().tolist(), rel=1e-12)


def test_parts_give_the_same_bits(monkeypatch):
    images, real = noise(0, 50, 1, 6, 6), noise(1, 90, 1, 6, 6)
    whole = nearest(images, real, 5)
    monkeypatch.setattr(module, "_VALUES", 36 * 7)
    assert all(torch.equal(one, other) for one, other in zip(whole, nearest(images, real, 5), strict=True))


def test_only_a_copy_is_at_distance_0():
    """Also where sums of squares of all pixels are so large that float32 would round a grey level away."""
    real = noise(0, 3, 3, 64, 64) | 128
    almost = real[1:2].clone()
    almost[0, 0, 0, 0] -= 1
    distances, rows = nearest(torch.cat([real[2:], almost]), real)
    assert rows.tolist() == [[2], [1]]
    assert distances.tolist() == [[0], [1 / 255]]


def test_an_image_is_not_its_own_neighbour_but_its_double_is(monkeypatch):
    monkeypatch.setattr(module, "_VALUES", 16)  # so that each image is in a part of its own
    real = noise(0, 4, 1, 4, 4)
    real[3] = real[0]
    own = torch.tensor([0, 1])
    distances, rows = nearest(real[own], real, own=own)
    assert (rows[0], distances[0]) == (3, 0)
    assert rows[1] != 1
    assert distances[1] > 0

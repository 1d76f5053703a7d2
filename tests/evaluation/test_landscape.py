"""Eigenvalues against matrices whose spectrum is known, and the loss against its own definition."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gdd import rng
from gdd.config import ConfigError
from gdd.evaluation import landscape
from gdd.evaluation.landscape import WeightLoss, surface, top_eigenpairs
from gdd.models import registry

CPU = torch.device("cpu")


def noise(*shape: int, purpose: str = "test") -> Tensor:
    return torch.randn(*shape, generator=rng.generator(0, purpose), dtype=torch.float64)


@pytest.fixture
def loss() -> WeightLoss:
    """That of a small residual network with batch statistics that are not the initial ones."""
    with rng.seeded(0, "test"):
        network = registry.build("resnet10-bn-w4", (1, 8, 8), 3)
        network(torch.randn(20, 1, 8, 8))
    return WeightLoss(network, noise(7, 1, 8, 8).float(), torch.arange(7) % 3)


def test_a_quadratic_has_its_own_spectrum():
    """Also negative eigenvalues, which are not the largest however large they are."""
    spectrum = torch.cat([torch.tensor([9.0, 4.0, 3.9, 0.5]), -(torch.arange(60.0) ** 2)]).double()
    basis = torch.linalg.qr(noise(64, 64)).Q
    matrix = basis @ torch.diag(spectrum) @ basis.T
    weights = noise(64, purpose="weights").requires_grad_()

    def times(vector: Tensor) -> Tensor:
        (slope,) = torch.autograd.grad(weights @ matrix @ weights / 2, weights, create_graph=True)
        return torch.autograd.grad(slope @ vector, weights)[0]

    values, vectors = top_eigenpairs(times, 64, 4, CPU)
    assert values.tolist() == pytest.approx([9, 4, 3.9, 0.5], rel=1e-6)
    torch.testing.assert_close(vectors @ vectors.T, torch.eye(4).double(), rtol=0, atol=1e-8)
    torch.testing.assert_close(vectors @ matrix, values[:, None] * vectors, rtol=0, atol=1e-4)
    assert (vectors[0].abs() - basis[:, 0].abs()).abs().max() < 1e-6
    assert vectors.gather(1, vectors.abs().argmax(1, keepdim=True)).min() > 0
    again, _ = top_eigenpairs(times, 64, 4, CPU, seed=1)
    assert again.tolist() == pytest.approx(values.tolist(), rel=1e-6)


@pytest.mark.parametrize("count", [0, 64])
def test_more_eigenvalues_than_arpack_finds_are_refused(count: int):
    with pytest.raises(ConfigError, match=f"{count} eigenvalues are asked for, expected 1 to 63 of 64 weights"):
        top_eigenpairs(lambda vector: vector, 64, count, CPU)


@pytest.mark.parametrize("soft", [False, True])
def test_the_hessian_of_a_linear_network_is_that_of_softmax_regression(soft: bool):
    """H = mean over images of (diag(p) - p p') x x', whatever the labels (Boehning 1992)."""
    images, network = noise(6, 1, 2, 2), nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False))
    labels = noise(6, 3).softmax(1) if soft else torch.arange(6) % 3
    loss = WeightLoss(network, images.float(), labels)
    x = images.float().double().flatten(1)
    p = (x @ loss.weights.view(3, 4).T).softmax(1)
    middle = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    hessian = torch.einsum("nij,nk,nl->ikjl", middle, x, x).reshape(12, 12) / 6
    vector = noise(12, purpose="vector")
    torch.testing.assert_close(loss.hessian_times(vector), hessian @ vector, rtol=1e-10, atol=1e-12)
    wanted = -(p.log() * (labels if soft else F.one_hot(labels))).sum(1).mean()
    assert loss.at(loss.weights) == pytest.approx(wanted.item(), rel=1e-12)


def test_batches_change_nothing(loss: WeightLoss, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(landscape, "HESSIAN_BATCH", 3)
    images, labels = loss.batches[0]
    parted = WeightLoss(loss.network, images, labels)
    assert len(parted.batches) == 3
    vector = noise(len(loss.weights))
    torch.testing.assert_close(parted.hessian_times(vector), loss.hessian_times(vector), rtol=1e-9, atol=1e-12)
    assert parted.at(loss.weights) == pytest.approx(loss.at(loss.weights), rel=1e-12)


def test_eigenvalues_are_those_of_the_whole_hessian(loss: WeightLoss):
    size = len(loss.weights)
    small = WeightLoss(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), *loss.batches[0])
    dense = torch.stack([small.hessian_times(row) for row in torch.eye(195).double()])
    torch.testing.assert_close(dense, dense.T)
    values, _ = top_eigenpairs(small.hessian_times, 195, 5, CPU)
    assert values.tolist() == pytest.approx(torch.linalg.eigvalsh(dense).flip(0)[:5].tolist(), rel=1e-6)
    assert size > 10_000


def test_along_an_eigenvector_the_loss_bends_by_its_eigenvalue(loss: WeightLoss):
    values, vectors = top_eigenpairs(loss.hessian_times, len(loss.weights), 2, CPU)
    step = 1e-4
    distances = torch.tensor([-step, 0, step], dtype=torch.float64)
    found = surface(loss, vectors, distances)
    assert found[1, 1] == loss.at(loss.weights)
    for line, value in ((found[:, 1], values[0]), (found[1], values[1])):
        assert (line[0] - 2 * line[1] + line[2]) / step**2 == pytest.approx(value.item(), rel=1e-2)
    moved = WeightLoss(loss.network, *loss.batches[0])
    assert torch.equal(moved.weights, loss.weights)  # looking around moves nothing
    assert found[0, 2] == loss.at(loss.weights - step * vectors[0] + step * vectors[1])


def test_maps_in_channels_last_give_the_same(loss: WeightLoss):
    other = WeightLoss(loss.network.to(memory_format=torch.channels_last), *loss.batches[0])
    vector = noise(len(loss.weights))
    assert torch.equal(other.weights, loss.weights)
    torch.testing.assert_close(other.hessian_times(vector), loss.hessian_times(vector), rtol=1e-9, atol=1e-12)

import pytest
import torch
from matching_steps import iteration_reference, matching_loss
from torch import Tensor, nn
from toy import CLASSES, PER_CLASS, SPEC, dataset_of, network_of

from gdd.data.batches import ClassBatches
from gdd.data.readers import Dataset
from gdd.data.spec import dsa
from gdd.training.matching import Matcher
from gdd.training.matching_loss import freeze_statistics

DSA = dsa(flip=True)


def close(actual: Tensor, expected: Tensor, factor: float = 1.0) -> None:
    """Compare relative to the largest entry, since single entries may cancel."""
    accuracy = 1e-3 * factor * expected.abs().max().item()
    torch.testing.assert_close(actual.double(), expected, rtol=0, atol=accuracy)


@pytest.mark.parametrize(
    "own",
    [
        {"outer": 3, "inner": 2},  # epochs of 4 and 2 images
        {"distance": "cos", "main": "convnet3-w4-bn", "inner_first": True, "augmentations": DSA},
        {"distance": "mse", "ipc": 1, "outer": 1, "lr_image": 0.3},
        {"outer": 1, "inner": 5, "inner_first": True, "batch_train": 1},
        # With seed 3 an activation lies so near to 0 that rounding decides whether it passes the ReLU.
        {"ipc": 6, "main": "convnet3-w4-bn", "batch_train": 256, "batch_real": 256, "seed": 4},
        {"objective": "embedding", "outer": 1, "augmentations": DSA},
        {"objective": "embedding", "ipc": 1, "main": "convnet3-w4-bn", "outer": 1},
    ],
    ids=str,
)
def test_every_iteration_is_that_of_the_papers(own, make_matcher, noisy):
    matcher = make_matcher(**{"seed": 3, "lr_network": 0.1, "lr_image": 0.2, **own})
    images = matcher.synthetic.images_std
    velocity = torch.zeros_like(images)
    for iteration in range(3):
        before = images.detach().double()
        expected = iteration_reference(matcher, noisy, iteration, before, velocity.double())
        loss = matcher.iterate(iteration)
        assert not loss.requires_grad
        velocity = matcher.optimizer.state[images]["momentum_buffer"].clone()
        close(images.detach() - before, expected[0] - before)
        close(velocity, expected[1])
        close(loss, expected[2])


def test_networks_without_batch_norm_see_no_batch_for_it(make_matcher, monkeypatch):
    matcher = make_matcher()
    monkeypatch.setattr(ClassBatches, "__call__", lambda *_: pytest.fail("a batch was drawn"))
    network = network_of("convnet3-w4").train()
    freeze_statistics(network, matcher.real, 0)
    assert not network.training


@pytest.fixture(scope="module")
def easy() -> Dataset:
    """A bright band at another height for each class, and a little noise."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(40, (CLASSES * PER_CLASS, *SPEC.shape), generator=draw, dtype=torch.uint8)
    labels = torch.arange(len(images)) % CLASSES
    for label in range(CLASSES):
        images[labels == label, :, 5 * label : 5 * label + 5] += 200
    return dataset_of(images, labels)


def loss_of_all(matcher: Matcher, network: nn.Module) -> float:
    """Return the loss between the set and all real images."""
    kind = "embedding" if matcher.objective == "embedding" else matcher.distance
    pairs = zip(matcher.synthetic.images_std, map(matcher.real.images, matcher.real(PER_CLASS, "any")), strict=True)
    return sum(matching_loss(network, *pair, label, kind).item() for label, pair in enumerate(pairs))


@pytest.mark.parametrize(
    "own",
    [
        {"lr_image": 2.0},
        {"lr_image": 2.0, "distance": "cos"},
        {"distance": "mse"},
        {"lr_image": 2.0, "augmentations": DSA},
        {"lr_image": 1.0, "objective": "embedding"},
    ],
    ids=str,
)
def test_the_loss_falls_on_networks_that_took_no_part(own, make_matcher, easy):
    matcher = make_matcher(easy, ipc=1, outer=1, batch_real=PER_CLASS, **own)
    networks = [network_of("convnet3-w4", seed) for seed in range(6)]
    before = sum(loss_of_all(matcher, network) for network in networks)
    for iteration in range(30):
        assert matcher.iterate(iteration).isfinite()
    assert sum(loss_of_all(matcher, network) for network in networks) < 0.9 * before


def test_the_picture_has_a_row_per_class_clipped_for_showing(make_matcher):
    matcher = make_matcher(ipc=3)
    picture = matcher.grid()
    # make_grid repeats grey to three channels and pads every image by 2.
    assert picture.shape == (3, CLASSES * 18 + 2, 3 * 18 + 2)
    assert picture.min() == 0
    assert picture.max() == 1
    shown = picture[0, 20:36, 38:54]
    expected = (matcher.synthetic.images_std[1, 2, 0] * SPEC.std[0] + SPEC.mean[0]).clamp(0, 1)
    torch.testing.assert_close(shown, expected.detach())

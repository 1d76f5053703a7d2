import pytest
import torch
from torch import nn

from gdd.data.batches import Batches
from gdd.data.pixels import u8_to_pm1
from gdd.training.monitor import Monitor, class_diversity

CLASSES, PER_CLASS, SHAPE = 3, 4, (1, 16, 16)


class Painter(nn.Module):
    """A generator whose image shows its label and the first two entries of its noise."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, noise: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        images = torch.zeros(len(labels), *SHAPE)
        images[:, 0, 0, 0] = labels / 10
        images[:, 0, 0, 1:3] = noise[:, :2].clamp(-1, 1) * self.scale
        return images


@pytest.fixture
def batches() -> Batches:
    images = torch.randint(256, (30, *SHAPE), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    return Batches(images, torch.arange(30) % CLASSES, 6, 0, "test")


@pytest.fixture
def monitor(batches) -> Monitor:
    return Monitor(batches, CLASSES, noise_dim=8, seed=0, per_class=PER_CLASS)


def own_real_images(batches: Batches) -> torch.Tensor:
    chosen = [torch.nonzero(batches.labels == label)[:PER_CLASS, 0] for label in range(CLASSES)]
    return u8_to_pm1(batches.images_u8[torch.cat(chosen)])


class TestClassDiversity:
    def test_known_distances(self):
        # Class 0: a 3-4-5 triangle's long side. Class 1: 0, 1, 3 on a line, at 1, 2 and 3 from each other.
        points = torch.tensor([[0.0, 0], [0, 0], [1, 0], [3, 4], [3, 0], [9, 9]])
        labels = torch.tensor([0, 1, 1, 0, 1, 2])
        assert class_diversity(points.view(6, 1, 1, 2), labels, 4).tolist() == pytest.approx([5, 2, 0, 0])


class TestMonitor:
    def test_real_images_have_diversity_1(self, monitor, batches):
        measured = monitor.diversity(own_real_images(batches))
        assert {name: value.item() for name, value in measured.items()} == {
            "diversity/mean": pytest.approx(1),
            "diversity/min": pytest.approx(1),
        }

    def test_one_collapsed_class_shows_in_the_smallest(self, monitor, batches):
        images = own_real_images(batches)
        images[PER_CLASS : 2 * PER_CLASS] = images[PER_CLASS].clone()
        measured = monitor.diversity(images)
        assert measured["diversity/min"].item() == 0
        assert measured["diversity/mean"].item() == pytest.approx(2 / 3)

    @pytest.mark.parametrize("different", [0, 1])
    def test_classes_without_two_different_images_have_none(self, different):
        images = torch.zeros(6, *SHAPE, dtype=torch.uint8)
        images[3 : 3 + different] = 200
        monitor = Monitor(Batches(images, torch.arange(6) % CLASSES, 6, 0, "test"), CLASSES, 8, 0, PER_CLASS)
        measured = monitor.diversity(torch.zeros(CLASSES * PER_CLASS, *SHAPE))
        assert {name: value.item() for name, value in measured.items()} == (
            {"diversity/mean": 0, "diversity/min": 0} if different else {}
        )

    def test_samples_are_ordered_by_class_and_the_same_each_time(self, monitor):
        painter = Painter().train()
        images = monitor.sample(painter)
        assert images.shape == (CLASSES * PER_CLASS, *SHAPE)
        assert (images[:, 0, 0, 0] * 10).round().tolist() == [0] * PER_CLASS + [1] * PER_CLASS + [2] * PER_CLASS
        assert not images.requires_grad
        assert not painter.training
        assert torch.equal(monitor.sample(painter), images)
        assert len(torch.unique(images.flatten(1), dim=0)) == CLASSES * PER_CLASS

    def test_the_grid_is_a_picture_with_a_row_per_class(self, monitor):
        images = torch.linspace(-3, 3, CLASSES * PER_CLASS).view(-1, 1, 1, 1).expand(-1, *SHAPE)
        grid = monitor.grid(images)
        # make_grid repeats grey to three channels and pads every image by 2.
        assert grid.shape == (3, CLASSES * 18 + 2, PER_CLASS * 18 + 2)
        assert grid.min() == 0
        assert grid.max() == 1
        centres = grid[0, 10::18, 10::18]
        torch.testing.assert_close(centres.flatten(), (images[:, 0, 0, 0].clamp(-1, 1) + 1) / 2)

"""Images of crops: the surest of each real image, the best first, tiled, and what the ensemble is shown of them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gdd.config import ConfigError
from gdd.data.spec import DatasetSpec
from gdd.data.splits import Split
from gdd.sampling.crops import CROPS_EACH, crop_set, factor_of
from gdd.sampling.curate import Real
from gdd.sampling.ensemble_file import Ensemble

SMALL, LARGE, ODD = (12, 10), (40, 48), (41, 33)


def spec_of(size: tuple[int, int]) -> DatasetSpec:
    return DatasetSpec("pets", 3, *size, ("cat", "dog"), (0.4, 0.5, 0.6), (0.2, 0.2, 0.3), True)


class Stub(Ensemble):
    """An ensemble that sees the first class the more, the higher the rule's number (N,) is, and keeps what it sees."""

    def __init__(self, spec: DatasetSpec, rule: Callable[[Tensor], Tensor]) -> None:
        super().__init__([], spec, [])
        self.rule, self.seen = rule, list[Tensor]()

    def logits(self, images_u8: Tensor) -> Tensor:
        self.seen.append(images_u8)
        rated = self.rule(images_u8).float()
        return torch.stack([rated, -rated], 1)


def brightness(images_u8: Tensor) -> Tensor:
    """Return the middle pixel, which the padding never hides."""
    return images_u8[:, 0, images_u8.shape[2] // 2, images_u8.shape[3] // 2] / 255


def plain(size: tuple[int, int], count: int = 9) -> Real:
    """Real images (2 * count) of one level each: 10, 20, ... in the first class, the same in the second."""
    levels = 10 * torch.arange(1, count + 1, dtype=torch.uint8).repeat(2)
    images = levels[:, None, None, None].expand(-1, 3, *size).contiguous()
    return Real(Split(images, torch.arange(2 * count) // count), spec_of(size), "some data", seed=0)


def noise(size: tuple[int, int], count: int = 6) -> Real:
    images = torch.randint(256, (2 * count, 3, *size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Real(Split(images, torch.arange(2 * count) // count), spec_of(size), "some data", seed=0)


def test_images_of_at_most_32_pixels_are_one_crop_and_larger_ones_four():
    assert [factor_of(spec_of(size)) for size in (SMALL, (32, 32), (33, 32), (32, 33), LARGE)] == [1, 1, 2, 2, 2]


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_the_crop_that_the_ensemble_prefers_is_taken_first(size):
    """Of all crops of the first class it knows one, which has to be the first image, or its first tile."""
    first = Stub(spec_of(size), brightness)
    crop_set(noise(size), first, 1)
    shown = torch.cat(first.seen)
    for wanted in (shown[7], shown[3 * CROPS_EACH + 1]):
        ensemble = Stub(spec_of(size), lambda images, wanted=wanted: (images == wanted).flatten(1).all(1))
        image = crop_set(noise(size), ensemble, 1).images[0]
        if size == SMALL:
            assert torch.equal(image, wanted)
        else:
            half = image[:, : size[0] // 2, : size[1] // 2]
            assert torch.equal(half, wanted[:, 10:30, 12:36])


@pytest.mark.parametrize("size", [LARGE, ODD])
def test_the_best_four_are_tiled_row_by_row(size):
    """Each image gives one crop, whichever of its five; the second class is seen the more, the darker it is."""
    made = crop_set(plain(size), Stub(spec_of(size), brightness), 2)
    assert made.images.shape == (4, 3, *size)
    assert made.labels.tolist() == [0, 0, 1, 1]
    bottom, right = size[0] - 1, size[1] - 1
    corners = made.images[:, 0][:, [0, 0, bottom, bottom], [0, right, 0, right]].tolist()
    assert corners == [[90, 80, 70, 60], [50, 40, 30, 20], [10, 20, 30, 40], [50, 60, 70, 80]]
    counts = made.images[0, 0].unique(return_counts=True)[1].tolist()
    assert sum(counts) == size[0] * size[1]
    assert max(counts) <= -(-size[0] // 2) * -(-size[1] // 2)


def test_small_images_are_the_best_crops_in_turn():
    made = crop_set(plain(SMALL), Stub(spec_of(SMALL), brightness), 3)
    assert made.images[:, 2, 5, 5].tolist() == [90, 80, 70, 10, 20, 30]


def test_the_ensemble_is_shown_a_crop_in_the_middle_of_the_mean_colour():
    ensemble = Stub(spec_of(LARGE), brightness)
    crop_set(plain(LARGE), ensemble, 1)
    image = ensemble.seen[0][0]
    assert image.shape == (3, *LARGE)
    assert image[:, 0, 0].tolist() == image[:, 9, 24].tolist() == image[:, 20, 11].tolist() == [102, 128, 153]
    assert len(image[:, 10:30, 12:36].unique()) == 1


def test_a_crop_is_a_part_of_its_image_and_shows_8_to_100_percent_of_it():
    """In an image of rising rows, the levels from the first to the last row of a crop tell its height."""
    rows = torch.arange(0, 240, 4, dtype=torch.uint8)[:, None].expand(60, 60)
    images = rows.expand(200, 3, 60, 60).contiguous()
    real = Real(Split(images, torch.arange(200) // 100), spec_of((60, 60)), "some data", seed=0)
    ensemble = Stub(spec_of((60, 60)), brightness)
    crop_set(real, ensemble, 1)
    crops = torch.cat(ensemble.seen)[:500, 0, 15:45, 15:45].float()
    assert (crops == crops[:, :, :1]).all()  # neither turned nor mirrored
    first, last = crops[:, 0, 0], crops[:, -1, 0]
    heights = (last - first) / 4 * 30 / 29
    assert 0.27 < heights.min() / 60 < 0.33  # of which the square is the share: .08 or more
    assert 0.93 < heights.max() / 60 <= 1
    shares = (heights / 60).square()
    assert abs(shares.mean() - 0.54) < 0.05  # uniform from .08 to 1
    assert first.min() < 8
    assert last.max() > 228


def test_a_smaller_set_is_the_beginning_of_a_larger_one_and_a_seed_decides():
    for size in (SMALL, LARGE):
        real, ensemble = noise(size, 12), Stub(spec_of(size), brightness)
        small, large = crop_set(real, ensemble, 1), crop_set(real, ensemble, 3, soft_labels=True)
        assert torch.equal(large.images[[0, 3]], small.images)
        assert large.soft_labels is not None
        assert torch.equal(large.soft_labels, ensemble.logits(large.images).half())
        assert small.soft_labels is None
        real.seed = 1
        assert not torch.equal(crop_set(real, ensemble, 1).images, small.images)


def test_too_few_images_are_named():
    ensemble = Stub(spec_of(LARGE), brightness)
    crop_set(plain(LARGE), ensemble, 2)
    with pytest.raises(ConfigError, match="class 'cat' has 9 images, of which 12 crops are asked for"):
        crop_set(plain(LARGE), ensemble, 3)

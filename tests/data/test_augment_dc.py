"""DC's augmentation is what scipy, torch and slicing make of one image at a time, as its released code does."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from gdd.data import augment_dc
from gdd.data.augment import Augmentation, apply
from gdd.data.spec import DC, parse_strategy

SIZES = [(28, 28), (32, 32), (17, 17), (20, 28)]
CROP, SCALE, ROTATE = (torch.tensor([(which + 0.5) / 3]) for which in range(3))


def images(count: int, size: tuple[int, int]) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, *size, dtype=torch.float64, generator=draw)


def draws(which: Tensor, first: Tensor, second: Tensor, angle: Tensor) -> Tensor:
    return torch.stack([part.double().expand(len(first)) for part in (which, first, second, angle)], 1)


def centre(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    row, col = (int((have - want) / 2) for have, want in zip(image.shape[1:], size, strict=True))
    return image[:, row : row + size[0], col : col + size[1]]


@pytest.mark.parametrize("size", SIZES)
def test_a_rotation_is_scipys(size):
    """By each of DC's angles, -45 to 44 degrees."""
    x, half = images(90, size), torch.full((90,), 0.5)
    u = draws(ROTATE, half, half, (torch.arange(90) + 0.5) / 90)
    mean = x.mean((0, 2, 3)).mean().item()
    for image, found, angle in zip(x.numpy(), augment_dc.one_of_three(x, u), range(-45, 45), strict=True):
        turned = ndimage.rotate(image, angle, axes=(-2, -1), cval=mean)
        np.testing.assert_allclose(found, centre(turned, size), atol=1e-12)
    single = augment_dc.one_of_three(x.float(), u.float())
    torch.testing.assert_close(single.double(), augment_dc.one_of_three(x, u), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_a_scale_is_torchs_nearest_pixel_at_the_centre(size):
    parts = torch.linspace(0, 0.9999, 7, dtype=torch.float64)
    first, second = (part.flatten() for part in torch.meshgrid(parts, parts, indexing="ij"))
    x = images(len(first), size)
    found = augment_dc.one_of_three(x, draws(SCALE, first, second, first))
    for image, ours, *by in zip(x, found, first.tolist(), second.tolist(), strict=True):
        height, width = (int((0.8 + 0.4 * part) * side) for part, side in zip(by, size, strict=True))
        resized = F.interpolate(image[None], (height, width))[0]
        largest = max(height, width, *size)
        canvas = torch.zeros(3, largest, largest, dtype=torch.float64)
        row, col = (largest - height) // 2, (largest - width) // 2
        canvas[:, row : row + height, col : col + width] = resized
        row, col = (largest - size[0]) // 2, (largest - size[1]) // 2
        assert torch.equal(ours, canvas[:, row : row + size[0], col : col + size[1]])


@pytest.mark.parametrize("size", SIZES)
def test_a_crop_is_of_the_image_within_its_channels_means(size):
    shifts = [(down, right) for down in range(8) for right in range(8)]
    x = images(len(shifts), size)
    u = draws(CROP, *(torch.tensor([(shift[axis] + 0.5) / 8 for shift in shifts]) for axis in (0, 1, 1)))
    padded = x.mean((0, 2, 3))[None, :, None, None].expand(len(x), 3, size[0] + 8, size[1] + 8).clone()
    padded[:, :, 4:-4, 4:-4] = x
    for image, found, (down, right) in zip(padded, augment_dc.one_of_three(x, u), shifts, strict=True):
        assert torch.equal(found, image[:, down : down + size[0], right : right + size[1]])


def test_each_image_has_an_operation_of_its_own_and_as_often_as_the_others():
    x = torch.randn(6, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    u = torch.rand(6, augment_dc.DRAWS, generator=torch.Generator().manual_seed(2))
    mixed = u.clone()
    mixed[:, 0] = torch.tensor([0.0, 0.34, 0.67, 0.33, 0.66, 0.99])
    found = augment_dc.one_of_three(x, mixed)
    for place, which in enumerate((CROP, SCALE, ROTATE, CROP, SCALE, ROTATE)):
        alone = augment_dc.one_of_three(x, torch.cat([which.expand(6, 1), mixed[:, 1:]], 1))
        assert torch.equal(found[place], alone[place])


def test_it_is_differentiable():
    x = images(3, (9, 9))[:, :1].requires_grad_()
    u = torch.tensor([[0.1, 0.2, 0.9, 0.5], [0.5, 0.9, 0.1, 0.5], [0.9, 0.5, 0.5, 0.8]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: augment_dc.one_of_three(x, u), x)


def test_it_has_a_name_and_no_strength():
    assert parse_strategy(DC, flip=False) == (DC,)
    x, u = torch.randn(4, 1, 28, 28), torch.rand(4, augment_dc.DRAWS)
    assert torch.equal(apply(Augmentation(((DC, u),), 1.0), x), augment_dc.one_of_three(x, u))
    with pytest.raises(ValueError, match=r"strength of dc is 0\.5, expected 1"):
        apply(Augmentation(((DC, u),), 0.5), x)

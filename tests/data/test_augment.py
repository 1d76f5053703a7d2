import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from gdd import rng
from gdd.config import ConfigError
from gdd.data.augment import Augmentation, apply, draw, draw_each
from gdd.data.spec import OPERATIONS, parse_strategy

SHAPES = [(6, 3, 32, 32), (6, 1, 28, 28), (6, 3, 24, 40)]


def random(seed=0):
    return rng.Draws(seed, "test")


def batch(shape=(6, 3, 32, 32), dtype=torch.float32):
    return random(99).normal(*shape).to(dtype)


def fixed(name, *draws, strength=1.0):
    """One operation with chosen uniform draws, shared by all images."""
    return Augmentation(((name, torch.tensor([draws])),), strength)


def centre(count, pick):
    """The draw that `_integer` maps to entry number `pick` of `count`."""
    return (pick + 0.5) / count


# Strategy


def test_parse_strategy():
    assert parse_strategy("color_crop_cutout_flip_scale_rotate") == OPERATIONS
    assert parse_strategy("crop_color") == ("crop", "color")
    assert parse_strategy("none") == ()
    assert parse_strategy("color_flip_crop", flip=False) == ("color", "crop")
    assert parse_strategy("flip", flip=False) == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("color_corp", "unknown augmentation 'corp' .*color, crop, cutout, .*did you mean 'crop'"),
        ("Flip", "did you mean 'flip'"),
        ("xyz", "joined by '_'$"),
        ("", "unknown augmentation ''"),
        ("crop_none", "unknown augmentation 'none'"),
        ("crop_flip_crop", "names 'crop' twice"),
    ],
)
def test_bad_strategies_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_strategy(text)


# Drawing


def test_pick_all_takes_every_operation_in_order():
    drawn = draw(OPERATIONS, 4, random(), shared=False, pick="all")
    assert [name for name, _ in drawn.steps] == ["color", "flip", "crop", "scale", "rotate", "cutout"]
    assert all(len(draws) == 4 for _, draws in drawn.steps)


def test_pick_two_takes_any_two_different_ones_in_any_order():
    source, counts = random(), dict.fromkeys(itertools.permutations(OPERATIONS, 2), 0)
    for _ in range(3000):
        (first, _), (second, _) = draw(OPERATIONS, 1, source, shared=True, pick="two").steps
        counts[first, second] += 1
    assert len(counts) == 30
    assert all(50 < count < 160 for count in counts.values())  # of 100 each, five deviations of 10
    assert [name for name, _ in draw(("crop",), 4, source, shared=False, pick="two").steps] == ["crop"]


def test_pick_one_is_uniform():
    source = random()
    counts = dict.fromkeys(OPERATIONS, 0)
    for _ in range(1200):
        ((name, _),) = draw(OPERATIONS, 1, source, shared=True, pick="one").steps
        counts[name] += 1
    # Binomial(1200, 1/6): mean 200, standard deviation 12.9.
    assert all(abs(n - 200) < 4 * 12.9 for n in counts.values()), counts


@pytest.mark.parametrize("count", [1, 4])
def test_drawing_for_several_streams_is_drawing_for_each(count):
    together = draw_each(OPERATIONS, count, rng.Draws(0, "augment", 3, each=range(40)))
    assert {name for one in together for name, _ in one.steps} == {*OPERATIONS}
    for number, found in enumerate(together):
        expected = draw(OPERATIONS, count, rng.Draws(0, "augment", 3, number), shared=False, pick="one")
        ((name, u),), ((other, v),) = found.steps, expected.steps
        assert (name, found.strength) == (other, expected.strength)
        assert torch.equal(u, v)
    assert draw_each((), count, rng.Draws(0, "augment", each=range(2))) == [Augmentation((), 1.0)] * 2


@pytest.mark.parametrize("pick", ["one", "all"])
@pytest.mark.parametrize("shared", [True, False])
def test_same_seed_same_result(pick, shared):
    images = batch()
    one, other, third = (
        apply(draw(OPERATIONS, 6, random(seed), shared=shared, pick=pick), images) for seed in (5, 5, 7)
    )
    assert torch.equal(one, other)
    assert not torch.equal(one, third)


@pytest.mark.parametrize("pick", ["one", "all"])
@pytest.mark.parametrize(("strategy", "strength"), [((), 1.0), *(((name,), 0.0) for name in OPERATIONS)])
def test_no_strength_and_no_operation_are_the_identity(strategy, strength, pick):
    images = batch()
    drawn = draw(strategy, 6, random(), shared=False, pick=pick, strength=strength)
    assert torch.equal(apply(drawn, images), images)


@pytest.mark.parametrize("name", ["color", "scale", "rotate"])
def test_small_strength_is_a_small_change(name):
    images = batch()
    drawn = draw((name,), 6, random(), shared=False, pick="one", strength=1e-3)
    assert 0 < (apply(drawn, images) - images).abs().max() < 0.05


def test_negative_strength_is_refused():
    with pytest.raises(ValueError, match="-1"):
        draw(OPERATIONS, 1, random(), shared=True, pick="one", strength=-1)


@pytest.mark.parametrize("name", OPERATIONS)
def test_shared_parameters_are_one_for_all_images_and_any_batch(name):
    repeated = batch((1, 3, 32, 32)).expand(8, -1, -1, -1)
    drawn = draw((name,), 8, random(3), shared=True, pick="one")
    output = apply(drawn, repeated)
    assert torch.equal(output, output[:1].expand_as(output))
    assert torch.equal(apply(drawn, repeated[:5]), output[:5])
    assert torch.equal(apply(drawn, repeated[:1]), output[:1])


@pytest.mark.parametrize("name", OPERATIONS)
def test_own_parameters_differ_between_images(name):
    repeated = batch((1, 3, 32, 32)).expand(8, -1, -1, -1)
    output = apply(draw((name,), 8, random(3), shared=False, pick="one"), repeated)
    assert not torch.equal(output, output[:1].expand_as(output))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_no_image_leaks_into_another(name, shape):
    """Each image comes out as if it had been augmented alone with its own row of draws."""
    images = batch(shape)
    drawn = draw((name,), 6, random(4), shared=False, pick="one")
    ((_, draws),) = drawn.steps
    for i, output in enumerate(apply(drawn, images)):
        alone = apply(Augmentation(((name, draws[i : i + 1]),), 1.0), images[i : i + 1])
        torch.testing.assert_close(output, alone[0])


def test_a_batch_of_another_size_is_refused():
    drawn = draw(("flip",), 6, random(), shared=False, pick="one")
    with pytest.raises(ValueError, match="drawn for 6 images, the batch has 5"):
        apply(drawn, batch()[:5])


# Operations


def test_color_steps_follow_the_published_formulas():
    images = batch()
    u, v, w = 0.9, 0.2, 0.7
    expected = images + (u - 0.5)
    grey = expected.mean(1, keepdim=True)
    expected = (expected - grey) * (2 * v) + grey
    mean = expected.mean((1, 2, 3), keepdim=True)
    expected = (expected - mean) * (w + 0.5) + mean
    torch.testing.assert_close(apply(fixed("color", u, v, w), images), expected)


def test_saturation_is_the_identity_on_one_channel():
    images = batch((6, 1, 28, 28))
    assert torch.equal(apply(fixed("color", 0.5, 0.9, 0.5), images), images)


@pytest.mark.parametrize("shift", [(0, 0), (4, -4), (-3, 2), (-4, -4), (1, 4)])
@pytest.mark.parametrize("side", [28, 32])
def test_crop_is_an_exact_shift_with_zeros(side, shift):
    images = batch((6, 3, side, side))
    down, right = shift
    padded = F.pad(images, (4, 4, 4, 4))
    expected = padded[:, :, 4 + down : 4 + down + side, 4 + right : 4 + right + side]
    drawn = fixed("crop", centre(9, down + 4), centre(9, right + 4))
    assert torch.equal(apply(drawn, images), expected)


def test_crop_reaches_an_eighth_of_each_side():
    images = torch.ones(1, 1, 24, 40)
    lost = 1 - apply(fixed("crop", 0.0, 0.9999), images)[0, 0]
    assert lost.min(1).values.sum() == 3
    assert lost.min(0).values.sum() == 5


def test_flip_is_exact():
    images = batch()
    assert torch.equal(apply(fixed("flip", 0.49), images), images.flip(3))
    assert torch.equal(apply(fixed("flip", 0.5), images), images)


def test_flip_happens_to_half_the_images():
    images = batch((1, 1, 4, 4)).expand(1000, -1, -1, -1)
    output = apply(draw(("flip",), 1000, random(), shared=False, pick="one"), images)
    flipped = (output == images.flip(3)).all((1, 2, 3)).sum()
    assert abs(flipped - 500) < 4 * 15.8


@pytest.mark.parametrize(("row", "col"), [(0, 0), (16, 16), (5, 32), (32, 32), (31, 1)])
def test_cutout_masks_the_expected_square(row, col):
    images = batch()
    expected = images.clone()
    expected[:, :, max(row - 8, 0) : row + 8, max(col - 8, 0) : col + 8] = 0
    assert torch.equal(apply(fixed("cutout", centre(33, row), centre(33, col)), images), expected)


def test_cutout_of_an_odd_side_is_centred_on_a_pixel():
    images = torch.ones(1, 1, 30, 30)
    expected = images.clone()
    expected[:, :, 3:18, 0:8] = 0
    assert torch.equal(apply(fixed("cutout", centre(30, 10), centre(30, 0)), images), expected)
    assert apply(fixed("cutout", 0.9999, 0.9999), images).eq(0).sum() == 8 * 8


def test_cutout_area_on_32_pixels():
    images = torch.ones(4000, 1, 32, 32)
    output = apply(draw(("cutout",), 4000, random(), shared=False, pick="one"), images)
    area = output.eq(0).sum((1, 2, 3)).float()
    assert area.min() == 64
    assert area.max() == 256
    assert abs(area.mean() - (16 - 2 * 36 / 33) ** 2) < 4  # 36 = 1 + ... + 8 pixels lost at either border


@pytest.mark.parametrize("u", [0.0, 0.25, 0.999])
def test_rotation_matches_the_definition(u):
    """On a smooth image out(p) = in(R p), p in pixels from the centre, also when the image is not square."""
    height, width = 24, 40

    def smooth(y, x):
        return torch.sin(y / 5) * torch.cos(x / 7) + 2

    y, x = torch.meshgrid(
        torch.arange(height, dtype=torch.float64) - (height - 1) / 2,
        torch.arange(width, dtype=torch.float64) - (width - 1) / 2,
        indexing="ij",
    )
    angle = math.radians((2 * torch.tensor(u).item() - 1) * 15)
    expected = smooth(
        math.sin(angle) * x + math.cos(angle) * y,
        math.cos(angle) * x - math.sin(angle) * y,
    )
    output = apply(fixed("rotate", u), smooth(y, x)[None, None])[0, 0]
    inner = (slice(8, -8), slice(8, -8))
    torch.testing.assert_close(output[inner], expected[inner], atol=0.02, rtol=0)


def test_a_scaled_grid_is_that_of_torch_to_the_bit():
    images = batch((5, 3, 24, 40))
    factors = random(1).uniform(5, 2)
    theta = torch.diag_embed(1 / 1.2 + factors * (1.2 - 1 / 1.2))
    grid = F.affine_grid(F.pad(theta, (0, 1)), list(images.shape), align_corners=True)
    expected = F.grid_sample(images, grid, align_corners=True)
    assert torch.equal(apply(Augmentation((("scale", factors),), 1.0), images), expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_image_is_cropped_by_its_own_shift(shape):
    images = batch(shape)
    draws = random(2).uniform(6, 2)
    height, width = shape[2:]
    reach = (height // 8 + (height % 8 >= 4), width // 8 + (width % 8 >= 4))
    padded = F.pad(images, (reach[1], reach[1], reach[0], reach[0]))
    shifts = [[int(u * (2 * most + 1)) for u, most in zip(row, reach, strict=True)] for row in draws.tolist()]
    expected = [
        one[:, top : top + height, left : left + width] for one, (top, left) in zip(padded, shifts, strict=True)
    ]
    assert torch.equal(apply(Augmentation((("crop", draws),), 1.0), images), torch.stack(expected))


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(
    ("name", "draws", "shape"),
    [*(("scale", (0.1, 0.9), shape) for shape in SHAPES), *(("rotate", (0.8,), shape) for shape in SHAPES[:2])],
)
def test_scale_and_rotation_are_the_published_affine(name, draws, shape, align_corners):
    """The original leaves align_corners open: True (torch 1.2) and False (today) give the same images."""
    images = batch(shape, torch.float64)
    low, angle = 1 / 1.2, math.radians((2 * draws[0] - 1) * 15)
    factors = [low + u * (1.2 - low) for u in draws]
    cos, sin = math.cos(angle), math.sin(angle)
    rows = [[factors[0], 0, 0], [0, factors[-1], 0]] if name == "scale" else [[cos, -sin, 0], [sin, cos, 0]]
    theta = torch.tensor(rows, dtype=torch.float64).expand(len(images), -1, -1)
    grid = F.affine_grid(theta, list(images.shape), align_corners=align_corners)
    expected = F.grid_sample(images, grid, align_corners=align_corners)
    torch.testing.assert_close(apply(fixed(name, *draws), images), expected, atol=1e-5, rtol=0)


# Gradients and types


def test_gradcheck_of_the_full_chain():
    images = batch((2, 3, 6, 8), torch.float64).requires_grad_()
    drawn = draw(OPERATIONS, 2, random(1), shared=False, pick="all")
    assert torch.autograd.gradcheck(lambda x: apply(drawn, x), images)


@pytest.mark.parametrize("name", ["color", "flip", "crop", "cutout"])
def test_second_derivatives(name):
    """Those of scale and rotation are torch's own."""
    images = batch((2, 3, 6, 8), torch.float64).requires_grad_()
    drawn = draw((name,), 2, random(1), shared=False, pick="one")
    assert torch.autograd.gradgradcheck(lambda x: apply(drawn, x), images)


@pytest.mark.parametrize("shared", [True, False])
def test_vmap_and_compile_see_the_same_function(shared):
    groups = batch((12, 3, 16, 16)).unflatten(0, (2, 6))
    drawn = draw(OPERATIONS, 6, random(1), shared=shared, pick="all")
    expected = torch.stack([apply(drawn, images) for images in groups])
    torch.testing.assert_close(torch.vmap(lambda images: apply(drawn, images))(groups), expected)
    # One graph, as a branch on a tensor's value or an `item` would not have it.
    compiled = torch.compile(lambda images: apply(drawn, images), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(groups[0]), expected[0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", OPERATIONS)
def test_dtype_and_shape_are_kept(name, dtype):
    for shape in SHAPES:
        images = batch(shape, dtype)
        output = apply(draw((name,), 6, random(), shared=False, pick="one"), images)
        assert output.dtype == dtype
        assert output.shape == images.shape


def test_float64_is_not_computed_in_float32():
    images = batch(dtype=torch.float64)
    output = apply(fixed("color", 0.5, 0.5, 0.25), images)
    mean = images.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(output, (images - mean) * 0.75 + mean, atol=1e-14, rtol=0)


def test_input_is_left_alone():
    images = batch()
    before = images.clone()
    apply(draw(OPERATIONS, 6, random(), shared=False, pick="all"), images)
    assert torch.equal(images, before)

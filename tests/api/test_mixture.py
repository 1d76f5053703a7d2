"""Generators joined into one: each sample is a member's own, and classes are told by their names."""

import itertools
from collections.abc import Iterable
from dataclasses import replace

import pytest
import torch
from generators import PETS, save_generator
from torch.utils.data import DataLoader

import gdd
from gdd.config import ConfigError
from gdd.data.spec import union

FARM = replace(PETS, name="farm", class_names=("cow", "pig"), mean=(0.2, 0.3, 0.4), std=(0.1, 0.1, 0.1), flip=False)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Generators of two tasks with classes of their own, and of the first at another age."""
    root = tmp_path_factory.mktemp("tasks")
    made = {"pets": (PETS, 0), "farm": (FARM, 0), "later": (PETS, 1)}
    return {name: save_generator(root / name, spec, seed=seed, gain=2) for name, (spec, seed) in made.items()}


@pytest.fixture(scope="module")
def pets(files) -> gdd.DistilledGenerator:
    return gdd.load_generator(files["pets"])


@pytest.fixture(scope="module")
def farm(files) -> gdd.DistilledGenerator:
    return gdd.load_generator(files["farm"])


@pytest.fixture(scope="module")
def later(files) -> gdd.DistilledGenerator:
    return gdd.load_generator(files["later"])


def taken(batches: Iterable[tuple[torch.Tensor, ...]], count: int) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = map(torch.cat, zip(*itertools.islice(batches, count), strict=True))
    return images, labels


def assert_same(images: torch.Tensor, expected: torch.Tensor) -> None:
    """Of a stream's images, which may differ from a set's by a level of rounding."""
    assert (images - expected).abs().max() < 1.5 / 255


def test_a_mixture_has_the_classes_and_the_bytes_of_all(files, pets, farm):
    both = gdd.mix([pets, farm])
    assert both.class_names == ("cat", "dog", "eel", "cow", "pig")
    assert both.shape == PETS.shape
    assert both.bytes == files["pets"].stat().st_size + files["farm"].stat().st_size


def test_a_set_of_different_classes_is_the_sets_of_its_members(pets, farm):
    images = gdd.mix([pets, farm]).sample(3, seed=5)
    expected = [member.sample(3, seed=5).stored.images for member in (pets, farm)]
    assert torch.equal(images.stored.images, torch.cat(expected))
    assert images.labels.tolist() == [label for label in range(5) for _ in range(3)]


def test_a_stream_holds_the_samples_of_the_set(pets, farm):
    both = gdd.mix([pets, farm])
    stored = both.sample(2, seed=7)
    images, labels = taken(both.stream(4, seed=7), 2)
    assert labels.tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    for place, image in enumerate(images):
        assert_same(image, stored[place % 5 * 2 + place // 5][0])


def test_a_stream_of_some_classes_goes_across_members(pets, farm):
    both = gdd.mix([pets, farm])
    stored = both.sample(3, seed=7)
    images, labels = taken(both.stream(2, seed=7, classes=["pig", "dog"]), 3)
    assert labels.tolist() == [4, 1] * 3
    for place, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        assert_same(image, stored[label * 3 + place // 2][0])


def test_members_of_one_class_take_turns(pets, later):
    """Sample i is sample i of its member, so snapshots of one training do not repeat each other's noise."""
    both, alone = gdd.mix([pets, later]), [member.sample(18, seed=3).stored.images for member in (pets, later)]
    assert both.class_names == PETS.class_names
    expected = torch.stack([alone[i % 18 % 2][i] for i in range(3 * 18)])
    assert torch.equal(both.sample(18, seed=3).stored.images, expected)
    images, labels = taken(both.stream(9, seed=3), 2)
    for place, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        assert_same(image, expected[18 * label + place // 3] / 255)


def test_members_share_a_class_under_other_numbers(pets, tmp_path):
    fish = gdd.load_generator(
        save_generator(tmp_path / "fish", replace(PETS, class_names=("eel", "cod")), seed=2, gain=2)
    )
    images = gdd.mix([pets, fish]).sample(4, seed=1).stored.images.view(4, 4, *PETS.shape)
    one, other = (member.sample(4, seed=1).stored.images.view(-1, 4, *PETS.shape) for member in (pets, fish))
    assert torch.equal(images[:2], one[:2])
    assert torch.equal(images[2, ::2], one[2, ::2])
    assert torch.equal(images[2, 1::2], other[0, 1::2])
    assert torch.equal(images[3], other[1])


def test_a_mixture_of_one_is_that_one(pets):
    alone = gdd.mix([pets])
    assert torch.equal(alone.sample(3).stored.images, pets.sample(3).stored.images)
    assert (alone.class_names, alone.bytes) == (pets.class_names, pets.bytes)
    assert alone.mean == pytest.approx(pets.mean)
    assert alone.std == pytest.approx(pets.std)


def test_workers_give_the_batches_of_one_process(pets, farm):
    stream = gdd.mix([pets, farm]).stream(3)
    assert_same(taken(DataLoader(stream, batch_size=None, num_workers=2), 4)[0], taken(stream, 4)[0])


def test_a_set_of_a_mixture_is_stored_as_any_other(pets, farm, tmp_path):
    images = gdd.mix([pets, farm]).sample(2)
    images.save(tmp_path / "both.safetensors")
    again = gdd.load_set(tmp_path / "both.safetensors")
    assert again.stored.hash == images.stored.hash
    assert again.provenance["generators"] == [pets.loaded.hash, farm.loaded.hash]


def test_mean_and_std_are_those_of_equally_many_images_of_every_class():
    random = torch.Generator().manual_seed(0)
    images = [torch.rand(classes * 50, 3, generator=random) * scale for classes, scale in ((3, 1.0), (2, 0.2))]

    def spec_of(values, names):
        mean, std = values.mean(0).tolist(), values.std(0, correction=0).tolist()
        return replace(PETS, class_names=names, mean=tuple(mean), std=tuple(std))

    names = ("cat", "dog", "eel"), ("cow", "pig")
    together = union([spec_of(*pair) for pair in zip(images, names, strict=True)])
    whole = spec_of(torch.cat(images), names[0] + names[1])
    assert together.mean == pytest.approx(whole.mean, rel=1e-5)
    assert together.std == pytest.approx(whole.std, rel=1e-5)
    assert union([PETS, FARM, PETS]).mean == pytest.approx(union([PETS, FARM]).mean)
    assert (union([PETS, FARM]).name, union([PETS, FARM]).flip) == ("pets + farm", False)


def test_images_of_other_shapes_are_refused(pets, tmp_path):
    small = gdd.load_generator(save_generator(tmp_path / "small", replace(FARM, height=24)))
    with pytest.raises(ConfigError, match=r"images of farm are \(3, 24, 24\), expected \(3, 16, 24\) as of pets"):
        gdd.mix([pets, small])


@pytest.mark.parametrize("generators", [[], None, "zoo:mnist"])
def test_what_is_no_list_of_generators_is_refused(generators):
    with pytest.raises(ConfigError, match=r"generators? .*expected"):
        gdd.mix(generators)


def test_what_is_no_generator_is_named(pets):
    with pytest.raises(ConfigError, match=r"generator 2 is a Mixture, expected what gdd.load_generator returns"):
        gdd.mix([pets, gdd.mix([pets])])


def test_numbers_and_classes_are_checked_as_of_one_generator(pets, farm):
    both = gdd.mix([pets, farm])
    for call in (lambda: both.sample(0), lambda: both.sample(1, -1), lambda: both.stream(0)):
        with pytest.raises(ConfigError, match="at least"):
            call()
    with pytest.raises(ConfigError, match=r"expected a list of different ones of pets \+ farm, .* as 0 to 4"):
        both.stream(2, classes=[5])

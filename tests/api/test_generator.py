"""A generator from Python: sets are those of the command, and streams go through its samples once, in any split."""

import itertools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from generators import PETS, save_generator, save_teacher
from torch.utils.data import DataLoader

import gdd
from gdd.api import stream as module
from gdd.config import ConfigError
from gdd.sampling import ensemble_file, sample


@pytest.fixture(scope="module")
def pets(tmp_path_factory) -> gdd.DistilledGenerator:
    return gdd.load_generator(save_generator(tmp_path_factory.mktemp("pets") / "run", gain=2))


def first(batches, count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(itertools.islice(batches, count))


def same(one, other) -> bool:
    """Tell whether images are equal but for a level of rounding, and labels to the bit."""
    pairs = zip(one, other, strict=True)
    return all(torch.equal(a[1], b[1]) and (a[0] - b[0]).abs().max() < 1.5 / 255 for a, b in pairs)


def test_a_sample_is_what_the_command_writes(pets, tmp_path, done):
    folder = save_generator(tmp_path / "run", gain=2).parent
    done("sample", folder, "--ipc", 3, "--seed", 5, "--out", tmp_path / "three.safetensors")
    assert pets.sample(3, seed=5).stored.hash == gdd.load_set(tmp_path / "three.safetensors").stored.hash
    assert not torch.equal(pets.sample(3, seed=4).stored.images, pets.sample(3, seed=5).stored.images)


def test_facts_are_those_of_the_dataset(pets):
    assert (pets.class_names, pets.shape, pets.mean, pets.std) == (PETS.class_names, PETS.shape, PETS.mean, PETS.std)
    assert pets.provenance["method"] == "gan"
    assert pets.noise_dim == 6
    assert pets.bytes == pets.loaded.bytes


def test_a_stream_holds_the_samples_of_the_set_class_by_class(pets):
    stored = pets.sample(4, seed=7)
    images, labels = map(torch.cat, zip(*first(pets.stream(6, seed=7), 2), strict=True))
    assert labels.tolist() == [0, 1, 2] * 4
    for place, image in enumerate(images):
        expected, label = stored[place % 3 * 4 + place // 3]  # a set is ordered by class
        assert label == labels[place]
        assert (image - expected).abs().max() < 1.5 / 255
    levels = 255 * images
    assert (levels - levels.round()).abs().max() < 1e-3


def test_any_batches_of_a_stream_are_balanced_and_new(pets):
    seen = first(pets.stream(5), 6)
    counts = [torch.cat([labels for _, labels in seen[:k]]).bincount(minlength=3) for k in range(1, 7)]
    assert all(count.max() - count.min() <= 1 for count in counts)
    images = torch.cat([images for images, _ in seen]).flatten(1)
    assert len(images.unique(dim=0)) == len(images) == 30


@pytest.mark.parametrize("classes", [["eel", "cat"], [2, 0], np.array([2, 0])])
def test_a_stream_of_some_classes_holds_their_samples_in_turn(pets, classes):
    stored = pets.sample(4, seed=7)
    images, labels = map(torch.cat, zip(*first(pets.stream(3, seed=7, classes=classes), 2), strict=True))
    assert labels.tolist() == [2, 0] * 3
    for place, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        assert (image - stored[4 * label + place // 2][0]).abs().max() < 1.5 / 255


def test_a_stream_of_all_classes_by_name_is_the_stream_of_all(pets):
    assert same(first(pets.stream(4, classes=pets.class_names), 3), first(pets.stream(4), 3))


@pytest.mark.parametrize("classes", [[], ["cow"], [3], [-1], ["cat", 0], "cat", 1, [["cat"]], [None]])
def test_classes_that_a_generator_does_not_have_are_refused(pets, classes):
    with pytest.raises(ConfigError, match=r"classes is .*, expected a list of different ones of pets, .* as 0 to 2"):
        pets.stream(2, classes=classes)


def test_a_stream_starts_anew_when_it_is_iterated_again(pets):
    stream = pets.stream(4)
    assert same(first(stream, 3), first(stream, 3))
    assert not same(first(stream, 3), first(pets.stream(4, seed=1), 3))


def test_workers_give_the_batches_of_one_process_in_their_order(pets):
    alone = first(pets.stream(4), 7)
    shared = first(DataLoader(pets.stream(4), batch_size=None, num_workers=2), 7)
    assert same(alone, shared)


@pytest.mark.parametrize("workers", [0, 2])
def test_processes_and_their_workers_part_the_batches_among_themselves(pets, monkeypatch, workers):
    alone = first(pets.stream(4), 12)
    for name, value in {"is_initialized": True, "get_world_size": 3}.items():
        monkeypatch.setattr(torch.distributed, name, lambda value=value: value)
    for rank in range(3):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        own = alone[rank::3]
        for worker in range(max(1, workers)):
            info = SimpleNamespace(id=worker, num_workers=workers) if workers else None
            monkeypatch.setattr(module, "get_worker_info", lambda info=info: info)
            mine = own[worker :: max(1, workers)]
            assert same(first(pets.stream(4), len(mine)), mine)


def test_generated_images_are_the_samples_before_rounding_and_differentiable(pets):
    labels, indices = torch.tensor([2, 0]), torch.tensor([1, 1])
    noise = sample.latents(3, labels, indices, pets.noise_dim).requires_grad_()
    images = pets.generate(labels, noise)
    stored = pets.sample(2, seed=3)
    for image, place in zip(images, (5, 1), strict=True):
        assert (image - stored[place][0]).abs().max() <= 0.5 / 255 + 1e-5
    images.sum().backward()
    assert noise.grad is not None
    assert noise.grad.abs().min() > 0


def test_what_cannot_be_generated_is_refused(pets):
    noise = torch.zeros(2, pets.noise_dim)
    for labels in (torch.tensor([0, 3]), torch.tensor([-1, 0]), torch.zeros(2), torch.zeros(2, 1, dtype=torch.int64)):
        with pytest.raises(ConfigError, match=r"labels are .* expected int64 of shape \(B,\), each from 0 to 2"):
            pets.generate(labels, noise)
    for labels in ([0, 1], np.array([0, 1]), 3, None):
        with pytest.raises(ConfigError, match=r"labels are a \w+, expected int64 of shape \(B,\)"):
            pets.generate(labels, noise)
    with pytest.raises(ConfigError, match=r"noise is a ndarray, expected float32 of \(2, 6\)"):
        pets.generate(torch.tensor([0, 1]), noise.numpy())
    for wrong in (noise[:1], noise.double(), torch.zeros(2, 3)):
        with pytest.raises(ConfigError, match=r"noise is .* expected float32 of \(2, 6\)"):
            pets.generate(torch.tensor([0, 1]), wrong)
    for call in (
        lambda: pets.sample(0),
        lambda: pets.sample(1, -1),
        lambda: pets.stream(0),
        lambda: pets.stream(1, -1),
    ):
        with pytest.raises(ConfigError, match="at least"):
            call()


def test_workers_cannot_share_a_gpu(pets, monkeypatch):
    monkeypatch.setattr(module, "get_worker_info", lambda: SimpleNamespace(id=0, num_workers=2))
    monkeypatch.setattr(pets, "device", torch.device("cuda"))
    with pytest.raises(ConfigError, match="expected cpu with num_workers"):
        iter(pets.stream(2))


def test_a_teacher_beside_it_answers_in_sets_and_in_streams(tmp_path):
    """Its logits are those to the images that lie there, in the order of the images."""
    path = save_generator(tmp_path / "run", gain=2)
    teacher = ensemble_file.load(save_teacher(path.parent))
    made = gdd.load_generator(path)
    soft, plain = made.sample(3, seed=5, soft_labels=True), made.sample(3, seed=5)
    assert torch.equal(soft.stored.images, plain.stored.images)
    assert plain.soft_labels is None
    torch.testing.assert_close(soft.soft_labels.float(), teacher.logits(soft.stored.images), rtol=2e-3, atol=1e-3)
    for (images, labels, logits), (same_images, same_labels) in zip(
        first(made.stream(4, seed=5, soft_labels=True), 3), first(made.stream(4, seed=5), 3), strict=True
    ):
        assert torch.equal(images, same_images)
        assert torch.equal(labels, same_labels)
        torch.testing.assert_close(logits, teacher.logits((255 * images).round().byte()))


def test_without_a_teacher_there_are_no_answers(pets, tmp_path):
    for ask in (lambda: pets.sample(1, soft_labels=True), lambda: pets.stream(1, soft_labels=True)):
        with pytest.raises(ConfigError, match=r"soft_labels is True, expected False: no teacher\.safetensors lies"):
            ask()
    path = save_generator(tmp_path / "run")
    save_teacher(path.parent, replace(PETS, class_names=("cat", "dog", "fox")))
    with pytest.raises(ConfigError, match=r"teacher.safetensors has the classes cat, dog, fox, expected those of pets"):
        gdd.load_generator(path)

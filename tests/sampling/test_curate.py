"""Samples that an ensemble approves of: which are kept, in which order, and what a set of them says."""

from collections.abc import Callable
from itertools import combinations

import pytest
import torch
from generators import PETS, save_generator
from torch import Tensor, nn

from gdd import rng
from gdd.config import ConfigError
from gdd.data.splits import Split, random_real
from gdd.models import registry
from gdd.runtime import checkpoint
from gdd.sampling import ensemble_file, generator_file, sample, set_file
from gdd.sampling.curate import (
    Generated,
    Kept,
    MadeElsewhere,
    Real,
    confident,
    curated_set,
    first_set,
    herding,
    kmeans,
    standardized,
)
from gdd.sampling.ensemble_file import Ensemble
from gdd.sampling.generator_file import LoadedGenerator

CLASSES = PETS.num_classes
ARCHS = ("convnet3-w4", "mlp-w8")
CENTRES = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])  # of clusters of features


@pytest.fixture
def loaded(tmp_path) -> LoadedGenerator:
    return generator_file.load(save_generator(tmp_path / "generator", gain=3.0))


def members(archs: tuple[str, ...] = ARCHS) -> list[nn.Module]:
    with rng.seeded(0, "members"):
        return [registry.build(arch, PETS.shape, CLASSES) for arch in archs]


def parity(images_u8: Tensor) -> Tensor:
    """Tell even first pixels from odd ones."""
    return images_u8[:, 0, 0, 0].long() % 2


class Stub(Ensemble):
    """An ensemble that sees class k in an image if the rule gives k, and nothing in any other."""

    def __init__(self, rule: Callable[[Tensor], Tensor]) -> None:
        super().__init__(ARCHS, PETS, members())
        self.rule = rule

    def logits(self, images_u8: Tensor) -> Tensor:
        return 5 * torch.nn.functional.one_hot(self.rule(images_u8), CLASSES).float()


def by_parity(label: int) -> Stub:
    """Approve of images of one class if their first pixel is odd; never of another class's."""
    return Stub(lambda images: torch.where(parity(images) == 1, label, (label + 1) % CLASSES))


def test_what_the_ensemble_answers_with_nan_is_not_kept(loaded):
    """Were nan a class, all samples of the first would be kept."""
    ensemble = Stub(parity)
    ensemble.logits = lambda images_u8: torch.full((len(images_u8), CLASSES), torch.nan)  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match="the ensemble classifies 0 as that"):
        Kept(Generated(loaded, 3), ensemble).images(0, 0, 1)


def test_the_kept_are_those_that_the_ensemble_calls_by_their_label(loaded):
    kept = Kept(Generated(loaded, 3), by_parity(1))
    every = sample.sample_images(loaded, 1, 0, 160, 3, "cpu")
    right = every[parity(every) == 1]
    assert 10 < len(right) < 150
    count = len(right) - 16  # the last chunk may not have been needed
    assert torch.equal(kept.images(1, 0, count), right[:count])
    assert 0 < kept.kept / kept.scanned < 1


def test_a_request_depends_on_none_before_it(loaded):
    kept = Kept(Generated(loaded, 3), by_parity(1))
    whole = kept.images(1, 0, 40)
    for start, stop in ((0, 40), (7, 9), (30, 40), (5, 6)):
        assert torch.equal(kept.images(1, start, stop), whole[start:stop])
    assert torch.equal(Kept(Generated(loaded, 3), by_parity(1)).images(1, 30, 40), whole[30:])


def test_a_class_that_is_hardly_ever_seen_is_given_up(loaded):
    with pytest.raises(ConfigError, match="of 5,008 samples of class 'dog' the ensemble classifies 0 as that"):
        Kept(Generated(loaded, 0), Stub(lambda images: torch.zeros(len(images), dtype=torch.int64))).images(1, 0, 1)


def test_real_images_come_in_the_order_of_the_floor_and_end():
    images = torch.arange(24, dtype=torch.uint8)[:, None, None, None].expand(24, *PETS.shape).contiguous()
    train = Split(images, torch.arange(24) % CLASSES)
    real, count = Real(train, PETS, "some data", seed=2), 24 // CLASSES
    drawn = curated_set(real, ensemble(), count)
    assert torch.equal(drawn.images, random_real(train, CLASSES, count, 2).images_u8)
    assert drawn.provenance["data"] == "some data"
    with pytest.raises(ConfigError, match=f"has {count} images, {count + 1} are asked for"):
        curated_set(real, ensemble(), count + 1)
    odd = by_parity(1)
    right = [int(row[0, 0, 0]) for row in real.images(1, 0, count) if row[0, 0, 0] % 2]
    assert Kept(real, odd).images(1, 0, len(right))[:, 0, 0, 0].tolist() == right
    with pytest.raises(ConfigError, match=f"classifies {len(right)} as that and there are no more, 20 are asked for"):
        Kept(real, odd).images(1, 0, 20)


def test_real_images_that_fill_their_last_chunk_end_too():
    many = Split(torch.zeros(2 * sample.CHUNK, *PETS.shape, dtype=torch.uint8), torch.zeros(2 * sample.CHUNK).long())
    answered = int(ensemble().logits(many.images_u8[:1]).argmax())
    real = Real(many._replace(labels=torch.full_like(many.labels, answered)), PETS, "some data", seed=0)
    assert len(Kept(real, ensemble()).images(answered, 0, 2 * sample.CHUNK)) == 2 * sample.CHUNK
    with pytest.raises(ConfigError, match=r"of 32 samples .* classifies 32 as that and there are no more, 33"):
        Kept(real, ensemble()).images(answered, 0, 2 * sample.CHUNK + 1)


def ensemble() -> Ensemble:
    return Ensemble(ARCHS, PETS, members())


def test_an_ensemble_answers_with_the_mean_and_shows_all_features():
    images = torch.randint(256, (5, *PETS.shape), generator=rng.generator(0, "x"), dtype=torch.uint8)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (PETS.mean, PETS.std))
    one, two = (member.eval()(((images / 255) - mean) / std) for member in members())
    torch.testing.assert_close(ensemble().logits(images), (one + two) / 2)
    widths = [member.embed(torch.zeros(1, *PETS.shape)).shape[1] for member in members()]
    assert ensemble().features(images).shape == (5, sum(widths))


def sums(images: torch.Tensor) -> torch.Tensor:
    """Return classes that are about equally frequent, whatever the images show."""
    return images.flatten(1).long().sum(1) % CLASSES


@pytest.mark.parametrize("selection", [None, "herding", "kmeans", "confident"])
@pytest.mark.parametrize("filtered", [False, True])
def test_a_smaller_set_is_the_beginning_of_a_larger_one_of_each_class(loaded, selection, filtered):
    judge = Stub(sums) if filtered else ensemble()
    how = {"filtered": filtered, "selection": selection, "pool": 24, "soft_labels": True}
    small, large = (curated_set(Generated(loaded, 5), judge, ipc, **how) for ipc in (4, 10))
    for label in range(CLASSES):
        rows = large.images[large.labels == label]
        assert torch.equal(small.images[small.labels == label], rows[:4])
        assert not filtered or (sums(rows) == label).all()
        pool = (
            Kept(Generated(loaded, 5), judge).images(label, 0, 24)
            if filtered
            else sample.sample_images(loaded, label, 0, 24, 5, "cpu")
        )
        assert all((row == pool).flatten(1).all(1).any() for row in rows)
    torch.testing.assert_close(large.soft_labels, judge.logits(large.images).half(), rtol=1e-2, atol=1e-2)
    assert large.bytes == large.images.nbytes + len(large.labels) * (1 + 2 * CLASSES)
    assert (large.provenance["curated"]["kept"] is not None) is filtered


def test_without_judgement_the_set_is_the_plain_one(loaded):
    assert torch.equal(curated_set(Generated(loaded, 7), ensemble(), 3).images, sample.sample_set(loaded, 3, 7).images)


def test_a_pool_below_the_set_is_refused(loaded):
    with pytest.raises(ConfigError, match="--pool is 3, expected at least --ipc, 4"):
        curated_set(Generated(loaded, 0), ensemble(), 4, selection="kmeans", pool=3)


def test_an_ensemble_of_other_classes_is_refused(loaded):
    other = PETS.__class__(**{**PETS.to_dict(), "class_names": ("a", "b", "c")})
    with pytest.raises(ConfigError, match="the ensemble has the classes a, b, c"):
        Kept(Generated(loaded, 0), Ensemble(ARCHS, other, members()))


class TestFile:
    def test_it_answers_the_same_after_a_round_trip(self, tmp_path):
        images = torch.randint(256, (5, *PETS.shape), generator=rng.generator(0, "x"), dtype=torch.uint8)
        ensemble_file.save(tmp_path, ensemble(), {"method": "real", "seconds": 2.0})
        found, rounded = ensemble_file.load(tmp_path), ensemble()
        for values in rounded.state_dict().values():
            if values.ndim > 1:
                values.copy_(values.half())
        assert torch.equal(found.logits(images), rounded.logits(images))
        assert (found.archs, found.spec, found.provenance["seconds"]) == (ARCHS, PETS, 2.0)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda tensors, _: next(iter(tensors.values())).add_(1), "do not match the hash"),
            (lambda _, header: header.update(archs=["mlp-w8", "convnet3-w4"]), "the weights do not fit"),
            (lambda _, header: header.update(archs=[]), "it has 0 members, expected 1 to 64"),
            (lambda _, header: header.update(archs=["mlp-w8"] * 65), "it has 65 members"),
            (lambda _, header: header.update(archs=["nonsense"]), "nonsense"),
            (lambda _, header: header.update(archs="mlp"), "archs"),
            (lambda _, header: header.update(kind="generator"), "holds a generator, expected an ensemble"),
            (lambda _, header: header.pop("spec"), "lacks or misstates 'spec'"),
        ],
    )
    def test_nothing_else_passes_for_it(self, change, message, tmp_path):
        path = ensemble_file.save(tmp_path, ensemble(), {"method": "real"})
        tensors, header = checkpoint.load_tensors(path)
        change(tensors, header)
        checkpoint.save_tensors(path, tensors, header)
        with pytest.raises(ConfigError, match=message) as error:
            ensemble_file.load(path)
        assert str(path) in str(error.value)

    def test_a_folder_without_one_is_refused(self, tmp_path):
        with pytest.raises(ConfigError, match=r"a finished run of gdd train-ensemble was expected"):
            ensemble_file.load(tmp_path)

    def test_soft_labels_survive_the_sets_file(self, loaded, tmp_path):
        drawn = curated_set(Generated(loaded, 0), ensemble(), 2, soft_labels=True)
        set_file.save(tmp_path / "set.safetensors", drawn)
        assert torch.equal(set_file.load(tmp_path / "set.safetensors").soft_labels, drawn.soft_labels)


def clusters(sizes: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Return tight clusters in mixed order, and of which cluster each row is."""
    draw = torch.Generator().manual_seed(0)
    of = torch.repeat_interleave(torch.arange(3), torch.tensor(sizes))
    of = of[torch.randperm(len(of), generator=draw)]
    return CENTRES[of] + 0.01 * torch.randn(len(of), 2, generator=draw), of


def cost(features: Tensor, chosen: list[int]) -> float:
    return torch.cdist(features, features[chosen]).square().amin(1).sum().item()


@pytest.mark.parametrize("choose", [herding, kmeans])
def test_a_smaller_choice_is_the_beginning_of_a_larger_one_without_repeats(choose) -> None:
    features = torch.randn(40, 5, generator=torch.Generator().manual_seed(1))
    whole = choose(features, 40)
    assert sorted(whole.tolist()) == list(range(40))
    for count in (1, 7, 39):
        assert torch.equal(choose(features, count), whole[:count])


def test_kmeans_takes_one_of_each_cluster_however_small() -> None:
    features, of = clusters((20, 6, 4))
    assert {*of[kmeans(features, 3)].tolist()} == {0, 1, 2}


def test_kmeans_first_choice_has_the_least_cost_and_the_rest_save_most_of_what_can_be_saved() -> None:
    features = torch.randn(12, 2, generator=torch.Generator().manual_seed(2))
    first, *_ = chosen = kmeans(features, 4).tolist()
    assert cost(features, [first]) == pytest.approx(min(cost(features, [row]) for row in range(12)))
    best = min(cost(features, list(rows)) for rows in combinations(range(12), 4))
    most = torch.cdist(features, features).square().amax(1).sum().item()
    assert most - cost(features, chosen) >= (1 - 1 / torch.e) * (most - best)


def test_herding_starts_at_the_mean_and_follows_it() -> None:
    features, of = clusters((20, 10, 10))
    mean = features.mean(0)
    chosen = herding(features, 20)
    assert chosen[0] == (features - mean).square().sum(1).argmin()
    # Each cluster gets its share, so that the mean of the chosen is that of all.
    assert of[chosen].bincount().tolist() == [10, 5, 5]
    random = torch.randperm(40, generator=torch.Generator().manual_seed(3))[:20]
    assert (features[chosen].mean(0) - mean).norm() < 0.1 * (features[random].mean(0) - mean).norm()


def test_confident_is_by_the_probability_of_the_class() -> None:
    logits = torch.tensor([[2.0, 2.0], [3.0, 0.0], [9.0, 8.0], [3.0, 0.0]])
    assert confident(logits, 0, 4).tolist() == [1, 3, 2, 0]
    assert confident(logits, 1, 2).tolist() == [0, 2]


def test_dimensions_that_do_not_vary_say_nothing() -> None:
    features = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    assert standardized(features).tolist() == [[-1.0, 0.0], [1.0, 0.0]]


# Images of another program, of which there are as many as there are.


def made_elsewhere(counts: tuple[int, ...] = (20, 33, 16)) -> MadeElsewhere:
    """Images of a level each, which tells its place, classes among one another."""
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    labels = labels[torch.randperm(len(labels), generator=rng.generator(0, "test"))]
    levels = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1)
    return MadeElsewhere(levels.expand(-1, *PETS.shape).contiguous(), labels, PETS, {"method": "EDM"})


def test_images_made_elsewhere_are_taken_in_their_order():
    made = made_elsewhere()
    places = [(made.labels == label).nonzero().flatten() for label in range(CLASSES)]
    assert torch.equal(made.images(1, 3, 7)[:, 0, 0, 0].long(), places[1][3:7])
    assert len(made.images(2, 10, 40)) == 6
    drawn = first_set(made, 16)
    assert torch.equal(drawn.images[:, 0, 0, 0].long(), torch.cat([place[:16] for place in places]))
    assert drawn.provenance["method"] == "EDM"
    with pytest.raises(ConfigError, match="class 'eel' has 16 images, 17 are asked for"):
        first_set(made, 17)


def test_what_they_were_chosen_from_is_told_by_its_hash():
    made, hashes = made_elsewhere(), set()
    others = (made.images_u8, made.labels), (made.images_u8 + 1, made.labels), (made.images_u8, made.labels.flip(0))
    for images, labels in others:
        hashes.add(MadeElsewhere(images, labels, PETS, {}).origin(None)["imported_hash"])
    assert len(hashes) == 3


@pytest.mark.parametrize("filtered", [False, True])
def test_a_set_may_be_chosen_among_as_many_as_each_class_has(filtered):
    """Of each class the even ones are approved of, so that all classes have another number of them."""
    made = made_elsewhere()
    judge = Stub(lambda images: (made.labels[images[:, 0, 0, 0].long()] + parity(images)) % CLASSES)
    drawn = curated_set(made, judge, 4, filtered=filtered, selection="herding", pool=None)
    for label in range(CLASSES):
        of_class = made.images(label, 0, 100)
        of_class = of_class[parity(of_class) == 0] if filtered else of_class
        chosen = herding(standardized(judge.features(of_class)), 4)
        assert torch.equal(drawn.images[4 * label : 4 * label + 4], of_class[chosen])
    even = round((parity(made.images_u8) == 0).double().mean().item(), 4)
    assert drawn.provenance["curated"]["kept"] == (even if filtered else None)
    most = int(made.labels.bincount().max())
    with pytest.raises(ConfigError, match="are asked for"):
        curated_set(made, judge, most, filtered=filtered, selection="herding", pool=None)

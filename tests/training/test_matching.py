from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from matching import CLASSES, PER_CLASS, SPEC, toy
from pools import same
from torch import Tensor

from gdd.config import MatchingConfig
from gdd.data import augment
from gdd.data.spec import DatasetSpec
from gdd.training import matching
from gdd.training.matching import loops


@pytest.fixture
def instead_of_loss(monkeypatch):
    """Return a function that puts another one in the place of the loss; by default the sum of the pixels."""

    def call(see: Callable[..., object] = lambda *_: None) -> None:
        def replacement(network, synthetic, real, labels, _settings):
            for own, other, label in zip(synthetic, real, labels, strict=True):
                see(network, own.detach(), other, label)
            return synthetic.sum()

        monkeypatch.setattr(matching, "group_loss", replacement)

    return call


class TestLoops:
    @pytest.mark.parametrize(
        ("ipc", "expected"),
        [(1, (1, 1)), (10, (10, 50)), (20, (20, 25)), (30, (30, 20)), (40, (40, 15)), (50, (50, 10))],
    )
    def test_the_table_of_dc(self, ipc, expected):
        assert loops(MatchingConfig(ipc=ipc)) == expected

    def test_every_other_ipc_gets_some_loops(self):
        found = [loops(MatchingConfig(ipc=ipc)) for ipc in range(1, 300)]
        assert all(1 <= outer <= 50 and 1 <= inner <= 50 for outer, inner in found)
        outers = [outer for outer, _ in found]
        assert outers == sorted(outers)
        assert found[299 - 1] == (50, 10)

    @pytest.mark.parametrize("low", [10, 20, 30, 40])
    def test_between_two_entries_the_loops_lie_between_theirs(self, low):
        (least, most_inner), (most, least_inner) = (loops(MatchingConfig(ipc=ipc)) for ipc in (low, low + 10))
        for ipc in range(low + 1, low + 10):
            outer, inner = loops(MatchingConfig(ipc=ipc))
            assert least <= outer <= most
            assert least_inner <= inner <= most_inner

    def test_what_the_user_says_wins(self):
        assert loops(MatchingConfig(ipc=10, outer=3)) == (3, 50)
        assert loops(MatchingConfig(ipc=10, inner=7)) == (10, 7)
        assert loops(MatchingConfig(ipc=1, outer=4, inner=5)) == (4, 5)


@pytest.fixture
def lessons(monkeypatch) -> list[range]:
    """The steps of every training of a network on the set, in order."""
    asked: list[range] = []
    fit = matching.fit

    def spy(network, batches, steps, *arguments, **options):
        asked.append(steps)
        return fit(network, batches, steps, *arguments, **options)

    monkeypatch.setattr(matching, "fit", spy)
    return asked


class TestInnerTraining:
    def test_one_image_per_class_never_trains_its_network(self, make, lessons):
        matcher = make(ipc=1, outer=None, inner=None)
        for iteration in range(3):
            matcher.iterate(iteration)
        assert lessons == []

    def test_one_image_per_class_trains_it_when_told_to(self, make, lessons):
        matcher = make(ipc=1, outer=None, inner=5, inner_first=True, batch_train=2)
        for iteration in range(3):
            matcher.iterate(iteration)
        # Three images in batches of two.
        assert lessons == [range(5 * 2)] * 3

    def test_embeddings_never_train_their_network(self, make, lessons):
        make(objective="embedding", ipc=10).iterate(0)
        assert lessons == []

    @pytest.mark.parametrize(("first", "times"), [(False, 3), (True, 4)])
    @pytest.mark.parametrize(("batch", "per_epoch"), [(1, 6), (4, 2), (5, 2), (6, 1), (256, 1)])
    def test_every_turn_but_the_first_follows_inner_epochs(self, make, lessons, first, times, batch, per_epoch):
        make(outer=4, inner=3, inner_first=first, batch_train=batch).iterate(0)
        assert lessons == [range(3 * per_epoch)] * times

    def test_every_epoch_shows_every_image_of_the_set_once(self, make, monkeypatch):
        seen: list[tuple[Tensor, Tensor]] = []
        monkeypatch.setattr(
            matching, "fit", lambda network, batches, steps, *_, **__: seen.extend(batches(step) for step in steps)
        )
        matcher = make(ipc=3, outer=2, inner=4, batch_train=4, lr_image=1e-30)  # pixels that stay where they are
        matcher.iterate(0)
        images, labels = (torch.cat(parts).unflatten(0, (4, 9)) for parts in zip(*seen, strict=True))
        assert [len(part) for part, _ in seen] == [4, 4, 1] * 4
        whole = matcher.synthetic.flat()
        orders = set()
        for epoch in range(4):
            where = (images[epoch][:, None] == whole[None]).flatten(2).all(2).int().argmax(1)
            assert sorted(where.tolist()) == list(range(9))
            assert torch.equal(labels[epoch], torch.arange(CLASSES).repeat_interleave(3)[where])
            orders.add(tuple(where.tolist()))
        assert len(orders) > 1

    def test_the_network_of_the_second_turn_has_learnt_by_plain_sgd(self, make, instead_of_loss):
        networks = []
        instead_of_loss(lambda network, *_: networks.append(deepcopy(network)))
        matcher = make(ipc=1, outer=2, inner=1, batch_train=256, lr_network=0.25)
        matcher.iterate(0)
        before, after = networks[0], networks[CLASSES]
        assert same(before.state_dict(), networks[1].state_dict())
        # One step on the whole set, no momentum, no weight decay; the second update has moved its pixels by 0.15.
        loss = F.cross_entropy(before(matcher.synthetic.flat() + 0.15), torch.arange(CLASSES))
        gradient = torch.autograd.grad(loss, list(before.parameters()))
        for old, new, slope in zip(before.parameters(), after.parameters(), gradient, strict=True):
            torch.testing.assert_close(new, old - 0.25 * slope, rtol=1e-4, atol=1e-5)
        assert not same(before.state_dict(), after.state_dict())


class TestImageUpdate:
    def test_momentum_and_rate_are_those_of_dc(self, make, instead_of_loss):
        instead_of_loss()  # a slope of 1 in every pixel: steps of lr, 1.5 lr, 1.75 lr, ...
        for own, rate in (({}, 0.1), ({"objective": "embedding"}, 1.0), ({"lr_image": 0.3}, 0.3)):
            matcher = make(ipc=1, outer=None, inner=None, folder=str(own), **own)
            first = matcher.synthetic.flat().clone()
            for iteration in range(3):
                loss = matcher.iterate(iteration)
            moved = first - matcher.synthetic.flat()
            torch.testing.assert_close(moved, torch.full_like(moved, rate * (1 + 1.5 + 1.75)), rtol=1e-5, atol=1e-5)
            assert not loss.requires_grad

    def test_the_loss_is_the_mean_per_class_and_update(self, make, monkeypatch):
        # Class c has loss 10^c in every update.
        monkeypatch.setattr(
            matching,
            "group_loss",
            lambda network, synthetic, real, labels, _: 0 * synthetic.sum() + sum(10**label for label in labels),
        )
        for ipc, outer in ((1, 1), (2, 3), (10, 2)):
            mean = make(outer=outer, ipc=ipc, folder=str(ipc)).iterate(0)
            assert mean.item() == pytest.approx(111 / CLASSES)

    @pytest.mark.parametrize("own", [{"ipc": 1}, {"ipc": 2}, {"ipc": 10}, {"objective": "embedding"}], ids=str)
    def test_a_class_does_not_depend_on_the_images_of_others(self, make, own):
        # At the first turn, for later ones see a network that was trained on all of them.
        slopes = []
        for folder, others in (("one", 0.0), ("two", 1.0)):
            matcher = make(folder=folder, outer=1, **own)
            with torch.no_grad():
                matcher.synthetic.images_std[1:] += others
            matcher.iterate(0)
            slopes.append(matcher.synthetic.images_std.grad.clone())
        assert torch.equal(slopes[0][0], slopes[1][0])
        for label in range(1, CLASSES):
            assert not torch.equal(slopes[0][label], slopes[1][label])
        assert all(bool(slope.flatten(1).any(1).all()) for slope in slopes)

    @pytest.mark.parametrize("own", [{}, {"batch_real": 5}])
    def test_real_batches_are_of_the_class_without_repetition_and_new_each_time(
        self, make, noisy, instead_of_loss, own
    ):
        batches = []
        instead_of_loss(lambda network, synthetic, real, label: batches.append((label, real)))
        matcher = make(**own)
        for iteration in range(2):
            matcher.iterate(iteration)
        known = matcher.normalize.from_u8(noisy.train.images_u8)
        drawn = []
        for label, real in batches:
            found = (real[:, None] == known[None]).flatten(2).all(2)
            assert found.sum(1).tolist() == [1] * matcher.settings.batch_real
            where = found.int().argmax(1)
            assert set(noisy.train.labels[where].tolist()) == {label}
            assert len(where.unique()) == len(where)
            drawn.append(tuple((where // CLASSES).tolist()))  # their places within the class
        assert len(set(drawn)) == len(drawn) == 2 * 2 * CLASSES

    def test_a_class_with_fewer_images_than_a_batch_gives_them_all(self, make, instead_of_loss):
        sizes = []
        instead_of_loss(lambda network, synthetic, real, label: sizes.append(len(real)))
        make(batch_real=256, outer=1).iterate(0)
        assert sizes == [PER_CLASS] * CLASSES


Change = tuple[str, tuple[float, ...]]


@pytest.fixture
def changes(monkeypatch) -> list[tuple[Change, Tensor]]:
    """Operation, parameters and images of every augmentation, in order."""
    seen: list[tuple[Change, Tensor]] = []
    apply = augment.apply

    def spy(augmentation, images):
        ((name, draws),) = augmentation.steps
        seen.append(((name, tuple(draws.flatten().tolist())), images.detach().clone()))
        return apply(augmentation, images)

    monkeypatch.setattr(augment, "apply", spy)
    return seen


class TestSiameseAugmentation:
    def test_real_and_synthetic_images_of_a_class_share_one_that_nothing_else_has(
        self, make, changes, instead_of_loss, monkeypatch, noisy
    ):
        instead_of_loss()
        monkeypatch.setattr(matching, "fit", lambda *_, **__: None)
        matcher = make(augment="dsa", outer=2, batch_real=5, lr_image=1e-30)  # pixels that stay where they are
        for iteration in range(3):
            matcher.iterate(iteration)
        batches: dict[Change, list[Tensor]] = {}
        for change, images in changes:
            batches.setdefault(change, []).append(images)
        # Parameters are numbers of 24 bits, so that two draws differ.
        assert len(batches) == 3 * 2 * CLASSES
        assert len({name for name, _ in batches}) > 1
        known, labels = matcher.normalize.from_u8(noisy.train.images_u8), []
        for found in batches.values():
            synthetic, real = sorted(found, key=len)
            assert (len(synthetic), len(real)) == (2, 5)
            (label,) = [c for c in range(CLASSES) if torch.equal(synthetic, matcher.synthetic.images_std[c])]
            where = (real[:, None] == known[None]).flatten(2).all(2).int().argmax(1)
            assert set(noisy.train.labels[where].tolist()) == {label}
            labels.append(label)
        assert sorted(labels) == sorted([*range(CLASSES)] * 6)

    def test_a_set_matched_against_itself_is_at_its_goal(self, make, monkeypatch):
        def losses(folder: str) -> tuple[float, float]:
            matcher = make(augment="dsa", outer=1, ipc=5, folder=folder)
            if folder == "itself":
                own = matcher.synthetic.images_std
                monkeypatch.setattr(matcher.real, "draw", lambda label, *_: own[label].detach())
            return matcher.iterate(0).item(), matcher.synthetic.images_std.grad.abs().max().item()

        (own_loss, own_slope), (other_loss, other_slope) = losses("itself"), losses("other")
        assert own_loss < 1e-9 < 0.1 < other_loss
        assert own_slope < 1e-4 * other_slope

    @pytest.mark.parametrize("flip", [True, False])
    def test_mirroring_is_drawn_only_where_it_keeps_the_class(
        self, make, changes, instead_of_loss, monkeypatch, noisy, flip
    ):
        instead_of_loss()
        monkeypatch.setattr(
            matching, "fit", lambda network, batches, steps, *_, **__: [batches(step) for step in steps]
        )
        spec = DatasetSpec(**{**SPEC.to_dict(), "flip": flip})
        matcher = make(toy(*noisy.train, spec), augment="dsa", inner=5)
        for iteration in range(20):
            matcher.iterate(iteration)
        expected = set(augment.OPERATIONS) - (set() if flip else {"flip"})
        # Batches of training have four or two images, of matching eight real ones.
        assert {name for (name, _), images in changes if len(images) == 4} == expected
        assert {name for (name, _), images in changes if len(images) == 8} == expected

    def test_training_draws_parameters_for_every_image(self, make, monkeypatch):
        drawn = []
        draw = augment.draw
        monkeypatch.setattr(
            augment, "draw", lambda *what, **how: drawn.append((what[1], how["shared"])) or draw(*what, **how)
        )
        make(augment="dsa", outer=2, inner=1, batch_train=4).iterate(0)
        assert drawn == [(1, True)] * CLASSES + [(4, False), (2, False)] + [(1, True)] * CLASSES

    def test_without_it_images_stay_as_they_are(self, make, changes):
        make().iterate(0)
        assert changes == []

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toy import CLASSES, PER_CLASS, SPEC, dataset_of, network_of, places, same

from gdd.data import augment
from gdd.data.batches import ClassBatches
from gdd.data.pixels import Normalizer
from gdd.data.readers import Dataset
from gdd.training import matching
from gdd.training.matching import Matcher, embedding_loss, gradient_loss

DSA = augment.dsa(flip=True)


@pytest.fixture
def instead_of_loss(monkeypatch):
    """Return a function that puts another one in the place of the losses; by default the sum of the pixels."""

    def call(see: Callable[..., object] = lambda *_: None) -> None:
        def replacement(network, synthetic, real, labels=range(CLASSES), _distance=None):
            for own, other, label in zip(synthetic, real, labels, strict=True):
                see(network, own.detach(), other, label)
            return synthetic.sum()

        monkeypatch.setattr(matching, "gradient_loss", replacement)
        monkeypatch.setattr(matching, "embedding_loss", replacement)

    return call


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
    @pytest.mark.parametrize("objective", ["gradient", "embedding"])
    def test_one_update_per_network_never_trains_it(self, make_matcher, lessons, objective):
        matcher = make_matcher(objective=objective, outer=1)
        for iteration in range(3):
            matcher.iterate(iteration)
        assert lessons == []

    def test_one_update_per_network_trains_it_when_told_to(self, make_matcher, lessons):
        matcher = make_matcher(ipc=1, outer=1, inner=5, inner_first=True, batch_train=2)
        for iteration in range(3):
            matcher.iterate(iteration)
        # Three images in batches of two.
        assert lessons == [range(5 * 2)] * 3

    @pytest.mark.parametrize(("first", "times"), [(False, 3), (True, 4)])
    @pytest.mark.parametrize(("batch", "per_epoch"), [(1, 6), (4, 2), (5, 2), (6, 1), (256, 1)])
    def test_every_turn_but_the_first_follows_inner_epochs(self, make_matcher, lessons, first, times, batch, per_epoch):
        make_matcher(outer=4, inner=3, inner_first=first, batch_train=batch).iterate(0)
        assert lessons == [range(3 * per_epoch)] * times

    def test_every_epoch_shows_every_image_of_the_set_once(self, make_matcher, monkeypatch):
        seen: list[tuple[Tensor, Tensor]] = []
        monkeypatch.setattr(
            matching, "fit", lambda network, batches, steps, *_, **__: seen.extend(batches(step) for step in steps)
        )
        matcher = make_matcher(ipc=3, inner=4, lr_image=1e-30)  # pixels that stay where they are
        matcher.iterate(0)
        images, labels = (torch.cat(parts).unflatten(0, (4, 9)) for parts in zip(*seen, strict=True))
        assert [len(part) for part, _ in seen] == [4, 4, 1] * 4
        orders = [places(images[epoch], matcher.synthetic.flat()) for epoch in range(4)]
        for epoch, order in enumerate(orders):
            assert sorted(order.tolist()) == list(range(9))
            assert torch.equal(labels[epoch], torch.arange(CLASSES).repeat_interleave(3)[order])
        assert len({tuple(order.tolist()) for order in orders}) > 1

    def test_the_network_of_the_second_turn_has_learnt_by_plain_sgd(self, make_matcher, instead_of_loss):
        networks = []
        instead_of_loss(lambda network, *_: networks.append(deepcopy(network)))
        matcher = make_matcher(ipc=1, batch_train=256, lr_network=0.25)
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
    @pytest.mark.parametrize("own", [{}, {"objective": "embedding"}, {"lr_image": 0.3}], ids=str)
    def test_the_momentum_is_that_of_dc(self, make_matcher, instead_of_loss, own):
        instead_of_loss()  # a slope of 1 in every pixel: steps of lr, 1.5 lr, 1.75 lr, ...
        matcher = make_matcher(ipc=1, outer=1, **own)
        first = matcher.synthetic.flat().clone()
        for iteration in range(3):
            loss = matcher.iterate(iteration)
        moved, rate = first - matcher.synthetic.flat(), own.get("lr_image", 0.1)
        torch.testing.assert_close(moved, torch.full_like(moved, rate * (1 + 1.5 + 1.75)), rtol=1e-5, atol=1e-5)
        assert not loss.requires_grad

    @pytest.mark.parametrize(("ipc", "outer"), [(1, 1), (2, 3), (10, 2)])
    def test_the_loss_is_the_mean_per_class_and_update(self, make_matcher, monkeypatch, ipc, outer):
        # Class c has loss 10^c in every update.
        monkeypatch.setattr(
            matching,
            "gradient_loss",
            lambda network, synthetic, real, labels, _: 0 * synthetic.sum() + sum(10**label for label in labels),
        )
        assert make_matcher(outer=outer, ipc=ipc).iterate(0).item() == pytest.approx(111 / CLASSES)

    @pytest.mark.parametrize("own", [{"ipc": 1}, {"ipc": 2}, {"ipc": 10}, {"objective": "embedding"}], ids=str)
    def test_a_class_does_not_depend_on_the_images_of_others(self, make_matcher, own):
        # At the first turn, for later ones see a network that was trained on all of them.
        slopes = []
        for others in (0.0, 1.0):
            matcher = make_matcher(outer=1, **own)
            with torch.no_grad():
                matcher.synthetic.images_std[1:] += others
            matcher.iterate(0)
            slopes.append(matcher.synthetic.images_std.grad.clone())
        assert torch.equal(slopes[0][0], slopes[1][0])
        for label in range(1, CLASSES):
            assert not torch.equal(slopes[0][label], slopes[1][label])
        assert all(bool(slope.flatten(1).any(1).all()) for slope in slopes)

    @pytest.mark.parametrize("size", [5, 8])
    def test_real_batches_are_of_the_class_without_repetition_and_new_each_time(
        self, make_matcher, noisy, instead_of_loss, size
    ):
        batches = []
        instead_of_loss(lambda network, synthetic, real, label: batches.append((label, real)))
        matcher = make_matcher(batch_real=size)
        for iteration in range(2):
            matcher.iterate(iteration)
        drawn = []
        for label, real in batches:
            where = places(real, matcher.real.normalize.from_u8(noisy.train.images_u8))
            assert set(noisy.train.labels[where].tolist()) == {label}
            assert len(where.unique()) == len(where) == size
            drawn.append(tuple((where // CLASSES).tolist()))  # their places within the class
        assert len(set(drawn)) == len(drawn) == 2 * 2 * CLASSES

    def test_a_class_with_fewer_images_than_a_batch_gives_them_all(self, make_matcher, instead_of_loss):
        sizes = []
        instead_of_loss(lambda network, synthetic, real, label: sizes.append(len(real)))
        make_matcher(batch_real=256, outer=1).iterate(0)
        assert sizes == [PER_CLASS] * CLASSES


Change = tuple[str, tuple[float, ...]]


@pytest.fixture
def changes(monkeypatch) -> list[tuple[Change, Tensor]]:
    """Operation, parameters and images of every augmentation, in order."""
    seen: list[tuple[Change, Tensor]] = []
    apply = augment.apply

    def spy(augmentation, images):
        seen.extend(((name, tuple(u.flatten().tolist())), images.detach().clone()) for name, u in augmentation.steps)
        return apply(augmentation, images)

    monkeypatch.setattr(augment, "apply", spy)
    return seen


class TestSiameseAugmentation:
    def test_real_and_synthetic_images_of_a_class_share_one_that_nothing_else_has(
        self, make_matcher, changes, instead_of_loss, monkeypatch, noisy
    ):
        instead_of_loss()
        monkeypatch.setattr(matching, "fit", lambda *_, **__: None)
        matcher = make_matcher(augmentations=DSA, batch_real=5, lr_image=1e-30)  # pixels that stay where they are
        for iteration in range(3):
            matcher.iterate(iteration)
        batches: dict[Change, list[Tensor]] = {}
        for change, images in changes:
            batches.setdefault(change, []).append(images)
        # Parameters are numbers of 24 bits, so that two draws differ.
        assert len(batches) == 3 * 2 * CLASSES
        assert len({name for name, _ in batches}) > 1
        known, labels = matcher.real.normalize.from_u8(noisy.train.images_u8), []
        for changed in batches.values():
            synthetic, real = sorted(changed, key=len)
            assert (len(synthetic), len(real)) == (2, 5)
            (label,) = [c for c in range(CLASSES) if torch.equal(synthetic, matcher.synthetic.images_std[c])]
            assert set(noisy.train.labels[places(real, known)].tolist()) == {label}
            labels.append(label)
        assert sorted(labels) == sorted([*range(CLASSES)] * 6)

    def test_a_set_matched_against_itself_is_at_its_goal(self, make_matcher, monkeypatch):
        def loss_and_slope(matcher: Matcher) -> tuple[float, float]:
            return matcher.iterate(0).item(), matcher.synthetic.images_std.grad.abs().max().item()

        own = {"augmentations": DSA, "outer": 1, "ipc": 5}
        other_loss, other_slope = loss_and_slope(make_matcher(**own))
        matcher = make_matcher(**own)
        images = matcher.synthetic.images_std
        monkeypatch.setattr(ClassBatches, "__call__", lambda _, label, *rest: images[label].detach())
        own_loss, own_slope = loss_and_slope(matcher)
        assert own_loss < 1e-9 < 0.1 < other_loss
        assert own_slope < 1e-4 * other_slope

    @pytest.mark.parametrize("flip", [True, False])
    def test_every_operation_that_it_may_use_is_drawn_and_no_other(
        self, make_matcher, changes, instead_of_loss, monkeypatch, flip
    ):
        instead_of_loss()
        monkeypatch.setattr(
            matching, "fit", lambda network, batches, steps, *_, **__: [batches(step) for step in steps]
        )
        matcher = make_matcher(augmentations=augment.dsa(flip), inner=5)
        for iteration in range(20):
            matcher.iterate(iteration)
        expected = set(augment.OPERATIONS) - (set() if flip else {"flip"})
        # Batches of training have four or two images, of matching eight real ones.
        assert {name for (name, _), images in changes if len(images) == 4} == expected
        assert {name for (name, _), images in changes if len(images) == 8} == expected

    def test_training_draws_parameters_for_every_image(self, make_matcher, monkeypatch):
        drawn = []
        draw = augment.draw
        monkeypatch.setattr(
            augment, "draw", lambda *what, **how: drawn.append((what[1], how["shared"])) or draw(*what, **how)
        )
        make_matcher(augmentations=DSA).iterate(0)
        assert drawn == [(1, True)] * CLASSES + [(4, False), (2, False)] + [(1, True)] * CLASSES

    def test_without_it_images_stay_as_they_are(self, make_matcher, changes):
        make_matcher().iterate(0)
        assert changes == []


class TestFrozenStatistics:
    @staticmethod
    def norms(network: nn.Module) -> list[nn.BatchNorm2d]:
        return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]

    def statistics(self, network: nn.Module) -> dict[str, Tensor]:
        return {
            f"{number} {name}": value.clone()
            for number, norm in enumerate(self.norms(network))
            for name, value in norm.named_buffers()
        }

    def test_they_are_those_of_one_real_batch_of_all_classes(self, noisy, monkeypatch):
        real = ClassBatches(*noisy.train, CLASSES, Normalizer(SPEC.mean, SPEC.std), seed=0)
        drawn: list[Tensor] = []
        draw = ClassBatches.__call__
        monkeypatch.setattr(ClassBatches, "__call__", lambda *what: drawn.append(draw(*what)) or drawn[-1])
        network = network_of("convnet3-w4-bn")
        matching.freeze_statistics(network, real, 0, 0)
        earlier, drawn[:] = drawn[:], []
        matching.freeze_statistics(network, real, 0, 1)
        # Of the latest batch alone, which is another one.
        assert [len(part) for part in drawn] == [16] * CLASSES
        assert not any(torch.equal(old, new) for old, new in zip(earlier, drawn, strict=True))
        assert not any(module.training for module in network.modules())
        batch = torch.cat(drawn)
        where = places(batch, real.normalize.from_u8(noisy.train.images_u8))
        assert noisy.train.labels[where].tolist() == [label for label in range(CLASSES) for _ in range(16)]
        # The first layer by hand; torch keeps the unbiased variance.
        first = network.features[0]
        maps = F.conv2d(batch.double(), first.weight.double(), first.bias.double(), padding=1)
        values = maps.transpose(0, 1).flatten(1)  # (channels, everything else)
        mean = values.sum(1) / values.shape[1]
        variance = (values - mean[:, None]).square().sum(1) / (values.shape[1] - 1)
        norm = self.norms(network)[0]
        torch.testing.assert_close(norm.running_mean.double(), mean, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(norm.running_var.double(), variance, rtol=1e-5, atol=1e-6)
        # And every layer by what it does: that batch leaves each of them with mean 0 and variance 1, but for the
        # unbiased variance, which is larger by a 768th in the last of them.
        outputs = []
        for norm in self.norms(network):
            norm.register_forward_hook(lambda _, __, output: outputs.append(output.transpose(0, 1).flatten(1)))
        network(batch)
        assert len(outputs) == 3
        for output in outputs:
            assert output.mean(1).abs().max() < 1e-3
            assert (output.var(1) - 1).abs().max() < 2e-3

    def test_they_change_neither_in_training_nor_in_matching(self, make_matcher, monkeypatch):
        frozen: list[dict[str, Tensor]] = []
        checked: list[str] = []
        freeze, fit, loss = matching.freeze_statistics, matching.fit, matching.gradient_loss

        def spy_freeze(network, *arguments):
            # The hook would also see the measuring forward pass of the second turn, which is in train mode.
            network.features[0]._forward_hooks.clear()
            freeze(network, *arguments)
            frozen.append(self.statistics(network))

        def frozen_still(network, what):
            assert not any(module.training for module in network.modules())
            assert same(self.statistics(network), frozen[-1])
            checked.append(what)

        def spy_fit(network, *arguments, **options):
            network.features[0].register_forward_hook(lambda *_: frozen_still(network, "step"))
            result = fit(network, *arguments, **options)
            frozen_still(network, "fit")
            return result

        def spy_loss(network, *arguments):
            result = loss(network, *arguments)
            frozen_still(network, "loss")
            return result

        monkeypatch.setattr(matching, "freeze_statistics", spy_freeze)
        monkeypatch.setattr(matching, "fit", spy_fit)
        monkeypatch.setattr(matching, "gradient_loss", spy_loss)
        make_matcher(main="convnet3-w4-bn", inner=2, batch_train=3, lr_network=0.1).iterate(0)
        # One after every forward pass of training, its end, and every group of classes.
        groups = checked.index("step")
        assert checked == ["loss"] * groups + ["step"] * 4 + ["fit"] + ["loss"] * groups
        assert 1 <= groups <= CLASSES
        # Measured anew for the network that has learnt.
        assert len(frozen) == 2
        assert not same(*frozen)

    def test_networks_without_batch_norm_see_no_batch_for_it(self, make_matcher, monkeypatch):
        matcher = make_matcher()
        monkeypatch.setattr(ClassBatches, "__call__", lambda *_: pytest.fail("a batch was drawn"))
        network = network_of("convnet3-w4").train()
        matching.freeze_statistics(network, matcher.real, 0)
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
    images, real = matcher.synthetic.images_std, [matcher.real(label, PER_CLASS, "any") for label in range(CLASSES)]
    if matcher.objective == "embedding":
        return embedding_loss(network, images, real).item()
    return gradient_loss(network, images, real, range(CLASSES), matcher.distance).item()


class TestLearning:
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
    def test_the_loss_falls_on_networks_that_took_no_part(self, own, make_matcher, easy):
        matcher = make_matcher(easy, ipc=1, outer=1, batch_real=PER_CLASS, **own)
        networks = [network_of("convnet3-w4", seed) for seed in range(6)]
        before = sum(loss_of_all(matcher, network) for network in networks)
        for iteration in range(30):
            assert matcher.iterate(iteration).isfinite()
        assert sum(loss_of_all(matcher, network) for network in networks) < 0.9 * before

    @pytest.mark.parametrize("objective", ["gradient", "embedding"])
    def test_a_small_step_on_one_network_lowers_its_loss(self, objective, make_matcher, easy):
        matcher = make_matcher(easy, ipc=1, batch_real=PER_CLASS, outer=1, lr_image=1e-3, objective=objective)
        network = network_of("convnet3-w4-sigmoid")
        matcher.pool.network = lambda _: network  # the same one for ever
        losses = [loss_of_all(matcher, network)]
        for iteration in range(5):
            matcher.iterate(iteration)
            losses.append(loss_of_all(matcher, network))
        assert losses == sorted(losses, reverse=True)

    def test_the_picture_has_a_row_per_class_clipped_for_showing(self, make_matcher):
        matcher = make_matcher(ipc=3)
        picture = matcher.grid()
        # make_grid repeats grey to three channels and pads every image by 2.
        assert picture.shape == (3, CLASSES * 18 + 2, 3 * 18 + 2)
        assert picture.min() == 0
        assert picture.max() == 1
        shown = picture[0, 20:36, 38:54]
        expected = (matcher.synthetic.images_std[1, 2, 0] * SPEC.std[0] + SPEC.mean[0]).clamp(0, 1)
        torch.testing.assert_close(shown, expected.detach())

import math
from collections.abc import Callable
from copy import deepcopy
from itertools import count, product
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from test_pool import same
from torch import Tensor, nn

from gdd import checkpoint, rng
from gdd.config import Config, ConfigError, MatchConfig, PoolConfig, RunConfig, to_plain
from gdd.data import augment
from gdd.data.pixels import Normalizer
from gdd.data.readers import Dataset
from gdd.data.spec import DatasetSpec
from gdd.data.splits import Split
from gdd.models import registry
from gdd.models.gan import Generator
from gdd.run import OutOfTime, Run
from gdd.synth import artifact, sample, store
from gdd.training import match
from gdd.training.images import check_first_images
from gdd.training.match import Matcher, group_loss, loops, real_gradient
from gdd.training.pool import members

SPEC = DatasetSpec("toy", 1, 16, 16, ("a", "b", "c"), (0.4,), (0.3,), flip=True)
CLASSES, PER_CLASS = SPEC.num_classes, 20
KINDS = ("dc", "cos", "mse")
# All kinds of parameters: convolutions, a head, layer norms of three dimensions, none but matrices.
ARCHS = ("convnet3-w4", "convnet3-w4-bn-sigmoid-max", "convnet3-w4-ln-swish", "mlp-w8")
POOL = (
    *members(PoolConfig(main="convnet3-w4"), "main+similar")[1:],
    *("lenet-w4", "alexnet-w4", "vgg11-w4", "resnet10-w4", "resnet18-bn-w4", "mlp-w8"),
)


def unread() -> Split:
    raise AssertionError("distillation read the test part")


def toy(images_u8: Tensor, labels: Tensor, spec: DatasetSpec = SPEC) -> Dataset:
    held_out = Split(torch.zeros(CLASSES, *SPEC.shape, dtype=torch.uint8), torch.arange(CLASSES))
    return Dataset(spec, Split(images_u8, labels), held_out, unread)


@pytest.fixture(scope="module")
def noisy() -> Dataset:
    """Random pixels, so that every image can be told from every other."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(256, (CLASSES * PER_CLASS, *SPEC.shape), generator=draw, dtype=torch.uint8)
    return toy(images, torch.arange(len(images)) % CLASSES)


@pytest.fixture(scope="module")
def easy() -> Dataset:
    """A bright band at another height for each class, and a little noise."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(40, (CLASSES * PER_CLASS, *SPEC.shape), generator=draw, dtype=torch.uint8)
    labels = torch.arange(len(images)) % CLASSES
    for label in range(CLASSES):
        images[labels == label, :, 5 * label : 5 * label + 5] += 200
    return toy(images, labels)


def settings(pool: dict[str, object] | None = None, seed: int = 0, snapshots: tuple[int, ...] = (), **own) -> Config:
    values = {"ipc": 2, "iterations": 3, "outer": 2, "inner": 1, "batch_real": 8, "batch_train": 4, **own}
    if values.get("objective") == "embedding":
        values |= {"outer": None, "inner": None}
    return Config(
        method="gradient_matching",
        seed=seed,
        pool=PoolConfig(**{"main": "convnet3-w4", "various": ("mlp-w8", "lenet"), **(pool or {})}),
        match=MatchConfig(**values),
        run=RunConfig(snapshots=snapshots),
    )


@pytest.fixture
def open_run(tmp_path: Path) -> Callable[..., Run]:
    def call(config: Config, dataset: Dataset, folder: str = "run") -> Run:
        return Run(tmp_path / folder, config.run, to_plain(config), match.fingerprint(config, dataset))

    return call


@pytest.fixture
def make(open_run, noisy):
    """Return a function that builds a Matcher."""

    def call(dataset: Dataset = noisy, folder: str = "run", **own) -> Matcher:
        config = settings(**own)
        return Matcher(config, dataset, open_run(config, dataset, folder))

    return call


@pytest.fixture
def distil(open_run, noisy):
    """Return a function that runs the whole stage and loads its set."""

    def call(folder: str = "run", dataset: Dataset = noisy, **own) -> store.SyntheticSet:
        config = settings(**own)
        return store.load(match.match(config, dataset, open_run(config, dataset, folder)))

    return call


@pytest.fixture
def untrained(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes an untrained generator and gives its folder."""

    def call(spec: DatasetSpec = SPEC) -> Path:
        with rng.seeded(0, "test"):
            network = Generator(spec.shape, spec.num_classes, width=4, noise_dim=8)
        folder = tmp_path / "generator"
        folder.mkdir()
        artifact.save(folder, network, spec, 4, {"method": "gan", "stage": "pretrain", "seconds": 1000.0})
        return folder

    return call


def network_of(arch: str, seed: int = 0) -> nn.Module:
    """Return a network in eval mode whose batch norms, if any, are far from the identity."""
    with rng.seeded(seed, "test-network"):
        network = registry.build(arch, SPEC.shape, CLASSES)
        for norm in (module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
            norm.running_mean.normal_(0, 0.3)
            norm.running_var.uniform_(0.3, 2)
    return network.eval()


def images_std(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, *SPEC.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def row_distance(a: Tensor, b: Tensor) -> Tensor | float:
    """1 - cosine; a dead unit's row is 0."""
    if not (a.any() and b.any()):
        return float(bool(a.any()) != bool(b.any()))
    return 1 - (a @ b) / (a @ a).sqrt() / (b @ b).sqrt()


def reference(
    network: nn.Module, synthetic: Tensor, real: Tensor, label: int, kind: str
) -> tuple[float, Tensor, list[Tensor]]:
    """Return the loss, its gradient in the synthetic images, and the real gradient: all in float64, row by row."""
    network = deepcopy(network).double()
    synthetic = synthetic.double().requires_grad_()

    def answer(images: Tensor, **how) -> tuple[Tensor, ...]:
        loss = -network(images).log_softmax(1)[:, label].sum() / len(images)
        return torch.autograd.grad(loss, list(network.parameters()), **how)

    found, target = answer(synthetic, create_graph=True), answer(real.double())
    if kind == "dc":
        matrices = [(a, b) for a, b in zip(found, target, strict=True) if a.ndim > 1]
        rows = [(a[row].flatten(), b[row].flatten()) for a, b in matrices for row in range(len(a))]
    else:
        rows = [tuple(torch.cat([x.flatten() for x in side]) for side in (found, target))]
    loss = sum(((a - b) ** 2).sum() if kind == "mse" else row_distance(a, b) for a, b in rows)
    (slope,) = torch.autograd.grad(loss, synthetic)
    return loss.item(), slope, [x.detach() for x in target]


def close(found: Tensor, expected: Tensor, accuracy: float) -> None:
    """Compare relative to the largest entry, since single entries may cancel."""
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=accuracy * expected.abs().max().item())


def class_loss(network: nn.Module, synthetic: Tensor, real: Tensor, label: int, **own) -> Tensor:
    """The loss of a group of one class."""
    return group_loss(network, synthetic[None], [real], [label], MatchConfig(**own))


class TestLoss:
    @pytest.mark.parametrize(("arch", "kind"), [*product(ARCHS, KINDS)])
    def test_value_and_image_gradient_are_the_formula_written_again(self, arch, kind):
        network, synthetic, real = network_of(arch), images_std(3, 1), images_std(40, 2)
        expected, slope, _ = reference(network, synthetic, real, 1, kind)
        # Single precision keeps 7 digits; cosines of a thousand numbers and second derivatives lose 2 to 3 of them.
        for dtype, accuracy in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
            ours, images = deepcopy(network).to(dtype), synthetic.to(dtype).requires_grad_()
            loss = class_loss(ours, images, real.to(dtype), 1, distance=kind)
            assert loss.dtype == dtype
            assert loss.item() == pytest.approx(expected, rel=accuracy)
            close(*torch.autograd.grad(loss, images), slope, accuracy)

    @pytest.mark.parametrize("arch", POOL)
    def test_every_network_of_the_pools_gives_the_slope_of_the_formula(self, arch):
        network, synthetic, real = network_of(arch).double(), images_std(2, 1), images_std(5, 2)
        expected, slope, _ = reference(network, synthetic, real, 1, "dc")
        synthetic.requires_grad_()
        loss = class_loss(network, synthetic, real, 1)
        assert loss.item() == pytest.approx(expected, rel=1e-9)
        close(*torch.autograd.grad(loss, synthetic), slope, 1e-9)

    @pytest.mark.parametrize(("arch", "kind"), [*product(ARCHS, (*KINDS, "embedding"))])
    def test_a_group_adds_up_its_classes(self, arch, kind):
        network = network_of(arch).double()
        own = {"objective": "embedding"} if kind == "embedding" else {"distance": kind}
        synthetic = images_std(6, 1).unflatten(0, (3, 2)).requires_grad_()
        # Real batches differ in size where a class has few images; the labels come in any order.
        real, labels = [images_std(size, size) for size in (4, 33, 9)], [2, 0, 1]
        loss = group_loss(network, synthetic, real, labels, MatchConfig(**own))
        alone = [class_loss(network, synthetic[i], real[i], labels[i], **own) for i in range(3)]
        assert len({each.item() for each in alone}) == 3
        assert loss.item() == pytest.approx(sum(each.item() for each in alone), rel=1e-9)
        close(*torch.autograd.grad(loss, synthetic), *torch.autograd.grad(sum(alone), synthetic), 1e-9)

    @pytest.mark.parametrize("kind", KINDS)
    def test_image_gradient_is_that_of_differences(self, kind):
        # Without kinks, so that differences converge.
        network, image, real = network_of("convnet3-w4-sigmoid").double(), images_std(1, 1), images_std(5, 2)

        def loss(pixels: Tensor) -> Tensor:
            changed = image.clone()
            changed[0, 0, 5:7, 8] = pixels
            return class_loss(network, changed, real, 2, distance=kind)

        assert torch.autograd.gradcheck(loss, image[0, 0, 5:7, 8].clone().requires_grad_())

    def test_embeddings_are_compared_by_their_means(self):
        network, synthetic, real = network_of("convnet3-w4").double(), images_std(3, 1), images_std(7, 2)
        synthetic.requires_grad_()
        # Sums over images one by one, for the network mixes none.
        means = [sum(network.features(x[None]).flatten() for x in images) / len(images) for images in (synthetic, real)]
        expected = ((means[0] - means[1]) ** 2).sum()
        network.requires_grad_(False)
        loss = class_loss(network, synthetic, real, 0, objective="embedding")
        assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
        close(*torch.autograd.grad(loss, synthetic), *torch.autograd.grad(expected, synthetic), 1e-9)

    def test_the_label_of_embeddings_does_not_matter_but_that_of_gradients_does(self):
        network, synthetic, real = network_of("convnet3-w4"), images_std(3, 1).float(), images_std(7, 2).float()
        for objective, distinct in (("embedding", 1), ("gradient", CLASSES)):
            losses = {
                class_loss(network, synthetic, real, label, objective=objective).item() for label in range(CLASSES)
            }
            assert len(losses) == distinct

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("size", [1, 5, 40])
    @pytest.mark.parametrize("own", [*({"distance": kind} for kind in KINDS), {"objective": "embedding"}], ids=str)
    def test_a_set_matched_against_itself_is_at_its_goal(self, own, size, dtype):
        network, images = network_of("convnet3-w4").to(dtype), images_std(size, 1).to(dtype).requires_grad_()
        other = images_std(size, 2).to(dtype)
        found = []
        for real in (images.detach(), other):
            loss = class_loss(network, images, real, 0, **own)
            found.append((loss.item(), *torch.autograd.grad(loss, images)))
        (own_loss, own_slope), (other_loss, other_slope) = found
        # The distances are squares of what rounding leaves, their slopes are not.
        precision = torch.finfo(dtype).eps
        assert 0 <= own_loss <= (1e3 * precision) ** 2 * max(1, other_loss)
        assert own_slope.abs().max() <= 1e3 * precision * other_slope.abs().max()

    def test_the_network_is_left_as_it_was(self):
        network = network_of("convnet3-w4-bn")
        before = deepcopy(network.state_dict())
        synthetic = images_std(2, 1).float().requires_grad_()
        class_loss(network, synthetic, images_std(3, 2).float(), 0).backward()
        assert same(network.state_dict(), before)
        assert not network.training


class TestRealGradient:
    @pytest.mark.parametrize("size", [1, 31, 32, 33, 100])
    @pytest.mark.parametrize("arch", ARCHS)
    def test_chunks_add_up_to_the_gradient_of_the_whole(self, arch, size):
        network, real = network_of(arch), images_std(size)
        *_, expected = reference(network, images_std(1), real, 2, "mse")
        chunks = []
        ours = deepcopy(network).double()
        ours.register_forward_pre_hook(lambda _, arguments: chunks.append(len(arguments[0])))
        largest = max(x.abs().max().item() for x in expected)
        for found, value in zip(real_gradient(ours, real, 2), expected, strict=True):
            assert not found.requires_grad
            torch.testing.assert_close(found, value, rtol=1e-9, atol=1e-12 * largest)
        assert chunks == [32] * (size // 32) + [size % 32] * (size % 32 > 0)
        # Rounding is relative to the largest gradient: some are sums that cancel to 0, as a bias before a norm.
        for found, value in zip(real_gradient(network, real.float(), 2), expected, strict=True):
            torch.testing.assert_close(found.double(), value, rtol=0, atol=1e-5 * largest)

    def test_it_leaves_the_network_as_it_was(self):
        network = network_of("convnet3-w4-bn")
        before = deepcopy(network.state_dict())
        real_gradient(network, images_std(40).float(), 0)
        assert same(network.state_dict(), before)
        assert all(parameter.grad is None for parameter in network.parameters())


@pytest.fixture
def instead_of_loss(monkeypatch):
    """Return a function that puts another one in the place of the loss; by default the sum of the pixels."""

    def call(see: Callable[..., object] = lambda *_: None) -> None:
        def replacement(network, synthetic, real, labels, _settings):
            for own, other, label in zip(synthetic, real, labels, strict=True):
                see(network, own.detach(), other, label)
            return synthetic.sum()

        monkeypatch.setattr(match, "group_loss", replacement)

    return call


class TestLoops:
    @pytest.mark.parametrize(
        ("ipc", "expected"),
        [(1, (1, 1)), (10, (10, 50)), (20, (20, 25)), (30, (30, 20)), (40, (40, 15)), (50, (50, 10))],
    )
    def test_the_table_of_dc(self, ipc, expected):
        assert loops(MatchConfig(ipc=ipc)) == expected

    def test_every_other_ipc_gets_some_loops(self):
        found = [loops(MatchConfig(ipc=ipc)) for ipc in range(1, 300)]
        assert all(1 <= outer <= 50 and 1 <= inner <= 50 for outer, inner in found)
        outers = [outer for outer, _ in found]
        assert outers == sorted(outers)
        assert found[299 - 1] == (50, 10)

    @pytest.mark.parametrize("low", [10, 20, 30, 40])
    def test_between_two_entries_the_loops_lie_between_theirs(self, low):
        (least, most_inner), (most, least_inner) = (loops(MatchConfig(ipc=ipc)) for ipc in (low, low + 10))
        for ipc in range(low + 1, low + 10):
            outer, inner = loops(MatchConfig(ipc=ipc))
            assert least <= outer <= most
            assert least_inner <= inner <= most_inner

    def test_what_the_user_says_wins(self):
        assert loops(MatchConfig(ipc=10, outer=3)) == (3, 50)
        assert loops(MatchConfig(ipc=10, inner=7)) == (10, 7)
        assert loops(MatchConfig(ipc=1, outer=4, inner=5)) == (4, 5)


@pytest.fixture
def lessons(monkeypatch) -> list[range]:
    """The steps of every training of a network on the set, in order."""
    asked: list[range] = []
    fit = match.fit

    def spy(network, batches, steps, *arguments, **options):
        asked.append(steps)
        return fit(network, batches, steps, *arguments, **options)

    monkeypatch.setattr(match, "fit", spy)
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
            match, "fit", lambda network, batches, steps, *_, **__: seen.extend(batches(step) for step in steps)
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
            match,
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

    def test_they_are_those_of_one_real_batch_of_all_classes(self, make, monkeypatch):
        matcher = make(pool={"main": "convnet3-w4-bn"})
        drawn: list[Tensor] = []
        draw = matcher.real.draw
        monkeypatch.setattr(matcher.real, "draw", lambda *what: drawn.append(draw(*what)) or drawn[-1])
        network = network_of("convnet3-w4-bn")
        match.freeze_statistics(network, matcher.real, 0, 0)
        earlier, drawn[:] = drawn[:], []
        match.freeze_statistics(network, matcher.real, 0, 1)
        # Of the latest batch alone, which is another one.
        assert [len(part) for part in drawn] == [16] * CLASSES
        assert not any(torch.equal(old, new) for old, new in zip(earlier, drawn, strict=True))
        assert not any(module.training for module in network.modules())
        batch = torch.cat(drawn)
        for label, part in enumerate(drawn):
            real = matcher.real.images_u8[matcher.real.members[label]]
            found = (part[:, None] == matcher.normalize.from_u8(real)[None]).flatten(2).all(2)
            assert found.sum(1).tolist() == [1] * 16
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

    def test_they_change_neither_in_training_nor_in_matching(self, make, monkeypatch):
        frozen: list[dict[str, Tensor]] = []
        checked: list[str] = []
        freeze, fit, loss = match.freeze_statistics, match.fit, match.group_loss

        def spy_freeze(network, *arguments):
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

        monkeypatch.setattr(match, "freeze_statistics", spy_freeze)
        monkeypatch.setattr(match, "fit", spy_fit)
        monkeypatch.setattr(match, "group_loss", spy_loss)
        matcher = make(pool={"main": "convnet3-w4-bn"}, outer=2, inner=2, batch_train=3, lr_network=0.1)
        # The hook would also see the measuring forward pass of the second turn, which is in train mode.
        monkeypatch.setattr(
            match,
            "freeze_statistics",
            lambda network, *rest: network.features[0]._forward_hooks.clear() or spy_freeze(network, *rest),
        )
        matcher.iterate(0)
        # One after every forward pass of training, its end, and every group of classes.
        groups = checked.index("step")
        assert checked == ["loss"] * groups + ["step"] * 4 + ["fit"] + ["loss"] * groups
        assert 1 <= groups <= CLASSES
        # Measured anew for the network that has learnt.
        assert len(frozen) == 2
        assert not same(*frozen)

    def test_networks_without_batch_norm_see_no_batch_for_it(self, make, monkeypatch):
        matcher = make()
        monkeypatch.setattr(matcher.real, "draw", lambda *_: pytest.fail("a batch was drawn"))
        network = network_of("convnet3-w4").train()
        match.freeze_statistics(network, matcher.real, 0)
        assert not network.training


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
        monkeypatch.setattr(match, "fit", lambda *_, **__: None)
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
        monkeypatch.setattr(match, "fit", lambda network, batches, steps, *_, **__: [batches(step) for step in steps])
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


class TestFirstImages:
    def test_noise_is_normal_and_depends_on_the_seed_alone(self, make):
        found = [make(ipc=10, seed=seed, folder=str(number)).synthetic for number, seed in enumerate((0, 0, 1))]
        one, again, other = (each.images_std.detach() for each in found)
        assert one.shape == (CLASSES, 10, *SPEC.shape)
        assert torch.equal(one, again)
        assert not torch.equal(one, other)
        # 7680 numbers: five deviations of their mean and of their variance.
        assert abs(one.mean()) < 5 / math.sqrt(one.numel())
        assert abs(one.var() - 1) < 5 * math.sqrt(2 / one.numel())

    def test_real_images_are_of_the_train_part_and_of_their_class(self, make, noisy):
        known = Normalizer(SPEC.mean, SPEC.std).from_u8(noisy.train.images_u8)
        chosen = []
        for seed in (0, 1):
            first = make(ipc=PER_CLASS // 2, init="real", seed=seed, folder=str(seed)).synthetic.images_std.detach()
            found = (first.flatten(0, 1)[:, None] == known[None]).flatten(2).all(2)
            assert found.sum(1).tolist() == [1] * (CLASSES * PER_CLASS // 2)
            where = found.int().argmax(1)
            assert len(where.unique()) == len(where)
            assert noisy.train.labels[where].tolist() == [c for c in range(CLASSES) for _ in range(PER_CLASS // 2)]
            chosen.append(where.tolist())
        assert chosen[0] != chosen[1]

    def test_a_generators_are_its_samples(self, make, untrained):
        folder = untrained()
        expected = sample.sample_set(artifact.load(folder), 3, seed=5)
        first = make(ipc=3, init="generator", generator=folder, seed=5).synthetic
        assert torch.equal(first.labels, expected.labels)
        assert torch.equal(first.flat(), Normalizer(SPEC.mean, SPEC.std).from_u8(expected.images))

    def test_too_few_real_images_are_refused(self, noisy):
        images, labels = noisy.train
        kept = (labels != 1) | (labels.eq(1).cumsum(0) <= 4)
        dataset = toy(images[kept], labels[kept])
        check_first_images(settings(ipc=4, init="real"), dataset)
        with pytest.raises(ConfigError, match=r"^match\.ipc is 5, but class 'b' has 4 training images"):
            check_first_images(settings(ipc=5, init="real"), dataset)
        check_first_images(settings(ipc=5), dataset)

    def test_a_generator_of_other_classes_is_refused(self, noisy, untrained):
        folder = untrained(DatasetSpec(**{**SPEC.to_dict(), "class_names": ("a", "b", "d")}))
        with pytest.raises(ConfigError, match="a, b, d"):
            check_first_images(settings(init="generator", generator=folder), noisy)

    def test_a_missing_generator_is_refused(self, noisy, tmp_path):
        with pytest.raises(ConfigError, match="nowhere"):
            check_first_images(settings(init="generator", generator=tmp_path / "nowhere"), noisy)


class TestStoredSet:
    def test_images_are_unclipped_pixels_ordered_by_class(self, distil, tmp_path):
        made = distil(iterations=2)
        saved = torch.load(checkpoint.path_of(tmp_path / "run", 2), weights_only=True)["states"]["images"]
        (optimised,) = saved.values()
        assert optimised.shape == (CLASSES, 2, *SPEC.shape)
        assert made.images.dtype == torch.float32
        expected = optimised.flatten(0, 1).double() * torch.tensor(SPEC.std[0]).double()
        expected += torch.tensor(SPEC.mean[0]).double()
        assert torch.equal(made.images, expected.float())
        # Noise leaves [0, 1] on both sides.
        assert made.images.min() < 0
        assert made.images.max() > 1
        assert made.labels.tolist() == [0, 0, 1, 1, 2, 2]
        assert (made.ipc, made.spec) == (2, SPEC)
        # A student sees what was optimised.
        seen = Normalizer(SPEC.mean, SPEC.std).from_unit(made.images)
        torch.testing.assert_close(seen, optimised.flatten(0, 1), rtol=1e-6, atol=1e-6)

    def test_it_says_where_it_is_from(self, distil, noisy):
        made = distil(iterations=2, seed=3)
        facts = made.provenance
        assert facts["method"] == match.describe(settings(iterations=2)) == "gradient matching"
        assert facts["stage"] == "match"
        assert facts["seed"] == 3
        assert facts["iterations"] == 2
        assert facts["data"] == noisy.fingerprint
        assert facts["fingerprint"] == match.fingerprint(settings(iterations=2, seed=3), noisy)
        assert 0 < facts["seconds"] < 600
        assert facts["config"] == to_plain(settings(iterations=2, seed=3))

    @pytest.mark.parametrize(
        ("own", "name"),
        [
            ({"objective": "embedding", "augment": "dsa"}, "embedding matching, DSA"),
            ({"distance": "cos"}, "gradient matching, cos"),
            ({"pool": {"kind": "total random"}}, "gradient matching, pool total random"),
        ],
    )
    def test_its_method_is_told_by_what_is_not_plain(self, own, name):
        assert match.describe(settings(**own)).startswith(name)

    def test_its_seconds_include_those_of_its_generator(self, distil, untrained):
        made = distil(iterations=1, init="generator", generator=untrained())
        assert 1000 <= made.provenance["seconds"] < 1600

    def test_the_folder_has_a_picture_metrics_and_a_checkpoint(self, distil, tmp_path):
        distil(iterations=2)
        names = {path.name for path in (tmp_path / "run").iterdir()} - {"tensorboard"}
        expected = {"config.json", "metrics.jsonl", "grid.png", "checkpoint-00000002.pt", store.FILE}
        assert names == expected

    def test_snapshots_are_the_sets_of_shorter_runs(self, distil, tmp_path):
        made = distil(iterations=3, snapshots=(0, 1, 3))
        files = sorted(path.name for path in (tmp_path / "run").glob("set-*"))
        assert files == [f"set-{number:08d}.safetensors" for number in (0, 1, 3)]
        snapshots = {number: store.load(tmp_path / f"run/set-{number:08d}.safetensors") for number in (0, 1, 3)}
        assert {number: each.provenance["iterations"] for number, each in snapshots.items()} == {0: 0, 1: 1, 3: 3}
        shorter = distil("shorter", iterations=1)
        assert torch.equal(snapshots[1].images, shorter.images)
        assert torch.equal(snapshots[3].images, made.images)
        noise = torch.randn(CLASSES, 2, *SPEC.shape, generator=rng.generator(0, "match-noise")).flatten(0, 1)
        assert torch.equal(snapshots[0].images, Normalizer(SPEC.mean, SPEC.std).to_unit(noise))
        assert len({each.hash for each in snapshots.values()}) == 3
        # They are no part of what decides the result.
        assert torch.equal(distil("without", iterations=3).images, made.images)


RUNS = {
    "main": {},
    "noise of one class": {"ipc": 1, "outer": None, "inner": None},
    "batch norm": {"pool": {"main": "convnet3-w4-bn"}},
    "main+similar": {"pool": {"kind": "main+similar", "main_probability": 0.3}},
    "main+various with a schedule": {"pool": {"kind": "main+various", "main_probability_end": 0.1, "main_only": 1}},
    "total random": {"pool": {"kind": "total random"}},
    "embedding": {"objective": "embedding"},
    "dsa": {"augment": "dsa"},
    "first taught": {"inner_first": True, "distance": "cos"},
}


class TestResuming:
    TOTAL = 5

    @pytest.mark.parametrize("name", RUNS)
    def test_n_iterations_equal_k_iterations_and_the_rest(self, name, distil, tmp_path, monkeypatch):
        whole = distil("whole", iterations=self.TOTAL, **RUNS[name])
        stops = (1, 3)
        folder = tmp_path / "parts"
        for stop in stops:
            done = count((checkpoint.steps(folder) or [0])[-1] + 1)
            with monkeypatch.context() as patch:
                patch.setattr(Run, "out_of_time", property(lambda _, done=done, stop=stop: next(done) == stop))
                with pytest.raises(OutOfTime):
                    distil("parts", iterations=self.TOTAL, **RUNS[name])
            assert checkpoint.steps(folder)[-1] == stop
            assert not (folder / store.FILE).exists()
            momentum = torch.load(checkpoint.path_of(folder, stop), weights_only=True)["states"]["optimizer"]["state"]
            assert momentum[0]["momentum_buffer"].abs().sum() > 0
        parts = distil("parts", iterations=self.TOTAL, **RUNS[name])
        assert torch.equal(parts.images, whole.images)
        assert parts.hash == whole.hash

    def test_work_after_the_last_checkpoint_is_done_again(self, distil, monkeypatch, tmp_path):
        whole = distil("whole", iterations=3)
        iterate = Matcher.iterate

        def fail(self, iteration: int) -> Tensor:
            if iteration == 2:
                raise KeyboardInterrupt
            return iterate(self, iteration)

        with monkeypatch.context() as patch:
            patch.setattr(Matcher, "iterate", fail)
            with pytest.raises(KeyboardInterrupt):
                distil("parts", iterations=3, snapshots=(0, 1))
        assert checkpoint.steps(tmp_path / "parts") == []
        before = store.load(tmp_path / "parts/set-00000001.safetensors")
        assert torch.equal(distil("parts", iterations=3, snapshots=(0, 1)).images, whole.images)
        assert store.load(tmp_path / "parts/set-00000001.safetensors").hash == before.hash

    def test_another_configuration_is_refused_in_the_same_folder(self, distil):
        distil(iterations=1)
        with pytest.raises(ConfigError, match="another configuration"):
            distil(iterations=2)

    @pytest.mark.parametrize("init", ["noise", "real"])
    def test_every_seed_gives_its_own_set(self, distil, init):
        assert torch.equal(distil("one", init=init).images, distil("again", init=init).images)
        assert not torch.equal(distil("one", init=init).images, distil("two", init=init, seed=1).images)

    def test_the_global_generator_is_neither_used_nor_changed(self, distil):
        torch.manual_seed(1)
        one = distil("one", augment="dsa")
        torch.manual_seed(2)
        before = torch.get_rng_state()
        assert torch.equal(distil("two", augment="dsa").images, one.images)
        assert torch.equal(torch.get_rng_state(), before)


class TestFingerprint:
    def test_it_changes_with_what_decides_the_set(self, noisy):
        others: list[dict[str, object]] = [
            {},
            {"seed": 1},
            {"ipc": 3},
            {"iterations": 4},
            {"objective": "embedding"},
            {"init": "real"},
            {"pool": {"kind": "main+various"}},
            {"pool": {"main": "convnet3-w5"}},
            {"pool": {"main_probability": 0.5}},
        ]
        found = {match.fingerprint(settings(**own), noisy) for own in others}
        assert len(found) == len(others)
        images, labels = noisy.train
        assert match.fingerprint(settings(), toy(255 - images, labels)) not in found

    def test_it_does_not_change_with_what_plays_no_part(self, noisy):
        plain = match.fingerprint(settings(), noisy)
        assert match.fingerprint(settings(snapshots=(1,)), noisy) == plain
        # Its networks learn nothing from real images.
        for own in ({"steps_before": 3}, {"lr": 0.5}, {"members": ("mlp",)}, {"various": ("mlp",)}):
            assert match.fingerprint(settings(pool=own), noisy) == plain

    def test_a_moved_generator_is_the_same(self, noisy, untrained, tmp_path):
        folder = untrained()
        here = match.fingerprint(settings(init="generator", generator=folder), noisy)
        folder = folder.rename(tmp_path / "moved")
        assert match.fingerprint(settings(init="generator", generator=folder), noisy) == here
        assert match.fingerprint(settings(), noisy) != here


class TestLearning:
    @pytest.mark.parametrize(
        "own",
        [
            {"lr_image": 2.0},
            {"lr_image": 2.0, "distance": "cos"},
            {"distance": "mse"},
            {"lr_image": 2.0, "augment": "dsa"},
            {"objective": "embedding"},
        ],
        ids=str,
    )
    def test_the_loss_falls_on_networks_that_took_no_part(self, own, make, easy):
        matcher = make(easy, ipc=1, outer=1, batch_real=PER_CLASS, **own)
        networks = [network_of("convnet3-w4", seed) for seed in range(6)]
        real = [matcher.real.draw(label, PER_CLASS, "any") for label in range(CLASSES)]

        def loss() -> float:
            images = matcher.synthetic.images_std
            return sum(group_loss(each, images, real, range(CLASSES), matcher.settings).item() for each in networks)

        before = loss()
        for iteration in range(30):
            assert matcher.iterate(iteration).isfinite()
        assert loss() < 0.9 * before

    @pytest.mark.parametrize("own", [{}, {"objective": "embedding"}], ids=str)
    def test_a_small_step_on_one_network_lowers_its_loss(self, own, make, easy):
        matcher = make(easy, ipc=1, batch_real=PER_CLASS, outer=1, lr_image=1e-3, **own)
        network = network_of("convnet3-w4-sigmoid")

        def loss() -> float:
            real = [matcher.real.draw(label, PER_CLASS, "any") for label in range(CLASSES)]
            return group_loss(network, matcher.synthetic.images_std, real, range(CLASSES), matcher.settings).item()

        matcher.pool.draw = lambda _: (0, network)  # the same one for ever
        losses = [loss()]
        for iteration in range(5):
            matcher.iterate(iteration)
            losses.append(loss())
        assert losses == sorted(losses, reverse=True)

    def test_the_picture_has_a_row_per_class_clipped_for_showing(self, make):
        matcher = make(ipc=3)
        picture = matcher.grid()
        # make_grid repeats grey to three channels and pads every image by 2.
        assert picture.shape == (3, CLASSES * 18 + 2, 3 * 18 + 2)
        assert picture.min() == 0
        assert picture.max() == 1
        shown = picture[0, 20:36, 38:54]
        expected = (matcher.synthetic.images_std[1, 2, 0] * SPEC.std[0] + SPEC.mean[0]).clamp(0, 1)
        torch.testing.assert_close(shown, expected.detach())

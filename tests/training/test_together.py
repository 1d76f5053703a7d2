"""Networks that are trained at once have the weights, buffers and losses of each trained alone."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toy import CLASSES, SPEC, network_of, state

from gdd import rng
from gdd.models import layers, registry
from gdd.runtime.execution import EAGER, Execution
from gdd.training.classifier import cross_entropy, fit
from gdd.training.optimizers import adamw, sgd
from gdd.training.together import Stacked, each_own

SEEDS, STEPS, BATCH = 3, 4, 6
Batches = Callable[[int], tuple[Tensor, Tensor]]


@pytest.fixture(params=["classes", "probabilities"])
def batches(request) -> Batches:
    """What all networks see in a step, each something else."""

    def call(step: int) -> tuple[Tensor, Tensor]:
        draw = torch.Generator().manual_seed(step)
        images = torch.randn(SEEDS, BATCH, *SPEC.shape, generator=draw, dtype=torch.float64)
        labels = torch.randint(CLASSES, (SEEDS, BATCH), generator=draw)
        return images, labels if request.param == "classes" else F.one_hot(labels, CLASSES).double() * 0.8 + 0.2 / 3

    return call


def weighted(logits: Tensor, labels: Tensor, images_std: Tensor, weight: float) -> Tensor:
    """A loss that is another for each network and looks at the images, as a teacher's does."""
    return weight * cross_entropy(logits, labels, images_std) + (images_std.mean((1, 2, 3)) * logits[:, 0]).mean()


def train(networks: list[nn.Module], losses: list, batches: Batches, execution: Execution = EAGER) -> list[float]:
    """Train networks at once and return their last losses."""
    stacked = Stacked(networks)
    lr = lambda step: 0.1 / (1 + step)  # noqa: E731
    last = fit(stacked, batches, range(STEPS), sgd(stacked, 0.1), lr, each_own(losses), execution=execution)
    stacked.give_back()
    return last.tolist()


def train_alone(network: nn.Module, index: int, loss, batches: Batches) -> float:
    def own(step: int) -> tuple[Tensor, Tensor]:
        images, labels = batches(step)
        return images[index], labels[index]

    return fit(network, own, range(STEPS), sgd(network, 0.1), lambda step: 0.1 / (1 + step), loss).item()


@pytest.mark.parametrize("own_losses", [False, True], ids=["one loss", "a loss of each"])
@pytest.mark.parametrize(
    "arch",
    [
        *("convnet3-w8", "convnet3-ln-w4", "convnet3-gn-w4", "resnet10-bn-w4", "resnet10-bn-w4-imagenet", "mlp-w16"),
        *("vit-w8-d1", "timm:test_resnet", "timm:test_vit"),
    ],
)
def test_each_has_the_weights_and_statistics_of_one_trained_alone(arch: str, own_losses: bool, batches: Batches):
    """Momentum and weight decay too. A mean over the networks' losses would take a third of every gradient."""
    losses = [partial(weighted, weight=0.5 + seed) if own_losses else cross_entropy for seed in range(SEEDS)]
    together, alone = ([network_of(arch, seed).double() for seed in range(SEEDS)] for _ in range(2))
    before = [state(network) for network in together]
    got = train(together, losses, batches)
    wanted = [train_alone(network, i, losses[i], batches) for i, network in enumerate(alone)]
    assert got == pytest.approx(wanted, rel=1e-10)
    for one, other, first in zip(together, alone, before, strict=True):
        for name, value in one.state_dict().items():
            torch.testing.assert_close(value, other.state_dict()[name], rtol=1e-9, atol=1e-11)
            assert not torch.equal(value, first[name]), name


@pytest.mark.parametrize("arch", ["resnet10-bn-w4", "vgg11-bn-w4"])
def test_each_drops_its_own_paths(arch: str, batches: Batches):
    def build(seed: int) -> nn.Module:
        with rng.seeded(seed, "test"):
            return registry.build(arch, SPEC.shape, CLASSES, drop_path=True).double()

    together, alone = ([build(seed) for seed in range(SEEDS)] for _ in range(2))

    class Kept:
        def __init__(self, *seeds: int) -> None:
            self.seeds = seeds

        def rate_at(self, step: int) -> float:
            return 0.5 if step else 1.0

        def __call__(self, step: int, rate: float, count: int) -> Tensor:
            paths = together[0].paths
            drawn = [layers.path_masks(count, paths, rate, rng.Draws(seed, "kept", step)) for seed in self.seeds]
            return torch.stack(drawn).double() if len(drawn) > 1 else drawn[0].double()

    stacked, kept = Stacked(together), Kept(*range(SEEDS))
    last = fit(stacked, batches, range(STEPS), sgd(stacked, 0.1), loss=each_own([cross_entropy] * SEEDS), masks=kept)
    stacked.give_back()
    for i, network in enumerate(alone):
        own = lambda step: tuple(part[i] for part in batches(step))  # noqa: B023, E731
        found = fit(network, own, range(STEPS), sgd(network, 0.1), masks=Kept(i))
        assert found.item() == pytest.approx(last[i].item())
        for one, other in zip(together[i].state_dict().values(), network.state_dict().values(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def test_a_step_is_the_one_by_hand():
    """w goes to w - lr (x softmax's error + decay w), whatever the others do."""
    networks = [nn.Linear(1, 2, bias=False).double() for _ in range(2)]
    first = [network.weight.detach().clone() for network in networks]
    images, labels = torch.tensor([[[2.0]], [[-3.0]]], dtype=torch.float64), torch.tensor([[0], [1]])
    stacked = Stacked(networks)
    fit(stacked, lambda step: (images, labels), range(1), sgd(stacked, 0.1), loss=each_own([cross_entropy] * 2))
    assert all(torch.equal(network.weight, before) for network, before in zip(networks, first, strict=True))
    stacked.give_back()
    for network, before, x, label in zip(networks, first, images.flatten(), labels.flatten(), strict=True):
        error = (before.flatten() * x).softmax(0) - F.one_hot(label, 2)
        expected = before.flatten() - 0.1 * (x * error + 5e-4 * before.flatten())
        torch.testing.assert_close(network.weight.detach().flatten(), expected)


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
@pytest.mark.parametrize("batches", ["classes"], indirect=True)
def test_adamw_steps_each_as_it_would_alone(fused: bool, batches: Batches):
    # Without norms: the bias before one has a gradient of rounding alone, which AdamW would scale up.
    together, alone = ([network_of("convnet3-nonorm-w4", seed).double() for seed in range(SEEDS)] for _ in range(2))
    stacked = Stacked(together)
    optimizer = adamw(stacked, 0.01, fused, weight_decay=0.1)
    fit(stacked, batches, range(STEPS), optimizer, loss=each_own([cross_entropy] * SEEDS))
    stacked.give_back()
    for i, network in enumerate(alone):
        own = lambda step: tuple(part[i] for part in batches(step))  # noqa: B023, E731
        fit(network, own, range(STEPS), adamw(network, 0.01, weight_decay=0.1))
        torch.testing.assert_close(state(together[i]), state(network), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("chosen", [Execution("bfloat16"), Execution("float32", True)], ids=lambda one: one.name)
@pytest.mark.parametrize("batches", ["classes"], indirect=True)
def test_the_execution_stays_in_charge(chosen: Execution, batches: Batches):
    """Reduced precision and compiled kernels come as near to float32 as for one network."""

    def single(step: int) -> tuple[Tensor, Tensor]:
        images, labels = batches(step)
        return images.float(), labels

    networks, exact = ([chosen.place(network_of("convnet3-d1-ln-w4", seed)) for seed in range(SEEDS)] for _ in range(2))
    got = train(networks, [cross_entropy] * SEEDS, single, chosen)
    wanted = train(exact, [cross_entropy] * SEEDS, single)
    bfloat16 = chosen.precision == "bfloat16"
    assert got == pytest.approx(wanted, rel=0.05 if bfloat16 else 1e-5)
    assert (got != wanted) or not bfloat16

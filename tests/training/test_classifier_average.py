"""The average over the steps of training: its recursion, and the same for one network and for a stack."""

import torch
from torch import Tensor, nn
from toy import CLASSES, SPEC, network_of

from gdd.training.average import Average
from gdd.training.classifier import cross_entropy, fit
from gdd.training.optimizers import sgd
from gdd.training.together import Stacked, each_own

SEEDS, STEPS, DECAY = 3, 5, 0.7


def batch(step: int) -> tuple[Tensor, Tensor]:
    """What all networks see in a step, each something else."""
    draw = torch.Generator().manual_seed(step)
    images = torch.randn(SEEDS, 6, *SPEC.shape, generator=draw, dtype=torch.float64)
    return images, torch.randint(CLASSES, (SEEDS, 6), generator=draw)


def alone(index: int, decay: float) -> tuple[nn.Module, list[dict[str, Tensor]]]:
    """Train one network with batch norm; return it and its weights and buffers after every step."""
    network, path = network_of("convnet3-bn-w4", index).double(), []
    optimizer = sgd(network, 0.1)
    optimizer.register_step_post_hook(
        lambda *_: path.append({name: value.clone() for name, value in network.state_dict().items()})
    )
    average = Average(network, decay)
    own = lambda step: tuple(part[index] for part in batch(step))  # noqa: E731
    fit(network, own, range(STEPS), optimizer, average=average)  # type: ignore[arg-type]
    network.load_state_dict(average.module.state_dict())
    return network, path


def test_it_is_the_recursion_written_out_for_weights_and_running_statistics():
    network, path = alone(0, DECAY)
    names = [name for name, value in network.state_dict().items() if value.is_floating_point()]
    assert any("running" in name for name in names)
    for name in names:
        expected = path[0][name]
        for state in path[1:]:
            expected = DECAY * expected + (1 - DECAY) * state[name]
        torch.testing.assert_close(network.state_dict()[name], expected)
        assert not torch.equal(expected, path[-1][name]), name


def test_decay_0_leaves_the_last_weights():
    network, path = alone(0, 0.0)
    for name, value in network.named_parameters():
        torch.testing.assert_close(value.detach(), path[-1][name])


def test_together_is_alone():
    networks = [network_of("convnet3-bn-w4", seed).double() for seed in range(SEEDS)]
    stacked = Stacked(networks)
    optimizer = sgd(stacked, 0.1)
    average = Average(stacked, DECAY)
    fit(stacked, batch, range(STEPS), optimizer, loss=each_own([cross_entropy] * SEEDS), average=average)
    stacked.load_state_dict(average.module.state_dict())
    stacked.give_back()
    for index, network in enumerate(networks):
        expected = alone(index, DECAY)[0].state_dict()
        for name, value in network.state_dict().items():
            torch.testing.assert_close(value, expected[name], rtol=1e-9, atol=1e-11)

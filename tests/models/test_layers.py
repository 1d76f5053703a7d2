"""Layers of which torch has one that does not serve."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from gdd.models.layers import StridedPointwise

# Two threads share 13 images unevenly; torch's own layer ends this process by a signal, mostly within a few turns.
TRAINED = """
import torch
from gdd.models import registry
torch.set_num_threads(2)
for _ in range(60):
    network = registry.build("resnet10-bn-w4", (1, 16, 16), 10).to(memory_format=torch.channels_last)
    network(torch.randn(13, 1, 16, 16).to(memory_format=torch.channels_last)).sum().backward()
"""


@pytest.mark.parametrize("stride", [2, (2, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_strided_pointwise_convolution_is_torchs_own(stride, bias):
    ours = StridedPointwise(5, 7, 1, stride=stride, bias=bias).double()
    torchs = nn.Conv2d(5, 7, 1, stride=stride, bias=bias).double()
    torchs.load_state_dict(ours.state_dict())
    answers, gradients = [], []
    for layer in (ours, torchs):
        x = torch.linspace(-1, 1, 3 * 5 * 9 * 8, dtype=torch.float64).view(3, 5, 9, 8).sin().requires_grad_()
        answers.append(layer(x))
        gradients.append(torch.autograd.grad(answers[-1].square().sum(), [x, *layer.parameters()]))
    torch.testing.assert_close(*answers)
    torch.testing.assert_close(*gradients)


def test_narrow_residual_networks_train_on_several_threads_without_damage():
    ended = subprocess.run([sys.executable, "-c", TRAINED], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr

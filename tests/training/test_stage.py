from types import SimpleNamespace

import pytest
import torch
from toy import SPEC, same, state

from gdd.config import ConfigError, GanConfig, PretrainConfig
from gdd.runtime.execution import EAGER
from gdd.training.stage import gan_trainer, real_batches


@pytest.fixture
def make(accelerator, as_process):
    """Return a function that builds a stage's trainer, and real batches, as one of several processes."""

    def build(rank: int = 0, seed: int = 0, stage: str = "pretrain", spec=SPEC, **own):
        settings = GanConfig(**{"width": 4, "noise_dim": 8, **own})
        with as_process(rank, 2):
            run = SimpleNamespace(accelerator=accelerator, execution=lambda networks, flop: EAGER)
            return gan_trainer(settings, PretrainConfig(), spec, seed, stage, run)

    return build


def test_processes_and_stages_start_from_the_same_weights_and_seeds_do_not(make):
    starts = []
    for gan in (make(), make(rank=1), make(stage="refine"), make(seed=1)):
        starts.append(state(gan.plain_generator) | state(gan.plain_discriminator))
        torch.rand(3)  # the global generator plays no part
    assert same(starts[0], starts[1])
    assert same(starts[0], starts[2])
    assert not same(starts[0], starts[3])


def test_an_unknown_augmentation_is_refused(make):
    with pytest.raises(ConfigError, match="colour"):
        make(augment="colour")


def test_a_batch_that_cannot_be_dealt_evenly_is_refused(noisy):
    run = SimpleNamespace(rank=1, world_size=2, device="cpu")
    assert real_batches(noisy, 10, 0, "test", run).indices(0).numel() == 5
    with pytest.raises(ConfigError, match="9 images per step cannot be divided evenly among 2 processes"):
        real_batches(noisy, 9, 0, "test", run)

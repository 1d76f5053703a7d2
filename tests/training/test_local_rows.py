"""What several processes draw: together what one process draws, each its own share, other things at every step."""

import pytest
import torch
from torch import Tensor

from gdd.config import ConfigError, GanConfig, RunConfig
from gdd.data import augment
from gdd.data.batches import Batches
from gdd.data.readers import open_dataset
from gdd.data.spec import DatasetSpec
from gdd.runtime.device import make_accelerator
from gdd.runtime.run import Run
from gdd.training.gan import GanTrainer
from gdd.training.pretrain import real_batches

SPEC = DatasetSpec("toy", 1, 16, 16, ("a", "b", "c"), (0.5,), (0.5,), True)
BATCH = 12


@pytest.fixture
def seen(tmp_path, monkeypatch):
    """Return a function that takes both steps of one of several processes and gives all that it drew."""
    accelerator = make_accelerator(RunConfig(threads=1))
    draws = torch.Generator().manual_seed(0)
    real = torch.rand(BATCH, *SPEC.shape, generator=draws) * 2 - 1
    labels = torch.arange(BATCH) % SPEC.num_classes

    def call(rank: int, world_size: int, step: int, loss: str = "wgan-gp") -> dict[str, Tensor]:
        with Run(tmp_path / "run", RunConfig(), {}, "fingerprint", accelerator) as run:
            run.rank, run.world_size = rank, world_size
            gan = GanTrainer(
                GanConfig(width=4, noise_dim=8, loss=loss, augment="color_cutout"), SPEC, 0.0, 0, "test", run
            )
            found: list[Tensor] = []
            gan.plain_generator.register_forward_pre_hook(lambda _, given: found.extend(given))
            changes: list[Tensor] = []
            whole = augment.apply

            def apply(change: augment.Augmentation, images: Tensor) -> Tensor:
                changes.append(torch.cat([draws for _, draws in change.steps], 1))
                return whole(change, images)

            monkeypatch.setattr(augment, "apply", apply)
            gan.generator_step(step, labels[rank::world_size])
            gan.discriminator_step(step, real[rank::world_size], labels[rank::world_size])
            monkeypatch.setattr(augment, "apply", whole)
        names = ("noise of G", "labels of G", "noise of D", "labels of D", "augmentation of G", "augmentation of D")
        return dict(zip(names, [*found, *changes], strict=True))

    return call


def test_together_they_draw_what_one_draws(seen):
    for step in (0, 7):
        one, shares = seen(0, 1, step), [seen(rank, 3, step) for rank in range(3)]
        for name, whole in one.items():
            dealt = torch.empty_like(whole)
            for rank, share in enumerate(shares):
                dealt[rank::3] = share[name]
            assert torch.equal(dealt, whole), name


def test_each_has_its_own_and_other_ones_at_the_next_step(seen):
    for name, first in seen(0, 2, 0).items():
        if "labels of G" in name:  # those of the real batch
            continue
        for other in (seen(1, 2, 0), seen(0, 2, 1)):
            assert not torch.equal(other[name], first), name
    rows = torch.cat([seen(rank, 2, step)["noise of G"] for rank in (0, 1) for step in (0, 1)])
    assert len(torch.unique(rows, dim=0)) == 2 * BATCH


def test_the_mixing_of_the_gradient_penalty_is_shared_out(tmp_path, monkeypatch):
    found = {}
    accelerator = make_accelerator(RunConfig(threads=1))
    for rank, world_size in ((0, 1), (0, 2), (1, 2)):
        with Run(tmp_path / "run", RunConfig(), {}, "fingerprint", accelerator) as run:
            run.rank, run.world_size = rank, world_size
            gan = GanTrainer(GanConfig(width=4, noise_dim=8, loss="wgan-gp"), SPEC, 0.0, 0, "test", run)

            def penalty(score, real, fake, mixing, key=(rank, world_size)):
                found[key] = mixing.flatten()
                return mixing.sum()

            monkeypatch.setattr("gdd.losses.adversarial.gradient_penalty", penalty)
            labels = torch.arange(BATCH // world_size) % SPEC.num_classes
            gan.discriminator_step(0, torch.zeros(len(labels), *SPEC.shape), labels)
    assert torch.equal(found[0, 1][::2], found[0, 2])
    assert torch.equal(found[0, 1][1::2], found[1, 2])


def test_real_images_are_shared_out_and_change_with_the_step():
    images, labels = torch.arange(40).view(-1, 1, 1, 1), torch.zeros(40, dtype=torch.int64)
    whole = Batches(images, labels, 8, 0, "test")
    parts = [Batches(images, labels, 8, 0, "test", rank, 2) for rank in (0, 1)]
    batches = []
    for step in range(5):
        shares = [part(step)[0].flatten().tolist() for part in parts]
        assert not set(shares[0]) & set(shares[1])
        assert sorted(shares[0] + shares[1]) == sorted(whole(step)[0].flatten().tolist())
        batches.append(tuple(shares[0]))
    assert len(set(batches)) == 5


def test_what_is_shared_by_a_batch_is_shared_by_processes():
    change = augment.draw(("color",), 1, torch.Generator().manual_seed(0), shared=True, pick="all")
    assert torch.equal(change.take(1, 2).steps[0][1], change.steps[0][1])


def test_a_batch_that_cannot_be_dealt_evenly_is_refused(tmp_path):
    accelerator = make_accelerator(RunConfig(threads=1))
    dataset = open_dataset("digits", tmp_path)
    with Run(tmp_path / "run", RunConfig(), {}, "fingerprint", accelerator) as run:
        run.world_size = 2
        assert real_batches(dataset, 10, 0, "test", run).indices(0).numel() == 5
        with pytest.raises(ConfigError, match="9 images per step cannot be dealt evenly to 2 processes"):
            real_batches(dataset, 9, 0, "test", run)

"""What several processes draw: together what one process draws, each its own rows, other things at every step."""

import pytest
import torch
from torch import Tensor
from toy import CLASSES, SPEC

from gdd import rng
from gdd.data import augment
from gdd.losses import adversarial

BATCH = 12


@pytest.fixture
def drawn(make_gan, as_process, accelerator):
    """Return a function that takes both turns of a step as one of several processes, and gives all that it drew."""
    labels = (torch.arange(BATCH) % CLASSES).to(accelerator.device)

    def call(rank: int, world_size: int, step: int) -> dict[str, Tensor]:
        with as_process(rank, world_size), pytest.MonkeyPatch.context() as patch:
            gan = make_gan(loss="wgan-gp", augmentations=("color", "cutout"), lr=lambda step: 0.0)
            values: list[Tensor] = []
            apply, penalty = augment.apply, adversarial.gradient_penalty

            def spy_apply(change: augment.Augmentation, images: Tensor) -> Tensor:
                values.append(torch.cat([draws for _, draws in change.steps], 1))
                return apply(change, images)

            def spy_penalty(score, real: Tensor, fake: Tensor, mixing: Tensor) -> Tensor:
                values.append(mixing)
                return penalty(score, real, fake, mixing)

            patch.setattr(augment, "apply", spy_apply)
            patch.setattr(adversarial, "gradient_penalty", spy_penalty)
            gan.plain_generator.register_forward_pre_hook(lambda _, given: values.extend(given))
            local = labels[rank::world_size]
            gan.adversarial_loss(step, gan.generate(step, local), local)
            images = torch.zeros(len(local), *SPEC.shape, device=local.device)
            gan.update_discriminator(step, 0.1, images, local, penalised=gan.penalises(step))
        names = ("noise of G", "labels of G", "augmentation of G", "noise of D", "labels of D", "augmentation of D")
        return dict(zip((*names, "mixing"), values, strict=True))

    return call


@pytest.mark.parametrize("step", [0, 7])
def test_together_they_draw_what_one_draws(drawn, step):
    parts = [drawn(rank, 3, step) for rank in range(3)]
    for name, whole in drawn(0, 1, step).items():
        together = torch.empty_like(whole)
        for rank, part in enumerate(parts):
            together[rank::3] = part[name]
        assert torch.equal(together, whole), name


def test_each_has_its_own_and_other_ones_at_the_next_step(drawn):
    for name, first in drawn(0, 2, 0).items():
        if name == "labels of G":  # those of the real batch
            continue
        for other in (drawn(1, 2, 0), drawn(0, 2, 1)):
            assert not torch.equal(other[name], first), name
    rows = torch.cat([drawn(rank, 2, step)["noise of G"] for rank in (0, 1) for step in (0, 1)])
    assert len(torch.unique(rows, dim=0)) == 2 * BATCH


def test_what_is_shared_by_a_batch_is_shared_by_processes():
    change = augment.draw(("color",), 1, rng.Draws(0, "test"), shared=True, pick="all")
    assert torch.equal(change.local_rows(1, 2).steps[0][1], change.steps[0][1])

"""The turns of a GanTrainer; test_pretrain and test_refine compare what a turn does with its equations."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from toy import CLASSES, SPEC, same, state

from gdd.training.gan import GanTrainer

LOSSES = ("ns", "hinge", "wgan-gp")
AUGMENTED = {"augmentations": ("color", "crop", "cutout")}


def batch(gan: GanTrainer, step: int = 0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(step)
    images = torch.rand(6, *SPEC.shape, generator=draw) * 2 - 1
    return images.to(gan.accelerator.device), (torch.arange(6) % CLASSES).to(gan.accelerator.device)


def fakes(gan: GanTrainer, step: int) -> Tensor:
    return gan.generate(step, batch(gan)[1]).detach()


def generator_step(gan: GanTrainer, step: int) -> float:
    """Take a step of the generator on the adversarial loss alone, and return this."""
    labels = batch(gan)[1]
    loss = gan.adversarial_loss(step, gan.generate(step, labels), labels)
    gan.update_generator(loss)
    return loss.item()


def play(gan: GanTrainer, *steps: int) -> dict[str, Tensor]:
    """Take both turns of each step, and return what they leave."""
    for step in steps:
        generator_step(gan, step)
        gan.update_discriminator(step, *batch(gan, step))
    return state(gan.average) | state(gan.plain_discriminator)


def parameters(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.named_parameters()}


@pytest.mark.parametrize("loss", LOSSES)
class TestOneStep:
    def test_the_generators_turn_changes_the_generator_alone(self, make_gan, loss):
        gan = make_gan(loss=loss)
        gan.update_discriminator(0, *batch(gan))
        gan.opt_d.zero_grad()
        before, generator = state(gan.plain_discriminator), parameters(gan.plain_generator)
        moments = [value.clone() for each in gan.opt_d.state_dict()["state"].values() for value in each.values()]
        generator_step(gan, 0)
        assert same(state(gan.plain_discriminator), before)
        after = [value for each in gan.opt_d.state_dict()["state"].values() for value in each.values()]
        assert all(torch.equal(first, second) for first, second in zip(moments, after, strict=True))
        # No gradient is left for the next discriminator step, which can learn again.
        assert all(parameter.grad is None for parameter in gan.plain_discriminator.parameters())
        assert all(parameter.requires_grad for parameter in gan.plain_discriminator.parameters())
        changed = parameters(gan.plain_generator)
        assert not any(torch.equal(value, changed[name]) for name, value in generator.items() if "render.24" in name)
        assert not same(changed, generator)

    def test_the_discriminators_turn_changes_the_discriminator_alone(self, make_gan, loss):
        gan = make_gan(loss=loss)
        generator, average, before = parameters(gan.plain_generator), state(gan.average), state(gan.plain_discriminator)
        gan.update_discriminator(0, *batch(gan))
        assert same(parameters(gan.plain_generator), generator)
        assert same(state(gan.average), average)
        assert all(parameter.grad is None for parameter in gan.plain_generator.parameters())
        assert not same(state(gan.plain_discriminator), before)

    def test_a_few_steps_stay_finite(self, make_gan, loss):
        gan = make_gan(loss=loss, r1_every=2)
        for step in range(4):
            labels = batch(gan)[1]
            value = gan.adversarial_loss(step, gan.generate(step, labels), labels)
            gan.update_generator(value)
            scalars = gan.update_discriminator(step, *batch(gan, step))
            assert {"loss/discriminator", "score/real", "score/fake"} <= scalars.keys()
            assert not any(scalar.requires_grad for scalar in scalars.values())
            assert all(scalar.shape == () and scalar.isfinite() for scalar in (value, *scalars.values()))
        values = [*state(gan.average).values(), *state(gan.plain_discriminator).values()]
        assert all(value.isfinite().all() for value in values)

    def test_a_step_can_be_repeated_bit_for_bit(self, make_gan, loss):
        one = play(make_gan(loss=loss, **AUGMENTED), 0, 1)
        torch.rand(3)  # the global generator plays no part
        assert same(play(make_gan(loss=loss, **AUGMENTED), 0, 1), one)


def test_a_step_and_a_stage_have_their_own_noise(make_gan):
    gan = make_gan()
    images = [fakes(gan, 0), fakes(gan, 1), fakes(make_gan(stage="other"), 0)]
    assert torch.equal(fakes(gan, 0), images[0])
    # All of them differ, those of one batch too.
    assert len(torch.unique(torch.cat(images).flatten(1), dim=0)) == 3 * 6


@pytest.mark.parametrize(
    ("loss", "r1", "every", "due"),
    [*((loss, 0.2, 3, [0, 3, 6, 9]) for loss in ("ns", "hinge")), ("ns", 0.0, 1, [])],
)
def test_r1_comes_on_due_steps_only_and_0_switches_it_off(make_gan, loss, r1, every, due):
    gan = make_gan(loss=loss, r1=r1, r1_every=every)
    assert [step for step in range(10) if "loss/penalty" in gan.update_discriminator(step, *batch(gan))] == due


def test_the_states_bring_back_a_gan(make_gan):
    gan, other = make_gan(), make_gan(seed=1)
    play(gan, 0, 1)
    for name, part in other.states().items():
        part.load_state_dict(deepcopy(gan.states()[name].state_dict()))
    other.seed = gan.seed
    assert same(play(gan, 2), play(other, 2))

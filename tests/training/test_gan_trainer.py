from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from toy import CLASSES, SPEC, same, state

from gdd.losses.adversarial import r1_penalty
from gdd.runtime import checkpoint
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


class TestGame:
    def test_the_discriminator_learns_to_tell_real_from_fake(self, make_gan):
        gan = make_gan(lr=5e-3, r1=0.0)
        gaps = []
        for step in range(25):
            real = torch.full((6, *SPEC.shape), 0.9, device=gan.accelerator.device)
            scalars = gan.update_discriminator(step, real, batch(gan)[1])
            gaps.append((scalars["score/real"] - scalars["score/fake"]).item())
        assert gaps[-1] > gaps[0] + 1

    @pytest.mark.parametrize("own", [*({"loss": loss} for loss in LOSSES), AUGMENTED], ids=str)
    def test_the_generator_learns_to_please_the_discriminator(self, make_gan, own):
        gan = make_gan(lr=5e-3, **own)
        losses = [generator_step(gan, 0) for _ in range(25)]
        assert losses[-1] < losses[0] - 0.01

    def test_the_generator_learns_whatever_is_added_to_its_loss(self, make_gan):
        # Told only to be bright (a huge weight drowns the critic), it becomes bright.
        gan = make_gan(lr=5e-3)
        before, labels = fakes(gan, 0).mean().item(), batch(gan)[1]
        for step in range(20):
            fake = gan.generate(step, labels)
            gan.update_generator(gan.adversarial_loss(step, fake, labels) - 1e4 * fake.mean())
        assert fakes(gan, 0).mean().item() > before + 0.2

    def test_images_are_those_of_the_labels(self, make_gan):
        gan, given = make_gan(), []
        gan.plain_generator.register_forward_pre_hook(lambda _, arguments: given.append(arguments[1]))
        images = fakes(gan, 0)
        assert images.shape == (6, *SPEC.shape)
        assert images.abs().max() <= 1
        assert torch.equal(given[0], batch(gan)[1])

    @pytest.mark.parametrize(("loss", "conditional"), [("ns", True), ("hinge", True), ("wgan-gp", False)])
    def test_ns_and_hinge_condition_the_score_on_the_class(self, make_gan, loss, conditional):
        scores = []
        for shift in (0, 1):
            gan = make_gan(loss=loss, r1=0.0)
            images, labels = batch(gan)
            scores.append(gan.update_discriminator(0, images, (labels + shift) % CLASSES)["score/real"].item())
        assert (scores[0] != scores[1]) is conditional

    def test_the_class_loss_of_wgan_is_weighed(self, make_gan):
        losses = {}
        for weight in (0.0, 1.0, 3.0):
            one, other = (make_gan(loss="wgan-gp", aux_weight=weight) for _ in range(2))
            on_discriminator = other.update_discriminator(0, *batch(other))["loss/discriminator"].item()
            losses[weight] = generator_step(one, 0), on_discriminator
        for player in range(2):
            one, three = (losses[weight][player] - losses[0.0][player] for weight in (1.0, 3.0))
            assert one > 0.1
            assert three == pytest.approx(3 * one, rel=1e-4)


class TestAverage:
    def test_it_follows_the_formula(self, make_gan):
        decay = 0.9
        gan = make_gan(lr=1e-2, ema_decay=decay)
        history = []
        for step in range(3):
            generator_step(gan, step)
            history.append(state(gan.plain_generator))
            assert same(state(gan.averaged_generator), history[0]) is (step == 0)
        # The first update copies; then a_n = decay a_(n-1) + (1 - decay) g_n, buffers included.
        assert not same(history[0], history[1])
        average = state(gan.averaged_generator)
        for name, first in history[0].items():
            if first.is_floating_point():
                expected = decay * (decay * first + (1 - decay) * history[1][name]) + (1 - decay) * history[2][name]
                torch.testing.assert_close(average[name], expected, rtol=1e-5, atol=1e-7)

    def test_decay_0_is_the_generator_itself(self, make_gan):
        gan = make_gan(ema_decay=0.0)
        for step in range(3):
            generator_step(gan, step)
        average = parameters(gan.averaged_generator)
        for name, value in parameters(gan.plain_generator).items():
            torch.testing.assert_close(average[name], value)


class TestNoise:
    def test_a_step_and_a_stage_have_their_own_noise(self, make_gan):
        gan = make_gan()
        images = [fakes(gan, 0), fakes(gan, 1), fakes(make_gan(stage="other"), 0)]
        assert torch.equal(fakes(gan, 0), images[0])
        # All of them differ, those of one batch too.
        assert len(torch.unique(torch.cat(images).flatten(1), dim=0)) == 3 * 6


class TestPenalties:
    @pytest.mark.parametrize(
        ("loss", "r1", "every", "due"),
        [*((loss, 0.2, 3, [0, 3, 6, 9]) for loss in ("ns", "hinge")), ("ns", 0.0, 1, [])],
    )
    def test_r1_comes_on_due_steps_only_and_0_switches_it_off(self, make_gan, loss, r1, every, due):
        gan = make_gan(loss=loss, r1=r1, r1_every=every)
        assert [step for step in range(10) if "loss/penalty" in gan.update_discriminator(step, *batch(gan))] == due

    def test_r1_is_weighed_by_gamma_and_its_rarity(self, make_gan):
        gan = make_gan(r1=2.0, r1_every=3)
        images, labels = batch(gan)
        critic = gan.plain_discriminator

        def score(x: Tensor) -> Tensor:
            realness, classes = critic(x)
            return realness + classes[torch.arange(len(labels)), labels]

        expected = 2.0 * 3 * r1_penalty(score, images).item()
        assert expected > 0
        assert gan.update_discriminator(0, images, labels)["loss/penalty"].item() == pytest.approx(expected, rel=1e-4)

    def test_r1_flattens_the_discriminator(self, make_gan):
        images = {}
        for weight in (0.0, 1e4):
            gan = make_gan(r1=weight, r1_every=1, lr=1e-2)
            for step in range(15):
                gan.update_discriminator(step, *batch(gan))
            images[weight] = r1_penalty(lambda x, gan=gan: gan.plain_discriminator(x)[0], batch(gan)[0]).item()
        assert images[1e4] < 0.5 * images[0.0]

    def test_the_gradient_penalty_comes_on_every_step_with_its_weight(self, make_gan):
        values = []
        for weight in (1.0, 5.0):
            gan = make_gan(loss="wgan-gp", gradient_penalty=weight, lr=0.0)
            values.append([gan.update_discriminator(step, *batch(gan))["loss/penalty"].item() for step in range(3)])
        assert min(values[0]) > 0
        assert values[1] == pytest.approx([5 * value for value in values[0]], rel=1e-4)


class TestAugment:
    def test_the_discriminator_sees_augmented_images(self, make_gan):
        plain, augmented = (gan.update_discriminator(0, *batch(gan)) for gan in (make_gan(), make_gan(**AUGMENTED)))
        assert plain["score/real"] != augmented["score/real"]
        assert plain["score/fake"] != augmented["score/fake"]

    def test_the_generator_is_scored_on_augmented_images_but_gives_them_plain(self, make_gan):
        plain, augmented = make_gan(), make_gan(**AUGMENTED)
        assert torch.equal(fakes(plain, 0), fakes(augmented, 0))
        assert generator_step(plain, 0) != generator_step(augmented, 0)

    def test_every_step_has_its_own(self, make_gan):
        gan = make_gan(augmentations=("cutout",), lr=0.0)
        scores = [gan.update_discriminator(step, *batch(gan))["score/real"].item() for step in (1, 2, 1)]
        assert scores[0] == scores[2]
        assert scores[0] != scores[1]


def test_another_stages_weights_and_moments_are_taken_but_not_its_adam(make_gan, tmp_path):
    first, second = make_gan(lr=0.1, betas=(0.5, 0.9)), make_gan(lr=0.0, seed=1)
    expected = play(first, 0, 1)
    second.start_from(checkpoint.save(tmp_path, 2, first.states(), keep=1))
    assert same(play(second), expected)
    assert same(state(second.plain_generator), state(first.plain_generator))
    for mine, other in ((second.opt_g, first.opt_g), (second.opt_d, first.opt_d)):
        (group,) = mine.param_groups
        assert (group["lr"], group["betas"]) == (0.0, (0.0, 0.99))
        moments, others = mine.state_dict()["state"], other.state_dict()["state"]
        assert moments.keys() == others.keys()
        assert len(moments) > 0
        assert all(torch.equal(moments[key]["exp_avg_sq"], others[key]["exp_avg_sq"]) for key in moments)
    before = parameters(second.plain_generator) | parameters(second.plain_discriminator)
    play(second, 2)
    assert same(parameters(second.plain_generator) | parameters(second.plain_discriminator), before)


def test_the_states_bring_back_a_gan(make_gan):
    gan, other = make_gan(), make_gan(seed=1)
    play(gan, 0, 1)
    for name, part in other.states().items():
        part.load_state_dict(deepcopy(gan.states()[name].state_dict()))
    other.seed = gan.seed
    assert same(play(gan, 2), play(other, 2))

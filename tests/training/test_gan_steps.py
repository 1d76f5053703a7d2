from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gdd.config import ConfigError, GanConfig, RunConfig
from gdd.data.spec import DatasetSpec
from gdd.losses.adversarial import r1_penalty
from gdd.runtime.device import make_accelerator
from gdd.runtime.run import Run
from gdd.training.gan import GanTrainer

SPEC = DatasetSpec("toy", 1, 16, 16, ("a", "b", "c"), (0.5,), (0.5,), True)
LOSSES = ("ns", "hinge", "wgan-gp")
LR = 1e-3


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "run", RunConfig(), {}, "fingerprint", make_accelerator(RunConfig()))


@pytest.fixture
def make(run):
    def build(lr: float = LR, seed: int = 0, stage: str = "test", **settings) -> GanTrainer:
        return GanTrainer(GanConfig(**{"width": 4, "noise_dim": 8, **settings}), SPEC, lr, seed, stage, run)

    return build


def batch(gan: GanTrainer, step: int = 0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(step)
    images = torch.rand(6, *SPEC.shape, generator=draw) * 2 - 1
    return images.to(gan.run.device), (torch.arange(6) % 3).to(gan.run.device)


def parameters(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.named_parameters()}


def state(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def fakes(gan: GanTrainer, step: int) -> Tensor:
    """Return the images that a generator step makes."""
    seen: list[Tensor] = []

    def look(images: Tensor) -> Tensor:
        seen.append(images.detach().clone())
        return images.new_zeros(())

    gan.generator_step(step, batch(gan)[1], look)
    return seen[0]


@pytest.mark.parametrize("loss", LOSSES)
class TestOneStep:
    def test_the_generator_step_changes_the_generator_alone(self, make, loss):
        gan = make(loss=loss)
        gan.discriminator_step(0, *batch(gan))
        gan.opt_d.zero_grad()
        before, generator = state(gan.plain_discriminator), parameters(gan.plain_generator)
        moments = [value.clone() for each in gan.opt_d.state_dict()["state"].values() for value in each.values()]
        gan.generator_step(0, batch(gan)[1])
        assert same(state(gan.plain_discriminator), before)
        after = [value for each in gan.opt_d.state_dict()["state"].values() for value in each.values()]
        assert all(torch.equal(first, second) for first, second in zip(moments, after, strict=True))
        # No gradient is left for the next discriminator step, which can learn again.
        assert all(parameter.grad is None for parameter in gan.plain_discriminator.parameters())
        assert all(parameter.requires_grad for parameter in gan.plain_discriminator.parameters())
        changed = parameters(gan.plain_generator)
        assert not any(torch.equal(value, changed[name]) for name, value in generator.items() if "render.24" in name)
        assert not same(changed, generator)

    def test_the_discriminator_step_changes_the_discriminator_alone(self, make, loss):
        gan = make(loss=loss)
        generator, average, before = parameters(gan.plain_generator), state(gan.average), state(gan.plain_discriminator)
        gan.discriminator_step(0, *batch(gan))
        assert same(parameters(gan.plain_generator), generator)
        assert same(state(gan.average), average)
        assert all(parameter.grad is None for parameter in gan.plain_generator.parameters())
        assert not same(state(gan.plain_discriminator), before)

    def test_a_few_steps_stay_finite(self, make, loss):
        gan = make(loss=loss, r1_every=2)
        for step in range(4):
            scalars = gan.generator_step(step, batch(gan, step)[1]) | gan.discriminator_step(step, *batch(gan, step))
            expected = {"loss/generator", "loss/discriminator", "score/real", "score/fake"}
            assert expected <= scalars.keys()
            assert all(value.shape == () and value.isfinite() and not value.requires_grad for value in scalars.values())
        values = [*state(gan.average).values(), *state(gan.plain_discriminator).values()]
        assert all(value.isfinite().all() for value in values)

    def test_a_step_can_be_repeated_bit_for_bit(self, make, loss):
        results = []
        for _ in range(2):
            gan = make(loss=loss, augment="color_crop_cutout")
            torch.rand(3)  # the global generator plays no part
            for step in range(2):
                gan.generator_step(step, batch(gan)[1])
                gan.discriminator_step(step, *batch(gan, step))
            results.append(state(gan.average) | state(gan.plain_discriminator))
        assert same(*results)


class TestGame:
    def test_the_discriminator_learns_to_tell_real_from_fake(self, make):
        gan = make(lr=5e-3, r1=0.0)
        gaps = []
        for step in range(25):
            real = torch.full((6, *SPEC.shape), 0.9, device=gan.run.device)
            scalars = gan.discriminator_step(step, real, batch(gan)[1])
            gaps.append((scalars["score/real"] - scalars["score/fake"]).item())
        assert gaps[-1] > gaps[0] + 1

    @pytest.mark.parametrize("loss", LOSSES)
    def test_the_generator_learns_to_please_the_discriminator(self, make, loss):
        gan = make(loss=loss, lr=5e-3)
        losses = [gan.generator_step(0, batch(gan)[1])["loss/generator"].item() for _ in range(25)]
        assert losses[-1] < losses[0] - 0.01

    def test_the_extra_loss_is_added(self, make):
        # Told only to be bright (a huge weight drowns the critic), the generator becomes bright.
        gan = make(lr=5e-3)
        before = fakes(gan, 0).mean().item()
        for step in range(20):
            gan.generator_step(step, batch(gan)[1], lambda images: -1e4 * images.mean())
        assert fakes(gan, 0).mean().item() > before + 0.2

    def test_the_extra_loss_sees_the_images_of_the_labels(self, make):
        gan = make()
        images = fakes(gan, 0)
        assert images.shape == (6, *SPEC.shape)
        assert images.abs().max() <= 1

    @pytest.mark.parametrize(("loss", "conditional"), [("ns", True), ("hinge", True), ("wgan-gp", False)])
    def test_ns_and_hinge_condition_the_score_on_the_class(self, make, loss, conditional):
        gan = make(loss=loss, r1=0.0)
        images, labels = batch(gan)
        scores = [gan.discriminator_step(0, images, labels)["score/real"].item()]
        gan = make(loss=loss, r1=0.0)
        scores.append(gan.discriminator_step(0, images, (labels + 1) % 3)["score/real"].item())
        assert (scores[0] != scores[1]) is conditional

    def test_the_class_loss_of_wgan_is_weighed(self, make):
        losses = {}
        for weight in (0.0, 1.0, 3.0):
            gan = make(loss="wgan-gp", aux_weight=weight)
            labels = batch(gan)[1]
            losses[weight] = (
                gan.generator_step(0, labels)["loss/generator"].item(),
                make(loss="wgan-gp", aux_weight=weight).discriminator_step(0, *batch(gan))["loss/discriminator"].item(),
            )
        for player in range(2):
            one, three = (losses[weight][player] - losses[0.0][player] for weight in (1.0, 3.0))
            assert one > 0.1
            assert three == pytest.approx(3 * one, rel=1e-4)


class TestAverage:
    def test_it_follows_the_formula(self, make):
        decay = 0.9
        gan = make(lr=1e-2, ema_decay=decay)
        history = []
        for step in range(3):
            gan.generator_step(step, batch(gan)[1])
            history.append(state(gan.plain_generator))
        # The first update copies; then a_n = decay a_(n-1) + (1 - decay) g_n, buffers included.
        assert not same(history[0], history[1])
        average = state(gan.average.module)
        for name, first in history[0].items():
            if first.is_floating_point():
                expected = decay * (decay * first + (1 - decay) * history[1][name]) + (1 - decay) * history[2][name]
                torch.testing.assert_close(average[name], expected, rtol=1e-5, atol=1e-7)

    def test_the_first_update_copies(self, make):
        gan = make()
        gan.generator_step(0, batch(gan)[1])
        assert same(state(gan.average.module), state(gan.plain_generator))

    def test_decay_0_is_the_generator_itself(self, make):
        gan = make(ema_decay=0.0)
        for step in range(3):
            gan.generator_step(step, batch(gan)[1])
        average = parameters(gan.average.module)
        for name, value in parameters(gan.plain_generator).items():
            torch.testing.assert_close(average[name], value)


class TestNoise:
    def test_a_step_has_its_own_noise(self, make):
        # With a learning rate of 0 only the noise can differ from step to step.
        gan = make(lr=0.0)
        images = [fakes(gan, step) for step in (0, 1, 0)]
        assert torch.equal(images[0], images[2])
        assert not torch.equal(images[0], images[1])

    def test_stages_have_their_own_noise_and_one_start(self, make):
        one, two = make(lr=0.0, stage="pretrain"), make(lr=0.0, stage="refine")
        assert same(state(one.plain_generator), state(two.plain_generator))
        assert not torch.equal(fakes(one, 0), fakes(two, 0))

    def test_processes_start_from_the_same_weights(self, make, run):
        starts = []
        for rank in (0, 1):
            run.rank = rank
            gan = make()
            starts.append(state(gan.plain_generator) | state(gan.plain_discriminator))
        assert same(*starts)

    def test_images_of_one_batch_differ(self, make):
        assert len(torch.unique(fakes(make(), 0).flatten(1), dim=0)) == 6


class TestPenalties:
    @pytest.mark.parametrize("loss", ["ns", "hinge"])
    def test_r1_comes_on_due_steps_only(self, make, loss):
        gan = make(loss=loss, r1_every=3)
        due = [step for step in range(10) if "loss/penalty" in gan.discriminator_step(step, *batch(gan))]
        assert due == [0, 3, 6, 9]

    def test_r1_is_weighed_by_gamma_and_its_rarity(self, make):
        gan = make(r1=2.0, r1_every=3)
        images, labels = batch(gan)
        critic = gan.plain_discriminator

        def score(x: Tensor) -> Tensor:
            realness, classes = critic(x)
            return realness + classes[torch.arange(len(labels)), labels]

        expected = 2.0 * 3 * r1_penalty(score, images).item()
        assert expected > 0
        assert gan.discriminator_step(0, images, labels)["loss/penalty"].item() == pytest.approx(expected, rel=1e-4)

    def test_r1_of_0_is_switched_off(self, make):
        gan = make(r1=0.0, r1_every=1)
        assert "loss/penalty" not in gan.discriminator_step(0, *batch(gan))

    def test_r1_flattens_the_discriminator(self, make):
        images = {}
        for weight in (0.0, 1e4):
            gan = make(r1=weight, r1_every=1, lr=1e-2)
            for step in range(15):
                gan.discriminator_step(step, *batch(gan))
            images[weight] = r1_penalty(lambda x, gan=gan: gan.plain_discriminator(x)[0], batch(gan)[0]).item()
        assert images[1e4] < 0.5 * images[0.0]

    def test_the_gradient_penalty_comes_on_every_step_with_its_weight(self, make):
        values = []
        for weight in (1.0, 5.0):
            gan = make(loss="wgan-gp", gradient_penalty=weight, lr=0.0)
            values.append([gan.discriminator_step(step, *batch(gan))["loss/penalty"].item() for step in range(3)])
        assert min(values[0]) > 0
        assert values[1] == pytest.approx([5 * value for value in values[0]], rel=1e-4)


class TestAugment:
    def test_the_discriminator_sees_augmented_images(self, make):
        plain, augmented = make(), make(augment="color_crop_cutout")
        one, two = (gan.discriminator_step(0, *batch(gan)) for gan in (plain, augmented))
        assert one["score/real"] != two["score/real"]
        assert one["score/fake"] != two["score/fake"]

    def test_the_generator_learns_through_it(self, make):
        gan = make(augment="color_crop_cutout", lr=5e-3)
        losses = [gan.generator_step(0, batch(gan)[1])["loss/generator"].item() for _ in range(25)]
        assert losses[-1] < losses[0] - 0.01

    def test_the_extra_loss_sees_the_images_before_it(self, make):
        assert torch.equal(fakes(make(augment="color_crop_cutout"), 0), fakes(make(), 0))

    def test_every_step_has_its_own(self, make):
        gan = make(augment="cutout", lr=0.0)
        scores = [gan.discriminator_step(step, *batch(gan))["score/real"].item() for step in (1, 2, 1)]
        assert scores[0] == scores[2]
        assert scores[0] != scores[1]

    def test_an_unknown_one_is_refused(self, make):
        with pytest.raises(ConfigError, match="colour"):
            make(augment="colour")


def test_the_learning_rate_of_both_can_be_set(make):
    gan = make(lr=0.1)
    gan.set_adam(0.0)
    before = parameters(gan.plain_generator) | parameters(gan.plain_discriminator)
    gan.generator_step(0, batch(gan)[1])
    gan.discriminator_step(0, *batch(gan))
    assert same(parameters(gan.plain_generator) | parameters(gan.plain_discriminator), before)


def test_the_states_bring_back_a_gan(make):
    gan, other = make(), make(seed=1)
    for step in range(2):
        gan.generator_step(step, batch(gan)[1])
        gan.discriminator_step(step, *batch(gan))
    for name, part in other.states().items():
        part.load_state_dict(deepcopy(gan.states()[name].state_dict()))
    other.seed = gan.seed
    for each in (gan, other):
        each.generator_step(2, batch(each)[1])
        each.discriminator_step(2, *batch(each))
    assert same(state(gan.average), state(other.average))
    assert same(state(gan.plain_discriminator), state(other.plain_discriminator))

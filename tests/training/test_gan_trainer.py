"""What of a GanTrainer's turns is not in their equations, which test_distil compares them with."""

from types import SimpleNamespace

import pytest
import torch
from toy import CLASSES, SPEC, same, state

from gdd import rng
from gdd.config import Config, ConfigError, GanConfig
from gdd.models.gan import ResidualDiscriminator, ResidualGenerator
from gdd.runtime.execution import EAGER, Execution
from gdd.training.distil import gan_trainer, real_batches
from gdd.training.gan import GanTrainer


def critic_step(gan: GanTrainer, step: int, real: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    rate, penalised = gan.lr_discriminator(step), gan.penalises(step)
    return gan.update_discriminator(step, rate, real, labels, penalised=penalised)


@pytest.mark.parametrize("own", [{"loss": "wgan-gp"}, *({"loss": loss, "r1_every": 3} for loss in ("ns", "hinge"))])
def test_the_discriminators_turn_reports_losses_and_scores_and_the_penalty_when_due(make_gan, own):
    gan, labels = make_gan(**own), torch.arange(6) % CLASSES
    reports = [critic_step(gan, step, torch.zeros(6, *SPEC.shape), labels) for step in range(7)]
    always = {"loss/discriminator", "score/real", "score/fake"}
    due = [step for step, scalars in enumerate(reports) if scalars.keys() == {*always, "loss/penalty"}]
    assert due == [*range(0, 7, own.get("r1_every", 1))]
    assert all(always <= scalars.keys() for scalars in reports)
    assert all(s.shape == () and s.isfinite() and not s.requires_grad for each in reports for s in each.values())


def test_r1_of_0_is_not_computed(make_gan):
    real = torch.zeros(6, *SPEC.shape)
    assert "loss/penalty" not in critic_step(make_gan(r1=0.0), 0, real, torch.arange(6) % CLASSES)


@pytest.mark.slow  # a compiler takes half a minute
def test_compiled_networks_with_spectral_norm_take_the_penalty_as_eager_ones_do(make_gan):
    """A pass of the eager penalty moves the norms' vectors, which a compiled graph keeps for its backward pass."""
    shape, labels = (1, 4, 4), torch.arange(6) % CLASSES
    real = torch.rand(6, *shape, generator=torch.Generator().manual_seed(0))

    def reports(chosen: Execution) -> list[dict[str, float]]:
        with rng.seeded(0, "test"):
            networks = ResidualGenerator(shape, CLASSES, 4, 8), ResidualDiscriminator(shape, CLASSES, 4)
        gan = make_gan(networks=networks, loss="hinge", r1_every=2, execution=chosen)
        steps = (critic_step(gan, step, real, labels) for step in range(3))
        return [{name: value.item() for name, value in scalars.items()} for scalars in steps]

    compiled, eager = reports(Execution("float32", compiled=True)), reports(EAGER)
    assert "loss/penalty" in eager[0].keys() & eager[2].keys()
    assert compiled == [pytest.approx(scalars, rel=1e-3) for scalars in eager]


@pytest.fixture
def make(accelerator, as_process):
    """Return a function that builds a stage's trainer, and real batches, as one of several processes."""

    def build(rank: int = 0, seed: int = 0, stage: str = "pretrain", spec=SPEC, **own):
        config = Config(seed=seed, gan=GanConfig(**{"width": 4, "noise_dim": 8, **own}))
        with as_process(rank, 2):
            run = SimpleNamespace(
                accelerator=accelerator,
                precision=lambda flop: "float32",
                execution=lambda networks, precision, flop: EAGER,
            )
            return gan_trainer(config, stage, spec, run)

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

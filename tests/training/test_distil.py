"""The GAN's loop: each step of either stage is that of its equation, and the averaged generator is kept."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from generators import as_stored
from steps import (
    CLASSES,
    DATASET,
    SPEC,
    StageReference,
    assert_same,
    configured,
    cross_entropy,
    initial_state,
    metrics,
    real_batch,
    run_stage,
    standardized_by_channel,
    states,
)
from torch import Tensor

from gdd import rng
from gdd.config import ConfigError
from gdd.data import augment
from gdd.data.spec import parse_strategy
from gdd.models import registry
from gdd.sampling import generator_file
from gdd.training.distil import distil
from gdd.training.gan import GanTrainer
from gdd.training.guidance import Balance, GuidanceLoss, check_others, make_loss


@pytest.mark.parametrize(
    "gan",
    [{"loss": "ns"}, {"loss": "hinge"}, {"loss": "wgan-gp"}, {"loss": "ns", "augment": "color_crop_cutout"}],
    ids=lambda gan: "-".join(gan.values()),
)
def test_every_step_is_the_one_of_the_equations(gan: dict[str, str], tmp_path: Path) -> None:
    config = configured(gan=gan)
    after = run_stage(distil, config, tmp_path)
    before = [initial_state(config), *after]
    reference = StageReference(config, "pretrain", config.pretrain.lr)
    logged = metrics(tmp_path)
    assert len(after) == len(logged) == 2
    for step in range(2):
        reference.check(step, before[step], after[step], logged[step])


def test_the_averaged_generator_is_kept(tmp_path: Path) -> None:
    last = run_stage(distil, configured(), tmp_path)[-1]
    loaded = generator_file.load(tmp_path)
    for name, value in loaded.generator.named_parameters():
        assert torch.equal(value, as_stored(last["average"][f"module.{name}"]))
    assert (loaded.spec, loaded.provenance["stage"], loaded.provenance["method"]) == (SPEC, "pretrain", "gan")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a stage 1 with a learning rate and decays of its own."""
    folder = tmp_path_factory.mktemp("pretrain")
    run_stage(distil, configured(gan={"beta1": 0.5, "beta2": 0.99}, pretrain={"steps": 3}), folder)
    return folder


SKD: dict[str, Any] = {"loss": "skd", "tau": 3.0}
DIM: dict[str, Any] = {"loss": "log_mse", "augment": "none"}
# What `configured` sets for members that live on is at its defaults.
SNAPSHOTS: dict[str, Any] = {"ages": (1, 3), "steps_before": 16, "steps_between": 1}


@pytest.mark.parametrize(
    ("gan", "settings"),
    [
        ({"loss": "ns"}, SKD),
        ({"loss": "hinge"}, {**SKD, "pairing": "optimal"}),
        ({"loss": "hinge"}, {**SKD, "tau": 0.7, "tau_mode": "multiply", "discriminator": "frozen"}),
        ({"loss": "ns", "augment": "color_crop_cutout"}, {**SKD, "tau_mode": "multiply", "standardize": False}),
        ({"loss": "wgan-gp"}, {**SKD, "standardize": False}),
        ({"loss": "ns"}, {**SKD, "standardize_over": "batch"}),
        ({"loss": "wgan-gp"}, DIM),
        ({"loss": "ns"}, {**DIM, "discriminator": "frozen", "augment": "flip_scale_rotate"}),
    ],
    ids=[
        "ns",
        "hinge-paired",
        "hinge-multiply-frozen",
        "ns-augmented-multiply-plain",
        "wgan-gp-plain",
        "ns-batch",
        "wgan-gp-dim",
        "ns-dim-frozen",
    ],
)
def test_every_step_is_the_one_of_the_equation(
    gan: dict[str, Any], settings: dict[str, Any], pretrained: Path, tmp_path: Path
) -> None:
    config = configured(gan=gan, refine=settings)
    after = run_stage(distil, config, tmp_path, pretrained)
    before = [states(pretrained)[-1], *after]
    reference = StageReference(config, "refine", config.refine.lr)
    logged = metrics(tmp_path)
    assert len(after) == len(logged) == 2
    for step in range(2):
        reference.check(step, before[step], after[step], logged[step])


@pytest.mark.parametrize("settings", [SKD, {**SKD, "standardize": False}, {"loss": "log_mse"}])
def test_a_generator_of_the_real_images_has_nothing_to_match(
    settings: dict[str, Any], pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same images get the same augmentation, normalisation and network on both sides."""
    config, generate = configured(refine=settings), GanTrainer.generate

    def perfect(gan: GanTrainer, step: int, labels: Tensor) -> Tensor:
        images_u8, _ = real_batch(config, "refine", step)
        return images_u8 / 127.5 - 1 + 0 * generate(gan, step, labels)

    monkeypatch.setattr(GanTrainer, "generate", perfect)
    run_stage(distil, config, tmp_path, pretrained)
    losses = [line[f"loss/{config.refine.loss}"] for line in metrics(tmp_path)]
    assert losses == pytest.approx([0, 0], abs=1e-6)


def test_it_goes_on_from_stage_1_at_its_own_pace(pretrained: Path, tmp_path: Path) -> None:
    config = configured(refine={"lr": 1e-12, "steps": 1})
    (after,), before = run_stage(distil, config, tmp_path, pretrained), states(pretrained)[-1]
    for name in ("generator", "discriminator"):
        weights = {place: value for place, value in after[name].items() if place.endswith(("weight", "bias"))}
        torch.testing.assert_close(weights, {place: before[name][place] for place in weights}, rtol=0, atol=1e-8)
    for name in ("opt_g", "opt_d"):
        assert {moments["step"].item() for moments in after[name]["state"].values()} == {3 + 1}
        (group,) = after[name]["param_groups"]
        assert (group["lr"], *group["betas"]) == (1e-12, config.gan.beta1, config.gan.beta2)


def test_a_frozen_discriminator_stays_as_stage_1_left_it(pretrained: Path, tmp_path: Path) -> None:
    before = states(pretrained)[-1]["discriminator"]
    config = configured(refine={"discriminator": "frozen"})
    assert_same(run_stage(distil, config, tmp_path, pretrained)[-1]["discriminator"], before)


def test_the_averaged_generator_is_kept_with_the_seconds_of_both_stages(pretrained: Path, tmp_path: Path) -> None:
    stage_1, folder = generator_file.load(pretrained), tmp_path / "pretrain"
    folder.mkdir()
    for path in pretrained.glob("checkpoint-*"):
        (folder / path.name).hardlink_to(path)
    generator_file.save(folder, stage_1.generator, SPEC, {**stage_1.provenance, "seconds": 1000.0})
    last = run_stage(distil, configured(), tmp_path / "refine", folder)[-1]
    loaded = generator_file.load(tmp_path / "refine")
    for name, value in loaded.generator.named_parameters():
        assert torch.equal(value, as_stored(last["average"][f"module.{name}"]))
    assert (loaded.spec, loaded.provenance["stage"], loaded.provenance["method"]) == (SPEC, "refine", "gan + skd")
    assert 1000 < loaded.provenance["seconds"] < 1100


@pytest.mark.parametrize("augmented", [False, True])
def test_the_network_that_is_asked_has_learned_from_real_images(
    augmented: bool, pretrained: Path, tmp_path: Path
) -> None:
    """Before its first use 2 steps, before the next 1; a member of weight 0 is never asked."""
    pool = {"members": ("mlp-w8", "convnet3-bn-w4"), "weights": (0.0, 1.0), "lr": 0.02, "augmented": augmented}
    config = configured(pool=pool)
    pools = [state["pool"] for state in run_stage(distil, config, tmp_path, pretrained)]
    with rng.seeded(config.seed, rng.INIT_POOL, 1, 0):
        network = registry.build("convnet3-bn-w4", SPEC.shape, CLASSES).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4)
    order = rng.Draws(config.seed, rng.POOL_BATCHES, 0).permutation(24)
    for step, chosen in enumerate(order.split(8)):
        images_u8, labels = DATASET.train.subset(chosen)
        images_std = standardized_by_channel(images_u8 / 255)
        if augmented:
            random = rng.Draws(config.seed, rng.POOL_AUGMENT, step)
            operations = parse_strategy(config.refine.augment, SPEC.flip)
            images_std = augment.apply(augment.draw(operations, 8, random, shared=False, pick="all"), images_std)
        optimizer.zero_grad()
        cross_entropy(network(images_std), labels).backward()
        optimizer.step()
        if step > 0:
            learned = pools[step - 1]["networks"]
            torch.testing.assert_close(learned, {1: network.state_dict()}, rtol=1e-3, atol=1e-5)


def test_a_balance_takes_the_weight_that_gives_the_wanted_ratio(pretrained: Path, tmp_path: Path) -> None:
    fixed, balanced = tmp_path / "fixed", tmp_path / "balanced"
    run_stage(distil, configured(refine={"weight": 2.0}), fixed, pretrained)
    run_stage(distil, configured(refine={"balance": 0.25, "weight": None}), balanced, pretrained)
    ratio = metrics(fixed)[0]["gradient/ratio"]
    assert metrics(balanced)[0]["gradient/ratio"] == pytest.approx(0.25)
    # So the first step is that of the fixed weight which has this ratio.
    same = run_stage(distil, configured(refine={"weight": 2.0 * 0.25 / ratio}), tmp_path / "same", pretrained)
    # By Adam's moments: of a gradient that is nothing but rounding it makes a whole step.
    one, two = (
        [moments["exp_avg"] for moments in state["opt_g"]["state"].values()] for state in (same[0], states(balanced)[0])
    )
    largest = max(moment.abs().max().item() for moment in one)
    torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4 * largest)


def test_a_balance_follows_the_mean_of_ratios_and_goes_on_from_its_state() -> None:
    whole, first, second = Balance(0.5), Balance(0.5), Balance(0.5)
    norms = [torch.tensor(pair) for pair in ((2.0, 1.0), (4.0, 3.0), (1e-9, 1.0))]
    weights = [whole.weight(pair) for pair in norms]
    means = [(2, 1), ((0.9 * 2 + 4) / 1.9, (0.9 + 3) / 1.9)]
    torch.testing.assert_close(torch.stack(weights[:2]), torch.tensor([0.5 * b / a for a, b in means]))
    assert weights[2] < 3 * weights[1]  # one small gradient does not let it jump
    first.weight(norms[0])
    second.load_state_dict(first.state_dict())
    assert [second.weight(pair) for pair in norms[1:]] == weights[1:]


def test_a_stage_1_without_checkpoints_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing holds no checkpoint, expected a finished run folder"):
        run_stage(distil, configured(), tmp_path / "refine", tmp_path / "nothing")


@pytest.mark.parametrize("loss", ["features", "gradient"])
def test_other_losses_on_snapshots_go_on_where_they_stopped(loss: str, pretrained: Path, tmp_path: Path) -> None:
    config = configured(refine={"loss": loss, "balance": 0.5, "weight": None, "steps": 4}, pool={**SNAPSHOTS})
    whole = run_stage(distil, config, tmp_path / "whole", pretrained)
    logged = metrics(tmp_path / "whole")
    assert all(line[f"loss/{loss}"] != 0 and line["gradient/ratio"] > 0 for line in logged)
    assert {name for name in logged[-1] if name.startswith("accuracy/")} == {
        f"accuracy/convnet3-bn-w4 after {age}" for age in SNAPSHOTS["ages"]
    }
    (tmp_path / "resumed").mkdir()
    for name in ("config.json", "metrics.jsonl", "checkpoint-00000002.pt"):
        shutil.copy(tmp_path / "whole" / name, tmp_path / "resumed" / name)
    resumed = run_stage(distil, config, tmp_path / "resumed", pretrained)
    for name in ("generator", "average", "opt_g", "discriminator", "pool", "balance"):
        states_of = [{**run[-1][name], "members": None} for run in (resumed, whole)]  # names, which are no tensors
        assert_same(*states_of)


def test_statistics_of_features_are_of_other_images_than_are_compared(
    pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    most, seen = len(DATASET.train.labels) // 2, []

    def spied(*settings: Any) -> GuidanceLoss:
        loss = make_loss(*settings)

        def match(network: Any, real_std: Tensor, fake_std: Tensor, labels: Tensor, others_std: Tensor) -> Tensor:
            seen.append(torch.cat([real_std, others_std]).flatten(1))
            return loss(network, real_std, fake_std, labels, others_std)

        return match

    monkeypatch.setattr("gdd.training.guidance.make_loss", spied)
    settings = {"loss": "features", "augment": "none", "steps": 4}  # two epochs
    config = configured(refine={**settings, "batch_size": most})
    check_others(config, DATASET)
    run_stage(distil, config, tmp_path / "refine", pretrained)
    assert [len(images.unique(dim=0)) for images in seen] == [2 * most] * 4
    with pytest.raises(ConfigError, match=rf"refine.batch_size is {most + 1}, expected at most half"):
        check_others(configured(refine={**settings, "batch_size": most + 1}), DATASET)


def test_lessons_have_their_share_of_the_time(pretrained: Path, tmp_path: Path) -> None:
    run_stage(distil, configured(pool={"steps_before": 0, "steps_between": 0}), tmp_path / "none", pretrained)
    assert {line["lessons/share"] for line in metrics(tmp_path / "none")} == {0}
    run_stage(distil, configured(), tmp_path / "some", pretrained)
    assert all(0 < line["lessons/share"] < 1 for line in metrics(tmp_path / "some"))


def test_without_a_loss_there_is_no_pool_and_the_adversarial_loss_goes_on_alone(
    pretrained: Path, tmp_path: Path
) -> None:
    control = {"loss": "none", "weight": None}
    alone = run_stage(distil, configured(refine=control), tmp_path / "alone", pretrained)
    assert generator_file.load(tmp_path / "alone").provenance["method"] == "gan"
    hardly = run_stage(distil, configured(refine={"weight": 1e-30}), tmp_path / "hardly", pretrained)
    for first, second in zip(alone, hardly, strict=True):
        assert second.keys() - first.keys() == {"pool"}
        assert_same(first["generator"], second["generator"])
        assert_same(first["discriminator"], second["discriminator"])
    told, more = (metrics(tmp_path / name)[-1].keys() for name in ("alone", "hardly"))
    assert more - told == {"loss/skd", "gradient/ratio", "lessons/share", "accuracy/convnet3-bn-w4"}

"""Stage 1: each step is that of the adversarial game's equations, and the averaged generator is kept."""

from pathlib import Path

import pytest
import torch
from steps import SPEC, StageReference, configured, initial_state, metrics, run_stage

from gdd.sampling import generator_file
from gdd.training.pretrain import pretrain


@pytest.mark.parametrize(
    "gan",
    [{"loss": "ns"}, {"loss": "hinge"}, {"loss": "wgan-gp"}, {"loss": "ns", "augment": "color_crop_cutout"}],
    ids=lambda gan: "-".join(gan.values()),
)
def test_every_step_is_the_one_of_the_equations(gan: dict[str, str], tmp_path: Path) -> None:
    config = configured(gan=gan)
    after = run_stage(pretrain, config, tmp_path)
    before = [initial_state(config), *after]
    reference = StageReference(config, "pretrain", config.pretrain.lr)
    logged = metrics(tmp_path)
    assert len(after) == len(logged) == 2
    for step in range(2):
        reference.check(step, before[step], after[step], logged[step])


def test_the_averaged_generator_is_kept(tmp_path: Path) -> None:
    last = run_stage(pretrain, configured(), tmp_path)[-1]
    loaded = generator_file.load(tmp_path)
    for name, value in loaded.generator.named_parameters():
        assert torch.equal(value, last["average"][f"module.{name}"])
    assert (loaded.spec, loaded.provenance["stage"], loaded.provenance["method"]) == (SPEC, "pretrain", "gan")

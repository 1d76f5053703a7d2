"""Stages and students, captured and replayed on a tape, are those of eager steps to the bit."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from steps import configured, run_stage, states
from tape import as_on_a_card
from torch import Tensor, nn
from toy import CLASSES, SPEC, network_of

from gdd.config import Config
from gdd.data.pixels import Normalizer
from gdd.evaluation import student
from gdd.evaluation.batches import Fixed, PathMasks, StackedBatches, StudentBatches
from gdd.evaluation.recipe import Recipe
from gdd.models import registry
from gdd.runtime.execution import EAGER, Execution
from gdd.training.classifier import Loss, cross_entropy
from gdd.training.distil import distil
from gdd.training.schedule import KeepRate
from gdd.training.together import Stacked, each_own

DEFAULT_LIFE = {"steps_before": 16, "steps_between": 1}  # which ages replace


def same(one: Any, other: Any) -> bool:
    """Tell whether two states are equal to the bit."""
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def stage_states(config: Config, folder: Path, *start: Path) -> tuple[dict[str, Any], int, int]:
    """Return the last state of a stage taken eagerly, which that of replays equals; tapes and replays."""
    found, config = [], replace(config, run=replace(config.run, save_every=1000))
    for captured in (False, True):
        with as_on_a_card(captured=captured) as tape:
            run_stage(distil, config, folder / str(captured), *start)
        found.append(states(folder / str(captured))[-1])
    for state in found:
        del state["clock"]
    assert same(*found)
    return found[0], tape.made, tape.replays


@pytest.mark.parametrize(
    "gan",
    [
        {"loss": "ns"},
        {"loss": "hinge", "augment": "color_crop_cutout_flip_scale_rotate"},
        {"loss": "wgan-gp"},
    ],
    ids=lambda gan: gan["loss"],
)
def test_pretraining(gan: dict[str, Any], tmp_path: Path) -> None:
    _, made, replays = stage_states(configured(gan=gan, pretrain={"steps": 12}), tmp_path)
    kinds = 1 if gan["loss"] == "wgan-gp" else 2  # with and without the penalty
    assert made == kinds
    assert replays == 12 - 2 * kinds


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Path:
    """A pretrained GAN."""
    folder = tmp_path_factory.mktemp("start")
    with as_on_a_card(captured=False):
        run_stage(distil, configured(), folder)
    return folder


@pytest.mark.parametrize(
    ("refine", "pool", "made"),
    [
        ({"loss": "skd"}, {}, 3),  # with and without the penalty; and the member's lesson
        ({"loss": "skd", "balance": 0.5, "weight": None}, {"redraw_every": 3}, 3),
        ({"loss": "log_mse", "augment": "flip_crop"}, {"augmented": True}, 3),
        ({"loss": "skd"}, {"ages": (2, 4), **DEFAULT_LIFE}, 5),  # for each age; and the lesson of its one life
        ({"loss": "skd", "discriminator": "frozen"}, {}, 2),
    ],
    ids=["living", "balanced, begun anew", "augmented", "ages", "frozen critic"],
)
def test_refinement(refine: dict[str, Any], pool: dict[str, Any], made: int, start: Path, tmp_path: Path) -> None:
    steps = 24 if "ages" in pool else 12
    _, tapes, replays = stage_states(configured(refine={"steps": steps, **refine}, pool=pool), tmp_path, start)
    assert tapes == made
    assert replays > 0


def trained(
    recipe: Recipe, arch: str, count: int, losses: Callable[[], Sequence[Loss]], execution: Execution, captured: bool
) -> list[nn.Module]:
    """Return students of two sets each after their training."""
    draw = torch.Generator().manual_seed(0)
    normalize = Normalizer(SPEC.mean, SPEC.std)
    networks, batches = [], []
    for seed in range(count):
        images = torch.randint(256, (20, *SPEC.shape), generator=draw, dtype=torch.uint8)
        data = Fixed(images, torch.arange(20) % CLASSES, normalize)
        batches.append(StudentBatches(data, recipe, seed, "student"))
        networks.append(execution.place(registry.build(arch, SPEC.shape, CLASSES, recipe.drop_path != "off")))
        networks[-1].load_state_dict(network_of(arch, seed).state_dict(), strict=False)
    masks = None
    if recipe.drop_path != "off":
        masks = PathMasks(KeepRate(), networks[0].paths, batches[0].total, range(count), torch.device("cpu"))
    with as_on_a_card(captured=captured) as tape:
        if count == 1:
            student.train(networks[0], batches[0], losses()[0], execution, masks)
        else:
            stacked = Stacked(networks)
            student.train(stacked, StackedBatches(batches), each_own(losses()), execution, masks)
            stacked.give_back()
    assert (tape.replays > 0) is captured
    return networks


def plain(count: int) -> list[Loss]:
    return [cross_entropy] * count


def weighted(logits: Tensor, labels: Tensor, images_std: Tensor, weight: float) -> Tensor:
    return weight * cross_entropy(logits, labels, images_std) + 0.1 * images_std.mean()


def own(count: int) -> list[Loss]:
    return [partial(weighted, weight=1.0 + seed) for seed in range(count)]


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    ("recipe", "arch", "losses"),
    [
        ({"schedule": "cosine"}, "convnet3-w4", plain),
        ({"batch_size": 8, "augment": "flip_crop_color", "pick": "all"}, "convnet3-bn-w4", own),
        ({"augment": "flip_crop_color", "pick": "two", "optimizer": "adamw"}, "convnet3-w4", plain),
        ({"drop_path": "phases", "average": 0.8}, "resnet10-bn-w4", plain),
    ],
    ids=["plain", "in batches, augmented", "two operations, adamw", "DropPath, average"],
)
def test_students(recipe: dict[str, Any], arch: str, losses: Callable[[int], list[Loss]], count: int) -> None:
    how = Recipe(**{"name": "test", "lr": 0.01, "batch_size": 20, "steps": 18, **recipe})
    eager, replayed = (trained(how, arch, count, partial(losses, count), EAGER, captured) for captured in (False, True))
    for one, other in zip(eager, replayed, strict=True):
        assert same(one.state_dict(), other.state_dict())

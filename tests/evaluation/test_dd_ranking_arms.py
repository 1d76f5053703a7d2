"""Which students DD-Ranking's scores need: none that the comparison has, and on hard labels alone."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gdd.config import EvaluateConfig, RecipeConfig
from gdd.data.readers import Dataset
from gdd.data.spec import OPERATIONS
from gdd.evaluation import dd_ranking, grid, sources
from gdd.evaluation.recipe import Conditions, Job, resolve_recipe
from gdd.evaluation.sources import Source
from gdd.sampling import set_file
from gdd.sampling.set_file import SyntheticSet


@pytest.fixture
def soft(dataset: Dataset, tmp_path: Path) -> Source:
    """A stored set of soft labels, two images per class."""
    images = torch.zeros(20, *dataset.spec.shape, dtype=torch.uint8)
    labels = torch.arange(10).repeat_interleave(2)
    stored = SyntheticSet(images, labels, dataset.spec, 2, {"seed": 0}, soft_labels=torch.zeros(20, 10))
    set_file.save(tmp_path / "soft.safetensors", stored)
    return sources.read(str(tmp_path / "soft.safetensors"))


def jobs_of(dataset: Dataset, *named: Source) -> list[Job]:
    completed, floor_ipcs = sources.complete(named, (2,), dataset, ceiling=False)
    return grid.enumerate_jobs(completed, (2,), floor_ipcs, ("fixed", "stream"), ["mlp-w4"], [0, 1])


def test_soft_labels_teacher_and_augmentation_are_left_out(dataset: Dataset, soft: Source, generator: Path) -> None:
    jobs = jobs_of(dataset, soft, sources.read(str(generator), "generator"), sources.read("real:fraction=0.1"))
    settings = EvaluateConfig(teacher="set", select_alpha=(0.1, 0.9), recipe=RecipeConfig(name="dsa"))
    other, hard = dd_ranking.arms(settings, jobs, flip=False)
    kinds = ["real:random", "set", "generator"]
    assert [job.source.kind for job in other.jobs] == [kind for kind in kinds for _ in range(2)]
    assert other.settings == replace(settings, recipe=RecipeConfig(name="dsa", augment="none"))
    assert [job.source.kind for job in hard.jobs] == [kind for kind in [*kinds, "real:all"] for _ in range(2)]
    assert {job.protocol for job in [*other.jobs, *hard.jobs]} == {"fixed"}
    assert hard.jobs[-1].source.hash == dataset.fingerprint
    bare, again = (job.source for job in hard.jobs if job.source.kind == "set")
    assert bare is again  # one source, so that its images are kept for all of its students
    assert bare.synthetic is not None
    assert bare.synthetic.soft_labels is None
    assert bare.hash == bare.synthetic.hash != soft.hash
    conditions = Conditions.of(hard.settings, dataset.spec)
    assert (conditions.teacher, conditions.recipe.augment, conditions.selects) == ("none", "none", False)


@pytest.mark.parametrize(
    ("own", "other"), [(None, "_".join(OPERATIONS)), ("none", "_".join(OPERATIONS)), ("crop", "none")]
)
def test_the_other_arm_has_augmentation_if_the_recipe_has_none(dataset: Dataset, own: str | None, other: str) -> None:
    settings = EvaluateConfig(recipe=RecipeConfig(augment=own))
    found, _ = dd_ranking.arms(settings, jobs_of(dataset), flip=False)
    assert found.settings.recipe.augment == other
    # Of digits, whose mirror images are other ones.
    assert "flip" not in resolve_recipe(found.settings.recipe, flip=False).augment


def test_students_that_the_comparison_has_are_not_counted_again(dataset: Dataset, soft: Source) -> None:
    """Two of the floor and two of the set; a set without soft labels and teacher has its hard students already."""
    all_images = len(dataset.train.labels)
    assert soft.synthetic is not None
    plain = replace(soft.synthetic, soft_labels=None)
    hard = replace(soft, synthetic=plain, hash=plain.hash)
    for source, recipe, teacher, expected in (
        (hard, "dc", "none", 4 + 2),  # augmented; all real images
        (hard, "dsa", "none", 4 + 2),  # plain, which are also those on hard labels; all real images
        (soft, "dc", "none", 4 + 2 + 2),  # augmented; the set with hard labels; all real images
        (hard, "dc", "set", 4 + 4 + 2),  # augmented; without teacher; all real images
    ):
        settings = EvaluateConfig(teacher=teacher, recipe=RecipeConfig(name=recipe))  # type: ignore[arg-type]
        jobs = jobs_of(dataset, source)
        assert len(dd_ranking.extra_students(settings, jobs, dataset.spec, all_images)) == expected

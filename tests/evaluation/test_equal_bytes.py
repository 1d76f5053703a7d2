"""Budgets: what they say, how many images fit, and which students a comparison of equal bytes has."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from generators import PETS, save_generator, save_teacher

from gdd.config import ConfigError, EvaluateConfig, RecipeConfig
from gdd.data.readers import Dataset
from gdd.evaluation import dd_ranking, sources
from gdd.evaluation.budget import Budget, parse_budget
from gdd.evaluation.equal_bytes import (
    class_bytes,
    in_words,
    ipc_within,
    jobs_within,
    most_bytes,
    remarks,
    settings_within,
)
from gdd.evaluation.recipe import Conditions, Job
from gdd.evaluation.sources import Source
from gdd.sampling import set_file
from gdd.sampling.set_file import SyntheticSet

ONE = EvaluateConfig(archs=("mlp-w4",), seeds=(0, 1))


def stored(dataset: Dataset, folder: Path, ipc: int, kind: torch.dtype = torch.uint8, soft: bool = False) -> Source:
    count = 10 * ipc
    images, answers = torch.zeros(count, *dataset.spec.shape, dtype=kind), torch.zeros(count, 10) if soft else None
    labels = torch.arange(10).repeat_interleave(ipc)
    set_file.save(folder / "set.safetensors", SyntheticSet(images, labels, dataset.spec, ipc, {}, soft_labels=answers))
    return sources.read(str(folder / "set.safetensors"), "set")


def names(jobs: list[Job]) -> list[str]:
    return list(dict.fromkeys(f"{job.source.label}, {job.ipc}, {job.protocol}" for job in jobs))


def test_a_budget_is_bytes_or_the_bytes_of_so_many_images() -> None:
    # Of pets, 3 x 16 x 24 pixels, an image and its label take 1,153 bytes, one of each of three classes 3,459.
    assert class_bytes(PETS) == 3459
    assert class_bytes(PETS, soft_labels=True) == 3459 + 3 * 3 * 2
    for text, most, ipc in (
        ("3459", 3459, 1),
        ("25KiB", 25600, 7),
        ("1MiB", 2**20, 303),
        ("10ipc", 34590, 10),
        ("010ipc", 34590, 10),
    ):
        budget = parse_budget(text)
        assert (most_bytes(budget, PETS), ipc_within(budget, PETS)) == (most, ipc)
        assert in_words(budget, PETS) == f"{text} ({most:,} bytes)"
    assert ipc_within(parse_budget("10ipc"), PETS, soft_labels=True) == 9
    assert ipc_within(parse_budget("1ipc"), PETS, soft_labels=True) == 0


@pytest.mark.parametrize(
    "text", ["ten", "0", "0ipc", "3ipc5", "", "-1", "1.5KiB", "10 ipc", "1kb", "KiB", "+5", "1e3", "٣", "9" * 16]
)
def test_what_is_no_budget_is_named(text: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_budget(text)
    assert str(error.value).startswith(f"--budget is {text}, expected a whole number above 0 of bytes, KiB, MiB or ")


def test_a_budget_below_one_image_per_class_says_what_that_takes() -> None:
    with pytest.raises(ConfigError, match=r"--budget is 1KiB, expected at least 3,459 bytes: one image of each class"):
        ipc_within(parse_budget("1KiB"), PETS)


@pytest.fixture
def budget(dataset: Dataset, tmp_path: Path) -> Budget:
    """The bytes of ten images per class, 25,700, and a teacher."""
    return replace(parse_budget("10ipc"), teacher=save_teacher(tmp_path / "teacher", dataset.spec))


def test_hard_and_soft_labels_fill_the_budget_with_what_is_named_and_real_images(
    budget: Budget, dataset: Dataset, generator: Path, tmp_path: Path
) -> None:
    named = [stored(dataset, tmp_path, 10), sources.read(str(generator), "G")]
    jobs = jobs_within(budget, replace(ONE, protocols=("fixed",)), dataset, named)
    assert names(jobs) == [
        "random real, 10, fixed",
        "random real, soft labels, 9, fixed",
        "herded real, 10, fixed",
        "crops of real, 10, fixed",
        "samples of G, herding, 10, fixed",
        "herded real, soft labels, 9, fixed",
        "crops of real, soft labels, 9, fixed",
        "samples of G, herding, soft labels, 9, fixed",
        "set, 10, fixed",
    ]
    assert len(jobs) == 2 * 9
    assert len({(job.source.kind, job.source.hash) for job in jobs}) == 9


def test_a_teacher_that_is_to_be_trained_is_stood_in_for(budget: Budget, dataset: Dataset, generator: Path) -> None:
    named = [sources.read(str(generator), "G")]
    before, after = (jobs_within(one, ONE, dataset, named) for one in (replace(budget, teacher=None), budget))
    assert names(before) == names(after)


def test_replicates_share_a_name(budget: Budget, dataset: Dataset, tmp_path: Path) -> None:
    folders = [save_generator(tmp_path / f"s{seed}", dataset.spec, seed=seed).parent for seed in (0, 1)]
    named = [sources.read(str(folder), "G") for folder in folders]
    for seed, source in enumerate(named):
        source.provenance["seed"] = seed
    jobs = jobs_within(budget, replace(ONE, protocols=("fixed",)), dataset, named)
    found = {(job.source.distillation_seed, job.source.hash) for job in jobs if job.source.kind == "generator"}
    assert len(found) == 4
    assert {seed for seed, _ in found} == {0, 1}
    told = remarks(replace(budget, ipc=1), dataset.spec, named)
    assert len([line for line in told if "is not streamed" in line]) == 1


def test_a_generator_is_streamed_if_its_file_fits(budget: Budget, dataset: Dataset, tmp_path: Path) -> None:
    source = sources.read(str(save_generator(tmp_path / "generator", dataset.spec)), "G")
    assert source.generator is not None
    size = source.generator.bytes
    for most, is_streamed in ((size, True), (size - 1, False)):
        allowed = replace(budget, bytes=most)
        jobs = jobs_within(allowed, ONE, dataset, [source])
        found = [job for job in jobs if job.protocol == "stream"]
        assert [(job.source.label, job.ipc) for job in found] == 2 * is_streamed * [("G", most // 2570)]
        assert (
            any(
                f"G is not streamed, for its file takes {size:,}" in line
                for line in remarks(allowed, dataset.spec, [source])
            )
            is not is_streamed
        )
        assert not any(job.source.kind == "real:stream" for job in jobs)
    assert not any(
        job.protocol == "stream"
        for job in jobs_within(replace(budget, bytes=size), replace(ONE, protocols=("fixed",)), dataset, [source])
    )


def test_a_set_is_counted_as_it_is_stored(budget: Budget, dataset: Dataset, tmp_path: Path) -> None:
    """Ten images per class of 8 bits fit, and two of 32 bits; with float32 logits fewer do."""
    for ipc, kind, soft, size in (
        (11, torch.uint8, False, 28270),
        (3, torch.float32, False, 30750),
        (9, torch.uint8, True, 26730),
    ):
        source = stored(dataset, tmp_path, ipc, kind, soft)
        with pytest.raises(ConfigError, match=rf"set.safetensors takes {size:,} bytes, expected at most 25,700, which"):
            jobs_within(budget, ONE, dataset, [source])
    for ipc, kind, soft, is_full in (
        (10, torch.uint8, False, True),
        (9, torch.uint8, False, False),
        (2, torch.float32, False, True),
        (1, torch.float32, False, False),
        (8, torch.uint8, True, True),
    ):
        source = stored(dataset, tmp_path, ipc, kind, soft)
        assert "set, " + str(ipc) + ", fixed" in names(jobs_within(budget, ONE, dataset, [source]))
        assert any("leaves room" in line for line in remarks(budget, dataset.spec, [source])) is not is_full


def test_soft_labels_without_room_are_left_out_and_told(budget: Budget, dataset: Dataset) -> None:
    one = replace(budget, ipc=1)
    assert names(jobs_within(one, ONE, dataset, [])) == [
        f"{name}, 1, fixed" for name in ("random real", "herded real", "crops of real")
    ]
    assert "Soft labels are left out: one image of each class with them takes 2,770 bytes." in remarks(
        one, dataset.spec, []
    )


def test_a_class_that_is_too_small_is_named(budget: Budget, dataset: Dataset) -> None:
    with pytest.raises(ConfigError, match="200 images per class are asked for, but class"):
        jobs_within(replace(budget, ipc=200), ONE, dataset, [])


def test_all_students_take_the_steps_of_random_images_and_imitate_nobody(budget: Budget, dataset: Dataset) -> None:
    """100 images in batches of 32 are four steps an epoch, 90 images three."""
    settings = replace(ONE, teacher=str(budget.teacher), recipe=RecipeConfig(epochs=5, batch_size=32))
    within = settings_within(budget, settings, dataset.spec)
    assert (within.teacher, within.recipe.epochs, within.recipe.steps) == ("none", None, 20)
    recipe = Conditions.of(within, dataset.spec).recipe
    assert {recipe.total_steps(job.images(dataset.spec, 0)) for job in jobs_within(budget, within, dataset, [])} == {20}
    counted = replace(ONE, recipe=RecipeConfig(name="long", steps=7))
    assert settings_within(budget, counted, dataset.spec).recipe.steps == 7


def test_scores_of_dd_ranking_drop_soft_labels_that_are_drawn(budget: Budget, dataset: Dataset) -> None:
    jobs = jobs_within(budget, ONE, dataset, [])
    other, hard = dd_ranking.arms(settings_within(budget, ONE, dataset.spec), jobs, flip=False)
    assert [job.source.label for job in other.jobs] == [job.source.label for job in jobs]
    assert not any(job.source.soft_labels for job in hard.jobs)
    assert hard.jobs[-1].source.hash == dataset.fingerprint
    assert len({(job.source.kind, job.source.hash) for job in hard.jobs}) == 7  # three, without soft labels three, all

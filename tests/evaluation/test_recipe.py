"""Recipes as published, what settings change of them, and which settings tell rows apart."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from scoring import Evaluate

from gdd import rng
from gdd.config import ConfigError, EvaluateConfig, RecipeConfig
from gdd.config.evaluate import DROPPING
from gdd.data.pixels import Normalizer
from gdd.data.readers import Dataset
from gdd.data.spec import DatasetSpec
from gdd.evaluation.recipe import NAMED, Conditions, Job, Recipe, resolve_recipe
from gdd.evaluation.row import Row
from gdd.evaluation.sources import CEILING, Source
from gdd.models import registry
from gdd.runtime.execution import Execution
from gdd.sampling import generator_file, sample, set_file
from gdd.training.schedule import KeepRate

SPEC = DatasetSpec("toy", 3, 32, 32, tuple("abcdefghij"), (0.5,) * 3, (0.5,) * 3, True)


def named(name: str, flip: bool = True, **changes: Any) -> Recipe:
    return resolve_recipe(RecipeConfig(name=name, **changes), flip)  # type: ignore[arg-type]


RATES = ("period", "decrement", "minimum", "final")


def test_dc_divides_the_rate_by_ten_at_half() -> None:
    plain = named("dc")
    assert (plain.epochs, plain.batch_size, plain.augment, plain.weight_decay) == (300, 256, "none", 5e-4)
    assert plain.lr_at(149, 300) == 0.01
    assert plain.lr_at(150, 300) == pytest.approx(0.001)


def test_dsa_trains_longer_and_mirrors_only_where_allowed() -> None:
    mirrored, straight = named("dsa", flip=True), named("dsa", flip=False)
    assert (mirrored.epochs, mirrored.batch_size, mirrored.pick, mirrored.schedule) == (1000, 256, "one", "step")
    assert mirrored.augment == "color_crop_cutout_flip_scale_rotate"
    assert straight.augment == "color_crop_cutout_scale_rotate"


def test_dim_keeps_its_rate_and_takes_dims_steps() -> None:
    dim = named("dim")
    assert (dim.epochs, dim.batch_size, dim.augment, dim.pick) == (1000, 64, "color_crop", "all")
    assert {dim.lr_at(step, 1000) for step in range(1000)} == {0.01}
    for ipc in (1, 10, 50):
        assert dim.total_steps(10 * ipc) == 1000 * (10 * ipc // 64 + 1)


def test_long_takes_10_000_steps_of_10_images_and_ends_at_no_rate() -> None:
    long = named("long")
    assert (long.total_steps(100), long.batch_size, long.epochs_begun(100)) == (10_000, 10, 1_000)
    assert long.total_steps(500) == 10_000
    assert long.lr_at(5_000, 10_000) == pytest.approx(0.005)
    assert long.lr_at(9_999, 10_000) < 1e-8


def test_converged_trains_on_crops_until_the_rate_is_0() -> None:
    converged = named("converged", flip=False)
    assert (converged.total_steps(100), converged.batch_size) == (10_000, 100) == (converged.total_steps(5000), 100)
    assert (converged.lr_at(0, 10_000), converged.lr_at(5_000, 10_000)) == (0.1, pytest.approx(0.05))
    assert (converged.augment, converged.pick, converged.optimizer) == ("crop", "all", "sgd")
    assert named("converged").augment == "flip_crop"


def test_the_named_recipes_that_drop_paths_are_those_whose_rates_may_be_set() -> None:
    assert {name for name, recipe in NAMED.items() if recipe.drop_path != "off"} == {*DROPPING}


def test_robust_has_every_part_of_its_paper_and_each_can_be_switched_off_alone() -> None:
    robust = named("robust")
    assert (robust.lr, robust.batch_size, robust.epochs, robust.weight_decay) == (5e-5, 100, 4000, 5e-3)
    parts = {"optimizer": "lion", "schedule": "cyclic", "pick": "two", "drop_path": "phases"}
    assert {part: getattr(robust, part) for part in parts} == parts
    assert named("robust", keep_final=1.0).keep_rate("resnet18") == KeepRate(final=1.0)
    for part, value in {"optimizer": "sgd", "schedule": "cosine", "pick": "one", "drop_path": "off"}.items():
        assert named("robust", **{part: value}) == dataclasses.replace(
            robust, name=f"robust, {part} {value}", **{part: value}
        )


def test_the_baseline_of_robusts_paper_is_dsa_with_another_optimiser() -> None:
    """Their train.py without its parts: AdamW, one operation for each batch, a tenth of the rate from half on."""
    baseline = named("dsa", optimizer="adamw", lr=5e-4, batch_size=100)
    assert baseline.name == "dsa, batch_size 100, lr 0.0005, optimizer adamw"
    assert (baseline.epochs, baseline.batch_size, baseline.weight_decay) == (1000, 100, 5e-4)
    assert (baseline.augment, baseline.pick, baseline.drop_path) == (
        "color_crop_cutout_flip_scale_rotate",
        "one",
        "off",
    )
    assert [baseline.lr_at(step, 1000) for step in (0, 499, 500, 999)] == pytest.approx([5e-4, 5e-4, 5e-5, 5e-5])


def test_a_student_is_trained_by_the_optimiser_of_its_recipe(evaluate: Evaluate) -> None:
    recipes = {name: named("dc", optimizer=name, lr=1e-3, steps=5) for name in ("sgd", "adamw")}
    rows = {name: evaluate(recipe=recipe, folder=name)[0] for name, recipe in recipes.items()}
    assert rows["adamw"].recipe == "dc, steps 5, lr 0.001, optimizer adamw"
    assert rows["sgd"].train_loss != rows["adamw"].train_loss


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"name": "dc"}, "dc"),
        ({"name": "dc", "lr": 0.01, "epochs": 300, "augment": "none"}, "dc"),
        ({"name": "dc", "lr": 0.02, "steps": 500}, "dc, steps 500, lr 0.02"),
        ({"name": "long", "epochs": 3, "average": 0.99}, "long, epochs 3, average 0.99"),
        ({"name": "dim", "pick": "one", "augment": "flip_crop"}, "dim, augment flip_crop, pick one"),
        (
            {"name": "dsa", "schedule": "cosine", "weight_decay": 0.0, "batch_size": 9},
            "dsa, batch_size 9, schedule cosine, weight_decay 0.0",
        ),
    ],
)
def test_a_recipe_is_the_named_one_with_what_is_changed_which_its_name_tells(
    changes: dict[str, Any], name: str
) -> None:
    recipe = named(**changes)
    assert recipe.name == name
    assert {key: getattr(recipe, key) for key in changes if key != "name"} == {
        key: value for key, value in changes.items() if key != "name"
    }
    untouched = {field.name for field in dataclasses.fields(Recipe)} - {*changes, "name", "epochs", "steps"}
    original = named(changes["name"])
    assert all(getattr(recipe, key) == getattr(original, key) for key in untouched)
    assert (recipe.epochs is None) != (recipe.steps is None)


def test_every_change_of_a_recipe_tells_rows_apart() -> None:
    changes = [
        {},
        *({"name": name} for name in ("dsa", "dim", "long", "converged", "robust")),
        *({"epochs": 301}, {"steps": 300}, {"batch_size": 255}, {"lr": 0.02}, {"schedule": "cosine"}),
        *({"weight_decay": 0.0}, {"augment": "crop"}, {"pick": "all"}, {"average": 0.9}),
        *({"optimizer": "lion"}, {"optimizer": "adamw"}, {"label_temperature": 0.3}),
        *({"drop_path": "phases", **rate} for rate in ({}, *({f"keep_{name}": 0.2} for name in RATES))),
    ]
    assert {name for change in changes for name in change} == {*RecipeConfig.__dataclass_fields__}
    recipes = [RecipeConfig(**change) for change in changes]  # type: ignore[arg-type]
    hashes = {Conditions.of(EvaluateConfig(recipe=recipe), SPEC).hash for recipe in recipes}
    assert len(hashes) == len(changes)


def test_paths_are_kept_at_the_papers_rates_or_those_that_are_given() -> None:
    assert named("dc").keep_rate("resnet18-bn-w8") is None
    phases = named("dc", drop_path="phases")
    assert phases.keep_rate("resnet18-bn-w8") == KeepRate()
    assert phases.keep_rate("resnet50-w4") == KeepRate(decrement=0.13, minimum=0.35)
    given = named("dc", drop_path="phases", keep_minimum=0.2, keep_final=1.0)
    assert given.keep_rate("resnet50") == KeepRate(decrement=0.13, minimum=0.2, final=1.0)


def test_rows_tell_the_rates_at_which_paths_were_kept(evaluate: Evaluate) -> None:
    archs = {"archs": ("resnet10-bn-w4", "alexnet-w4", "mlp-w16"), "all_epochs": None}
    plain = Recipe("test", 0.01, batch_size=4, steps=16)
    dropped = dataclasses.replace(plain, drop_path="phases")
    level = dataclasses.replace(dropped, keep_minimum=1.0, keep_final=1.0)
    rows = {
        name: {row.arch.partition("-")[0]: row for row in evaluate(recipe=recipe, folder=name, **archs) if row.ipc}
        for name, recipe in {"plain": plain, "dropped": dropped, "level": level}.items()
    }
    fallen = pytest.approx((1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.8))
    for arch in ("resnet10", "alexnet"):
        assert rows["dropped"][arch].keep_rates == fallen
        assert rows["dropped"][arch].train_loss != rows["plain"][arch].train_loss
        assert rows["level"][arch].keep_rates == (1.0,)
        assert rows["plain"][arch].keep_rates is None
        assert rows["level"][arch].train_loss == rows["plain"][arch].train_loss
        assert rows["level"][arch].correct == rows["plain"][arch].correct
    assert {rows[name]["mlp"].keep_rates for name in rows} == {None}
    assert len({rows[name]["mlp"].train_loss for name in rows}) == 1
    assert evaluate(recipe=dropped, folder="dropped", **archs)[0] == rows["dropped"]["resnet10"]


def test_fused_optimisers_take_the_same_steps_of_virtual_shortcuts(evaluate: Evaluate, monkeypatch) -> None:
    recipe = Recipe("test", 0.01, batch_size=4, steps=16, drop_path="phases")
    plain = evaluate(recipe=recipe, folder="plain", archs=("alexnet-w4",))[0]
    monkeypatch.setattr(Execution, "fused", True)
    fused = evaluate(recipe=recipe, folder="fused", archs=("alexnet-w4",))[0]
    assert fused.keep_rates == plain.keep_rates
    assert fused.train_loss == pytest.approx(plain.train_loss, rel=1e-4)


def test_a_robust_student_learns_from_a_teacher_and_soft_labels(evaluate: Evaluate, generator: Path, tmp_path: Path):
    drawn = sample.sample_set(generator_file.load(generator), 2, 0)
    soft = torch.randn(len(drawn.labels), 10, generator=torch.Generator().manual_seed(0)).half()
    set_file.save(tmp_path / "set.safetensors", dataclasses.replace(drawn, soft_labels=soft))

    def rows(recipe: Recipe) -> list[Row]:
        taught = {"teacher": "set", "teacher_arch": "convnet3-w4", "alpha": 0.5, "temperature": 1.5}
        folder = recipe.name.replace(" ", "-")
        return evaluate(str(tmp_path / "set.safetensors"), archs=("vgg11-w4",), recipe=recipe, folder=folder, **taught)

    robust = named("robust", epochs=16, flip=False)
    (student,) = (row for row in rows(robust) if row.kind == "set")
    assert student.recipe == "robust, epochs 16"
    assert student.keep_rates == pytest.approx((1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.8))
    assert student.failure is None


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_a_label_temperature_divides_the_logits_of_soft_labels(
    temperature: float, evaluate: Evaluate, dataset: Dataset, generator: Path, tmp_path: Path
) -> None:
    drawn = sample.sample_set(generator_file.load(generator), 2, 0)
    soft = torch.randn(len(drawn.labels), 10, generator=torch.Generator().manual_seed(0)).half()
    set_file.save(tmp_path / "set.safetensors", dataclasses.replace(drawn, soft_labels=soft))
    recipe = Recipe("test", 0.01, batch_size=256, steps=1, label_temperature=temperature)
    (row,) = (row for row in evaluate(str(tmp_path / "set.safetensors"), recipe=recipe) if row.kind == "set")
    with rng.seeded(0, f"{rng.INIT}-{rng.STUDENT}"):
        first = registry.build("mlp-w16", dataset.spec.shape, 10)
    normalize = Normalizer(dataset.spec.mean, dataset.spec.std, torch.device("cpu"))
    answers = first(normalize.from_u8(drawn.images)).log_softmax(1)
    labels = (soft.float() / temperature).softmax(1)
    assert row.train_loss == pytest.approx(-(labels * answers).sum(1).mean().item(), rel=1e-5)


@pytest.mark.parametrize("values", [(0, None, 1), (1, None, 0), (None, 0, 1), (None, None, 1), (1, 1, 1)])
def test_untrained_student_is_refused(values: tuple[int | None, int | None, int]) -> None:
    epochs, steps, batch_size = values
    with pytest.raises(ConfigError, match="untrained"):
        Recipe("test", 0.1, epochs=epochs, steps=steps, batch_size=batch_size)


@pytest.mark.parametrize("steps", [1, 3, 4, 5, 8, 23])
def test_steps_count_batches_of_epochs_begun(steps: int) -> None:
    """Of 10 images in batches of 3 an epoch is 3, 3, 3, 1."""
    recipe = Recipe("test", 0.1, batch_size=3, steps=steps)
    sizes = ([3, 3, 3, 1] * 6)[:steps]
    assert recipe.total_steps(10) == steps
    assert recipe.images_seen(10) == sum(sizes)
    assert recipe.epochs_begun(10) == -(-steps // 4)


def test_all_real_images_have_epochs_of_their_own_even_where_steps_count() -> None:
    own, recipes = (
        Conditions.of(EvaluateConfig(recipe=RecipeConfig(name="long"), all_epochs=epochs), SPEC)
        for epochs in (20, None)
    )
    assert own.recipe_for(CEILING).total_steps(1000) == 20 * 100
    assert recipes.recipe_for(CEILING) == recipes.recipe == own.recipe
    assert own.hash == recipes.hash
    job = Job(Source("all", CEILING, "h"), None, "fixed", "mlp", 0)
    assert job.images(SPEC, 1000) == 1000
    assert job.key(own, 1000) != job.key(recipes, 1000)


def test_rows_of_a_recipe_of_steps_are_found_again(evaluate: Evaluate) -> None:
    recipe = Recipe("test", 0.01, batch_size=4, steps=7)  # of 10 images an epoch is 4, 4, 2
    rows = evaluate(recipe=recipe, all_epochs=1)
    floor, ceiling = rows
    assert (floor.epochs, floor.optimizer_steps, floor.distinct_images_seen) == (3, 7, 10)
    assert (ceiling.epochs, ceiling.optimizer_steps) == (1, -(-ceiling.images // 4))
    assert evaluate(recipe=recipe, all_epochs=1) == rows


TEACHING = [
    {"teacher_arch": "mlp"},
    {"kd_recipe": "released"},
    {"alpha": 0.25},
    {"temperature": 3.0},
    {"select_alpha": (0.5,)},
    {"select_alpha": (0.25, 0.5)},
    {"select_temperature": (1.5, 3.0)},
    {"select_temperature": (3.0, 1.5)},
]


def hash_of(dataset: Dataset, **settings: object) -> str:
    return Conditions.of(EvaluateConfig(**settings), dataset.spec).hash  # type: ignore[arg-type]


def test_a_teachers_settings_count_only_with_a_teacher(dataset: Dataset) -> None:
    for teacher in ("set", "real"):
        hashes = [hash_of(dataset, teacher=teacher, **settings) for settings in ({}, *TEACHING)]
        assert len(set(hashes)) == len(hashes)
    alone = [settings for settings in TEACHING if not any(name.startswith("select") for name in settings)]
    assert {hash_of(dataset, **settings) for settings in alone} == {hash_of(dataset)}


def test_what_selection_replaces_does_not_count(dataset: Dataset) -> None:
    chosen = {"teacher": "set", "select_temperature": (1.0, 4.0)}
    assert hash_of(dataset, temperature=9.0, **chosen) == hash_of(dataset, **chosen)
    assert hash_of(dataset, alpha=0.9, **chosen) != hash_of(dataset, **chosen)


@pytest.mark.parametrize(("teacher", "counts"), [("none", False), ("set", False), ("real", True)])
def test_epochs_on_all_real_images_count_for_students_of_a_real_teacher(
    dataset: Dataset, teacher: str, counts: bool
) -> None:
    one, other = (hash_of(dataset, teacher=teacher, all_epochs=epochs) for epochs in (20, 30))
    assert (one != other) == counts

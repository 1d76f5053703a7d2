"""A teacher that was trained before: an ensemble's file, or what lies beside a generator."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from generators import PETS, save_teacher
from scoring import SHORT, Evaluate

from gdd import rng, zoo
from gdd.config import ConfigError, EvaluateConfig, RunConfig
from gdd.data.pixels import Normalizer
from gdd.data.readers import Dataset
from gdd.evaluation import sources
from gdd.evaluation.batches import Fixed, StudentBatches
from gdd.evaluation.images import StudentImages
from gdd.evaluation.named import teacher_beside, teacher_path
from gdd.evaluation.recipe import Conditions, Job
from gdd.losses.logits import distillation
from gdd.models import registry
from gdd.sampling import ensemble_file
from gdd.training.optimizers import sgd

PAIR = ("mlp-w8", "convnet3-w4")


def test_a_student_learns_from_the_mean_of_the_members_logits(
    evaluate: Evaluate, dataset: Dataset, generator: Path, tmp_path: Path
) -> None:
    """By hand: equation 1 on the images of its batches, by SGD as the recipe has it."""
    teacher = save_teacher(tmp_path / "teacher", dataset.spec, PAIR)
    row = evaluate(str(generator), teacher=str(teacher), alpha=0.9, temperature=4.0, protocols=("fixed",))[1]

    members = ensemble_file.load(teacher).members
    source = sources.read(str(generator))
    images = StudentImages(None, dataset.spec, torch.device("cpu"), 1.0, 1)  # type: ignore[arg-type]
    job = Job(source, 1, "fixed", "mlp-w16", 0)
    with rng.seeded(0, f"{rng.INIT}-{rng.STUDENT}"):
        student = registry.build("mlp-w16", dataset.spec.shape, 10)
    batches, optimizer = StudentBatches(images.of(job).images, SHORT, 0, rng.STUDENT), sgd(student, SHORT.lr, None)
    for step in range(3):
        images_std, labels = batches(step)
        optimizer.param_groups[0]["lr"] = SHORT.lr_at(step, 3)
        answered = (members[0](images_std) + members[1](images_std)) / 2
        loss = distillation(student(images_std), answered, labels, 0.9, 4.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert row.train_loss == pytest.approx(loss.item(), rel=1e-4)


def test_its_bytes_seconds_accuracy_and_name_are_told(
    evaluate: Evaluate, dataset: Dataset, generator: Path, tmp_path: Path
) -> None:
    teacher = save_teacher(generator, dataset.spec)
    taught = evaluate(str(generator), teacher=str(generator), protocols=("stream",))
    plain = evaluate(str(generator), folder="plain", protocols=("stream",))
    size = teacher.stat().st_size
    # Beside the generator, and beside random and all real images.
    assert [row.bytes for row in taught] == [row.bytes + size for row in plain]
    assert {row.seconds_teacher for row in taught} == {2.0}
    assert {row.label_kind for row in taught} == {
        "hard + kept teacher mlp-w8 on all real images (equation, alpha 0.5, temperature 1.5)"
    }
    test = dataset.test()
    right = ensemble_file.load(teacher).logits(test.images_u8).argmax(1) == test.labels
    assert [row.teacher_accuracy for row in taught] == 3 * [pytest.approx(100 * right.double().mean().item())]


def test_the_weights_tell_rows_apart_and_the_place_does_not(dataset: Dataset, tmp_path: Path) -> None:
    def hash_of(teacher: Path | str) -> str:
        return Conditions.of(EvaluateConfig(teacher=str(teacher)), dataset.spec, SHORT).hash

    first = save_teacher(tmp_path / "first", dataset.spec)
    copy = Path(shutil.copy(first, tmp_path / "copy.safetensors"))
    other = save_teacher(tmp_path / "other", dataset.spec, seed=1)
    assert hash_of(first) == hash_of(copy) == hash_of(first.parent)
    assert len({hash_of("none"), hash_of("set"), hash_of("real"), hash_of(first), hash_of(other)}) == 5


def test_where_it_is_looked_for(tmp_path: Path) -> None:
    assert [teacher_path(text) for text in ("none", "set", "real")] == [None] * 3
    for stage in ("pretrain", "refine"):  # the last stage's comes first
        (tmp_path / "run").mkdir(exist_ok=True)
        file = save_teacher(tmp_path / "run" / stage)
        generator = file.with_name(zoo.FILE)
        generator.write_bytes(b"")
        assert teacher_path(str(tmp_path / "run")) == teacher_path(str(generator)) == teacher_path(str(file)) == file
        assert teacher_beside(tmp_path / "run") == teacher_beside(generator) == file
    ensemble = tmp_path / "other/ensemble" / zoo.ENSEMBLE
    ensemble.parent.mkdir(parents=True)
    ensemble.write_bytes(b"")
    assert teacher_path(str(tmp_path / "other")) == teacher_path(str(ensemble.parent)) == ensemble
    assert teacher_beside(tmp_path / "other") is None  # judges of a run are no part of its generator
    for text in ("rael", str(tmp_path)):
        with pytest.raises(ConfigError, match="is no teacher, expected none, set, real, an ensemble of"):
            teacher_path(text)


def test_a_teacher_of_other_images_or_of_the_validation_part_is_refused(
    evaluate: Evaluate, dataset: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"the teacher .* has the classes cat, dog, eel, expected those of digits"):
        evaluate(teacher=str(save_teacher(tmp_path / "pets", PETS)))
    other = replace(dataset.spec, mean=(0.1,))
    with pytest.raises(ConfigError, match=r"the teacher .* has learned images with mean \(0.1,\) and std .*, expected"):
        evaluate(teacher=str(save_teacher(tmp_path / "moments", other)))
    choosing = {"select_alpha": (0.2, 0.8)}
    for facts, sentence in (
        ({"data": dataset.fingerprint}, None),
        ({"data": "another"}, "the teacher .* was made with another validation part"),
        ({}, "the origin of the teacher .* is unknown"),
    ):
        teacher = str(save_teacher(tmp_path / "teacher", dataset.spec, **facts))
        if sentence is None:
            evaluate(teacher=teacher, **choosing)
        else:
            with pytest.raises(ConfigError, match=sentence):
                evaluate(teacher=teacher, **choosing)


def test_a_teacher_is_kept_as_it_is(evaluate: Evaluate, dataset: Dataset, generator: Path, tmp_path: Path) -> None:
    """In train mode, batch norm would normalise by each batch's own statistics, and would keep them."""
    teacher = save_teacher(tmp_path / "teacher", dataset.spec, ("convnet3-bn-w4",))
    before = ensemble_file.load(teacher).hash
    one, again = (evaluate(str(generator), teacher=str(teacher), folder=name) for name in ("one", "again"))
    assert [row.train_loss for row in one] == [row.train_loss for row in again]
    assert ensemble_file.load(teacher).hash == before


def test_answers_follow_the_images(dataset: Dataset, tmp_path: Path) -> None:
    """What a student sees, augmented or not, is what the teacher is asked about."""
    ensemble = ensemble_file.load(save_teacher(tmp_path / "teacher", dataset.spec, PAIR))
    normalize = Normalizer(dataset.spec.mean, dataset.spec.std, torch.device("cpu"))
    images_u8 = dataset.val.images_u8[:5]
    fixed = Fixed(images_u8, dataset.val.labels[:5], normalize)
    assert torch.equal(ensemble(fixed.images), ensemble.logits(images_u8))


def test_workers_read_it_themselves_and_a_changed_one_is_refused(
    evaluate: Evaluate, dataset: Dataset, generator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = save_teacher(tmp_path / "teacher", dataset.spec)
    settings = {"teacher": str(teacher), "seeds": (0, 1), "protocols": ("stream",)}
    alone = evaluate(str(generator), folder="alone", **settings)
    together = evaluate(str(generator), folder="together", run=RunConfig(workers=2, threads=1), **settings)
    assert [(row.train_loss, row.correct) for row in alone] == [(row.train_loss, row.correct) for row in together]

    of = Conditions.of

    def changed(*arguments: object) -> Conditions:
        conditions = of(*arguments)  # type: ignore[arg-type]
        save_teacher(tmp_path / "teacher", dataset.spec, seed=1)
        return conditions

    monkeypatch.setattr(Conditions, "of", changed)
    with pytest.raises(ConfigError, match="was changed while students learned from it"):
        evaluate(str(generator), folder="changed", **settings)

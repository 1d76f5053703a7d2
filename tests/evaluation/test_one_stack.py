"""Students of all seeds in one stack, as on a GPU: the rows are those of students trained one after another."""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from scoring import SHORT, Evaluate, timeless

from gdd.config import RunConfig
from gdd.data.pixels import Normalizer
from gdd.evaluation import grid, student
from gdd.evaluation.batches import Fixed, StackedBatches, StudentBatches
from gdd.evaluation.recipe import Job, Recipe
from gdd.evaluation.row import Row
from gdd.runtime.signals import Stopped
from gdd.sampling import generator_file, sample, set_file

SEEDS = (0, 1, 2)
# Several batches in an epoch of IPC 3 and of the ceiling, the last one smaller.
AUGMENTED = Recipe("dc", lr=0.01, epochs=2, batch_size=20, augment="color_crop_flip", schedule="step")
# What is dropped decides the last loss at any rate; at this one rounding, which batch norms amplify, cannot grow.
DROPPING = dataclasses.replace(SHORT, lr=1e-6, epochs=None, steps=6, drop_path="phases")


@pytest.fixture
def stacked(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Let this machine train as a GPU does."""
    monkeypatch.setattr(grid, "trains_together", lambda device: True)
    return monkeypatch


@pytest.mark.parametrize(
    "settings",
    [
        {"archs": ("mlp-w16", "convnet3-bn-w4")},
        {"recipe": AUGMENTED, "archs": ("convnet3-w4",)},
        {"recipe": dataclasses.replace(AUGMENTED, augment="dc", pick="all"), "archs": ("convnet3-w4",)},
        {"recipe": dataclasses.replace(AUGMENTED, epochs=None, steps=3, average=0.5), "archs": ("convnet3-bn-w4",)},
        {"recipe": DROPPING, "archs": ("resnet10-bn-w4", "alexnet-bn-w4", "vgg11-bn-w4")},
        {"teacher": "set", "teacher_arch": "mlp-w8"},
        {
            "teacher": "real",
            "teacher_arch": "mlp-w8",
            "select_alpha": (0.2, 0.8),
            "select_temperature": (1.0, 4.0),
            "recipe": dataclasses.replace(SHORT, epochs=10),
        },
    ],
    ids=["plain", "augmented", "dc", "averaged", "dropping", "taught", "chosen"],
)
def test_rows_are_those_of_one_after_another(
    settings: dict[str, object], evaluate: Evaluate, generator: Path, tmp_path: Path, stacked: pytest.MonkeyPatch
) -> None:
    drawn = sample.sample_set(generator_file.load(generator), 2, 0)
    soft = torch.randn(len(drawn.labels), 10, generator=torch.Generator().manual_seed(0))
    set_file.save(tmp_path / "set.safetensors", dataclasses.replace(drawn, soft_labels=soft.half()))
    texts = str(generator), str(tmp_path / "set.safetensors")
    together = evaluate(*texts, folder="together", ipc=(3,), seeds=SEEDS, **settings)
    stacked.undo()
    alone = evaluate(*texts, folder="alone", ipc=(3,), seeds=SEEDS, **settings)
    assert {row.together for row in alone} == {1}
    assert {row.together for row in together} == {len(SEEDS)}
    for one, other in zip(together, alone, strict=True):
        assert one.key == other.key
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-3)
        assert abs(one.correct - other.correct) <= 2
        assert one.validation_accuracy == pytest.approx(other.validation_accuracy, abs=0.5)
        assert one.seconds > 0
        near = ("train_loss", "correct", "accuracy", "validation_accuracy", "together")
        expected = dataclasses.replace(timeless(other), **{name: getattr(one, name) for name in near})
        assert timeless(one) == expected


def test_a_group_has_one_source_size_protocol_and_architecture(
    evaluate: Evaluate, generator: Path, stacked: pytest.MonkeyPatch
) -> None:
    groups = scored(stacked)
    rows = evaluate(str(generator), archs=("mlp-w8", "mlp-w16"), ipc=(1, 2), seeds=SEEDS)
    assert {len(jobs) for jobs in groups} == {len(SEEDS)}
    # Two architectures on the floor at two sizes, the generator at two sizes and protocols, and the ceiling.
    assert len(groups) == 2 * (2 + 2 * 2 + 1)
    for jobs in groups:
        assert len({dataclasses.replace(job, seed=0) for job in jobs}) == 1
    assert len(rows) == sum(map(len, groups))


def scored(patch: pytest.MonkeyPatch, fits: int = 100) -> list[Sequence[Job]]:
    """Return where the groups will be that are scored; larger ones than `fits` are too large for the memory."""
    groups: list[Sequence[Job]] = []
    score = student.StudentTrainer.score

    def spy(self: student.StudentTrainer, jobs: Sequence[Job]) -> list[Row]:
        if len(jobs) > fits:
            raise torch.OutOfMemoryError
        groups.append(jobs)
        return score(self, jobs)

    patch.setattr(student.StudentTrainer, "score", spy)
    return groups


def test_a_group_too_large_for_the_memory_is_halved_and_it_is_said_once(
    evaluate: Evaluate, stacked: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    groups = scored(stacked, fits=2)
    with caplog.at_level(logging.WARNING):
        rows = evaluate(seeds=(0, 1, 2, 3, 4))
    assert [len(jobs) for jobs in groups] == [2, 1, 2] * 2
    assert [row.seed for row in rows] == [*range(5)] * 2
    assert [row.together for row in rows] == [2, 2, 1, 2, 2] * 2
    assert [record.getMessage() for record in caplog.records if "memory" in record.getMessage()] == [
        "evaluate: 5 students need more memory than there is, so halves are tried"
    ]


def test_a_student_too_large_for_the_memory_is_an_error(evaluate: Evaluate, stacked: pytest.MonkeyPatch) -> None:
    scored(stacked, fits=0)
    with pytest.raises(torch.OutOfMemoryError):
        evaluate(seeds=SEEDS)


@pytest.mark.usefixtures("stacked")
def test_a_group_is_written_when_it_ends(evaluate: Evaluate, tmp_path: Path) -> None:
    with pytest.raises(Stopped, match="3 of 6 students"):
        evaluate(seeds=SEEDS, run=RunConfig(max_minutes=1e-9, workers=1))
    assert [row.seed for row in grid.read_rows(tmp_path / "run")] == list(SEEDS)
    assert len(evaluate(seeds=SEEDS)) == 6


def test_common_time_is_shared(evaluate: Evaluate, generator: Path, stacked: pytest.MonkeyPatch) -> None:
    """By a clock that ticks at each student's training: a group's seconds are those of its rows together."""
    train = student.train
    ticks = [0.0]

    def slow(*arguments: object) -> torch.Tensor:
        ticks[0] += 6.0
        return train(*arguments)  # type: ignore[arg-type]

    stacked.setattr(student, "train", slow)
    stacked.setattr(student.time, "perf_counter", lambda: ticks[0])
    assert [row.seconds for row in evaluate(str(generator), seeds=SEEDS)] == [2.0] * 12


def test_sets_of_one_batch_are_stacked_once() -> None:
    draw, normalize = torch.Generator().manual_seed(0), Normalizer((0.5,), (0.3,))
    images = torch.rand(2, 30, 1, 16, 16, generator=draw)
    labels = torch.randint(10, (2, 30), generator=draw)
    sets = [Fixed(one, truth, normalize) for one, truth in zip(images, labels, strict=True)]

    def steps(recipe: Recipe) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        students = [StudentBatches(data, recipe, seed, "student") for seed, data in enumerate(sets)]
        stack = StackedBatches(students)
        found = [stack(step)[0] for step in range(2)]
        alone = [torch.stack([batches(step)[0] for batches in students]) for step in range(2)]
        assert all(torch.equal(one, other) for one, other in zip(found, alone, strict=True))
        assert torch.equal(stack(0)[1], torch.stack([batches(0)[1] for batches in students]))
        return found, alone

    (first, second), _ = steps(SHORT)
    assert first is second
    (first, second), _ = steps(AUGMENTED)
    assert not torch.equal(first, second)


def test_a_teacher_is_asked_once_about_a_set_of_one_batch(evaluate: Evaluate, stacked: pytest.MonkeyPatch) -> None:
    answers: list[torch.Tensor] = []
    formula = student.distillation

    def spy(logits: torch.Tensor, answer: torch.Tensor, *rest: object) -> torch.Tensor:
        answers.append(answer)
        return formula(logits, answer, *rest)  # type: ignore[arg-type]

    stacked.setattr(student, "distillation", spy)
    evaluate(seeds=SEEDS, teacher="set", teacher_arch="mlp-w8")
    floor = answers[: len(SEEDS) * SHORT.epochs]
    assert len({id(answer) for answer in floor}) == len(SEEDS)

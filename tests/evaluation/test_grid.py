"""What is scored, that it can be repeated, and that the test part waits until training is over."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from scoring import SHORT, Evaluate, timeless

from gdd.config import RunConfig
from gdd.data.readers import Dataset
from gdd.data.splits import Split, random_real
from gdd.evaluation import grid, student
from gdd.evaluation.recipe import Recipe
from gdd.runtime.signals import Stopped
from gdd.sampling import generator_file, sample, set_file

LONGER = Recipe("dc", lr=0.05, epochs=40, batch_size=256)


def test_table_is_complete(evaluate: Evaluate, generator: Path) -> None:
    rows = evaluate(str(generator), ipc=(1, 30), seeds=(0, 1))
    cells = [(row.kind, row.ipc, row.protocol) for row in rows if row.seed == 0]
    assert cells == [
        ("real:random", 1, "fixed"),
        ("real:random", 30, "fixed"),
        ("generator", 1, "fixed"),
        ("generator", 1, "stream"),
        ("generator", 30, "fixed"),
        ("generator", 30, "stream"),
        ("real:all", None, "fixed"),
    ]
    assert len(rows) == 14


def test_row_counts_images_steps_and_bytes(evaluate: Evaluate, dataset: Dataset, generator: Path) -> None:
    _, fixed, stream, everything = evaluate(str(generator), ipc=(30,))
    assert (fixed.images, fixed.distinct_images_seen, fixed.optimizer_steps) == (300, 300, 6)
    assert (stream.images, stream.distinct_images_seen, stream.optimizer_steps) == (300, 900, 6)
    assert fixed.images_per_step == stream.images_per_step == 256
    assert fixed.bytes == 300 * (16 * 16 + 1)
    assert stream.bytes == (generator / generator_file.FILE).stat().st_size
    assert (fixed.set_hash is None, stream.set_hash is None) == (False, True)
    assert (fixed.method, fixed.stage, fixed.generator_seconds) == ("gan", "pretrain", 2.5)
    assert (everything.images, everything.epochs) == (len(dataset.train.labels), 1)
    for row in (fixed, stream, everything):
        assert row.total == len(dataset.test().labels)
        assert row.accuracy == 100 * row.correct / row.total
        assert row.arch == "mlp-w16"


def test_evaluated_sets_are_those_that_sampling_and_the_train_part_give(
    evaluate: Evaluate, dataset: Dataset, generator: Path
) -> None:
    floor, drawn, everything = evaluate(str(generator), ipc=(2,), seeds=(5,), protocols=("fixed",))
    assert drawn.set_hash == sample.sample_set(generator_file.load(generator), 2, 5).hash
    for row, split in ((floor, random_real(dataset.train, 10, 2, seed=5)), (everything, dataset.train)):
        assert row.set_hash == set_file.SyntheticSet(*split, dataset.spec, 2).hash


def test_stored_set_keeps_its_own_ipc_and_gets_a_floor(evaluate: Evaluate, generator: Path, tmp_path: Path) -> None:
    made = sample.sample_set(generator_file.load(generator), 3, 0)
    set_file.save(tmp_path / "set.safetensors", made)
    rows = evaluate(str(tmp_path / "set.safetensors"), protocols=("stream",))
    assert [(row.kind, row.ipc, row.protocol) for row in rows] == [
        ("real:random", 3, "fixed"),
        ("set", 3, "fixed"),
        ("real:all", None, "fixed"),
    ]
    assert rows[1].set_hash == made.hash


def test_same_seed_gives_the_same_rows(evaluate: Evaluate, generator: Path) -> None:
    one = evaluate(str(generator), folder="one", archs=("convnet3-w8",))
    two = evaluate(str(generator), folder="two", archs=("convnet3-w8",))
    assert [timeless(row) for row in one] == [timeless(row) for row in two]
    assert [row.train_loss for row in one] != [
        row.train_loss for row in evaluate(str(generator), folder="other", archs=("convnet3-w8",), seeds=(1,))
    ]


def test_students_of_a_seed_share_their_start(evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = []
    train = student.train

    def spy(network: torch.nn.Module, *rest: object) -> float:
        starts.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
        return train(network, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(student, "train", spy)
    evaluate(ipc=(1, 2), seeds=(0, 1))
    assert len(starts) == 6
    assert all(torch.equal(start, starts[0]) for start in starts[::2])
    assert not torch.equal(starts[0], starts[1])


def test_test_part_is_read_once_and_after_training(
    evaluate: Evaluate, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    train = student.train

    def spy_train(*arguments: object) -> float:
        events.append("begin")
        loss = train(*arguments)  # type: ignore[arg-type]
        events.append("end")
        return loss

    def spy_test() -> Split:
        events.append("test")
        return dataset.read_test()

    monkeypatch.setattr(student, "train", spy_train)
    evaluate(data=dataclasses.replace(dataset, read_test=spy_test))
    assert events == ["begin", "end", "test", "begin", "end"]


def test_shuffled_labels_score_at_chance(evaluate: Evaluate, dataset: Dataset) -> None:
    order = torch.randperm(len(dataset.train.labels), generator=torch.Generator().manual_seed(0))
    wrong = Split(dataset.train.images_u8, dataset.train.labels[order])
    shuffled = evaluate(data=dataclasses.replace(dataset, train=wrong), recipe=LONGER, all_epochs=10)[-1]
    honest = evaluate(recipe=LONGER, all_epochs=10, folder="honest")[-1]
    # One in 10, as widely spread as if it gave all images of a class one answer: classes, not images, are independent.
    spread = 100 * math.sqrt(0.1 * 0.9 / 10)
    assert shuffled.accuracy < 10 + 4 * spread < 60 < honest.accuracy


def test_order_of_a_stored_set_does_not_matter_to_one_batch(
    evaluate: Evaluate, generator: Path, tmp_path: Path
) -> None:
    """Gradients of a full batch are sums, equal but for rounding; with augmentation draws belong to places."""
    made = sample.sample_set(generator_file.load(generator), 5, 0)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(1))
    mixed = dataclasses.replace(made, images=made.images[order], labels=made.labels[order])
    for name, content in (("ordered", made), ("mixed", mixed)):
        set_file.save(tmp_path / f"{name}.safetensors", content)
    paths = [str(tmp_path / f"{name}.safetensors") for name in ("ordered", "mixed")]
    found = [row for row in evaluate(*paths, recipe=LONGER) if row.kind == "set"]
    assert found[0].set_hash != found[1].set_hash
    assert found[0].train_loss == pytest.approx(found[1].train_loss, rel=1e-3)
    assert abs(found[0].correct - found[1].correct) <= 2


def test_finished_students_are_not_trained_again(
    evaluate: Evaluate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = evaluate(seeds=(0,))
    file = tmp_path / "run" / grid.ROWS
    # A kill in the middle of a write leaves half a line.
    file.write_text(file.read_text() + file.read_text()[:100])
    trained = []
    score = student.StudentTrainer.score
    monkeypatch.setattr(
        student.StudentTrainer,
        "score",
        lambda self, jobs: trained.extend(job.seed for job in jobs) or score(self, jobs),
    )
    after = evaluate(seeds=(0, 1))
    assert trained == [1, 1]
    assert [row for row in after if row.seed == 0] == before
    assert evaluate(seeds=(0, 1)) == after
    assert len(file.read_text().splitlines()) == 4
    evaluate(seeds=(0,), recipe=dataclasses.replace(SHORT, epochs=2))
    assert trained == [1, 1, 0, 0]


def test_epochs_of_the_ceiling_retrain_the_ceiling_alone(
    evaluate: Evaluate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = evaluate(all_epochs=2)
    trained = []
    score = student.StudentTrainer.score
    monkeypatch.setattr(
        student.StudentTrainer,
        "score",
        lambda self, jobs: trained.extend(job.source.kind for job in jobs) or score(self, jobs),
    )
    after = evaluate(all_epochs=3)
    assert trained == ["real:all"]
    assert [(row.kind, row.epochs) for row in after] == [("real:random", 3), ("real:all", 3)]
    assert after[0] == before[0]
    assert after[0].recipe_hash == after[1].recipe_hash
    assert evaluate(all_epochs=2) == before
    assert trained == ["real:all"]
    # A teacher on all real images has the ceiling's epochs, and so decides every student.
    for epochs in (2, 3):
        trained.clear()
        evaluate(all_epochs=epochs, teacher="real", teacher_arch="mlp-w8")
        assert trained == ["real:random", "real:all"]


def test_time_limit_keeps_what_is_done(evaluate: Evaluate, tmp_path: Path) -> None:
    with pytest.raises(Stopped, match="1 of 2 students"):
        evaluate(run=RunConfig(max_minutes=1e-9, workers=1))
    assert len(grid.read_rows(tmp_path / "run")) == 1
    assert len(evaluate()) == 2


@pytest.mark.parametrize("teacher", ["set", "real"])
def test_teacher_without_weight_changes_nothing(evaluate: Evaluate, generator: Path, teacher: str) -> None:
    plain = evaluate(str(generator), folder="plain")
    taught = evaluate(str(generator), folder="taught", teacher=teacher, teacher_arch="mlp-w8", alpha=0.0)
    assert [row.correct for row in plain] == [row.correct for row in taught]
    assert [row.train_loss for row in plain] == pytest.approx([row.train_loss for row in taught])
    assert plain[0].label_kind == "hard"
    assert "online teacher mlp-w8" in taught[0].label_kind


def test_teacher_is_named_by_what_it_was_trained_on(evaluate: Evaluate, generator: Path) -> None:
    on_set = evaluate(str(generator), folder="set", teacher="set", alpha=1.0)
    on_real = evaluate(str(generator), folder="real", teacher="real", alpha=1.0)
    plain = evaluate(str(generator), folder="plain")
    assert "on the same fixed set" in on_set[1].label_kind
    assert "on the same stream" in on_set[2].label_kind
    assert "on all real images" in on_real[1].label_kind
    losses = [rows[1].train_loss for rows in (on_set, on_real, plain)]
    assert len(set(losses)) == 3

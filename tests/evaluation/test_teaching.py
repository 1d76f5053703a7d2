"""What students learn from: stored soft labels, a teacher by either recipe, and validation data that choose."""

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from scoring import SHORT, Evaluate

from gdd import rng
from gdd.config import EvaluateConfig
from gdd.data.readers import Dataset
from gdd.data.splits import Split
from gdd.evaluation import sources, student
from gdd.evaluation.recipe import Conditions, Job, Recipe
from gdd.evaluation.row import Row
from gdd.report import statistics, tables
from gdd.runtime.execution import EAGER, Execution
from gdd.sampling import generator_file, sample, set_file
from gdd.sampling.set_file import SyntheticSet
from gdd.training.classifier import Answers

ONE_STEP = dataclasses.replace(SHORT, epochs=1)
LONGER = Recipe("dc", lr=0.05, epochs=40, batch_size=256)
TEACHER = {"teacher": "set", "teacher_arch": "mlp-w8"}
CANDIDATES = {"select_alpha": (0.2, 0.8), "select_temperature": (1.0, 4.0)}


def learned(rows: list[Row]) -> list[tuple[float, int]]:
    """Return what equal students have in common to the last bit."""
    return [(row.train_loss, row.correct) for row in rows]


class TestReleasedRecipe:
    def test_temperature_0_halves_the_loss_and_ignores_the_teacher(self, evaluate: Evaluate) -> None:
        settings = {"teacher": "set", "kd_recipe": "released", "temperature": 0.0}
        plain = evaluate(recipe=ONE_STEP, folder="plain")
        halved = evaluate(recipe=ONE_STEP, folder="halved", teacher_arch="mlp-w8", **settings)
        assert halved[0].train_loss == 0.5 * plain[0].train_loss
        assert (halved[0].seconds_teacher, halved[0].teacher_accuracy) == (
            0.0,
            None,
        )  # nobody asks it, so it is not trained
        one, other = (evaluate(folder=arch, teacher_arch=arch, **settings) for arch in ("mlp-w8", "mlp-w4"))
        assert learned(one) == learned(other)

    def test_differs_from_the_equation_and_says_so(self, evaluate: Evaluate) -> None:
        one, other = (evaluate(kd_recipe=name, **TEACHER)[0] for name in ("equation", "released"))
        assert one.train_loss != other.train_loss
        assert one.recipe_hash != other.recipe_hash
        assert one.label_kind.endswith("on the same fixed set (equation, alpha 0.5, temperature 1.5)")
        assert other.label_kind.endswith("on the same fixed set (released, alpha 0.5, temperature 1.5)")
        assert (one.alpha, one.temperature, one.validation_accuracy, one.seconds_selecting) == (0.5, 1.5, None, 0.0)


def test_a_teacher_stays_as_it_was_trained(evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch) -> None:
    """In train mode, batch norm would normalise by each batch's own statistics, and would keep them."""
    trained = []
    train = student.train

    def spy(network: torch.nn.Module, *rest: object, **more: object) -> float:
        loss = train(network, *rest, **more)  # type: ignore[arg-type]
        trained.append((network, {name: value.clone() for name, value in network.state_dict().items()}))
        return loss

    monkeypatch.setattr(student, "train", spy)
    evaluate(teacher="set", teacher_arch="convnet3-bn-w8")
    teacher, weights = trained[0]
    assert not teacher.training
    assert all(torch.equal(value, weights[name]) for name, value in teacher.state_dict().items())


@pytest.mark.parametrize("on", ["set", "real"])
def test_a_teacher_is_trained_and_tested_once_for_all_who_imitate_it(evaluate: Evaluate, monkeypatch, on: str) -> None:
    """Be it in another way, or after a stop; students are those of a teacher of their own, to the bit."""
    events, train, count = [], student.train, student.examined

    def trained(network: torch.nn.Module, batches, *rest: object, **more: object) -> torch.Tensor:
        events.extend(["train"] * (batches.who == rng.TEACHER))
        return train(network, batches, *rest, **more)

    def counted(network: torch.nn.Module, *rest: object) -> Answers:
        events.extend(["test"] * (len(next(network.parameters())) == 8))
        return count(network, *rest)

    monkeypatch.setattr(student, "train", trained)
    monkeypatch.setattr(student, "examined", counted)
    first = TEACHER | {"teacher": on}
    evaluate(**first)
    sets = 1 if on == "real" else 2
    assert sorted(events) == ["test"] * sets + ["train"] * sets
    for place, other in enumerate([{"temperature": 4.0}, {"kd_recipe": "released", "archs": ("mlp-w4",)}]):
        again = evaluate(**first | other)
        assert len(events) == 2 * sets
        alone = evaluate(**first | other, folder=f"alone-{place}")
        assert learned(again) == learned(alone)
        assert [row.teacher_accuracy for row in again] == [row.teacher_accuracy for row in alone]
        del events[2 * sets :]


def test_a_teacher_of_other_data_or_training_is_another(dataset: Dataset, generator: Path, monkeypatch) -> None:
    ones, others = (sources.read(str(generator)), sources.read("zoo:digits"))
    job, images = Job(ones, 1, "fixed", "mlp-w16", 0), SimpleNamespace(device=torch.device("cpu"), keep=1)

    def name(
        of: Job | None = job, seed: int = 0, execution: Execution = EAGER, recipe=SHORT, **settings: object
    ) -> str:
        taught = EvaluateConfig(**{**TEACHER, **settings})  # type: ignore[arg-type]
        conditions = Conditions.of(taught, dataset.spec, recipe)
        return student.Teachers(images, conditions, None, execution, Path()).name(of, seed)  # type: ignore[arg-type]

    real = sources.read("real:random")
    changed = [
        name(dataclasses.replace(job, source=others)),
        name(dataclasses.replace(job, source=dataclasses.replace(real, hash=ones.hash))),  # another kind alone
        name(dataclasses.replace(job, ipc=2)),
        name(dataclasses.replace(job, protocol="stream")),
        name(None),
        name(None, all_epochs=7),
        name(seed=1),
        name(recipe=LONGER),
        name(teacher_arch="mlp-w4"),
        name(execution=Execution("bfloat16")),
        name(execution=Execution(compiled=True)),
    ]
    monkeypatch.setattr(student, "device_name", lambda device: "another")
    changed.append(name())
    monkeypatch.undo()
    monkeypatch.setattr(student, "git_revision", lambda: "another")
    changed.append(name())
    monkeypatch.undo()
    assert len({name(), *changed}) == 1 + len(changed)
    assert name(alpha=0.9, temperature=4.0, kd_recipe="released", all_epochs=7) == name()


def test_a_damaged_teacher_is_trained_anew(evaluate: Evaluate, tmp_path: Path, caplog) -> None:
    rows = evaluate(**TEACHER)
    (tmp_path / "run/rows.jsonl").unlink()
    for path in (tmp_path / "run/teachers").rglob("*.pt"):
        path.write_bytes(path.read_bytes()[:1000])
        (path.parent / ".cut.tmp").touch()  # as a writer leaves it that was killed
    assert learned(evaluate(**TEACHER)) == learned(rows)
    assert caplog.text.count("the teacher is trained or tested anew") == 2
    assert not [*(tmp_path / "run").rglob(".*.tmp")]


@pytest.fixture
def met(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The part that each score was read on; of four candidates, validation ranks the second and third equal best."""
    events: list[str] = []
    scripted: Iterator[int] = itertools.cycle([3, 7, 7, 5])
    count = student.examined

    def spy(network: torch.nn.Module, split: Split, *rest: object) -> Answers:
        if torch.equal(split.images_u8, dataset.val.images_u8) and torch.equal(split.labels, dataset.val.labels):
            events.append("val")
            return Answers(next(scripted), broken=0)
        events.append("teacher" if len(next(network.parameters())) == 8 else "test")
        return count(network, split, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(student, "examined", spy)
    return events


@pytest.mark.parametrize("on", ["set", "real"])
def test_a_row_says_how_good_its_teacher_is(evaluate: Evaluate, dataset: Dataset, monkeypatch, on: str) -> None:
    """Percent of the test images, which are read after a student's last step as always."""
    events, teachers = [], {}
    train, count = student.train, student.examined

    def trained(network: torch.nn.Module, batches, *rest: object, **more: object) -> torch.Tensor:
        events.append("train")
        if batches.who == rng.TEACHER:
            teachers[network] = batches
        return train(network, batches, *rest, **more)

    def counted(network: torch.nn.Module, *rest: object) -> Answers:
        events.append("teacher tested" if network in teachers else "student tested")
        return count(network, *rest)

    monkeypatch.setattr(student, "train", trained)
    monkeypatch.setattr(student, "examined", counted)
    rows = evaluate(seeds=(0, 1), archs=("mlp-w16", "mlp-w4"), **TEACHER | {"teacher": on})
    test, mean, std = dataset.test(), dataset.spec.mean[0], dataset.spec.std[0]
    images = (test.images_u8 / 255 - mean) / std
    right = {100 * (one(images).argmax(1) == test.labels).float().mean().item() for one in teachers}
    assert sorted({row.teacher_accuracy for row in rows}) == pytest.approx(sorted(right), abs=1e-4)
    assert events[:3] == ["train", "train", "student tested"]  # the first teacher and its student
    # A teacher is tested once, whatever the number of its students.
    assert events.count("teacher tested") == len(teachers) == (2 if on == "real" else 4)
    alike = {(row.source, row.seed): row.teacher_accuracy for row in rows}
    assert all(row.teacher_accuracy == alike[row.source, row.seed] for row in rows)


def test_rows_without_a_teacher_have_no_teachers_accuracy(evaluate: Evaluate) -> None:
    row = evaluate()[0]
    assert row.teacher_accuracy is None
    old = {key: value for key, value in row.to_dict().items() if key != "teacher_accuracy"}
    assert Row.from_dict(old) == row


class TestSelection:
    def test_only_the_best_on_validation_data_meets_the_test_part(
        self, evaluate: Evaluate, dataset: Dataset, met: list[str]
    ) -> None:
        rows = evaluate(**TEACHER, **CANDIDATES)
        assert met == ["val", "val", "val", "val", "test", "teacher"] * 2
        for row in rows:
            assert (row.alpha, row.temperature) == (0.2, 4.0)
            assert row.validation_accuracy == 100 * 7 / len(dataset.val.labels)
            assert row.seconds_selecting > 0
            assert row.label_kind.endswith(
                "(equation, alpha 0.2 or 0.8, temperature 1 or 4, chosen on validation data)"
            )

    def test_chosen_student_is_the_one_of_its_values_alone(self, evaluate: Evaluate, met: list[str]) -> None:
        chosen = evaluate(folder="chosen", **TEACHER, **CANDIDATES)
        alone = evaluate(folder="alone", alpha=0.2, temperature=4.0, **TEACHER)
        other = evaluate(folder="other", alpha=0.8, temperature=1.0, **TEACHER)
        assert learned(chosen) == learned(alone)
        assert learned(chosen) != learned(other)

    def test_one_list_alone_keeps_the_other_value(self, evaluate: Evaluate, met: list[str]) -> None:
        row = evaluate(alpha=0.3, select_temperature=(1.0, 4.0), **TEACHER)[0]
        assert met[:3] == ["val", "val", "test"]
        assert (row.alpha, row.temperature) == (0.3, 4.0)

    @pytest.mark.usefixtures("met")
    def test_seeds_of_different_choices_share_a_cell(self, evaluate: Evaluate) -> None:
        rows = evaluate(select_temperature=(1.0, 2.0, 4.0), seeds=(0, 1), **TEACHER)
        floor = [row for row in rows if row.kind == "real:random"]
        # Scores of three candidates from the script of four: 3 7 7, then 5 3 7.
        assert [row.temperature for row in floor] == [2.0, 4.0]
        assert [accuracy.n for accuracy in statistics.summarise(statistics.frame(rows))["accuracy"]] == [2, 2]

    def test_what_learns_nothing_is_not_chosen(self, evaluate: Evaluate) -> None:
        """Released with T = 0 and alpha = 1 is a loss of 0; alpha = 0 is plain cross-entropy."""
        rows = evaluate(
            recipe=LONGER,
            all_epochs=10,
            kd_recipe="released",
            temperature=0.0,
            select_alpha=(1.0, 0.0),
            **TEACHER,
        )
        assert [row.alpha for row in rows] == [0.0, 0.0]
        assert rows[-1].validation_accuracy > 60
        assert rows[-1].accuracy > 60

    def test_a_candidate_whose_logits_are_not_finite_is_never_chosen(
        self, evaluate: Evaluate, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Were nan a class, the first candidate would win."""
        scripted = itertools.cycle([Answers(9, broken=1), Answers(2, broken=0), Answers(3, broken=0), Answers(8, 8)])
        count = student.examined

        def spy(network: torch.nn.Module, split: Split, *rest: object) -> Answers:
            is_val = len(split.labels) == len(dataset.val.labels)
            return next(scripted) if is_val else count(network, split, *rest)  # type: ignore[arg-type]

        monkeypatch.setattr(student, "examined", spy)
        for row in evaluate(**TEACHER, **CANDIDATES):
            assert (row.alpha, row.temperature) == (0.8, 1.0)
            assert row.validation_accuracy == 100 * 3 / len(dataset.val.labels)

    def test_without_a_teacher_nothing_is_chosen(self, evaluate: Evaluate, met: list[str]) -> None:
        row = evaluate()[0]
        assert (row.alpha, row.temperature, row.validation_accuracy, row.seconds_selecting) == (None, None, None, 0.0)
        assert "val" not in met


class TestStoredSoftLabels:
    @pytest.fixture
    def made(self, generator: Path) -> SyntheticSet:
        return sample.sample_set(generator_file.load(generator), 3, 0)

    def rows(self, evaluate: Evaluate, tmp_path: Path, synthetic: SyntheticSet, name: str, **settings: object) -> Row:
        set_file.save(tmp_path / f"{name}.safetensors", synthetic)
        found = evaluate(str(tmp_path / f"{name}.safetensors"), folder=name, **settings)
        return next(row for row in found if row.kind == "set")

    @pytest.mark.parametrize(
        "settings",
        [{}, {"teacher": "set", "alpha": 1.0}, {"teacher": "set", "alpha": 0.0}, {"archs": ("convnet3-w8",)}],
    )
    def test_sure_soft_labels_are_the_labels_of_their_class(
        self, evaluate: Evaluate, tmp_path: Path, made: SyntheticSet, settings: dict[str, object]
    ) -> None:
        """Labels and soft labels disagree, so that the one that is learned from shows; so it does for a teacher."""
        moved = (made.labels + 1) % 10
        logits = (100 * torch.nn.functional.one_hot(moved, 10)).half()
        hard = self.rows(evaluate, tmp_path, dataclasses.replace(made, labels=moved), "hard", **settings)
        soft = self.rows(evaluate, tmp_path, dataclasses.replace(made, soft_labels=logits), "soft", **settings)
        assert soft.train_loss == pytest.approx(hard.train_loss, rel=1e-5)
        assert abs(soft.correct - hard.correct) <= 1
        assert soft.label_kind == hard.label_kind.replace("hard", "stored soft")
        assert soft.bytes == hard.bytes + 30 * 10 * 2
        assert (soft.images, soft.optimizer_steps) == (hard.images, hard.optimizer_steps)

    def test_loss_is_the_cross_entropy_of_the_softmax(
        self, evaluate: Evaluate, tmp_path: Path, made: SyntheticSet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        draw = torch.Generator().manual_seed(0)
        soft = torch.randn(30, 10, generator=draw).half()
        seen = []
        train = student.train

        def spy(network: torch.nn.Module, batches: student.StudentBatches, *rest: object, **more: object) -> float:
            images, _ = batches(0)
            seen.append(network(images).detach().double().log_softmax(1))
            return train(network, batches, *rest, **more)  # type: ignore[arg-type]

        monkeypatch.setattr(student, "train", spy)
        row = self.rows(
            evaluate, tmp_path, dataclasses.replace(made, soft_labels=soft), "soft", recipe=ONE_STEP, ipc=(3,)
        )
        expected = -(soft.double().softmax(1) * seen[1]).sum(1).mean().item()
        assert row.train_loss == pytest.approx(expected, rel=1e-5)

    def test_both_kinds_stand_in_one_table_that_tells_them(
        self, evaluate: Evaluate, tmp_path: Path, made: SyntheticSet
    ) -> None:
        soft = dataclasses.replace(made, soft_labels=torch.zeros(30, 10).half())
        paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
        for path, synthetic in zip(paths, (made, soft), strict=True):
            set_file.save(path, synthetic)
        rows = evaluate(*map(str, paths), ipc=(3,))
        assert len({row.recipe_hash for row in rows}) == 1
        text = tables.page("Evaluation", tables.sections(rows, brief=False))
        assert f"labels: hard for random real, {paths[0]}, all real; stored soft for {paths[1]};" in text

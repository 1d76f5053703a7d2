"""gdd compare --budget on digits: equal bytes, equal steps, labels apart, and nothing trained twice."""

import dataclasses
from pathlib import Path

import pytest
from generators import save_teacher

from gdd.data.readers import Dataset
from gdd.evaluation.student import StudentTrainer
from gdd.report import compare, statistics
from gdd.sampling import generator_file, sample, set_file

IMAGE = 257  # bytes of one of digits with its label; float16 logits take 20 more


@pytest.fixture
def stored(generator: Path, tmp_path: Path) -> Path:
    """A set of three images per class."""
    synthetic = sample.sample_set(generator_file.load(generator), 3, 7)
    provenance = {"method": "pixels", "seconds": 3.0}
    path = tmp_path / "stored" / set_file.FILE
    set_file.save(path, dataclasses.replace(synthetic, provenance=provenance))
    return path


@pytest.fixture
def command(tiny: list[str], dataset: Dataset, tmp_path: Path) -> list[object]:
    teacher = save_teacher(tmp_path / "teacher", dataset.spec)
    return ["compare", *tiny, "--evaluate.teacher", teacher, "--evaluate.recipe.batch_size", "25", "--budget"]


def rows_of(root: Path) -> list:
    return statistics.require_rows(root / "runs/compare/compare")


def test_bytes_steps_tables_and_picture(command, stored, generator, done, tmp_path, monkeypatch):
    arguments = [*command, "3ipc", stored, generator]
    out = done(*arguments)
    rows, folder = rows_of(tmp_path), tmp_path / "runs/compare/compare"
    most = 30 * IMAGE
    fixed = [row for row in rows if row.protocol == "fixed"]
    for row in fixed:
        is_soft = row.label_kind == "stored soft"
        assert most - 10 * (IMAGE + 20 * is_soft) < row.bytes <= most
        assert row.ipc == (2 if is_soft else 3)
    # 30 images in batches of 25 are two steps an epoch, and 20 are one: all take those of 30.
    assert {row.optimizer_steps for row in rows} == {6}
    assert [(row.kind, row.seed) for row in fixed if row.label_kind == "hard"] == [
        (kind, seed) for kind in ("real:random", "real:herded", "real:crops", "generator", "set") for seed in (0, 1)
    ]
    assert len(fixed) == len(rows) == 2 * 9
    assert len({row.set_hash for row in fixed if row.kind == "real:herded" and row.label_kind == "hard"}) == 1
    assert len({row.set_hash for row in fixed if row.kind == "real:crops" and row.label_kind == "hard"}) == 2

    points = compare.read_points(folder)
    assert len(points) == 9
    assert all(f"--budget 3ipc --evaluate.teacher {tmp_path / 'teacher'}" in point.commands[-1] for point in points)

    hard, soft = compare.read_sections(folder)
    assert hard.title == "digits, hard labels within 3ipc (7,710 bytes)"
    assert soft.title == "digits, soft labels within 3ipc (7,710 bytes)"
    assert hard.headers == ["trained on", "IPC", "bytes", "steps", "mlp-w4"]
    assert [line[:4] for line in hard.lines] == [
        ["random real (floor)", "3", "7,710", "6"],
        ["herded real", "3", "7,710", "6"],
        ["crops of real", "3", "7,710", "6"],
        ["samples of pretrained generator, herding", "3", "7,710", "6"],
        ["pixels", "3", "7,710", "6"],
    ]
    assert soft.lines[0][:4] == ["random real, soft labels (floor)", "2", "5,540", "6"]
    assert len(soft.lines) == 4
    page = (folder / "compare.md").read_text()
    assert "mlp-w8, trained on real images" in page
    assert "pretrained generator is not streamed, for its file takes" in page
    assert "herded real, soft labels" in out
    assert {path.name for path in folder.iterdir()} == {
        *(".lock", "config.json", "rows.jsonl", "rows.csv", "compare.md", "compare.json", "accuracy-labels.png")
    }

    monkeypatch.setattr(StudentTrainer, "score", lambda *_: pytest.fail("a student was trained twice"))
    assert "hard labels within 3ipc" in done(*arguments)


def test_without_a_teacher_one_is_trained_first_and_once(tiny, done, tmp_path):
    command = ["compare", *tiny, "--budget", "4KiB", "--ensemble.archs", "[mlp-w4]", "--ensemble.steps", "3"]
    assert "train 1 classifiers: 3 x 64 images each" in done(*command, "--dry-run")
    assert not (tmp_path / "runs").exists()
    done(*command)
    made = tmp_path / "runs/compare/ensemble/ensemble.safetensors"
    before = made.stat().st_mtime_ns
    assert {row.ipc for row in rows_of(tmp_path)} == {1}
    done(*command)
    assert made.stat().st_mtime_ns == before
    assert len(rows_of(tmp_path)) == 2 * 6


def test_a_generator_whose_file_fits_is_streamed_in_a_table_of_its_own(command, generator, done, tmp_path):
    done(*command, "10ipc", generator)
    hard, stream, soft = compare.read_sections(tmp_path / "runs/compare/compare")
    assert stream.title == "digits, hard labels, streamed, within 10ipc (25,700 bytes)"
    size = generator_file.load(generator).bytes
    assert [line[:4] for line in stream.lines] == [
        ["random real (floor, fixed)", "10", "25,700", "12"],
        ["pretrained generator", "10", f"{size:,}", "12"],
    ]
    assert size <= 25700
    assert (len(hard.lines), len(soft.lines)) == (4, 4)
    (row, _) = [row for row in rows_of(tmp_path) if row.protocol == "stream"]
    assert (row.optimizer_steps, row.distinct_images_seen) == (12, 300)


def test_scores_measure_by_random_images_of_equal_bytes_and_labels(command, done, tmp_path):
    done(*command, "3ipc", "--scores", "dd-ranking", "--evaluate.seeds", "[0]")
    *_, scores = compare.read_sections(tmp_path / "runs/compare/compare")
    rows = [row for row in rows_of(tmp_path) if row.augment == "none" and row.kind != "real:all"]
    accuracy = {(row.source, row.label_kind): row.accuracy for row in rows}
    ior = {line[0]: float(line[4]) for line in scores.lines}
    assert len(ior) == 6
    for name, labels, floor in (
        ("herded real", "hard", "random real"),
        ("crops of real, soft labels", "stored soft", "random real, soft labels"),
    ):
        assert ior[name] == pytest.approx(accuracy[name, labels] - accuracy[floor, labels], abs=0.051)
    assert ior["random real (floor)"] == ior["random real, soft labels (floor)"] == 0
    assert "have the same kind of labels and as many bytes" in " ".join(scores.notes)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["ten"], "--budget is ten, expected a whole number above 0 of bytes, KiB, MiB or images per class: 25600,"),
        (["0"], "--budget is 0, expected"),
        (["3ipc5"], "--budget is 3ipc5, expected"),
        (["2KiB"], "--budget is 2KiB, expected at least 2,570 bytes: one image of each class of digits takes as many"),
        (["500ipc"], "500 images per class are asked for"),
        (["3ipc", "real:herded"], "real:herded is named, expected sets and generators alone with --budget"),
        (["3ipc", "real:all"], "real:all is named"),
        (["3ipc", "nowhere"], "nowhere does not exist"),
        (["3ipc", "--ipc", "3"], "--ipc is given, expected none with --budget"),
        (["3ipc", "--mark", "3"], "--mark is given"),
        (["3ipc", "--evaluate.protocols", "[stream]"], "expected fixed among them with --budget"),
        (["3ipc", "--evaluate.select_alpha", "[0.1, 0.2]"], "evaluate.select_alpha or evaluate.select_temperature"),
        (["3ipc", "--evaluate.teacher", "real"], "evaluate.teacher is real, expected with --budget an ensemble's path"),
        (["3ipc", "--evaluate.teacher", "nowhere"], "evaluate.teacher: nowhere is no teacher"),
    ],
)
def test_mistakes_are_named(arguments, expected, command, refused, tmp_path):
    refused(*command, *arguments, naming=expected)
    assert not (tmp_path / "runs").exists()


def test_a_set_above_the_budget_and_a_filter_are_refused(command, stored, generator, refused, tmp_path):
    refused(
        *command,
        "2ipc",
        stored,
        naming="set.safetensors takes 7,710 bytes, expected at most 5,140, which --budget 2ipc",
    )
    refused(
        *command, "3ipc", f"{generator},filter={tmp_path / 'teacher'}", naming="is named, expected sets and generators"
    )
    assert not (tmp_path / "runs").exists()


def test_chosen_real_images_want_a_teacher_at_once(tiny, refused):
    for command in (["compare", "real:herded"], ["evaluate", "real:crops"]):
        refused(*command, *tiny, naming="evaluate.teacher is none, expected an ensemble of gdd train-ensemble")

"""gdd landscape on digits: a student is trained once, measured, and the test part stays unread."""

import json

import pytest
import torch
from commands import TINY

from gdd.data.readers import Dataset
from gdd.evaluation import landscape
from gdd.evaluation.student import StudentTrainer
from gdd.runtime import checkpoint
from gdd.runtime.signals import Stopped

FILES = {".lock", "config.json", "landscape.json", "landscape.png"}


@pytest.fixture
def command(tmp_path) -> list[object]:
    """Measure a small student on three random real images per class."""
    flags = ["--arch", "mlp-w4", "--eigenvalues", "3", "--ipc", "3", "--run.root", tmp_path / "runs"]
    return ["landscape", "real:random", *TINY, *flags]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "runs/landscape/landscape"


def test_a_student_is_trained_once_and_measured(done, refused, command, folder, monkeypatch):
    monkeypatch.setattr(Dataset, "test", None)  # of no use here
    out = done(*command)
    found = json.loads((folder / "landscape.json").read_text())
    assert {path.name for path in folder.iterdir() if path.is_file()} - FILES == {"checkpoint-00000003.pt"}
    assert found["arch"] == "mlp-w4"
    assert found["weights"] == 256 * 4 + 4 + 4 * 4 + 4 + 4 * 10 + 10
    assert "largest eigenvalues of the Hessian (1,098 weights)" in out
    assert found["eigenvalues"] == sorted(found["eigenvalues"], reverse=True)
    assert len(found["eigenvalues"]) == 3
    middle = found["distances"].index(0)
    assert found["surface"][middle][middle] == found["loss"]
    assert found["distances"][-1] == 0.25

    # Its weights are those of the checkpoint: what it answers to its images has this loss.
    monkeypatch.setattr(StudentTrainer, "trained", None)
    done(*command, "--eigenvalues", "2", "--reach", "0.5")
    again = json.loads((folder / "landscape.json").read_text())
    assert again["loss"] == found["loss"]
    assert again["eigenvalues"] == pytest.approx(found["eigenvalues"][:2], rel=1e-6)
    assert again["distances"][-1] == 0.5
    refused(*command, "--evaluate.recipe.epochs", "4", naming="holds a run of another configuration")


def test_its_loss_is_that_of_a_students_last_step(done, command, folder, tmp_path):
    """Of one step on all images, not augmented, without batch norm: the loss before the step is known by its row."""
    steps = ["--evaluate.recipe.lr", "1e-12", "--evaluate.recipe.epochs", "1", "--evaluate.seeds", "[0]"]
    done(*command, *steps)
    flags = ["--evaluate.sources", "[real:random]", "--evaluate.ipc", "[3]", "--run.root", tmp_path / "runs"]
    done("evaluate", *TINY, *steps, *flags)
    rows = map(json.loads, (tmp_path / "runs/digits/evaluate/rows.jsonl").read_text().splitlines())
    (wanted,) = [row["train_loss"] for row in rows if row["kind"] == "real:random"]
    assert json.loads((folder / "landscape.json").read_text())["loss"] == pytest.approx(wanted, rel=1e-5)


def test_a_signal_leaves_the_trained_student(gdd, done, command, folder, monkeypatch):
    def stop(*_: object) -> None:
        raise Stopped("landscape: stopped")

    with monkeypatch.context() as patch:
        patch.setattr(landscape, "top_eigenpairs", stop)
        code, out, _ = gdd(*command)
    assert (code, "landscape: stopped" in out) == (0, True)
    assert checkpoint.steps(folder) == [3]
    before = torch.load(checkpoint.newest(folder), weights_only=True)["states"]["network"]
    done(*command)
    after = torch.load(checkpoint.newest(folder), weights_only=True)["states"]["network"]
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_dry_run_names_the_student_and_trains_none(done, command, folder):
    out = done(*command, "--dry-run")
    assert "train mlp-w4 and find the largest eigenvalues" in out
    assert "student mlp-w4" in out
    assert not folder.exists()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--eigenvalues", "1"], "--eigenvalues is 1, expected at least 2"),
        (["--eigenvalues", "1098"], "1098 eigenvalues are asked for, expected 1 to 1,097 of 1,098 weights"),
        (["--reach", "0"], "--reach is 0.0, expected a number above 0"),
        (["--reach", "nan"], "reach: Expected float. Got value: nan"),
        (["--ipc", "0"], "evaluate.ipc"),
        (["--ipc", "200"], "200 images per class are asked for"),
        (["--arch", "resnet19"], "resnet19"),
        (["--evaluate.teacher", "set", "--evaluate.select_alpha", "[0.1]"], "evaluate.select_alpha"),
        (["--evaluate.sources", "[real:all]"], "evaluate.sources"),
    ],
)
def test_a_mistake_is_named(refused, command, flags, sentence):
    refused(*command, *flags, naming=sentence)


@pytest.mark.parametrize("source", ["real:stream", "nowhere"])
def test_a_source_that_cannot_be_is_named(refused, command, source):
    refused("landscape", source, *command[2:], naming=source)

"""Scoring itself: eval mode, every test image, no trace in the network; what has no finite logits has no score."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scoring import SHORT, Evaluate
from torch import Tensor, nn

from gdd.config import ConfigError, RunConfig
from gdd.data.pixels import Normalizer
from gdd.data.splits import Split
from gdd.evaluation import grid, student
from gdd.evaluation.row import Row
from gdd.models import registry
from gdd.training import classifier


@pytest.mark.parametrize("batch", [1, 7, 500])
def test_score_does_not_depend_on_the_test_batch(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In train mode, batch norm would see the batch's own statistics, and would keep them."""
    monkeypatch.setitem(classifier.ANSWERED, "cpu", batch)
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(256, (20, 1, 16, 16), dtype=torch.uint8, generator=draw)
    normalize = Normalizer((0.5,), (0.3,))
    torch.manual_seed(0)
    network = registry.build("convnet3-bn-w8", (1, 16, 16), 4).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.eval()
    answers = network(normalize.from_u8(images)).argmax(1)
    labels = torch.where(torch.arange(20) < 13, answers, (answers + 1) % 4)
    network.train()
    assert student.examined(network, Split(images, labels), normalize) == (13, 0)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


class Fixed(nn.Module):
    """Answers image i with row i of some logits."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, images_std: Tensor) -> Tensor:
        return self.logits[: len(images_std)]


def test_logits_that_are_not_finite_are_no_class() -> None:
    """argmax takes the first nan, and the largest of infinities."""
    logits = torch.tensor([[1.0, 0.0], [math.nan, 0.0], [math.inf, 0.0], [0.0, -math.inf], [0.0, 1.0]])
    split = Split(torch.zeros(5, 1, 2, 2, dtype=torch.uint8), torch.zeros(5, dtype=torch.int64))
    assert logits.argmax(1).tolist() == [0, 0, 0, 0, 1]
    assert student.examined(Fixed(logits), split, Normalizer((0.0,), (1.0,))) == (1, 3)


DIVERGING = replace(SHORT, lr=1e30)


@pytest.mark.parametrize(("workers", "average"), [(1, 0.0), (1, 0.5), (2, 0.0)])
def test_a_student_that_diverges_fails_by_name(
    workers: int, average: float, evaluate: Evaluate, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    behaviour = RunConfig(workers=workers, threads=1)
    rows = evaluate(recipe=replace(DIVERGING, average=average), run=behaviour)
    reasons = [
        f"logits of 359 of 359 test images are not finite after {row.optimizer_steps} steps, last loss nan"
        for row in rows
    ]
    assert [(row.accuracy, row.correct, row.total, row.failure) for row in rows] == [
        (None, 0, 359, reason) for reason in reasons
    ]
    assert all(f"seed 0 failed: {reason} (" in caplog.text for reason in reasons)
    # It is not trained again, and its row is read as it was written but for nan, which equals nothing.
    caplog.clear()
    again = evaluate(recipe=replace(DIVERGING, average=average), run=behaviour)
    assert "2 of 2 students were scored before" in caplog.text
    assert [replace(row, train_loss=0.0) for row in again] == [replace(row, train_loss=0.0) for row in rows]


def test_all_candidates_that_diverge_are_one_student_that_failed(evaluate: Evaluate) -> None:
    choosing = {"teacher": "set", "teacher_arch": "mlp-w8", "select_alpha": (0.2, 0.8)}
    for row in evaluate(recipe=DIVERGING, **choosing):
        assert (row.accuracy, row.validation_accuracy, row.alpha) == (None, 0.0, 0.2)


def test_rows_of_earlier_versions_have_not_failed(evaluate: Evaluate, tmp_path: Path) -> None:
    rows = evaluate()
    assert {row.failure for row in rows} == {None}
    path = tmp_path / "run" / grid.ROWS
    old = [{key: value for key, value in row.to_dict().items() if key != "failure"} for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in old))
    assert grid.read_rows(tmp_path / "run") == rows


def test_a_row_has_an_accuracy_or_a_failure(evaluate: Evaluate) -> None:
    good = evaluate()[0].to_dict()
    for wrong in ({"accuracy": None}, {"failure": "why"}):
        with pytest.raises(ConfigError, match="accuracy is"):
            Row.from_dict({**good, **wrong})

"""What is told while students are scored: a line for each source that is finished, and for each student that failed."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
from scoring import Evaluate

from gdd.config import RunConfig
from gdd.evaluation import grid, sources
from gdd.evaluation.grid import Tally
from gdd.evaluation.recipe import Job
from gdd.evaluation.row import Row
from gdd.evaluation.student import StudentTrainer
from gdd.runtime.signals import Stopped

Rows = dict[tuple[object, ...], Row]
FLAGS = {"ipc": (1, 2), "seeds": (0, 1), "archs": ("mlp-w8", "mlp-w16")}


@pytest.fixture
def finished(evaluate: Evaluate, caplog: pytest.LogCaptureFixture) -> tuple[list[Job], Rows]:
    """The students of random images, at two IPCs, and of all images; and their rows by key, in the same order."""
    rows = evaluate(**FLAGS)
    named = {row.kind: sources.read(row.kind, row.source) for row in rows}
    caplog.set_level(logging.INFO)
    jobs = [Job(named[row.kind], row.ipc, row.protocol, row.arch, row.seed) for row in rows]
    return jobs, {row.key: row for row in rows}


def test_a_line_is_the_mean_of_a_source_over_seeds_and_architectures(
    evaluate: Evaluate, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    rows = evaluate(**FLAGS)
    lines = [line for line in caplog.messages if " %" in line]
    assert [line.partition(": ")[0] for line in lines] == [
        "random real, ipc 1, fixed",
        "random real, ipc 2, fixed",
        "all real, all images, fixed",
    ]
    for line, of_source in zip(lines, (rows[:4], rows[4:8], rows[8:]), strict=True):
        mean, seconds = sum(row.accuracy for row in of_source) / 4, sum(row.seconds for row in of_source)
        assert line.endswith(f": {mean:.2f} % (mean of 4 students, {seconds:,.1f} s)")


def test_students_may_finish_in_any_order_and_be_counted_twice(finished, caplog) -> None:
    jobs, rows = finished
    tally = Tally(jobs, list(rows), {})
    *first, last = [row for row in rows.values() if row.ipc == 2][::-1]
    others = [row for row in rows.values() if row.ipc != 2]
    tally.count([*first, *others[:3], *others[4:-1]])
    assert caplog.messages == []
    tally.count([*first, last])
    assert [line.partition(":")[0] for line in caplog.messages] == ["random real, ipc 2, fixed"]
    tally.count(rows.values())
    tally.count(rows.values())
    assert len(caplog.messages) == 3


def test_a_resumed_evaluation_counts_students_scored_before(evaluate: Evaluate, caplog) -> None:
    caplog.set_level(logging.INFO)
    with pytest.raises(Stopped, match="1 of 12 students"):
        evaluate(run=RunConfig(max_minutes=1e-9, workers=1), **FLAGS)
    assert not [line for line in caplog.messages if " %" in line]
    evaluate(**FLAGS)
    assert sum("mean of 4 students" in line for line in caplog.messages) == 3
    caplog.clear()
    evaluate(**FLAGS)
    assert caplog.messages == ["evaluate: 12 of 12 students were scored before"]


def test_a_student_that_fails_is_told_of_at_once(evaluate: Evaluate, monkeypatch, caplog) -> None:
    score = StudentTrainer.score

    def failing(self: StudentTrainer, jobs: list[Job]) -> list[Row]:
        rows = score(self, jobs)
        return [replace(row, accuracy=None, failure="why") if row.ipc == 1 and row.seed == 0 else row for row in rows]

    monkeypatch.setattr(StudentTrainer, "score", failing)
    caplog.set_level(logging.INFO)
    evaluate(ipc=(1,), seeds=(0, 1))
    failed, of_source, of_all = caplog.messages
    assert failed.startswith("random real, ipc 1, fixed: mlp-w16 seed 0 failed: why (")
    assert "(mean of 2 students, 1 of which failed, " in of_source
    assert "(mean of 2 students, " in of_all


def test_processes_count_what_the_others_have_written(finished, tmp_path: Path, caplog) -> None:
    jobs, rows = finished
    tally = Tally(jobs, list(rows), {})
    half = [row for row in rows.values() if row.seed == 0]
    tally.count(half)
    assert caplog.messages == []
    tally.count(grid.read_rows(tmp_path / "run"))
    assert len(caplog.messages) == 3

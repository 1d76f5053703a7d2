"""gdd compare --scores dd-ranking on digits: one table more, and nothing else changes."""

import json
from pathlib import Path

import pytest

from gdd.evaluation.student import StudentTrainer
from gdd.report import compare, plots, statistics
from gdd.report.dd_ranking import label_robust_score


@pytest.fixture
def command(generator: Path, tiny: list[str]) -> list[object]:
    recipe = ["--evaluate.recipe.epochs", "30", "--evaluate.recipe.lr", "0.1"]
    return ["compare", generator, *tiny, "--arch", "mlp-w8", "--ipc", "5", *recipe]


def test_the_scores_are_one_table_more(command, done, tmp_path, monkeypatch):
    for picture in ("draw_ipc", "draw_seconds"):  # which take longer than all the rest
        monkeypatch.setattr(plots, picture, lambda *_: False)
    folder = tmp_path / "runs/compare/compare"
    done(*command)
    before, pages = compare.read_sections(folder), (folder / "compare.md").read_text()
    rows = len(statistics.require_rows(folder))
    done(*command, "--scores", "dd-ranking")
    *same, scores = compare.read_sections(folder)
    assert same == before
    assert (folder / "compare.md").read_text().startswith(pages)
    # Augmented: floor and generator; all real images; two seeds of each.
    found = statistics.require_rows(folder)
    assert len(found) == rows + 6
    assert len((folder / "rows.csv").read_text().splitlines()) == rows + 1

    # The mean over two seeds, from the rows.
    accuracy = {(row.kind, row.protocol, row.augment, row.seed): row.accuracy / 100 for row in found}
    lrs = 0.0
    for seed in (0, 1):
        own, floor, full = (accuracy[kind, "fixed", "none", seed] for kind in ("generator", "real:random", "real:all"))
        lrs += 50 * label_robust_score(full - own, own - floor)
    (line,) = [line for line in scores.lines if "generator" in line[0]]
    assert float(line[5].split(" ")[0]) == pytest.approx(lrs, abs=0.051)

    monkeypatch.setattr(StudentTrainer, "score", lambda *_: pytest.fail("a student was trained twice"))
    assert "DD-Ranking's scores" in done(*command, "--scores", "dd-ranking")
    assert json.loads((folder / "config.json").read_text())["config"]["evaluate"]["recipe"]["augment"] is None


def test_a_dry_run_counts_the_students(command, done, tmp_path):
    assert "train and score 6 more for DD-Ranking's scores" in done(*command, "--scores", "dd-ranking", "--dry-run")
    assert not (tmp_path / "runs").exists()


def test_a_mistake_is_named(command, refused):
    refused(*command, "--scores", "dd-rank", naming="scores")
    flags = ["--evaluate.protocols", "[stream]", "--scores", "dd-ranking"]
    refused(*command, *flags, naming="expected fixed among them for --scores")

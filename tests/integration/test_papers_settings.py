"""What papers do, at toy sizes: distil from all training images, snapshots instead of runs, no ceiling."""

import json
from pathlib import Path

import pytest
from commands import ALONE, MATCHING

from gdd.data.readers import open_dataset

ALL = ("--data.val_fraction", "0", "--evaluate.ceiling", "false")


def scored(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "evaluate/rows.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("method", "kinds"),
    [
        (
            ("--pretrain.steps", "2", "--refine.steps", "2", "--evaluate.protocols", "[stream]"),
            {"real:random", "generator", "real:stream"},
        ),
        (MATCHING, {"real:random", "set"}),
    ],
    ids=["skd", "matching"],
)
def test_all_training_images_are_distilled_and_none_scored_all_at_once(method, kinds, done, tiny, tmp_path):
    images = len(open_dataset("digits", val_fraction=0).train.labels)
    said = done("distill", *tiny, *method, *ALL, "--evaluate.seeds", "[0]")
    assert f"{images:,} training and 0 validation images" in " ".join(said.split())
    assert {row["kind"] for row in scored(tmp_path / "runs/digits")} == kinds
    table = (tmp_path / "runs/digits/evaluate/table.md").read_text()
    fixed, _, stream = table.partition("stream: new samples")
    assert "has no ceiling" in fixed
    assert "has no ceiling" not in stream  # which has one of its own


def test_the_ceiling_is_all_that_is_left_to_train_when_it_is_asked_for(matched, done, tiny):
    folder, _ = matched
    before = scored(folder)
    rows = folder / "evaluate/rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in before if row["kind"] != "real:all"))
    done("evaluate", *tiny, *MATCHING, "--evaluate.ceiling", "false")
    left = scored(folder)
    assert {row["kind"] for row in left} == {"real:random", "set"}
    done("evaluate", *tiny, *MATCHING)
    added = scored(folder)[len(left) :]
    assert {row["kind"] for row in added} == {"real:all"}
    assert len(added) == len(before) - len(left)


def test_the_snapshots_of_one_run_are_scored_as_sets_of_their_own(done, refused, tiny, tmp_path):
    folder = tmp_path / "runs/digits/matching"
    done("distill", *tiny, *MATCHING, *ALL, *ALONE, "--run.snapshots", "[1, 2]")
    sets = [folder / "set-00000001.safetensors", folder / "set-00000002.safetensors", folder]
    sources = ["--evaluate.sources", f"[{', '.join(map(str, sets))}]"]
    teacher = ["--evaluate.teacher", "set", "--evaluate.teacher_arch", "mlp-w4"]
    done("evaluate", *tiny, *MATCHING, *ALL, *sources, *teacher, "--evaluate.seeds", "[0]")
    rows = [row for row in scored(folder.parent) if row["kind"] == "set"]
    assert [row["source"] for row in rows] == [str(path) for path in sets]
    assert len({row["source_hash"] for row in rows}) == 3
    assert all(0 < row["teacher_accuracy"] <= 100 for row in rows)
    assert "teacher" in (folder.parent / "evaluate/table.md").read_text().splitlines()[4]
    choose = ["--evaluate.select_temperature", "[1.0, 2.0]"]
    expected = "data.val_fraction is 0.0, expected a number above 0 with evaluate.select_temperature"
    refused("evaluate", *tiny, *MATCHING, *ALL, *sources, *teacher, *choose, naming=expected)

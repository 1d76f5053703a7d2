"""The user's own files, damaged or of other content: YAML, a run folder's config.json, rows.jsonl."""

import json
import math

import pytest


def refused(result: tuple[int, str, str], naming: object) -> None:
    code, _, error = result
    (line,) = [line for line in error.splitlines() if line.startswith("gdd: ")]
    assert code == 2
    assert str(naming) in line
    assert "Traceback" not in error


@pytest.mark.parametrize("content", [b"[1, 2]", b"3", b"name: [", b"? {a: b}\n: 3", b"3: 4", bytes(range(256))])
def test_yaml_that_holds_no_settings_is_refused(content, gdd, tmp_path):
    (tmp_path / "bad.yaml").write_bytes(content)
    refused(gdd("train-gan", "--dry_run", "--config", tmp_path / "bad.yaml"), "")


def test_a_folder_as_config_is_refused(gdd, tmp_path):
    refused(gdd("train-gan", "--dry_run", "--config", tmp_path), tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"{}", b"\0", bytes(range(256))])
def test_a_damaged_config_of_a_run_folder_is_refused(content, gdd, tiny, tmp_path):
    path = tmp_path / "runs/digits/pretrain/config.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    refused(gdd("train-gan", *tiny), path.parent)


ROW = {
    "source": "real:random",
    "kind": "real:random",
    "method": "real",
    "stage": None,
    "arch": "mlp-w4",
    "seed": 0,
    "ipc": 2,
    "protocol": "fixed",
    "accuracy": 50.0,
    "validation_accuracy": None,
    "correct": 5,
    "total": 10,
    "recipe": "dc",
    "augment": "none",
    "label_kind": "hard",
    "alpha": None,
    "temperature": None,
    "epochs": 1,
    "images": 20,
    "distinct_images_seen": 20,
    "bytes": 100,
    "optimizer_steps": 1,
    "images_per_step": 20,
    "train_loss": 1.0,
    "seconds": 1.0,
    "seconds_generating": 0.0,
    "seconds_teacher": 0.0,
    "seconds_selecting": 0.0,
    "peak_memory_mb": 1.0,
    "device": "cpu",
    "generator_seconds": None,
    "set_hash": "0",
    "source_hash": "0",
    "recipe_hash": "0",
    "config_hash": "0",
    "git_revision": None,
    "versions": {"torch": "2"},
    "dataset": "digits",
}


def report(gdd, folder, *lines):
    (folder / "rows.jsonl").write_text("\n".join(lines))
    return gdd("report", folder)


def test_a_whole_row_is_reported(gdd, tmp_path):
    assert report(gdd, tmp_path, json.dumps(ROW))[0] == 0


@pytest.mark.parametrize("line", ["[]", "3", "{}", "null", '{"source": ', "\0"])
def test_damaged_rows_are_refused(line, gdd, tmp_path):
    refused(report(gdd, tmp_path, line, line), tmp_path)


def test_rows_that_are_no_text_are_refused(gdd, tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(bytes(range(256)))
    refused(gdd("report", tmp_path), tmp_path)


@pytest.mark.parametrize("field", ROW)
def test_a_row_with_a_value_of_another_type_is_refused(field, gdd, tmp_path):
    for value in ([], {"a": [1]}):
        refused(report(gdd, tmp_path, json.dumps({**ROW, field: value})), tmp_path)


@pytest.mark.parametrize("accuracy", [math.nan, -math.inf, 101])
def test_an_accuracy_that_is_no_percentage_is_refused(accuracy, gdd, tmp_path):
    refused(report(gdd, tmp_path, json.dumps({**ROW, "accuracy": accuracy})), tmp_path)

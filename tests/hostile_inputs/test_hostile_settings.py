"""YAML and JSON that gdd reads: nothing in it runs, and neither stack nor memory nor patience run out."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import get_type_hints

import guarded
import pytest

from gdd.config.checks import fits
from gdd.evaluation.row import Row


def laughs() -> str:
    """Let nine lists of nine name each other: 9^9 words once unfolded."""
    lines = [f"a0: &a0 [{', '.join('x' * 9)}]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 10)]
    return "\n".join([*lines, "name: *a9"])


def mark_below(folder: Path) -> str:
    return f"name: !!python/object/apply:os.mkdir [{folder / 'mark'}]"


YAML: dict[str, Callable[[Path], str | bytes]] = {
    "python tag": mark_below,
    "python tag in a part": lambda folder: f"gan:\n  {mark_below(folder)}",
    "laughs": lambda _: laughs(),
    "laughs in merges": lambda _: laughs().replace("name: *a9", "gan:\n  <<: *a9"),
    "alias of itself": lambda _: "name: &a [*a]",
    "nested lists": lambda _: "name: " + "[" * 100_000 + "]" * 100_000,
    "nested mappings": lambda _: "name: " + "{a: " * 100_000 + "}" * 100_000,
    "nested blocks": lambda _: "".join(" " * depth + "a:\n" for depth in range(1000)),
    "open brackets": lambda _: "[" * 100_000,
    "two megabytes": lambda _: "# comment\n" * 200_000,
    "a long number": lambda _: "seed: " + "9" * 5000,
    "a long text": lambda _: "name: " + "x" * 500_000,
    "bytes": lambda _: bytes(range(256)),
    "null bytes": lambda _: bytes(1000),
    "UTF-16": lambda _: "name: x".encode("utf-16"),
    "nothing": lambda _: "",
    "a list": lambda _: "[1, 2]",
    "a number": lambda _: "3",
    "other keys": lambda _: "3: 4\nnull: 5",
    "an unhashable key": lambda _: "? {a: b}\n: 3",
    "escape codes": lambda _: 'name: "\\e]0;title\\a/"',
}


@pytest.mark.parametrize("case", YAML)
def test_hostile_yaml_is_refused(case, tmp_path):
    path = tmp_path / "hostile.yaml"
    content = YAML[case](tmp_path)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    guarded.refused("train-gan", "--dry_run", "--config", path, naming="")
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("case", ["python tag", "laughs", "nested lists"])
def test_hostile_yaml_named_by_another_file_is_refused(case, tmp_path):
    (tmp_path / "part.yaml").write_text(str(YAML[case](tmp_path)))
    path = tmp_path / "hostile.yaml"
    path.write_text(f"gan: {tmp_path / 'part.yaml'}")
    guarded.refused("train-gan", "--dry_run", "--config", path, naming="gan")
    assert not (tmp_path / "mark").exists()


def test_a_folder_as_config_is_refused(tmp_path):
    guarded.refused("train-gan", "--dry_run", "--config", tmp_path, naming=tmp_path)


def test_a_config_of_gigabytes_is_refused_unread(tmp_path):
    path = tmp_path / "hostile.yaml"
    with path.open("wb") as file:
        file.truncate(10 * 2**30)  # a hole that takes no room on the disk
    guarded.refused("train-gan", "--dry_run", "--config", path, naming=path)


DEEP = "[" * 100_000 + "]" * 100_000
INSIDE = '{"fingerprint": ' + DEEP + "}"
JSON = ["", "{", DEEP, INSIDE, "9" * 5000, "[]", "3", "null", "{}", '{"fingerprint": NaN}', "\0"]


@pytest.mark.parametrize("content", JSON, ids=range(len(JSON)))
def test_a_hostile_mark_of_a_run_folder_is_refused(content, flags, runs):
    path = runs / "digits" / "pretrain" / "config.json"
    path.write_text(content)
    guarded.refused("train-gan", *flags, naming=path.parent)


def test_a_mark_that_is_no_text_is_refused(flags, runs):
    path = runs / "digits" / "pretrain" / "config.json"
    path.write_bytes(bytes(range(256)))
    guarded.refused("train-gan", *flags, naming=path)


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


def test_an_honest_row_is_reported(tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROW))
    assert guarded.run("report", tmp_path).code == 0


@pytest.mark.parametrize("line", [DEEP, "9" * 5000, "[]", "3", "{}", "null", '{"source": ' + DEEP + "}", "\0"])
def test_hostile_rows_are_refused(line, tmp_path):
    (tmp_path / "rows.jsonl").write_text(f"{line}\n" * 3)
    guarded.refused("report", tmp_path, naming=tmp_path)


@pytest.mark.parametrize("field", ROW)
def test_a_row_with_a_value_of_another_type_is_refused(field, gdd, tmp_path):
    for value in ([], {"a": [1]}, math.nan, -math.inf, 10**400):
        (tmp_path / "rows.jsonl").write_text(json.dumps({**ROW, field: value}))
        code, _, error = gdd("report", tmp_path)
        assert code == (0 if fits(value, get_type_hints(Row)[field]) and field != "accuracy" else 2)
        assert error.count("gdd: ") == (code == 2)


def test_rows_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(bytes(range(256)))
    guarded.refused("report", tmp_path, naming=tmp_path)

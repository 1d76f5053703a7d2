"""Rows of an evaluation that nobody had to train."""

from dataclasses import replace

import pytest

from gdd.evaluation.row import Row


@pytest.fixture
def row() -> Row:
    """A stored set's score, to be changed as a test needs it."""
    times = ("seconds", "seconds_generating", "seconds_teacher", "seconds_selecting")
    return Row(
        **dict.fromkeys(("validation_accuracy", "alpha", "temperature", "git_revision")),
        **dict.fromkeys((*times, "train_loss", "peak_memory_mb"), 0.0),
        **dict.fromkeys(("images", "distinct_images_seen", "images_per_step"), 10),
        **dict.fromkeys(("set_hash", "source_hash"), "1"),
        source="set",
        kind="set",
        method="gradient matching",
        stage="matching",
        arch="mlp-w16",
        seed=0,
        ipc=1,
        protocol="fixed",
        accuracy=50.0,
        correct=180,
        total=360,
        recipe="dc",
        augment="none",
        label_kind="hard",
        epochs=3,
        bytes=2560,
        optimizer_steps=3,
        device="cpu",
        generator_seconds=2.5,
        recipe_hash="r",
        config_hash="c",
        versions={"torch": "2.10"},
        dataset="digits",
    )


@pytest.fixture
def rows(row: Row) -> list[Row]:
    """Ceiling 90, two generators at 50 and 60 with differences 9, 10, 11, each fixed and streamed, floor 30 + seed."""
    seeds = [replace(row, seed=seed) for seed in (0, 1, 2)]
    real = {"method": "real", "stage": None, "generator_seconds": None}
    ceiling = {"source": "real:all", "kind": "real:all", "ipc": None, "epochs": 1, "accuracy": 90.0, **real}
    floor = {"source": "real:random", "kind": "real:random", **real}
    pretrained = [
        replace(one, source="pretrained", kind="generator", stage="pretrain", accuracy=50.0 + 5 * one.seed, **how)
        for how in ({}, {"protocol": "stream", "distinct_images_seen": 30, "set_hash": None})
        for one in seeds
    ]
    refined = [
        replace(one, source="refined", stage="refine", source_hash="2", accuracy=one.accuracy + 9 + one.seed)
        for one in pretrained
    ]
    return [
        *[replace(one, **ceiling) for one in seeds],
        *pretrained,
        *refined,
        *[replace(one, **floor, accuracy=30.0 + one.seed) for one in seeds],
    ]

"""A run that nobody had to compute: two stages of untrained generators, and an evaluation."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from generators import save_generator

from gdd.config import Config, to_plain
from gdd.data.readers import Dataset
from gdd.evaluation.row import Row

# What a stranger may call a class.
HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "</style><b>", "&lt;i&gt;", "{{ 7 * 7 }}")


def renamed(dataset: Dataset, names: Sequence[str] = HOSTILE) -> Dataset:
    """Return the dataset, its first classes with these names."""
    kept = dataset.spec.class_names[len(names) :]
    return replace(dataset, spec=replace(dataset.spec, class_names=(*names, *kept)))


def write_run(folder: Path, dataset: Dataset, rows: Sequence[Row]) -> Path:
    """Write pretrain, refine and evaluate of a run, and return its folder."""
    config = to_plain(Config())
    for stage, seconds in (("pretrain", 10.0), ("refine", 12.5)):
        origin = {"stage": stage, "seconds": seconds, "data": dataset.fingerprint, "config": config}
        (folder / stage).mkdir(parents=True)
        save_generator(folder / stage, dataset.spec, gain=3.0, seed=len(stage), **origin)
        write_settings(folder / stage, config)
        lines = [
            {"step": step, "images_per_second": 100.0, "loss/generator": 2 / step, "loss/discriminator": step / 10}
            | {"diversity/mean": 0.5, "proxy/0.99": min(1, step / 40)}
            for step in range(10, 60, 10)
        ]
        (folder / stage / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"step": 60, "lo')
    (folder / "evaluate").mkdir()
    write_settings(folder / "evaluate", config)
    (folder / "evaluate/rows.jsonl").write_text("".join(json.dumps(row.to_dict()) + "\n" for row in rows))
    return folder


def write_settings(folder: Path, config: dict[str, object]) -> None:
    (folder / "config.json").write_text(json.dumps({"fingerprint": "f", "config": config}))

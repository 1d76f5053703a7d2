"""A run that nobody had to compute: two stages of untrained generators, an evaluation, and an audit."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from generators import save_generator

from gdd.config import Config, to_plain
from gdd.data.readers import Dataset
from gdd.evaluation import audit
from gdd.evaluation.audit import Audit, AuditedSource, Medians, Membership
from gdd.evaluation.copies import Proportion
from gdd.evaluation.row import Row
from gdd.evaluation.sources import Source
from gdd.report import commands, compare
from gdd.report.compare import Compared

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


def write_comparison(folder: Path, rows: Sequence[Row]) -> Path:
    """Write a comparison of the rows, whose sources are called what strangers may call them, and return its folder."""
    names = dict(zip(dict.fromkeys(row.source for row in rows), HOSTILE, strict=False))
    rows = [replace(row, source=names[row.source], bytes=2560 * (row.seed == 0) + 2560) for row in rows]
    folder.mkdir(parents=True)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row.to_dict()) + "\n" for row in rows))
    shown = [Compared(Source(name, "set", ""), name) for name in names.values()]
    settings = replace(Config().evaluate, sources=tuple(f"runs/{name}" for name in names.values()))
    compare.write_comparison(folder, rows, shown, commands.comparing(replace(Config(), evaluate=settings)), [])
    return folder


def write_audit(folder: Path, dataset: Dataset, source_hash: str, label: str = "runs/mine/refine") -> Audit:
    """Write an audit of made-up numbers into a new folder, with a file in the place of its picture."""
    folder.mkdir()
    share = Proportion(0.02, 0.01, 0.04, 0.01)
    found = Audit(
        source=AuditedSource(label, "generator", source_hash),
        dataset=dataset.spec.name,
        data=dataset.fingerprint,
        held_out="validation",
        n_samples=1234,
        n_training=1293,
        n_held_out=145,
        n_group=145,
        copies=0,
        near_copies=share,
        nearest=Medians(3.0, 4.0, 5.0),
        nearer_to_training=Proportion(0.6, 0.55, 0.65, 0.5),
        membership=Membership(0.61, 0.58, 0.64, 0.03),
    )
    audit.write_audit(folder, found)
    (folder / "audit.png").write_bytes(b"a picture")
    write_settings(folder, to_plain(Config()))
    return found


def write_settings(folder: Path, config: dict[str, object]) -> None:
    (folder / "config.json").write_text(json.dumps({"fingerprint": "f", "config": config}))

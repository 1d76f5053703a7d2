"""gdd compare on digits: two methods side by side, nothing trained twice, mistakes told in one sentence."""

import json
from pathlib import Path

import pytest
import torch

from gdd import pipeline
from gdd.evaluation.student import StudentTrainer
from gdd.sampling import generator_file, set_file

FILES = {".lock", "config.json", "rows.jsonl", "rows.csv", "compare.md", "accuracy-ipc.png", "accuracy-seconds.png"}


@pytest.fixture
def trained(gdd, tiny, tmp_path) -> tuple[Path, Path]:
    """The folders of a generator and of a pixel matcher's set, both of digits at 20 pixels."""
    assert gdd("train-gan", *tiny, "--data.size", "[20, 20]")[0] == 0
    generator = tmp_path / "runs/digits/pretrain"
    facts = generator_file.load(generator)
    images = torch.rand(20, 1, 20, 20, generator=torch.Generator().manual_seed(0)) * 1.2 - 0.1
    provenance = {"method": "gradient matching", "stage": "match", "seconds": 123.4, "iterations": 1000, "seed": 0}
    provenance["config"] = facts.provenance["config"]
    made = set_file.SyntheticSet(images, torch.arange(10).repeat(2), facts.spec, 2, provenance)
    set_file.save(tmp_path / "runs/dc/match" / set_file.FILE, made)
    return generator, tmp_path / "runs/dc/match"


def test_compare_reads_the_data_settings_and_writes_tables_and_pictures(trained, gdd, tiny, tmp_path, monkeypatch):
    generator, matched = trained
    flags = ["--arch", "mlp-w4", "mlp-w8", "--ipc", "1", "2", "--mark", "30", "--evaluate.seeds", "[0]"]
    command = ["compare", matched, generator, *tiny, *flags]
    code, out, _ = gdd(*command)
    assert code == 0
    for word in ("gradient matching", "pretrained generator", "random real", "anew: 123", "mlp-w8", "stream"):
        assert word in out
    folder = tmp_path / "runs/compare/compare"
    assert {path.name for path in folder.iterdir()} == FILES
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    cells = {(row["source"], row["ipc"], row["protocol"]) for row in rows}
    assert cells == {
        *(("random real", ipc, "fixed") for ipc in (1, 2)),
        ("gradient matching", 2, "fixed"),
        *(("pretrained generator", ipc, protocol) for ipc in (1, 2) for protocol in ("fixed", "stream")),
    }
    assert len(rows) == 7 * 2
    assert json.loads((folder / "config.json").read_text())["config"]["data"]["size"] == [20, 20]

    monkeypatch.setattr(StudentTrainer, "score", lambda *_: pytest.fail("a student was trained twice"))
    assert gdd(*command)[0] == 0
    # Settings of the user's own are kept, and then the sources do not fit.
    refused(gdd(*command, "--data.size", "[16, 16]"), "expected (1, 16, 16)")


def test_a_missing_source_is_refused_before_the_data_are_read(gdd, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "open_dataset", lambda *_, **__: pytest.fail("the data were read"))
    refused(gdd("compare", "nowhere.safetensors", *tiny), "nowhere.safetensors does not exist")
    for command in ("evaluate", "distill"):
        refused(gdd(command, *tiny, "--evaluate.sources", "[nowhere]"), "nowhere does not exist")
    refused(gdd("evaluate", *tiny), "holds no finished stage")


def refused(result: tuple[int, str, str], expected: str) -> None:
    code, _, error = result
    lines = [line for line in error.splitlines() if line.startswith("gdd: ")]
    assert code == 2
    assert len(lines) == 1
    assert expected in lines[0]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nowhere"], "nowhere does not exist"),
        (["real:random"], "nothing to compare"),
        (["real:all", "--evaluate.sources", "[real:random]"], "evaluate.sources"),
        (["real:all", "--ipc", "0"], "evaluate.ipc"),
        (["real:all", "--ipc", "1000"], "1000 images per class"),
        (["real:all", "--arch", "resnet19"], "resnet19"),
        (["real:all", "--mark", "high"], "mark"),
        ([], "sources"),
    ],
)
def test_compare_refuses(arguments, expected, gdd, tiny, tmp_path):
    refused(gdd("compare", *arguments, *tiny), expected)
    assert not (tmp_path / "runs").exists()

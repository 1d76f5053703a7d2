"""Distilling and scoring from Python do what the commands do, and give objects for what they write."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import MATCHING, TINY, launch

import gdd
from gdd.api.run import Distilled, _by_label, _of_arrays, read_settings
from gdd.cli.main import parse_config
from gdd.config import Config, ConfigError, to_plain
from gdd.report.statistics import require_rows
from gdd.sampling import generator_file

SETTINGS = {key: value for key, value in to_plain(parse_config(TINY)).items() if key != "data"}
SHORT = {"archs": ["mlp-w4"], "seeds": [0, 1], "ipc": [2], "recipe": {"epochs": 3}, "all_epochs": 1}


def settings(root, **own):
    return {**SETTINGS, **own, "run": {**SETTINGS["run"], "root": root}}


@pytest.fixture(scope="module")
def distilled(tmp_path_factory) -> Distilled:
    return gdd.distill(**settings(tmp_path_factory.mktemp("python")))


def test_distilling_gives_the_generator_and_the_rows_of_the_command(distilled, tmp_path, done):
    done("distill", *TINY, "--run.root", tmp_path)
    assert generator_file.load(tmp_path / "digits/refine").hash == distilled.load().loaded.hash
    assert distilled.file == distilled.folder / generator_file.FILE
    found = distilled.scores
    assert len(found.rows) == 2 * (1 + 2 * 2 + 1 + 1)  # two seeds of floor, stages fixed and streamed, two ceilings
    rows = require_rows(tmp_path / "digits/evaluate")
    by_command = {(row.source, row.protocol, row.seed): row.accuracy for row in rows}
    by_python = {(row.source, row.protocol, row.seed): row.accuracy for row in found.rows.itertuples()}
    assert by_python == by_command
    for line in found.summary.itertuples():
        scores = [score for key, score in by_python.items() if key[:2] == (line.source, line.protocol)]
        assert line.accuracy == pytest.approx(np.mean(scores))
        assert line.half_width == pytest.approx(12.7062 * np.std(scores, ddof=1) / 2**0.5, rel=1e-4)
        assert (line.n, line.failed) == (2, 0)


def test_the_same_call_again_trains_nothing(distilled):
    root = distilled.folder.parents[1]
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*.safetensors")}
    rows = (root / "digits/evaluate/rows.jsonl").read_bytes()
    again = gdd.distill(**settings(root))
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*.safetensors")} == before
    assert (root / "digits/evaluate/rows.jsonl").read_bytes() == rows
    assert again.scores.rows.equals(distilled.scores.rows)


def test_matching_gives_a_set(tmp_path):
    given = {key: value for key, value in to_plain(parse_config([*TINY, *MATCHING])).items() if key != "data"}
    matched = gdd.distill(**given | {"score": False, "run": {**given["run"], "root": tmp_path}})
    assert matched.scores is None
    assert isinstance(matched.load(), gdd.ImageSet)
    assert matched.load().ipc == 2


def test_sources_may_be_objects_paths_names_and_arrays(distilled, tmp_path):
    generator = distilled.load()
    drawn = generator.sample(3)
    images, labels = drawn.stored.images, drawn.labels
    drawn.save(tmp_path / "three.safetensors")
    named = {
        "generator": distilled,
        "file": tmp_path / "three.safetensors",
        "inverted": (255 - images.numpy(), labels.tolist()),
        "a tenth": "real:fraction=0.1",
    }
    found = gdd.evaluate(named, name="objects", evaluate=SHORT, run={"root": tmp_path, "workers": 1})
    assert found.folder == tmp_path / "objects/evaluate"
    assert {*found.summary.source} == {*named, "random real", "all real", "fresh real"}
    assert found.rows.ipc[found.rows.source == "a tenth"].tolist() == [13, 13]
    hashes = {row.source: row.source_hash for row in found.rows.itertuples()}
    assert hashes["file"] == drawn.stored.hash != hashes["inverted"]
    # A set in memory is the source that its file is.
    same = gdd.evaluate(drawn, "digits", name="set", evaluate=SHORT, run={"root": tmp_path, "workers": 1})
    pairs = [frame[frame.source == name].accuracy for frame, name in ((found.rows, "file"), (same.rows, "set 1"))]
    assert pairs[0].tolist() == pairs[1].tolist()


def test_the_process_computes_as_before(distilled, tmp_path):
    torch.set_num_threads(1)
    run = {"root": tmp_path, "threads": 2, "workers": 1}
    gdd.evaluate("real:fraction=0.1", "digits", name="threads", evaluate=SHORT, run=run)
    assert torch.get_num_threads() == 1
    assert not torch.are_deterministic_algorithms_enabled()


LEVELS = np.arange(10 * 256).reshape(10, 1, 16, 16) % 256
TEN = np.arange(10)
NO_SOURCES = {
    "a number": (3, "source 'set 1' is a int, expected a path, a name, a set or a generator"),
    "unequal": ((LEVELS[:4].astype(np.uint8), [0, 1, 2, 2]), "images by class, expected equally many"),
    "size": ((LEVELS[..., :8].astype(np.uint8), TEN), "source 'set 1': the set's images are (10, 1, 16, 8)"),
    "type": ((LEVELS.astype(np.int32), TEN), "array of source 'set 1' is int32, expected uint8, bool or float"),
    "path": ("nowhere", "nowhere"),
    "levels": ((LEVELS.astype(np.float32), TEN), "source 'set 1' has pixels from 0 to 255, expected them on the scale"),
    "0 and 1": (
        ((LEVELS > 99).astype(np.uint8), TEN),
        "array of source 'set 1' has no pixel above 1 and would be black",
    ),
    "nan": ((LEVELS * np.nan, TEN), "source 'set 1': the set's images hold values that are infinite or not a number"),
    "empty": ((np.zeros((0, 1, 16, 16)), []), "has shape (0, 1, 16, 16), expected at least one pixel"),
    "cut": ((LEVELS / 255, TEN + 0.9), "label array of source 'set 1' is float64 of shape (10,), expected integers"),
    "negative": ((LEVELS / 255, TEN - 1), "source 'set 1' has labels -1 to 8, expected 0 to 9"),
    "beyond": ((LEVELS / 255, TEN + 1), "source 'set 1' has labels 1 to 10, expected 0 to 9"),
    "one-hot": ((LEVELS / 255, np.eye(10)), "label array of source 'set 1' is float64 of shape (10, 10), expected"),
    "text": ((LEVELS / 255, list("abcdefghij")), "a label of source 'set 1' is 'a', expected numbers"),
}


@pytest.mark.parametrize(("source", "words"), NO_SOURCES.values(), ids=NO_SOURCES)
def test_what_is_no_source_is_refused(source, words, tmp_path):
    with pytest.raises(ConfigError, match=re.escape(words)):
        gdd.evaluate(source, "digits", evaluate=SHORT, run={"root": tmp_path})
    assert not list(tmp_path.iterdir())


def test_the_section_evaluate_has_no_sources_of_its_own():
    with pytest.raises(ConfigError, match=r"evaluate\.sources is given"):
        gdd.evaluate("real:all", evaluate={"sources": ["real:all"]})
    with pytest.raises(ConfigError, match=r"evaluate is 3, expected a mapping"):
        gdd.evaluate("real:all", evaluate=3)


def test_arrays_may_have_labels_in_a_column_and_any_floats(tmp_path, caplog):
    spec = gdd.open_dataset("digits").spec
    pixels = torch.from_numpy(LEVELS / 255)
    for images in (pixels, pixels.half(), pixels.requires_grad_(), pixels[:, 0]):
        found = _of_arrays("mine", (images, TEN[:, None]), spec)
        assert torch.equal(found.synthetic.labels, torch.arange(10))
        torch.testing.assert_close(found.synthetic.images, pixels.detach().float(), atol=1e-3, rtol=0)
    assert not caplog.text
    _of_arrays("mine", (2 * LEVELS / 255 - 1, TEN), spec)
    assert "source 'mine' has pixels from -1 to 1: only optimised ones should leave [0, 1]" in caplog.text


def test_two_sources_may_stand_in_a_tuple(distilled):
    generator = distilled.load()
    assert [*_by_label((generator, (LEVELS, TEN)))] == ["set 1", "set 2"]
    assert [*_by_label((LEVELS, TEN))] == ["set 1"]


def test_images_in_memory_are_distilled_and_scored(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (60, 16, 16), dtype=np.uint8)
    labels = np.arange(60) % 2
    made = gdd.distill((images, labels), (images[:10], labels[:10]), **settings(tmp_path, name="noise"))
    assert made.load().class_names == ("0", "1")
    assert made.load().spec.name == "noise"
    assert set(made.scores.rows.total) == {10}


SCRIPT = """
import gdd
run = {"root": ROOT, "workers": WORKERS, "threads": 1}
short = {"archs": ["mlp-w4"], "seeds": [0, 1], "ipc": [2], "recipe": {"epochs": 3}, "all_epochs": 1}
for name in ("one", "two"):
    print(gdd.evaluate("real:fraction=0.1", "digits", name=name, evaluate=short, run=run))
"""


@pytest.mark.slow
def test_a_script_without_a_guard_is_told_so_and_one_process_needs_none(tmp_path):
    script = tmp_path / "script.py"
    for workers, code in ((1, 0), (2, 1)):
        script.write_text(SCRIPT.replace("ROOT", repr(str(tmp_path / str(workers)))).replace("WORKERS", str(workers)))
        ended = subprocess.run([sys.executable, script], capture_output=True, text=True)
        assert ended.returncode == code, ended.stderr
    assert 'call it below `if __name__ == "__main__":`' in ended.stderr
    assert "one of run.workers ended with exit code 1" in ended.stderr


@pytest.mark.slow
def test_a_launched_script_may_call_twice(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace("ROOT", repr(str(tmp_path / "runs"))).replace("WORKERS", "1"))
    launch(script)
    rows = [require_rows(tmp_path / "runs" / name / "evaluate") for name in ("one", "two")]
    assert [row.accuracy for row in rows[0]] == [row.accuracy for row in rows[1]]


def test_nothing_given_is_every_default():
    assert read_settings({}) == Config()


def test_settings_are_those_of_the_flags():
    flags = ["--seed", "3", "--evaluate.archs", "[mlp, lenet]", "--evaluate.recipe.name", "dsa", "--run.root", "out"]
    given = {
        "seed": 3,
        "evaluate": {"archs": ["mlp", "lenet"], "recipe": {"name": "dsa"}},
        "run": {"root": Path("out")},
    }
    assert read_settings(given) == parse_config(flags)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"sede": 1}, "sede is no setting, expected seed"),
        ({"pretrain": {"step": 1}}, "pretrain.step is no setting, expected steps"),
        ({"evaluate": {"recipe": {"xyz": 1}}}, "evaluate.recipe.xyz is no setting, expected name, epochs"),
        ({"pretrain": 3}, "pretrain is 3, expected a mapping of steps"),
        ({"pretrain": {"steps": 0}}, "pretrain.steps is 0, expected"),
        ({"evaluate": {"archs": ["convent3"]}}, "evaluate.archs: .*convent3"),
        ({"refine": {"pretrained": "nowhere"}}, "nowhere"),
    ],
)
def test_what_is_no_setting_is_refused_by_its_name(given, sentence):
    with pytest.raises(ConfigError, match=sentence):
        read_settings(given, distilled=True)

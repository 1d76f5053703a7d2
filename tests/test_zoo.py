"""The generators that come with gdd: what stands beside each is true of it, and its name stands for its file."""

import hashlib
import json
import re
import runpy
import shutil
from dataclasses import asdict
from pathlib import Path
from statistics import fmean

import pytest
import torch
import yaml
from commands import ALONE, MATCHING, ROOT, TINY
from settings import holds_only_differences

from gdd import zoo
from gdd.api.generator import load_generator
from gdd.cli.main import parse_config
from gdd.config import Config, ConfigError, counted, read_as, to_plain
from gdd.evaluation import audit, sources
from gdd.evaluation.grid import ROWS, read_rows
from gdd.evaluation.row import Row
from gdd.sampling import generator_file, sample, set_file

NAMES = zoo.names()
HOME = zoo.HOME
ROLES = {"real:random": "floor", "generator": "generator", "real:stream": "ceiling"}


@pytest.fixture
def maker(monkeypatch) -> dict[str, object]:
    """What benchmarks/zoo.py defines."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return runpy.run_path(str(ROOT / "benchmarks/zoo.py"))


@pytest.fixture
def copied(tmp_path, monkeypatch) -> Path:
    """The folder of zoo:digits in a zoo of its own."""
    monkeypatch.setattr(zoo, "HOME", tmp_path)
    return shutil.copytree(HOME / "digits", tmp_path / "digits")


def test_there_is_one_of_each_dataset():
    assert NAMES == ["cifar10", "digits", "fashion_mnist", "mnist"]
    assert [zoo.manifest(name).dataset for name in NAMES] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_generator_is_small_and_says_where_it_is_from(name):
    loaded = load_generator(f"zoo:{name}").loaded
    assert loaded.bytes < 8e6
    assert loaded.spec.name == name
    assert "run" not in loaded.provenance["config"]  # whose root would tell its maker's folders
    assert loaded.provenance["seconds"] > 0


@pytest.mark.parametrize("name", NAMES)
def test_its_classes_differ_and_none_is_a_single_image(name):
    drawn = sample.sample_set(generator_file.load(f"zoo:{name}"), 16, seed=0)
    images = drawn.images.float().flatten(1).unflatten(0, (-1, 16))  # (K, 16, pixels)
    assert images.std(dim=1).mean() > 10  # of 255
    assert torch.pdist(images.mean(1)).min() > 100


@pytest.mark.parametrize("name", NAMES)
def test_its_config_holds_only_differences_and_is_what_made_it(name):
    path = HOME / name / "config.yaml"
    given = yaml.safe_load(path.read_text())
    assert given.pop("name") == name
    holds_only_differences(given, to_plain(Config()))
    made_with = read_as(Config, generator_file.load(HOME / name).provenance["config"])
    config = parse_config(["--config", str(path)])
    assert (counted(config), config.data) == (counted(made_with), made_with.data)


@pytest.mark.parametrize("name", NAMES)
def test_its_manifest_is_what_its_files_say(name, maker):
    folder, manifest = HOME / name, zoo.manifest(name)
    content = (folder / zoo.FILE).read_bytes()
    assert (manifest.sha256, manifest.bytes) == (hashlib.sha256(content).hexdigest(), len(content))
    assert manifest == maker["manifest"](folder)
    assert json.loads((folder / zoo.MANIFEST).read_text()) == json.loads(json.dumps(asdict(manifest)))


@pytest.mark.parametrize("name", NAMES)
def test_its_card_is_what_its_files_say_with_its_audit(name, maker):
    folder = HOME / name
    found = audit.read_audit(folder)
    assert found.source.hash == generator_file.load(folder).hash
    assert (found.n_samples, found.copies) == (5000, 0)
    text = (folder / "README.md").read_text()
    assert text == maker["card_text"](folder)
    assert f'gdd.load_generator("zoo:{name}")' in text
    assert "Not audited" not in text
    assert "Not measured" not in text


@pytest.mark.parametrize("name", NAMES)
def test_its_scores_are_means_over_its_rows(name):
    loaded, rows = generator_file.load(HOME / name), read_rows(HOME / name)
    assert len(rows) == len((HOME / name / ROWS).read_text().splitlines())
    assert {row.source_hash for row in rows if row.kind == "generator"} == {loaded.hash}
    assert {row.source_hash for row in rows if row.kind != "generator"} == {loaded.provenance["data"]}
    assert all((row.failure, row.validation_accuracy) == (None, None) for row in rows)
    scores = zoo.manifest(name).scores
    assert [(score.recipe, score.arch) for score in scores] == list(
        dict.fromkeys((row.recipe, row.arch) for row in rows)
    )
    assert len({row.recipe_hash for row in rows}) == len({row.recipe for row in rows})
    for score in scores:
        for kind, role in ROLES.items():
            of = [row for row in rows if (row.kind, row.arch, row.recipe) == (kind, score.arch, score.recipe)]
            told = {(row.optimizer_steps, row.precision, row.ipc) for row in of}
            assert told == {(score.steps, score.precision, score.ipc)}
            mean = getattr(score, role)
            assert mean.mean == pytest.approx(fmean(row.accuracy for row in of), abs=1e-3)
            assert mean.n == len({row.seed for row in of}) == len(of) >= (2 if score.recipe == "dc" else 1)
            assert mean.half_width is None if mean.n == 1 else mean.half_width > 0
        assert {row.protocol for row in rows if row.kind == "generator"} == {score.protocol}
        assert score.floor.mean < score.generator.mean < score.ceiling.mean


@pytest.mark.parametrize("place", [20, -1])
def test_a_changed_file_is_refused(copied, refused, place):
    assert generator_file.load("zoo:digits").hash == generator_file.load(copied).hash
    content = bytearray((copied / zoo.FILE).read_bytes())
    content[place] ^= 1
    (copied / zoo.FILE).write_bytes(content)
    for command in (["sample", "zoo:digits", "--ipc", 1], ["compare", "zoo:digits"]):
        assert str(copied / zoo.FILE) in refused(*command, naming="was changed: its checksum differs")
    (copied / zoo.FILE).unlink()
    with pytest.raises(ConfigError, match="was changed"):
        load_generator("zoo:digits")


@pytest.mark.parametrize("text", ["", "{", '{"sha256": 1}', "\ud800"])
def test_a_damaged_manifest_is_refused(copied, refused, text):
    (copied / zoo.MANIFEST).write_text(text, errors="surrogatepass")
    refused("sample", "zoo:digits", "--ipc", 1, naming=copied / zoo.MANIFEST)
    refused("zoo", naming=copied / zoo.MANIFEST)


def test_an_unknown_name_is_told_those_that_there_are(refused):
    known = ", ".join(f"zoo:{name}" for name in NAMES)
    for command in (
        ["sample", "zoo:mnis", "--ipc", 1],
        ["compare", "zoo:mnis"],
        ["landscape", "zoo:mnis", "--arch", "mlp"],
        ["evaluate", "--evaluate.sources", "[zoo:mnis]"],
        ["distill", *MATCHING, "--matching.init", "generator", "--matching.generator", "zoo:mnis"],
    ):
        line = refused(*command)
        assert line.endswith(f"comes with gdd, expected one of {known}; did you mean 'mnist'?")
    with pytest.raises(ConfigError, match=r"zoo:\.\./zoo/mnist is no generator"):
        load_generator("zoo:../zoo/mnist")


def test_a_sample_is_the_same_anywhere_and_overwrites_nothing(done, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "wrote digits-2.safetensors: 20 images" in done("sample", "zoo:digits", "--ipc", 2)
    done("sample", HOME / "digits", "--ipc", 2, "--out", "path.safetensors")
    assert Path("digits-2.safetensors").read_bytes() == Path("path.safetensors").read_bytes()
    assert set_file.load(Path("digits-2.safetensors")).hash == load_generator("zoo:digits").sample(2).stored.hash
    refused("sample", "zoo:digits", "--ipc", 2, naming="digits-2.safetensors exists, expected --out")
    refused("sample", HOME / "digits", "--ipc", 2, naming="--out is not given")
    refused("sample", "zoo:digits", "--ipc", 2, "--format", "webdataset", naming="--out is not given")


def test_its_name_is_a_source_wherever_a_generator_is(done, tmp_path):
    source = sources.read("zoo:digits")
    assert (source.label, source.kind, source.path) == ("zoo:digits", "generator", HOME / "digits" / zoo.FILE)
    assert source.hash == generator_file.load(HOME / "digits").hash
    flags = [*TINY, "--run.root", tmp_path]
    assert "refined generator" in done("compare", "zoo:digits", *flags, "--evaluate.seeds", "[0]")
    rows = read_rows(tmp_path / "compare/compare")
    assert {row.source_hash for row in rows if row.kind == "generator"} == {source.hash}
    done("landscape", "zoo:digits", "--arch", "mlp-w4", "--eigenvalues", 2, "--ipc", 2, *flags)
    done("distill", *flags, *MATCHING, *ALONE, "--matching.init", "generator", "--matching.generator", "zoo:digits")
    assert set_file.load(tmp_path / "digits/matching" / set_file.FILE).spec == load_generator("zoo:digits").spec


def test_all_are_listed_with_their_scores(done):
    listed = done("zoo")
    for name in NAMES:
        below = listed.partition(f"zoo:{name}")[2].splitlines()
        for line, score in zip(below, zoo.manifest(name).scores, strict=False):
            means = (
                f"{one.mean:.1f}" + ("" if one.half_width is None else f" ± {one.half_width:.1f}")
                for one in (score.floor, score.generator, score.ceiling)
            )
            assert re.split(r"\s{2,}", line)[-5:] == [score.arch, f"{score.steps:,}", *means]


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / "data/MNIST").is_dir(), reason="MNIST is not in data/")
def test_a_student_scored_anew_has_the_accuracy_of_its_row(maker, done, tmp_path):
    """Bits are those of one kind of CPU; elsewhere rounding differs, and then so may the student, as of another seed.

    Two students of different seeds differ by less than t sqrt(2) s in 95 % of all pairs, which is sqrt(2 n) half widths
    of the interval of n students' mean: 1.0 points for this one, which is 16.5 better than on random real images.
    """
    (score,) = [score for score in zoo.manifest("mnist").scores if score.arch == "mlp-w128"]
    flags = [*maker["CONDITIONS"], "--evaluate.seeds", "[0]", "--run.workers", 1, "--run.root", tmp_path]
    done("compare", "zoo:mnist", "--arch", score.arch, "--data.root", ROOT / "data", *flags)

    def by_kind(folder: Path) -> dict[str, Row]:
        return {row.kind: row for row in read_rows(folder) if (row.arch, row.seed) == (score.arch, 0)}

    old, new = by_kind(HOME / "mnist"), by_kind(tmp_path / "compare/compare")
    assert old.keys() == new.keys() == ROLES.keys()
    for kind, role in ROLES.items():
        assert old[kind].key == new[kind].key  # the same measurement
        mean = getattr(score, role)
        assert abs(new[kind].accuracy - old[kind].accuracy) <= (2 * mean.n) ** 0.5 * mean.half_width

"""From `gdd train-ensemble` over `gdd sample` to scores, and what is refused on the way."""

import pytest
from commands import TINY
from test_end_to_end import lines

from gdd.sampling import ensemble_file, set_file

ENSEMBLE = ["--ensemble.archs", "[mlp-w16]", "--ensemble.steps", "30", "--ensemble.batch_size", "50"]


@pytest.fixture
def ensemble(done, tmp_path):
    out = done("train-ensemble", *TINY, *ENSEMBLE, "--run.root", tmp_path / "out")
    assert "work     train 1 classifiers: 30 x 50 images each" in out
    return tmp_path / "out/digits/ensemble"


def test_samples_are_chosen_labelled_stored_and_scored(done, ensemble, pretrained, tmp_path):
    assert ensemble_file.load(ensemble).provenance["validation_accuracy"]["all"] > 30
    out = tmp_path / "set.safetensors"
    chosen = ["--select", "kmeans", "--pool", 6, "--soft-labels", "--ensemble", ensemble]
    assert "20 images, 2 of each" in done("sample", pretrained, "--ipc", 2, "--out", out, *chosen)
    stored = set_file.load(out)
    assert stored.soft_labels is not None
    assert stored.provenance["curated"]["select"] == "kmeans"
    done("compare", out, *TINY, "--run.root", tmp_path / "out")
    page = (tmp_path / "out/compare/compare/compare.md").read_text()
    assert "samples of pretrained generator, kmeans, soft labels" in page
    rows = lines(tmp_path / "out/compare/compare/rows.jsonl")
    assert {row["label_kind"] for row in rows} == {"hard", "stored soft"}


def test_real_images_are_chosen_in_the_same_way(done, refused, ensemble, tmp_path):
    out, chosen = tmp_path / "real.safetensors", ["--ensemble", ensemble, "--soft-labels"]
    assert "20 images, 2 of each" in done("sample", "real:random", "--ipc", 2, "--out", out, *chosen)
    done("compare", out, *TINY, "--run.root", tmp_path / "out")
    assert "real images, soft labels" in (tmp_path / "out/compare/compare/compare.md").read_text()
    for flags, sentence in (
        (["--pool", 2000], "images, 2,000 are asked for"),
        (["--pool", 100, "--filter"], "as that and there are no more, 100 are asked for"),
    ):
        said = refused("sample", "real:random", "--ipc", 2, "--out", out, *chosen, "--select", "herding", *flags)
        assert sentence in said


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--filter"], "--filter is given, expected --ensemble with it"),
        (["--select", "herding"], "--select is given, expected --ensemble with it"),
        (["--soft-labels"], "--soft-labels is given, expected --ensemble with it"),
        (["--ensemble", "x"], "--ensemble is given, expected --filter, --select or --soft-labels with it"),
        (["--pool", "9"], "--pool is 9, expected none without --select"),
        (["--ensemble", "x", "--select", "kmeans", "--pool", "1"], "--pool is 1, expected at least --ipc, 2"),
        (["--ensemble", "x", "--filter", "--format", "webdataset"], "--filter is given, expected --format safetensors"),
        (["--ensemble", "x", "--filter"], "x does not exist"),
    ],
)
def test_what_does_not_go_together_is_refused(refused, pretrained, tmp_path, flags, sentence):
    assert sentence in refused("sample", pretrained, "--ipc", 2, "--out", tmp_path / "set.safetensors", *flags)


def test_real_images_need_an_ensemble_that_says_which(refused, ensemble, tmp_path):
    to = ["--ipc", 2, "--out", tmp_path / "set.safetensors"]
    assert "the source is real:random, expected --ensemble with it" in refused("sample", "real:random", *to)
    loaded = ensemble_file.load(ensemble)
    for provenance, sentence in (
        ({"method": "real"}, "the ensemble does not say what it has learned from"),
        ({**loaded.provenance, "data": "x"}, "digits holds other images than the ensemble has learned from"),
    ):
        ensemble_file.save(ensemble, loaded, provenance)
        assert sentence in refused("sample", "real:random", *to, "--ensemble", ensemble, "--soft-labels")

"""From `gdd train-ensemble` over `gdd sample` to scores, and what is refused on the way."""

import pytest
from commands import TINY
from test_end_to_end import lines

from gdd import zoo
from gdd.sampling import ensemble_file, set_file

BESIDE = "expected --ensemble, or teacher.safetensors beside the generator, with it"
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
        (["--filter"], f"--filter is given, {BESIDE}"),
        (["--select", "herding"], f"--select is given, {BESIDE}"),
        (["--soft-labels"], f"--soft-labels is given, {BESIDE}"),
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


def test_distill_puts_a_teacher_beside_its_generator(done, refused, tmp_path):
    """Given later, it is trained for the generator that is there; students, samples and the audit take it there."""
    flags = [*TINY, *ENSEMBLE, "--run.root", tmp_path]
    done("distill", *flags, "--score", "false")
    folder = tmp_path / "digits/refine"
    before = (folder / "generator.safetensors").read_bytes()
    out = done("distill", *flags, "--score", "false", "--ensemble.teaches", "true")
    assert "train 1 classifiers: 30 x 50 images each" in out
    assert (folder / "generator.safetensors").read_bytes() == before
    assert (folder / zoo.TEACHER).read_bytes() == (tmp_path / "digits/ensemble" / zoo.ENSEMBLE).read_bytes()
    card = (folder / "README.md").read_text()
    assert "Beside it lies teacher.safetensors" in card
    assert "trained on the real images themselves, and gets" in card

    out = tmp_path / "soft.safetensors"
    done("sample", folder, "--ipc", 2, "--out", out, "--soft-labels")
    assert set_file.load(out).soft_labels is not None
    said = done("audit", folder, *TINY, "--ipc", 2, "--run.root", tmp_path, "--name", "digits")
    assert "AUC of an attack on the teacher's answers" in said
    assert "By the teacher's answers beside it they are told with an AUC of" in (folder / "README.md").read_text()

    scored = ["--evaluate.teacher", tmp_path / "digits", "--evaluate.temperature", "4"]
    done("evaluate", *TINY, "--run.root", tmp_path, *scored)
    rows = lines(tmp_path / "digits/evaluate/rows.jsonl")
    assert {row["label_kind"] for row in rows} == {
        "hard + kept teacher mlp-w16 on all real images (equation, alpha 0.5, temperature 4)"
    }
    assert len({row["teacher_accuracy"] for row in rows}) == 1

    line = refused("distill", *flags, "--ensemble.teaches", "true", "--method", "matching")
    assert "ensemble.teaches is true, expected false with method matching" in line.lower()
    line = refused("evaluate", *TINY, "--run.root", tmp_path, "--evaluate.teacher", "rael")
    assert "evaluate.teacher: rael is no teacher, expected none, set, real" in line

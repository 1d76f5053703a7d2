"""Every mistake of a user: one sentence that names it, exit code 2, no traceback."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from gdd.data.spec import DatasetSpec
from gdd.sampling import set_file


def _yaml(folder: Path, text: str) -> str:
    path = folder / "bad.yaml"
    path.write_text(text)
    return str(path)


def _set(folder: Path, names: tuple[str, ...] = ("cat", "dog"), size: int = 16) -> str:
    spec = DatasetSpec("pets", 1, size, size, names, (0.5,), (0.5,), False)
    labels = torch.arange(len(names))
    path = folder / "pets.safetensors"
    set_file.save(
        path, set_file.SyntheticSet(torch.zeros(len(names), 1, size, size, dtype=torch.uint8), labels, spec, 1)
    )
    return str(path)


def _text_set(folder: Path) -> str:
    path = folder / "text.safetensors"
    path.write_text("not a set")
    return str(path)


def _one_class(folder: Path) -> str:
    (folder / "images/train/only").mkdir(parents=True)
    Image.new("L", (16, 16)).save(folder / "images/train/only/a.png")
    return str(folder / "images")


STAGE = {
    "unknown key": (lambda _: ["--refine.tua", "3"], "refine.tua"),
    "unknown key in YAML": (lambda d: ["--config", _yaml(d, "refine:\n  tua: 3\n")], "tua"),
    "python tag in YAML": (lambda d: ["--config", _yaml(d, "name: !!python/object/apply:os.getcwd []\n")], "tag"),
    "missing YAML": (lambda d: ["--config", str(d / "none.yaml")], "none.yaml"),
    "wrong type": (lambda _: ["--gan.width", "wide"], "gan.width"),
    "bad choice": (lambda _: ["--gan.loss", "lsgan"], "gan.loss"),
    "no list": (lambda _: ["--evaluate.archs", "mlp"], "evaluate.archs"),
    "tau 0": (lambda _: ["--refine.tau", "0"], "refine.tau"),
    "no step": (lambda _: ["--pretrain.steps", "0"], "pretrain.steps"),
    "ipc 0": (lambda _: ["--evaluate.ipc", "[0]"], "evaluate.ipc"),
    "weights of another count": (lambda _: ["--refine.pool.weights", "[1]"], "refine.pool.weights"),
    "temperature without kl": (lambda _: ["--refine.loss", "log_mse", "--refine.tau", "3"], "refine.tau"),
    "unknown dataset": (lambda _: ["--data.name", "digit"], "did you mean 'digits'"),
    "unknown network": (lambda _: ["--refine.pool.members", "[resnet19, mlp]"], "resnet19"),
    "unknown student": (lambda _: ["--evaluate.archs", "[convnet3-w4x]"], "convnet3-w4x"),
    "unknown augmentation": (lambda _: ["--refine.augment", "colour"], "colour"),
    "missing data": (lambda d: ["--data.name", "mnist", "--data.root", str(d)], "data.download"),
    "one class": (lambda d: ["--data.name", _one_class(d)], "expected at least 2"),
    "no generator": (lambda d: ["--refine.pretrained", str(d / "nowhere")], "nowhere"),
    "name with a slash": (lambda _: ["--name", "a/b"], "a/b"),
}


@pytest.mark.parametrize("case", STAGE)
def test_distill_refuses(case, gdd, tiny, tmp_path):
    make, expected = STAGE[case]
    _refused(gdd("distill", *tiny, *make(tmp_path)), expected)


SCORE = {
    "missing set": (lambda d: str(d / "none.safetensors"), "none.safetensors"),
    "set of other classes": (lambda d: _set(d), "cat, dog"),
    "set of another size": (lambda d: _set(d, tuple("0123456789"), 17), "(1, 17, 17)"),
    "no set": (_text_set, "text.safetensors"),
    "unknown real source": (lambda _: "real:some", "real:some"),
    "empty folder": (lambda d: str(d), "generator.safetensors"),
}


@pytest.mark.parametrize("case", SCORE)
def test_evaluate_refuses(case, gdd, tiny, tmp_path):
    make, expected = SCORE[case]
    _refused(gdd("evaluate", *tiny, "--evaluate.sources", f"[{make(tmp_path)!r}]"), expected)


def test_evaluate_without_a_run_says_what_to_run_first(gdd, tiny):
    _refused(gdd("evaluate", *tiny), "distill.py")


def test_a_run_folder_that_cannot_be_made(gdd, tiny, tmp_path):
    (tmp_path / "file").write_text("")
    _refused(gdd("train-gan", *tiny, "--run.root", tmp_path / "file"), "run.root")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["sample", "nowhere", "--ipc", "1", "--out", "x.safetensors"], "nowhere"),
        (["sample", "nowhere", "--ipc", "0", "--out", "x.safetensors"], "--ipc"),
        (["sample", "nowhere", "--out", "x.safetensors"], "ipc"),
        (["export", "nowhere", "--to", "tar", "--out", "x"], "to"),
        (["import", "nowhere", "--format", "dc", "--dataset", "digits", "--out", "x.safetensors"], "nowhere"),
        (["preview", "nowhere", "--out", "x.png"], "nowhere"),
        (["report", "nowhere"], "nowhere"),
        (["distil"], "distil"),
    ],
)
def test_tools_refuse(arguments, expected, gdd):
    _refused(gdd(*arguments), expected)


def _refused(result: tuple[int, str, str], expected: str) -> None:
    code, _, error = result
    lines = [line for line in error.splitlines() if line.startswith("gdd: ")]
    assert code == 2
    assert len(lines) == 1
    assert expected in lines[0]
    assert "Traceback" not in error

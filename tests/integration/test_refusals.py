"""Every mistake of a user, and damage to a user's own files: one sentence that names it, exit code 2, no traceback."""

import json
import math
from pathlib import Path

import pytest
import torch
from commands import ALONE, MATCHING
from PIL import Image

from gdd import pipeline
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


def _one_class(folder: Path) -> str:
    (folder / "images/train/only").mkdir(parents=True)
    Image.new("L", (16, 16)).save(folder / "images/train/only/a.png")
    return str(folder / "images")


STAGE = {
    "unknown key": (lambda _: ["--refine.tua", "3"], "refine.tua"),
    "unknown nested key": (lambda _: ["--refine.pool.lrr", "3"], "refine.pool.lrr"),
    "nested value": (lambda _: ["--refine.pool.lr", "0"], "refine.pool.lr is 0"),
    "nested value in YAML": (lambda d: ["--config", _yaml(d, "refine:\n  pool:\n    lr: 0\n")], "refine.pool.lr is 0"),
    "value in a list": (lambda _: ["--evaluate.seeds", "[0, -1]"], "evaluate.seeds is [0, -1]"),
    "type in a list": (lambda _: ["--evaluate.seeds", "[0, x]"], "evaluate.seeds"),
    "type in a list in YAML": (lambda d: ["--config", _yaml(d, "evaluate:\n  ipc: [1, x]\n")], "evaluate.ipc"),
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
    "unknown augmentation of students": (
        lambda _: ["--evaluate.recipe.augment", "crop_colour"],
        "evaluate.recipe.augment: unknown augmentation 'colour'",
    ),
    "a recipe's name alone": (
        lambda _: ["--evaluate.recipe", "dim"],
        "evaluate.recipe is 'dim', expected keys with their values, such as evaluate.recipe.name",
    ),
    "a recipe's name alone in YAML": (
        lambda d: ["--config", _yaml(d, "evaluate:\n  recipe: dc\n")],
        "evaluate.recipe is 'dc', expected keys with their values, such as evaluate.recipe.name",
    ),
    "epochs and steps": (lambda _: ["--evaluate.recipe.steps", "4"], "evaluate.recipe.steps is 4"),
    "selection on nothing": (
        lambda _: ["--data.val_fraction", "0", "--evaluate.teacher", "set", "--evaluate.select_alpha", "[0.5]"],
        "data.val_fraction is 0.0, expected a number above 0 with evaluate.select_alpha",
    ),
    "missing data": (lambda d: ["--data.name", "mnist", "--data.root", str(d)], "data.download"),
    "one class": (lambda d: ["--data.name", _one_class(d)], "expected at least 2"),
    "no generator": (lambda d: ["--refine.pretrained", str(d / "nowhere")], "nowhere"),
    "name with a slash": (lambda _: ["--name", "a/b"], "a/b"),
}


@pytest.mark.parametrize("case", STAGE)
def test_distill_refuses(case, refused, tiny, tmp_path):
    make, expected = STAGE[case]
    refused("distill", *tiny, *make(tmp_path), naming=expected)


POOL = "--matching.pool."
MATCH = {
    "ipc 0": (["--matching.ipc", "0"], "matching.ipc"),
    "no iteration": (["--matching.iterations", "0"], "matching.iterations"),
    "no whole number": (["--matching.outer", "1.5"], "matching.outer: 1.5 is none of what was expected: int or null"),
    "generator without a path": (["--matching.init", "generator"], "matching.generator"),
    "path without init generator": (["--matching.generator", "runs/digits/refine"], "matching.generator"),
    "no such generator": (["--matching.init", "generator", "--matching.generator", "nowhere"], "nowhere"),
    "unknown main model": ([POOL + "main", "convnet33"], "did you mean 'convnet3'"),
    "unknown other model": ([POOL + "kind", "total random", POOL + "various", "[lenett]"], "lenett"),
    "unknown kind": ([POOL + "kind", "main+some"], "matching.pool.kind"),
    "similar to a resnet": ([POOL + "kind", "main+similar", POOL + "main", "resnet18-w4"], "matching.pool.main"),
    "similar ones too deep": ([POOL + "kind", "main+similar", POOL + "similar_depth", "5"], "depth 5"),
    "unknown distance": (["--matching.distance", "cosine"], "matching.distance"),
    "distance of embeddings": (["--matching.objective=embedding", "--matching.distance=cos"], "matching.distance"),
    "more real images than there are": (["--matching.init", "real", "--matching.ipc", "500"], "matching.ipc is 500"),
    "snapshot before the start": (["--run.snapshots", "[-1]"], "run.snapshots"),
    "snapshot after the end": (["--run.snapshots", "[4]"], "run.snapshots"),
}


@pytest.mark.parametrize("case", MATCH)
def test_matching_refuses_and_claims_no_folder(case, refused, tiny, tmp_path):
    flags, expected = MATCH[case]
    refused("distill", *tiny, *MATCHING, *ALONE, *flags, naming=expected)
    assert not (tmp_path / "runs/digits/matching").exists()


def test_an_ipc_without_a_floor_is_refused_before_matching(refused, tiny, tmp_path):
    refused("distill", *tiny, *MATCHING, "--matching.ipc", "200", naming="200 images per class")
    assert not (tmp_path / "runs/digits/matching").exists()


SCORE = {
    "missing set": (lambda d: str(d / "none.safetensors"), "none.safetensors"),
    "set of other classes": (lambda d: _set(d), "cat, dog"),
    "set of another size": (lambda d: _set(d, tuple("0123456789"), 17), "(1, 17, 17)"),
}


@pytest.mark.parametrize("case", SCORE)
def test_evaluate_refuses(case, refused, tiny, tmp_path):
    make, expected = SCORE[case]
    refused("evaluate", *tiny, "--evaluate.sources", f"[{make(tmp_path)!r}]", naming=expected)


def test_evaluate_takes_its_sources_in_one_place(refused, tiny, tmp_path):
    (tmp_path / "a.yaml").write_text("evaluate: {sources: ['real:random']}")
    for named in (["--evaluate.sources", "[real:random]"], ["--config", tmp_path / "a.yaml"]):
        said = refused("evaluate", "real:all", *tiny, *named)
        assert said == "gdd: evaluate.sources is [real:random], expected none beside real:all after gdd evaluate"
    refused("evaluate", *tiny, "nowhere", naming="nowhere does not exist")


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
def test_compare_refuses(arguments, expected, refused, tiny, tmp_path):
    refused("compare", *arguments, *tiny, naming=expected)
    assert not (tmp_path / "runs").exists()


def test_a_missing_source_is_refused_before_the_data_are_read(refused, tiny, monkeypatch):
    monkeypatch.setattr(pipeline.opening, "open_dataset", lambda *_, **__: pytest.fail("the data were read"))
    refused("compare", "nowhere.safetensors", *tiny, naming="nowhere.safetensors does not exist")
    for command in ("evaluate", "distill"):
        refused(command, *tiny, "--evaluate.sources", "[nowhere]", naming="nowhere does not exist")
    assert "gdd distill" in refused("evaluate", *tiny, naming="holds no finished stage")  # says what to run first


def test_a_run_folder_that_cannot_be_made(refused, tiny, tmp_path):
    (tmp_path / "file").write_text("")
    refused("train-gan", *tiny, "--run.root", tmp_path / "file", naming="run.root")


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
def test_tools_refuse(arguments, expected, refused):
    refused(*arguments, naming=expected)


@pytest.mark.parametrize("content", [b"[1, 2]", b"3", b"name: [", b"? {a: b}\n: 3", b"3: 4", bytes(range(256))])
def test_yaml_that_holds_no_settings_is_refused(content, refused, tmp_path):
    (tmp_path / "bad.yaml").write_bytes(content)
    refused("train-gan", "--dry_run", "--config", tmp_path / "bad.yaml")


def test_a_folder_as_config_is_refused(refused, tmp_path):
    refused("train-gan", "--dry_run", "--config", tmp_path, naming=tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"{}", b"\0", bytes(range(256))])
def test_a_damaged_config_of_a_run_folder_is_refused(content, refused, tiny, tmp_path):
    path = tmp_path / "runs/digits/pretrain/config.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    refused("train-gan", *tiny, naming=path.parent)


@pytest.fixture
def row(distilled_once) -> dict[str, object]:
    """A row as an evaluation writes it."""
    return json.loads((distilled_once[0] / "digits/evaluate/rows.jsonl").read_text().splitlines()[0])


@pytest.fixture
def report_refused(refused, tmp_path):
    """Return a function that writes rows.jsonl, whose report has to be refused."""

    def call(content: bytes) -> None:
        (tmp_path / "rows.jsonl").write_bytes(content)
        refused("report", tmp_path, naming=tmp_path)

    return call


@pytest.mark.parametrize("line", [b"[]\n3", b"3\n3", b"{}\n{}", b"null\n", b'{"source": \n', b"\0", bytes(range(256))])
def test_damaged_rows_are_refused(line, report_refused):
    report_refused(line)


def test_a_row_with_a_value_of_another_type_is_refused(row, report_refused):
    for field in row:
        for value in ([[]], {"a": [1]}):
            report_refused(json.dumps({**row, field: value}).encode())


def test_an_accuracy_that_is_no_percentage_is_refused(row, report_refused):
    for accuracy in (math.nan, -math.inf, 101):
        report_refused(json.dumps({**row, "accuracy": accuracy}).encode())

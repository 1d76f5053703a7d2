"""Rows tell which networks began with weights that other images have taught."""

from pathlib import Path

import pytest
import timm
from generators import save_teacher
from scoring import Evaluate
from torch import nn

from gdd import rng
from gdd.data.readers import Dataset
from gdd.evaluation import sources
from gdd.models import from_timm, registry
from gdd.sampling import ensemble_file, generator_file, set_file
from gdd.sampling.curate import Generated, curated_set

NAME = "timm:test_resnet.r160_in1k"


@pytest.fixture(autouse=True)
def _weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let timm's weights be some, without its cache."""

    def some(name: str, shape: tuple[int, int, int]) -> nn.Module:
        with rng.seeded(0, "weights"):
            return timm.create_model(name.partition(".")[0], in_chans=shape[0], num_classes=0)

    monkeypatch.setattr(from_timm, "_with_weights", some)


def test_a_students_and_a_teachers(evaluate: Evaluate, generator: Path, dataset: Dataset, tmp_path: Path) -> None:
    flags = {"protocols": ("fixed",), "ceiling": False}
    (alone,) = {row.pretrained for row in evaluate(str(generator), archs=(NAME, "mlp-w4"), **flags) if row.arch == NAME}
    assert alone == (NAME,)
    teacher = save_teacher(tmp_path / "teacher", dataset.spec, (NAME,))
    rows = evaluate(
        str(generator), archs=("mlp-w4", "timm:test_resnet"), folder="taught", teacher=str(teacher), **flags
    )
    assert {row.pretrained for row in rows} == {(NAME,)}
    assert {
        row.pretrained for row in evaluate(str(generator), folder="plain", archs=("timm:test_resnet",), **flags)
    } == {()}


def test_what_chose_or_made_the_images(evaluate: Evaluate, generator: Path, dataset: Dataset, tmp_path: Path) -> None:
    judges = save_teacher(tmp_path / "judges", dataset.spec, (NAME,))
    loaded = generator_file.load(generator)
    chosen = curated_set(Generated(loaded, 0), ensemble_file.load(judges), 1, selection="herding", pool=3)
    set_file.save(tmp_path / "chosen.safetensors", chosen)
    pool = {"refine": {"pool": {"members": ["mlp-w4", NAME]}}, "ensemble": {"archs": ["timm:test_vit.r160_in1k"]}}
    provenance = {**loaded.provenance, "seed": 1, "config": pool}
    refined = generator_file.save(tmp_path, loaded.generator, loaded.spec, provenance)
    for number, text in enumerate((tmp_path / "chosen.safetensors", refined)):
        (row, *_) = [row for row in evaluate(str(text), folder=f"run {number}") if row.source == str(text)]
        assert row.pretrained == (NAME,), text
    assert not [row for row in evaluate(str(generator), folder="plain") if row.pretrained]
    filtered = sources.read(f"{generator},filter={judges}")  # by a judge that has learned too little to keep any
    assert registry.pretrained_among(filtered.networks) == (NAME,)

"""What makes a stage another one: every setting that plays a part, and nothing else."""

import shutil
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import field, fields, is_dataclass, replace
from pathlib import Path

import pytest
from generators import save_generator
from pydantic.dataclasses import dataclass

from gdd import pipeline
from gdd.config import Config, ConfigError, DataConfig, MatchingConfig, RefineConfig, RunConfig, counted, stable_hash
from gdd.config.fields import without_effect
from gdd.data.readers import Dataset
from gdd.data.splits import Split
from gdd.runtime.device import make_accelerator

# Sections whose fields count in each stage; "" is the Config itself.
SECTIONS = {
    "pretrain": {"", "gan", "gan.proxy", "pretrain", "run"},
    "refine": {"", "gan", "gan.proxy", "refine", "refine.pool", "run"},
    "matching": {"", "matching", "matching.pool", "run"},
    "ensemble": {"", "ensemble", "run"},
}


def walk(settings: object, section: str = "") -> Iterator[tuple[str, str, bool]]:
    """Yield section, name and whether it is declared without effect, of every field; sections are not fields."""
    for one in fields(settings):
        key, value = f"{section}.{one.name}".strip("."), getattr(settings, one.name)
        declared = not one.metadata.get("effect", True)
        if is_dataclass(value):
            yield from walk(value, key)
        if not is_dataclass(value) or declared:
            yield section, one.name, declared


def changed(config: Config, section: str, name: str, value: object = "another value") -> Config:
    """Return a copy of which one field has a value that need not be a valid one."""
    copy = deepcopy(config)
    part = copy
    for key in filter(None, section.split(".")):
        part = getattr(part, key)
    object.__setattr__(part, name, value)
    return copy


@pytest.fixture
def generator(tmp_path, dataset) -> Callable[[int], Path]:
    """Return a function that writes an untrained generator of digits, one per seed, and gives its folder."""

    def write(seed: int = 0) -> Path:
        return save_generator(tmp_path / f"generator-{seed}", dataset.spec, seed=seed, stage="pretrain").parent

    return write


@pytest.fixture
def fingerprint(monkeypatch, dataset):
    """Return a function that gives the fingerprint which a stage opens its run folder with."""

    class Opened(Exception):
        pass

    def open_run(config, stage, value, accelerator):
        raise Opened(stage, value)

    monkeypatch.setattr(pipeline.stages, "open_run", open_run)
    monkeypatch.setattr(pipeline.stages, "_check_start", lambda *_: None)
    distilled_by = {"refine": "generator", "matching": "matching"}

    def run_stage(stage: str, config: Config, of: Dataset) -> None:
        if stage == "pretrain":
            pipeline.train_gan(config, of, None)
        if stage == "ensemble":
            pipeline.train_ensemble(config, of, None)
        object.__setattr__(config, "method", distilled_by[stage])  # the sections need not fit it
        pipeline.distill(config, of, None)

    def call(stage: str, config: Config, of: Dataset = dataset) -> str:
        with pytest.raises(Opened) as opened:
            run_stage(stage, config, of)
        opened_stage, value = opened.value.args
        assert opened_stage == stage
        return value

    return call


@pytest.fixture
def config(generator) -> Config:
    return Config(refine=RefineConfig(pretrained=generator()))


@pytest.mark.parametrize("stage", SECTIONS)
def test_every_field_of_the_sections_that_play_a_part_counts_and_no_other(fingerprint, config, stage):
    plain, counting = fingerprint(stage, config), 0
    for section, name, declared in walk(config):
        if name in ("pretrained", "generator"):  # the weights there count: see below
            continue
        counts = section in SECTIONS[stage] and not declared
        other = DataConfig(root=Path("elsewhere")) if name == "data" else "another value"
        assert (fingerprint(stage, changed(config, section, name, other)) != plain) is counts, f"{section}.{name}"
        counting += counts
    assert counting >= 10


def test_folders_are_known_by_what_their_settings_were_called_before(fingerprint, config, monkeypatch):
    """One refinement has one fingerprint, whether a weight of 0 or refine.loss none asks for it."""
    told = []
    monkeypatch.setattr(pipeline.stages, "stable_hash", lambda *parts: told.append(parts) or stable_hash(*parts))

    def of(**refine) -> str:
        return fingerprint(
            "refine", replace(config, refine=RefineConfig(pretrained=config.refine.pretrained, **refine))
        )

    assert of() == of(weight=0.01) != of(weight=0.02)
    assert of(loss="none") not in (of(), of(balance=0.5), of(loss="log_mse"))
    told.clear()
    of(loss="none")
    of(balance=0.5)
    named = [{key: parts[1]["refine"][key] for key in ("loss", "weight", "balance")} for parts in told]
    assert named == [
        {"loss": "skd", "weight": 0.0, "balance": None},
        {"loss": "skd", "weight": 0.0, "balance": 0.5},
    ]


def test_stages_and_data_have_their_own(fingerprint, config, dataset):
    images, labels = dataset.train
    inverted = replace(dataset, train=Split(255 - images, labels))
    named_otherwise = replace(dataset, spec=replace(dataset.spec, name="other"))
    every = [fingerprint(stage, config, of) for stage in SECTIONS for of in (dataset, inverted, named_otherwise)]
    assert len(set(every)) == 12


@pytest.mark.parametrize("stage", ["refine", "matching"])
def test_the_weights_of_the_generator_at_the_start_count_but_not_its_path(fingerprint, generator, tmp_path, stage):
    def of(folder: Path) -> str:
        start = MatchingConfig(init="generator", generator=folder)
        return fingerprint(stage, Config(refine=RefineConfig(pretrained=folder), matching=start))

    plain, other = of(generator(1)), of(generator(2))
    assert plain != other
    shutil.move(tmp_path / "generator-1", tmp_path / "moved")
    assert of(tmp_path / "moved") == plain


def test_a_folder_of_another_configuration_is_refused(tmp_path, dataset):
    def distil(iterations: int) -> Path:
        settings = MatchingConfig(iterations=iterations, outer=1, batch_real=4)
        config = Config(method="matching", matching=settings, run=RunConfig(root=tmp_path, threads=1))
        return pipeline.distill(config, dataset, make_accelerator(config.run))

    assert distil(1) == distil(1)
    with pytest.raises(ConfigError, match="another configuration"):
        distil(2)


def test_a_new_field_counts_unless_it_is_declared_without_effect():
    @dataclass(frozen=True)
    class Section:
        old: int = 1
        new: int = 2
        folder: str = without_effect("here")

    @dataclass(frozen=True)
    class Whole:
        seed: int = 0
        first: Section = field(default_factory=Section)
        second: Section = field(default_factory=Section)
        elsewhere: Section = without_effect(default_factory=Section)

    def hash_of(**own) -> str:
        return stable_hash(counted(Whole(**own), without=("second",)))

    assert counted(Whole(), without=("second",)) == {"seed": 0, "first": {"old": 1, "new": 2}}
    assert hash_of(first=Section(new=3)) != hash_of()
    assert hash_of(first=Section(folder="there")) == hash_of(second=Section(new=3)) == hash_of()
    assert hash_of(elsewhere=Section(new=3)) == hash_of()

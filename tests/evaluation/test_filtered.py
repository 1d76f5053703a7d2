"""Generators whose samples an ensemble filters: what students see of them, and how they are named."""

from pathlib import Path

import pytest
import torch
from scoring import Evaluate

from gdd import rng
from gdd.config import ConfigError
from gdd.data.pixels import Normalizer
from gdd.data.readers import Dataset
from gdd.evaluation.batches import GeneratedStream
from gdd.evaluation.sources import read
from gdd.models import registry
from gdd.sampling import ensemble_file, generator_file, sample
from gdd.sampling.curate import Generated, Kept, curated_set
from gdd.sampling.ensemble_file import Ensemble


@pytest.fixture
def judges(dataset: Dataset, generator: Path, tmp_path: Path) -> Path:
    """The folder of an untrained classifier that sees every class in some samples of every class."""
    with rng.seeded(0, "judges"):
        member = registry.build("mlp-w64", dataset.spec.shape, 10)
    samples = sample.sample_set(generator_file.load(generator), 30, 9).images
    logits = Ensemble(["mlp-w64"], dataset.spec, [member]).logits(samples)
    member.head.bias.data -= logits.mean(0)
    member.head.weight.data /= logits.std(0)[:, None]
    member.head.bias.data /= logits.std(0)
    (tmp_path / "judges").mkdir()
    ensemble_file.save(tmp_path / "judges", Ensemble(["mlp-w64"], dataset.spec, [member]), {"method": "real"})
    return tmp_path / "judges"


def approving(dataset: Dataset) -> Ensemble:
    """An ensemble that calls even first pixels by their own class's name; any class may be asked of it."""

    class Approving(Ensemble):
        label = 0

        def logits(self, images_u8: torch.Tensor) -> torch.Tensor:
            told = torch.zeros(len(images_u8), 10)
            told[images_u8[:, 0, 8, 8] % 2 == 0] = 1.0  # all classes tie, of which argmax takes the first
            told[:, 0] += 0.5
            return told

    return Approving([], dataset.spec, [])


def test_a_source_with_a_filter_has_both_files_and_a_hash_of_its_own(generator: Path, judges: Path) -> None:
    plain, filtered = read(str(generator)), read(f"{generator},filter={judges}")
    assert filtered.ensemble is not None
    assert filtered.ensemble.hash == ensemble_file.load(judges).hash
    assert filtered.generator is not None
    assert plain.hash != filtered.hash
    assert filtered.path == plain.path


def test_mistakes_are_named(generator: Path, judges: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no ensemble is at nowhere, expected"):
        read(f"{generator},filter=nowhere")
    with pytest.raises(ConfigError, match="no ensemble is at"):
        read(f"{generator},filter={tmp_path}")
    with pytest.raises(ConfigError, match="does not exist"):
        read(f"nowhere,filter={judges}")


def test_a_folder_of_that_name_is_itself(generator: Path, judges: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = generator.with_name("a,filter=judges")
    generator.rename(named)
    assert read(str(named)).ensemble is None


def test_epochs_are_the_kept_samples_in_turn_and_the_first_is_the_fixed_set(generator: Path, dataset: Dataset) -> None:
    loaded = generator_file.load(generator)
    ensemble = approving(dataset)
    kept = Kept(Generated(loaded, 4), ensemble)
    first_class = kept.images(0, 0, 6)
    stream = GeneratedStream(loaded._replace(spec=dataset.spec), 2, 4, Normalizer((0.0,), (1.0,)), _OneClass(kept))
    for epoch in (0, 2, 1):
        images, labels = stream.batch(epoch, None)
        assert labels.tolist() == [label for label in range(10) for _ in range(2)]
        assert torch.equal((images[:2] * 255).round().to(torch.uint8), first_class[2 * epoch : 2 * epoch + 2])


class _OneClass:
    """The kept samples of class 0 for every class."""

    def __init__(self, kept: Kept) -> None:
        self.kept = kept

    def images(self, label: int, start: int, stop: int) -> torch.Tensor:
        return self.kept.images(0, start, stop)


def test_students_of_kept_samples_are_those_of_their_set(evaluate: Evaluate, generator: Path, judges: Path) -> None:
    source = f"{generator},filter={judges}"
    expected = curated_set(Generated(generator_file.load(generator), 0), ensemble_file.load(judges), 2, filtered=True)
    rows = evaluate(str(generator), source, ipc=(2,), seeds=(0,))
    plain, filtered = (
        [row for row in rows if row.source == text and row.protocol == "fixed"] for text in (str(generator), source)
    )
    assert filtered[0].set_hash == expected.hash != plain[0].set_hash


def test_what_the_ensemble_cost_counts(evaluate: Evaluate, generator: Path, judges: Path) -> None:
    ensemble, loaded = ensemble_file.load(judges), generator_file.load(generator)
    ensemble_file.save(judges, ensemble, {"seconds": 5.0})
    generator_file.save(generator, loaded.generator, loaded.spec, {**loaded.provenance, "seconds": 2.0})
    source = read(f"{generator},filter={judges}")
    assert source.provenance["seconds"] == 7
    rows = evaluate(f"{generator},filter={judges}", ipc=(2,), seeds=(0,))
    (streamed,) = {row.bytes for row in rows if row.protocol == "stream" and row.kind == "generator"}
    files = [generator / generator_file.FILE, judges / ensemble_file.FILE]
    assert streamed == sum(path.stat().st_size for path in files)
    assert curated_set(Generated(source.generator, 0), source.ensemble, 1).provenance["seconds"] == 7
    assert source.provenance["data"] == ""  # the ensemble does not say what it has seen
    assert curated_set(Generated(source.generator, 0), ensemble, 1).provenance["seconds"] is None

"""An audit finds copies where there are copies, none in new real images, and compares with what nobody trained on."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from gdd import rng
from gdd.config import Config, ConfigError, to_plain
from gdd.data.pixels import Normalizer
from gdd.data.readers import Dataset
from gdd.data.spec import DatasetSpec
from gdd.data.splits import Split
from gdd.evaluation import audit
from gdd.evaluation.audit import ComparedImages, compared_images, measure_answers, measure_audit
from gdd.evaluation.sources import Source
from gdd.models import registry
from gdd.sampling.ensemble_file import Ensemble
from gdd.sampling.set_file import SyntheticSet

SPEC = DatasetSpec("noise", 1, 6, 6, ("a", "b"), (0.5,), (0.2,), False)
CONFIG = to_plain(Config())


def images(count: int, seed: int) -> Tensor:
    """Images of one distribution: a random grey level, and noise of a random strength."""
    random = torch.Generator().manual_seed(seed)
    level, strength = torch.rand(2, count, 1, 1, 1, generator=random)
    pixels = level + strength * torch.randn(count, 1, 6, 6, generator=random)
    return (255 * pixels.clamp(0, 1)).to(torch.uint8)


def split(count: int, seed: int) -> Split:
    return Split(images(count, seed), torch.arange(count) % 2)


@pytest.fixture
def noise() -> Dataset:
    return Dataset(SPEC, split(900, 1), split(300, 2), lambda: split(200, 3))


def source_of(made: Tensor, **provenance: Any) -> Source:
    synthetic = SyntheticSet(made, torch.arange(len(made)) % 2, SPEC, len(made) // 2, provenance)
    return Source("a set", "set", synthetic.hash, synthetic=synthetic)


def stated(dataset: Dataset, **changes: object) -> dict[str, Any]:
    """Return the provenance of what was distilled from a dataset, with some settings changed."""
    config = json.loads(json.dumps(CONFIG))
    config["gan"]["proxy"]["every"] = 0
    for key, value in changes.items():
        section, name = key.split("__")
        config[section][name] = value
    return {"data": dataset.fingerprint, "seed": 0, "config": config}


def test_training_images_are_copies(noise: Dataset) -> None:
    source = source_of(noise.train.images_u8)
    real = ComparedImages(noise.train.images_u8, noise.val.images_u8, "validation")
    found, evidence = measure_audit(source, real, noise, 1)
    assert (found.copies, found.near_copies.share, found.membership.auc) == (900, 1, 1)
    assert found.membership.tpr_at_1_percent_fpr == 1
    assert (found.n_samples, found.n_training, found.n_held_out, found.n_group) == (900, 900, 300, 300)
    assert found.near_copies.low > 0.98
    # A third of the training images are in the group; the others are as near to it as to held-out ones.
    assert found.nearer_to_training.share == pytest.approx(1 / 3 + 2 / 3 / 2, abs=0.08)
    assert found.nearer_to_training.low > 0.5
    assert torch.equal(evidence.closest, evidence.originals)
    assert evidence.closest_relative.tolist() == [0] * audit.PICTURED


def test_new_real_images_are_none() -> None:
    """Of twelve intervals of 95 % fewer than eight hold what they should in 1 of 5,000 cases."""
    held = torch.zeros(3)
    for seed in range(100, 160, 5):
        new = Dataset(SPEC, split(900, seed), split(300, seed + 1), lambda: split(200, 3))
        real = ComparedImages(new.train.images_u8, new.val.images_u8, "validation")
        found, _ = measure_audit(source_of(images(600, seed + 2)), real, new, 1)
        shares = [(one.low, one.expected, one.high) for one in (found.near_copies, found.nearer_to_training)]
        intervals = [*shares, (found.membership.low, 0.5, found.membership.high)]
        held += torch.tensor([low <= expected <= high for low, expected, high in intervals])
        assert found.copies == 0
        assert found.nearest.training == pytest.approx(found.nearest.held_out, rel=0.1)
    assert held.min() >= 8
    assert found.nearest.real == pytest.approx(found.nearest.held_out, rel=0.1)


def test_almost_copies_among_other_samples_are_told(noise: Dataset) -> None:
    """A tenth of the samples are training images but for a grey level."""
    made = images(600, 4)
    made[:60] = noise.train.images_u8[:60] ^ 1
    real = ComparedImages(noise.train.images_u8, noise.val.images_u8, "validation")
    found, evidence = measure_audit(source_of(made), real, noise, 1)
    assert found.copies == 0
    assert 0.1 <= found.near_copies.share < 0.13
    assert found.near_copies.low > found.near_copies.expected
    assert torch.equal(evidence.originals, evidence.closest ^ 1)
    assert (evidence.closest_relative.diff() >= 0).all()


def test_what_a_group_is_does_not_depend_on_its_order(noise: Dataset) -> None:
    """All real images are training images to one audit and held out to the other."""
    made = source_of(images(100, 5))
    one, other = noise.train.images_u8[:300], noise.val.images_u8
    found, _ = measure_audit(made, ComparedImages(one, other, "test"), noise, 1)
    turned, _ = measure_audit(made, ComparedImages(other, one, "test"), noise, 1)
    assert found.membership.auc == pytest.approx(1 - turned.membership.auc, abs=1e-12)
    assert found.nearest.training == turned.nearest.held_out
    assert found.nearer_to_training.share == pytest.approx(1 - turned.nearer_to_training.share)


def test_validation_images_are_held_out_where_nobody_has_used_them(noise: Dataset) -> None:
    training, held_out, part = compared_images(source_of(images(10, 4), **stated(noise)), noise)
    assert part == "validation"
    assert torch.equal(training, noise.train.images_u8)
    assert torch.equal(held_out, noise.val.images_u8)


@pytest.mark.parametrize(
    "change",
    [
        {"gan__proxy": {"every": 100}},  # chose among averages by a student on validation images
        {"refine__pretrained": "runs/other/pretrain"},  # another run's, perhaps of another validation part
        {"matching__generator": "runs/other/refine"},
    ],
)
def test_else_it_is_the_test_part(noise: Dataset, change: dict[str, object]) -> None:
    training, held_out, part = compared_images(source_of(images(10, 4), **stated(noise, **change)), noise)
    assert part == "test"
    assert torch.equal(training, noise.train.images_u8)
    assert torch.equal(held_out, noise.test().images_u8)


def test_few_validation_images_are_left_alone(noise: Dataset) -> None:
    def of(val: Split) -> audit.HeldOutPart:
        dataset = replace(noise, val=val)
        return compared_images(source_of(images(10, 4), **stated(dataset)), dataset).part

    whole = noise.val
    assert of(whole.subset(torch.arange(100))) == "validation"
    assert of(whole.subset(torch.arange(98))) == "test"
    few_of_b = torch.cat([torch.arange(0, 300, 2), torch.arange(1, 39, 2)])
    assert of(whole.subset(few_of_b)) == "test"


def test_of_unknown_origin_all_but_test_images_may_have_been_trained_on(noise: Dataset) -> None:
    training, _, part = compared_images(source_of(images(10, 4)), noise)
    assert part == "test"
    assert torch.equal(training, torch.cat([noise.train.images_u8, noise.val.images_u8]))


def test_settings_are_unknown_of_a_set_that_was_drawn(noise: Dataset) -> None:
    training, _, part = compared_images(source_of(images(10, 4), data=noise.fingerprint), noise)
    assert part == "test"
    assert torch.equal(training, noise.train.images_u8)


def test_other_images_and_too_few_are_refused(noise: Dataset) -> None:
    with pytest.raises(ConfigError, match=r"a set was distilled from other images .* and --seed 3$"):
        compared_images(source_of(images(10, 4), data="0123456789abcdef", seed=3), noise)
    few = replace(noise, read_test=lambda: split(98, 3))
    with pytest.raises(ConfigError, match="98 images, expected at least 100"):
        compared_images(source_of(images(10, 4)), few)


@pytest.fixture
def written(noise: Dataset, tmp_path) -> Callable[..., None]:
    """Write an audit, and return a function that changes its file."""
    real = ComparedImages(noise.train.images_u8, noise.val.images_u8, "validation")
    found, _ = measure_audit(source_of(images(100, 4)), real, noise, 1)
    audit.write_audit(tmp_path, found)
    assert audit.read_audit(tmp_path) == found
    values = json.loads((tmp_path / "audit.json").read_text())

    def change(**changes: object) -> None:
        (tmp_path / "audit.json").write_text(json.dumps({**values, **changes}))

    return change


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"schema": 2}, "no audit of schema 1"),
        ({"membership": {"auc": 1.5, "low": 0, "high": 1, "tpr_at_1_percent_fpr": 0}}, r"membership\.auc is 1\.5"),
        ({"near_copies": {}}, r"near_copies\.share is missing"),
        ({"held_out": "train"}, "held_out is 'train'"),
    ],
)
def test_a_file_that_is_none_is_refused(written, tmp_path, changes, sentence):
    written(**changes)
    with pytest.raises(ConfigError, match=rf"audit\.json.*{sentence}"):
        audit.read_audit(tmp_path)


def test_a_teacher_that_knows_its_images_by_heart_gives_them_away() -> None:
    """Labels of noise cannot be learned, only remembered; of an untrained network nothing is told."""

    def drawn(count: int) -> Split:
        return Split(torch.randint(256, (count, 1, 6, 6), dtype=torch.uint8), torch.arange(count) % 2)

    with rng.seeded(1, "noise"):
        noise = Dataset(SPEC, drawn(900), drawn(300), lambda: drawn(200))
    with rng.seeded(0, "teacher"):
        network = registry.build("mlp-w128", noise.spec.shape, noise.spec.num_classes)
    normalize = Normalizer(noise.spec.mean, noise.spec.std, torch.device("cpu"))
    images_std, optimizer = normalize.from_u8(noise.train.images_u8), torch.optim.Adam(network.parameters(), 1e-3)
    found = []
    for steps in (0, 400):
        for _ in range(steps):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(images_std), noise.train.labels).backward()
            optimizer.step()
        teacher = Ensemble(["mlp-w128"], noise.spec, [copy.deepcopy(network)])
        teacher.provenance = {"data": noise.fingerprint}
        found.append(measure_answers(teacher, noise, "validation"))
    assert found[0].low < 0.5 < found[0].high
    assert found[1].low > 0.75  # of two classes half of the others are answered right by chance, and as surely
    teacher.provenance = {"data": "another"}
    with pytest.raises(ConfigError, match="the teacher was trained on other images than those of"):
        measure_answers(teacher, noise, "validation")

"""The generators that come with the project say what they are, are small, and teach what their names promise."""

from pathlib import Path

import pytest
import torch

from gdd.config import Config, ConfigError, read_as
from gdd.data.pixels import Normalizer
from gdd.data.readers import open_dataset
from gdd.evaluation.batches import Stream, StudentBatches
from gdd.evaluation.recipe import Recipe
from gdd.evaluation.student import count_correct
from gdd.models import registry
from gdd.sampling import generator_file, sample
from gdd.training.classifier import fit, sgd

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "zoo").glob("*.safetensors"))
NAMES = [path.stem for path in FILES]


def test_there_is_one_of_each_dataset():
    assert NAMES == ["cifar10", "fashion_mnist", "mnist"]


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_a_file_is_small_and_says_where_it_is_from(path):
    loaded = generator_file.load(path)
    assert loaded.bytes < 8e6
    assert loaded.spec.name == path.stem
    settings = loaded.provenance["config"]
    assert read_as(Config, settings).data.name == path.stem
    assert "run" not in settings  # whose root would tell its maker's folders
    assert loaded.provenance["seconds"] > 0


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_its_classes_differ_and_none_is_a_single_image(path):
    drawn = sample.sample_set(generator_file.load(path), 16, seed=0)
    images = drawn.images.float().flatten(1).unflatten(0, (-1, 16))  # (K, 16, pixels)
    assert images.std(dim=1).mean() > 10  # of 255
    assert torch.pdist(images.mean(1)).min() > 100


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("mnist", 80), ("fashion_mnist", 73)])
def test_a_student_of_its_stream_is_better_than_one_of_ten_real_images_of_each_class(name, least):
    # Which has 74 and 71 percent (docs/results.md).
    loaded = generator_file.load(ROOT / "zoo" / f"{name}.safetensors")
    try:
        dataset = open_dataset(name, ROOT / "data", size=None, channels=None, val_fraction=0.1, seed=0, download=False)
    except ConfigError:
        pytest.skip(f"data/ holds no {name}")
    spec = dataset.spec
    normalize = Normalizer(spec.mean, spec.std)
    network = registry.build("mlp", spec.shape, spec.num_classes)
    stream = Stream(loaded, 10, 0, normalize)
    batches = StudentBatches(stream, Recipe("dc", lr=0.01, epochs=300, batch_size=256), 0, "student")
    fit(network, batches, range(batches.total), sgd(network, 0.01))
    test = dataset.test()
    assert 100 * count_correct(network, test, normalize).correct / len(test.labels) > least

"""Generators and sets on disk: what is read equals what was written, and nothing else passes for it."""

import numpy as np
import pytest
import torch
from generators import PETS as SPEC
from generators import save_generator, untrained
from torch import nn

from gdd import rng
from gdd.config import ConfigError
from gdd.data.readers import open_dataset
from gdd.evaluation import sources
from gdd.formats import plain
from gdd.runtime import checkpoint
from gdd.sampling import generator_file, sample, set_file


@pytest.fixture
def generator_path(tmp_path):
    return save_generator(tmp_path)


@pytest.fixture
def some_set():
    images = torch.randint(256, (6, *SPEC.shape), generator=rng.generator(0, "test"), dtype=torch.uint8)
    return set_file.SyntheticSet(images, torch.tensor([0, 0, 1, 1, 2, 2]), SPEC, 2, {"method": "test"})


def in_16_bits(network: nn.Module) -> nn.Module:
    """Round the network's matrices and kernels to float16, and nothing else."""
    for values in network.state_dict().values():
        if values.ndim > 1:
            values.copy_(torch.from_numpy(values.numpy().astype(np.float16).astype(np.float32)))
    return network


def test_a_generator_makes_the_images_of_its_16_bit_weights_after_a_round_trip(generator_path):
    original, loaded = in_16_bits(untrained().eval()), generator_file.load(generator_path.parent)
    assert all(values.dtype == torch.float32 for values in loaded.generator.parameters())
    noise, labels = torch.randn(4, 6, generator=rng.generator(1, "test")), torch.tensor([0, 1, 2, 0])
    assert torch.equal(original(noise, labels), loaded.generator(noise, labels))
    assert loaded.spec == SPEC
    assert loaded.provenance == {"method": "gan", "seconds": 1.5}
    assert loaded.bytes == generator_path.stat().st_size


def test_what_16_bits_do_not_hold_stays_as_it_is(tmp_path):
    """Numbers beyond 65,504 would become infinite; those that are none tell of training that diverged."""
    for value, kept in ((1e5, torch.float32), (6e4, torch.float16), (torch.nan, torch.float16)):
        generator = untrained()
        name, weights = next((name, values) for name, values in generator.state_dict().items() if values.ndim > 1)
        weights[0, 0] = value
        tensors, _ = checkpoint.load_tensors(generator_file.save(tmp_path, generator, SPEC, {"method": "gan"}))
        assert tensors[name].dtype == kept
        assert {values.dtype for values in tensors.values() if values.ndim < 2} <= {torch.float32, torch.int64}
        found = generator_file.load(tmp_path).generator.state_dict()[name][0, 0]
        assert found == value or (found.isnan() and kept == torch.float16)


def test_a_generator_of_32_bits_is_read_as_before(generator_path):
    """Earlier versions wrote them."""
    generator = untrained()
    tensors, metadata = checkpoint.load_tensors(generator_path)
    assert {values.dtype for values in tensors.values() if values.ndim > 1} == {torch.float16}
    whole = generator.state_dict()
    checkpoint.save_tensors(generator_path, whole, {**metadata, "hash": generator_file.tensor_hash(whole)})
    found = generator_file.load(generator_path).generator.state_dict()
    assert all(torch.equal(values, whole[name]) for name, values in found.items())


def _rewrite(path, change):
    tensors, metadata = checkpoint.load_tensors(path)
    change(tensors, metadata)
    checkpoint.save_tensors(path, tensors, metadata)


def test_a_run_is_the_generator_of_its_last_stage(generator_path, tmp_path):
    run = tmp_path / "run"
    for stage in ("pretrain", "refine", "evaluate"):
        (run / stage).mkdir(parents=True)
        (run / stage / "config.json").write_text("{}")
    generator_path.rename(run / "pretrain" / generator_path.name)
    with pytest.raises(ConfigError, match="run/refine holds no generator"):
        generator_file.load(run)  # the last one is not finished
    last = save_generator(run / "refine")
    assert generator_file.result_file(run, generator_file.FILE, "gdd distill") == sources.source_file(run) == last
    last.unlink()
    (run / "refine/config.json").unlink()
    (run / "refine").rmdir()
    assert sources.source_file(run) == run / "pretrain" / generator_path.name


def test_a_run_of_two_methods_asks_which_is_meant(tmp_path):
    for stage in ("refine", "matching"):
        (tmp_path / stage).mkdir()
        (tmp_path / stage / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds several results, expected one of"):
        sources.source_file(tmp_path)


def test_a_changed_weight_is_noticed(generator_path):
    _rewrite(generator_path, lambda tensors, _: tensors["render.0.bias"].add_(1))
    with pytest.raises(ConfigError, match="hash"):
        generator_file.load(generator_path)


def test_a_header_of_another_width_is_noticed(generator_path):
    _rewrite(generator_path, lambda _, metadata: metadata["build"].update(width=9))
    with pytest.raises(ConfigError, match="do not fit"):
        generator_file.load(generator_path)


def test_a_set_survives_a_round_trip(some_set, tmp_path):
    set_file.save(tmp_path / "a/set.safetensors", some_set)
    loaded = set_file.load(tmp_path / "a/set.safetensors")
    assert torch.equal(loaded.images, some_set.images)
    assert torch.equal(loaded.labels, some_set.labels)
    assert (loaded.spec, loaded.ipc, loaded.provenance, loaded.hash) == (SPEC, 2, {"method": "test"}, some_set.hash)


def test_float_images_outside_the_unit_range_stay_as_they_are(tmp_path):
    images = torch.full((3, *SPEC.shape), -0.25)
    set_file.save(tmp_path / "set.safetensors", set_file.SyntheticSet(images, torch.arange(3), SPEC, 1))
    assert torch.equal(set_file.load(tmp_path / "set.safetensors").images, images)


@pytest.mark.parametrize(
    ("images", "labels", "expected"),
    [
        (torch.zeros(2, *SPEC.shape, dtype=torch.int64), torch.tensor([0, 1]), "int64"),
        (torch.zeros(2, 1, 16, 24, dtype=torch.uint8), torch.tensor([0, 1]), "(2, 1, 16, 24)"),
        (torch.full((2, *SPEC.shape), float("inf")), torch.tensor([0, 1]), "infinite or not a number"),
        (torch.full((2, *SPEC.shape), float("nan")), torch.tensor([0, 1]), "infinite or not a number"),
        (torch.zeros(2, *SPEC.shape, dtype=torch.uint8), torch.tensor([0]), "1 labels for 2 images"),
        (torch.zeros(2, *SPEC.shape, dtype=torch.uint8), torch.tensor([0, 3]), "0..2"),
        (torch.zeros(0, *SPEC.shape, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64), "0 labels"),
    ],
)
def test_what_is_no_set_is_refused(images, labels, expected):
    with pytest.raises(ConfigError) as refusal:
        set_file.SyntheticSet(images, labels, SPEC, 1)
    assert expected in str(refusal.value)


@pytest.mark.parametrize(
    "soft", [torch.zeros(2, 4), torch.zeros(3, 3), torch.zeros(2, 3, dtype=torch.int64), torch.full((2, 3), torch.nan)]
)
def test_soft_labels_of_another_shape_or_no_numbers_are_refused(soft):
    images, labels = torch.zeros(2, *SPEC.shape, dtype=torch.uint8), torch.tensor([0, 1])
    with pytest.raises(ConfigError, match=r"soft labels are .* expected finite"):
        set_file.SyntheticSet(images, labels, SPEC, 1, soft_labels=soft)
    set_file.SyntheticSet(images, labels, SPEC, 1, soft_labels=torch.zeros(2, 3).half())


def test_a_changed_pixel_is_noticed(some_set, tmp_path):
    set_file.save(tmp_path / "set.safetensors", some_set)
    _rewrite(tmp_path / "set.safetensors", lambda tensors, _: tensors["images"][0, 0, 0, 0].bitwise_xor_(1))
    with pytest.raises(ConfigError, match="hash"):
        set_file.load(tmp_path / "set.safetensors")


def test_a_generator_is_no_set_and_a_set_is_no_generator(generator_path, some_set, tmp_path):
    with pytest.raises(ConfigError, match="expected a set"):
        set_file.load(generator_path)
    set_file.save(tmp_path / "set.safetensors", some_set)
    with pytest.raises(ConfigError, match="expected a generator"):
        generator_file.load(tmp_path / "set.safetensors")


def test_the_bytes_of_a_set_are_its_pixels_and_a_byte_per_label(some_set):
    assert some_set.bytes == 6 * 3 * 16 * 24 + 6


@pytest.mark.parametrize("ipc", [1, 10, 50])
def test_a_sampled_set_has_exactly_ipc_images_of_every_class(generator_path, ipc):
    drawn = sample.sample_set(generator_file.load(generator_path), ipc, seed=0)
    assert drawn.labels.tolist() == [label for label in range(3) for _ in range(ipc)]
    assert len(drawn.images) == 3 * ipc


def test_a_sample_depends_on_seed_class_and_index_alone(generator_path):
    loaded = generator_file.load(generator_path)
    whole = sample.sample_images(loaded, 1, 0, 50, 7, "cpu")
    for start, stop in ((0, 10), (3, 4), (15, 18), (31, 50)):
        assert torch.equal(sample.sample_images(loaded, 1, start, stop, 7, "cpu"), whole[start:stop])
    for other in (sample.sample_images(loaded, 1, 0, 50, 8, "cpu"), sample.sample_images(loaded, 2, 0, 50, 7, "cpu")):
        assert not torch.equal(other, whole)


def test_a_stream_shows_the_samples_of_a_set(generator_path):
    loaded = generator_file.load(generator_path)
    images, labels = sample.stream_batch(loaded, 5, 10, 20)
    stored = sample.sample_set(loaded, 20, 5)
    for label in range(3):
        # One grey level: a batch of another size may round differently.
        difference = images[labels == label].int() - stored.images[stored.labels == label][10:].int()
        assert int(difference.abs().max()) <= 1


def test_an_exported_folder_holds_every_pixel(some_set, tmp_path):
    from PIL import Image

    with plain.filling(tmp_path / "out") as place:
        plain.export_folder(some_set, place)
    with Image.open(tmp_path / "out/train/dog/000001.png") as image:
        pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(16, 24, 3)
    assert torch.equal(pixels.permute(2, 0, 1), some_set.images[3])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["train"]
    with pytest.raises(ConfigError, match="not an empty folder"), plain.filling(tmp_path / "out"):
        pass


def test_an_exported_npz_holds_every_pixel(some_set, tmp_path):
    import numpy as np

    plain.export_npz(some_set, tmp_path / "out.npz")
    arrays = np.load(tmp_path / "out.npz", allow_pickle=False)
    assert np.array_equal(arrays["x_train"].transpose(0, 3, 1, 2), some_set.images.numpy())
    assert arrays["y_train"].tolist() == [0, 0, 1, 1, 2, 2]
    assert arrays["class_names"].tolist() == ["cat", "dog", "eel"]
    opened = open_dataset(str(tmp_path / "out.npz"), tmp_path, val_fraction=0)
    assert opened.spec.class_names == SPEC.class_names

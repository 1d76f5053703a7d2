import math
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
import torch
from matching import CLASSES, PER_CLASS, SPEC, settings, toy
from torch import Tensor

from gdd import rng
from gdd.config import ConfigError, to_plain
from gdd.data.pixels import Normalizer
from gdd.data.readers import Dataset
from gdd.data.spec import DatasetSpec
from gdd.models.gan import Generator
from gdd.runtime import checkpoint
from gdd.runtime.run import Run
from gdd.runtime.signals import Stopped
from gdd.sampling import generator_file, sample, set_file
from gdd.training import matching
from gdd.training.images import check_first_images
from gdd.training.matching import Matcher


@pytest.fixture
def distil(open_run, noisy):
    """Return a function that runs the whole stage and loads its set."""

    def call(folder: str = "run", dataset: Dataset = noisy, **own) -> set_file.SyntheticSet:
        config = settings(**own)
        return set_file.load(matching.match(config, dataset, open_run(config, dataset, folder)))

    return call


@pytest.fixture
def untrained(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes an untrained generator and gives its folder."""

    def call(spec: DatasetSpec = SPEC) -> Path:
        with rng.seeded(0, "test"):
            network = Generator(spec.shape, spec.num_classes, width=4, noise_dim=8)
        folder = tmp_path / "generator"
        folder.mkdir()
        generator_file.save(folder, network, spec, 4, {"method": "gan", "stage": "pretrain", "seconds": 1000.0})
        return folder

    return call


class TestFirstImages:
    def test_noise_is_normal_and_depends_on_the_seed_alone(self, make):
        found = [make(ipc=10, seed=seed, folder=str(number)).synthetic for number, seed in enumerate((0, 0, 1))]
        one, again, other = (each.images_std.detach() for each in found)
        assert one.shape == (CLASSES, 10, *SPEC.shape)
        assert torch.equal(one, again)
        assert not torch.equal(one, other)
        # 7680 numbers: five deviations of their mean and of their variance.
        assert abs(one.mean()) < 5 / math.sqrt(one.numel())
        assert abs(one.var() - 1) < 5 * math.sqrt(2 / one.numel())

    def test_real_images_are_of_the_train_part_and_of_their_class(self, make, noisy):
        known = Normalizer(SPEC.mean, SPEC.std).from_u8(noisy.train.images_u8)
        chosen = []
        for seed in (0, 1):
            first = make(ipc=PER_CLASS // 2, init="real", seed=seed, folder=str(seed)).synthetic.images_std.detach()
            found = (first.flatten(0, 1)[:, None] == known[None]).flatten(2).all(2)
            assert found.sum(1).tolist() == [1] * (CLASSES * PER_CLASS // 2)
            where = found.int().argmax(1)
            assert len(where.unique()) == len(where)
            assert noisy.train.labels[where].tolist() == [c for c in range(CLASSES) for _ in range(PER_CLASS // 2)]
            chosen.append(where.tolist())
        assert chosen[0] != chosen[1]

    def test_a_generators_are_its_samples(self, make, untrained):
        folder = untrained()
        expected = sample.sample_set(generator_file.load(folder), 3, seed=5)
        first = make(ipc=3, init="generator", generator=folder, seed=5).synthetic
        assert torch.equal(first.labels, expected.labels)
        assert torch.equal(first.flat(), Normalizer(SPEC.mean, SPEC.std).from_u8(expected.images))

    def test_too_few_real_images_are_refused(self, noisy):
        images, labels = noisy.train
        kept = (labels != 1) | (labels.eq(1).cumsum(0) <= 4)
        dataset = toy(images[kept], labels[kept])
        check_first_images(settings(ipc=4, init="real"), dataset)
        with pytest.raises(ConfigError, match=r"^match\.ipc is 5, but class 'b' has 4 training images"):
            check_first_images(settings(ipc=5, init="real"), dataset)
        check_first_images(settings(ipc=5), dataset)

    def test_a_generator_of_other_classes_is_refused(self, noisy, untrained):
        folder = untrained(DatasetSpec(**{**SPEC.to_dict(), "class_names": ("a", "b", "d")}))
        with pytest.raises(ConfigError, match="a, b, d"):
            check_first_images(settings(init="generator", generator=folder), noisy)

    def test_a_missing_generator_is_refused(self, noisy, tmp_path):
        with pytest.raises(ConfigError, match="nowhere"):
            check_first_images(settings(init="generator", generator=tmp_path / "nowhere"), noisy)


class TestStoredSet:
    def test_images_are_unclipped_pixels_ordered_by_class(self, distil, tmp_path):
        made = distil(iterations=2)
        saved = torch.load(checkpoint.path_of(tmp_path / "run", 2), weights_only=True)["states"]["images"]
        (optimised,) = saved.values()
        assert optimised.shape == (CLASSES, 2, *SPEC.shape)
        assert made.images.dtype == torch.float32
        expected = optimised.flatten(0, 1).double() * torch.tensor(SPEC.std[0]).double()
        expected += torch.tensor(SPEC.mean[0]).double()
        assert torch.equal(made.images, expected.float())
        # Noise leaves [0, 1] on both sides.
        assert made.images.min() < 0
        assert made.images.max() > 1
        assert made.labels.tolist() == [0, 0, 1, 1, 2, 2]
        assert (made.ipc, made.spec) == (2, SPEC)
        # A student sees what was optimised.
        seen = Normalizer(SPEC.mean, SPEC.std).from_unit(made.images)
        torch.testing.assert_close(seen, optimised.flatten(0, 1), rtol=1e-6, atol=1e-6)

    def test_it_says_where_it_is_from(self, distil, noisy):
        made = distil(iterations=2, seed=3)
        facts = made.provenance
        assert facts["method"] == matching.describe(settings(iterations=2)) == "gradient matching"
        assert facts["stage"] == "match"
        assert facts["seed"] == 3
        assert facts["iterations"] == 2
        assert facts["data"] == noisy.fingerprint
        assert facts["fingerprint"] == matching.fingerprint(settings(iterations=2, seed=3), noisy)
        assert 0 < facts["seconds"] < 600
        assert facts["config"] == to_plain(settings(iterations=2, seed=3))

    @pytest.mark.parametrize(
        ("own", "name"),
        [
            ({"objective": "embedding", "augment": "dsa"}, "embedding matching, DSA"),
            ({"distance": "cos"}, "gradient matching, cos"),
            ({"pool": {"kind": "total random"}}, "gradient matching, pool total random"),
        ],
    )
    def test_its_method_is_told_by_what_is_not_plain(self, own, name):
        assert matching.describe(settings(**own)).startswith(name)

    def test_its_seconds_include_those_of_its_generator(self, distil, untrained):
        made = distil(iterations=1, init="generator", generator=untrained())
        assert 1000 <= made.provenance["seconds"] < 1600

    def test_the_folder_has_a_picture_metrics_and_a_checkpoint(self, distil, tmp_path):
        distil(iterations=2)
        names = {path.name for path in (tmp_path / "run").iterdir()} - {"tensorboard"}
        expected = {".lock", "config.json", "metrics.jsonl", "grid.png", "checkpoint-00000002.pt", set_file.FILE}
        assert names == expected

    def test_snapshots_are_the_sets_of_shorter_runs(self, distil, tmp_path):
        made = distil(iterations=3, snapshots=(0, 1, 3))
        files = sorted(path.name for path in (tmp_path / "run").glob("set-*"))
        assert files == [f"set-{number:08d}.safetensors" for number in (0, 1, 3)]
        snapshots = {number: set_file.load(tmp_path / f"run/set-{number:08d}.safetensors") for number in (0, 1, 3)}
        assert {number: each.provenance["iterations"] for number, each in snapshots.items()} == {0: 0, 1: 1, 3: 3}
        shorter = distil("shorter", iterations=1)
        assert torch.equal(snapshots[1].images, shorter.images)
        assert torch.equal(snapshots[3].images, made.images)
        noise = torch.randn(CLASSES, 2, *SPEC.shape, generator=rng.generator(0, "match-noise")).flatten(0, 1)
        assert torch.equal(snapshots[0].images, Normalizer(SPEC.mean, SPEC.std).to_unit(noise))
        assert len({each.hash for each in snapshots.values()}) == 3
        # They are no part of what decides the result.
        assert torch.equal(distil("without", iterations=3).images, made.images)


RUNS = {
    "main": {},
    "noise of one class": {"ipc": 1, "outer": None, "inner": None},
    "batch norm": {"pool": {"main": "convnet3-w4-bn"}},
    "main+similar": {"pool": {"kind": "main+similar", "main_probability": 0.3}},
    "main+various with a schedule": {"pool": {"kind": "main+various", "main_probability_end": 0.1, "main_only": 1}},
    "total random": {"pool": {"kind": "total random"}},
    "embedding": {"objective": "embedding"},
    "dsa": {"augment": "dsa"},
    "first taught": {"inner_first": True, "distance": "cos"},
}


class TestResuming:
    TOTAL = 5

    @pytest.mark.parametrize("name", RUNS)
    def test_n_iterations_equal_k_iterations_and_the_rest(self, name, distil, tmp_path, monkeypatch):
        whole = distil("whole", iterations=self.TOTAL, **RUNS[name])
        stops = (1, 3)
        folder = tmp_path / "parts"
        for stop in stops:
            done = count((checkpoint.steps(folder) or [0])[-1] + 1)
            with monkeypatch.context() as patch:
                patch.setattr(Run, "stop_is_due", lambda _, done=done, stop=stop: next(done) == stop)
                with pytest.raises(Stopped):
                    distil("parts", iterations=self.TOTAL, **RUNS[name])
            assert checkpoint.steps(folder)[-1] == stop
            assert not (folder / set_file.FILE).exists()
            momentum = torch.load(checkpoint.path_of(folder, stop), weights_only=True)["states"]["optimizer"]["state"]
            assert momentum[0]["momentum_buffer"].abs().sum() > 0
        parts = distil("parts", iterations=self.TOTAL, **RUNS[name])
        assert torch.equal(parts.images, whole.images)
        assert parts.hash == whole.hash

    def test_work_after_the_last_checkpoint_is_done_again(self, distil, monkeypatch, tmp_path):
        whole = distil("whole", iterations=3)
        iterate = Matcher.iterate

        def fail(self, iteration: int) -> Tensor:
            if iteration == 2:
                raise KeyboardInterrupt
            return iterate(self, iteration)

        with monkeypatch.context() as patch:
            patch.setattr(Matcher, "iterate", fail)
            with pytest.raises(KeyboardInterrupt):
                distil("parts", iterations=3, snapshots=(0, 1))
        assert checkpoint.steps(tmp_path / "parts") == []
        before = set_file.load(tmp_path / "parts/set-00000001.safetensors")
        assert torch.equal(distil("parts", iterations=3, snapshots=(0, 1)).images, whole.images)
        assert set_file.load(tmp_path / "parts/set-00000001.safetensors").hash == before.hash

    def test_another_configuration_is_refused_in_the_same_folder(self, distil):
        distil(iterations=1)
        with pytest.raises(ConfigError, match="another configuration"):
            distil(iterations=2)

    @pytest.mark.parametrize("init", ["noise", "real"])
    def test_every_seed_gives_its_own_set(self, distil, init):
        assert torch.equal(distil("one", init=init).images, distil("again", init=init).images)
        assert not torch.equal(distil("one", init=init).images, distil("two", init=init, seed=1).images)

    def test_the_global_generator_is_neither_used_nor_changed(self, distil):
        torch.manual_seed(1)
        one = distil("one", augment="dsa")
        torch.manual_seed(2)
        before = torch.get_rng_state()
        assert torch.equal(distil("two", augment="dsa").images, one.images)
        assert torch.equal(torch.get_rng_state(), before)


class TestFingerprint:
    def test_it_changes_with_what_decides_the_set(self, noisy):
        others: list[dict[str, object]] = [
            {},
            {"seed": 1},
            {"ipc": 3},
            {"iterations": 4},
            {"objective": "embedding"},
            {"init": "real"},
            {"pool": {"kind": "main+various"}},
            {"pool": {"main": "convnet3-w5"}},
            {"pool": {"main_probability": 0.5}},
        ]
        found = {matching.fingerprint(settings(**own), noisy) for own in others}
        assert len(found) == len(others)
        images, labels = noisy.train
        assert matching.fingerprint(settings(), toy(255 - images, labels)) not in found

    def test_it_does_not_change_with_what_plays_no_part(self, noisy):
        plain = matching.fingerprint(settings(), noisy)
        assert matching.fingerprint(settings(snapshots=(1,)), noisy) == plain
        # Its networks learn nothing from real images.
        for own in ({"steps_before": 3}, {"lr": 0.5}, {"members": ("mlp",)}, {"various": ("mlp",)}):
            assert matching.fingerprint(settings(pool=own), noisy) == plain

    def test_a_moved_generator_is_the_same(self, noisy, untrained, tmp_path):
        folder = untrained()
        here = matching.fingerprint(settings(init="generator", generator=folder), noisy)
        folder = folder.rename(tmp_path / "moved")
        assert matching.fingerprint(settings(init="generator", generator=folder), noisy) == here
        assert matching.fingerprint(settings(), noisy) != here

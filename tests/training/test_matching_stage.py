import json
import math
from collections.abc import Callable
from itertools import count, pairwise
from pathlib import Path

import pytest
import torch
from generators import save_generator
from torch import Tensor
from toy import CLASSES, PER_CLASS, SPEC, dataset_of, places

from gdd import rng
from gdd.config import Config, ConfigError, MatchingConfig, MatchingPoolConfig, RunConfig, stable_hash, to_plain
from gdd.data.batches import ClassBatches
from gdd.data.pixels import Normalizer
from gdd.data.readers import Dataset
from gdd.data.spec import OPERATIONS, DatasetSpec
from gdd.runtime import checkpoint
from gdd.runtime.run import Run
from gdd.runtime.signals import Stopped
from gdd.sampling import generator_file, sample, set_file
from gdd.training import matching
from gdd.training.matching import Matcher, check_first_images, first_images, loops

NORMALIZE = Normalizer(SPEC.mean, SPEC.std)


def settings(
    seed: int = 0,
    snapshots: tuple[int, ...] = (),
    log_every: int = 50,
    pool: dict[str, object] | None = None,
    **own,
) -> Config:
    values = {"ipc": 2, "iterations": 3, "batch_real": 8, "batch_train": 4, **own}
    if values.get("objective") != "embedding":
        values = {"outer": 2, "inner": 1, **values}
    networks = MatchingPoolConfig(**{"main": "convnet3-w4", "various": ("mlp-w8", "lenet"), **(pool or {})})
    run = RunConfig(snapshots=snapshots, log_every=log_every)
    return Config(method="matching", seed=seed, matching=MatchingConfig(pool=networks, **values), run=run)


@pytest.fixture
def distil(tmp_path, accelerator, noisy):
    """Return a function that runs the whole stage and loads its set."""

    def call(folder: str = "run", dataset: Dataset = noisy, **own) -> set_file.SyntheticSet:
        config = settings(**own)
        fingerprint = stable_hash(config.seed, config.matching)
        with Run(tmp_path / folder, config.run, to_plain(config), fingerprint, accelerator) as run:
            return set_file.load(matching.distil_pixels(config, dataset, run, config.matching.generator))

    return call


@pytest.fixture
def untrained(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes an untrained generator and gives its folder."""

    def call(spec: DatasetSpec = SPEC) -> Path:
        return save_generator(tmp_path / "generator", spec, stage="pretrain", seconds=1000.0).parent

    return call


@pytest.mark.parametrize(
    ("ipc", "inner"),
    [(1, 1), (4, 17), (10, 50), (15, 38), (20, 25), (28, 21), (30, 20), (40, 15), (45, 12), (50, 10), (299, 10)],
)
def test_loops_are_those_of_dcs_table_and_on_lines_between_its_entries(ipc, inner):
    assert loops(MatchingConfig(ipc=ipc)) == (min(ipc, 50), inner)


def test_loops_that_the_user_gives_win():
    assert (
        loops(MatchingConfig(ipc=10, outer=3)),
        loops(MatchingConfig(ipc=10, inner=7)),
        loops(MatchingConfig(ipc=1, outer=4, inner=5)),
    ) == ((3, 50), (10, 7), (4, 5))


class TestSettings:
    """What the stage makes of its settings."""

    @pytest.fixture
    def matcher(self, distil, monkeypatch):
        """Return a function that gives the Matcher of a stage of one iteration, which does nothing."""
        made: list[Matcher] = []
        monkeypatch.setattr(Matcher, "iterate", lambda self, _: made.append(self) or torch.zeros(()))

        def call(**own) -> Matcher:
            distil(stable_hash(own), iterations=1, **own)
            return made[-1]

        return call

    @pytest.mark.parametrize(
        ("own", "expected"),
        [
            ({"outer": None, "inner": None, "ipc": 10}, {"outer": 10, "inner": 50, "objective": "gradient"}),
            ({"objective": "embedding", "ipc": 10}, {"outer": 1, "inner": 0, "objective": "embedding"}),
            ({"distance": "cos", "inner_first": True}, {"distance": "cos", "inner_first": True, "augmentations": ()}),
            ({"batch_real": 5, "batch_train": 3}, {"batch_real": 5, "batch_train": 3}),
            ({"seed": 4, "lr_network": 0.5}, {"seed": 4, "lr_network": 0.5}),
        ],
        ids=str,
    )
    def test_they_reach_the_matcher(self, matcher, own, expected):
        values = vars(matcher(**own))
        assert {name: values[name] for name in expected} == expected

    @pytest.mark.parametrize(("own", "lr"), [({}, 0.1), ({"objective": "embedding"}, 1.0), ({"lr_image": 0.3}, 0.3)])
    def test_the_rate_of_the_images_is_that_of_dc_or_dm(self, matcher, own, lr):
        assert matcher(**own).optimizer.param_groups[0]["lr"] == lr

    def test_the_pool_is_the_named_one(self, matcher):
        pool = matcher(seed=3, pool={"kind": "main+various", "main_probability_end": 0.5, "main_only": 2}).pool
        assert pool.members == ("convnet3-w4", "mlp-w8", "lenet")
        assert (pool.kind, pool.main_probability, pool.main_probability_end) == ("main+various", 0.9, 0.5)
        assert (pool.main_only, pool.iterations, pool.seed, pool.shape) == (2, 1, 3, SPEC.shape)

    @pytest.mark.parametrize("flip", [True, False])
    def test_dsa_mirrors_only_where_this_keeps_the_class(self, matcher, noisy, flip):
        spec = DatasetSpec(**{**SPEC.to_dict(), "flip": flip})
        drawn = matcher(dataset=dataset_of(*noisy.train, spec), augment="dsa").augmentations
        assert set(drawn) == set(OPERATIONS) - (set() if flip else {"flip"})


class TestFirstImages:
    @pytest.fixture
    def first(self, noisy):
        """Return a function that gives (K, ipc, C, H, W) first images."""

        def call(seed: int = 0, **own) -> Tensor:
            real = ClassBatches(*noisy.train, CLASSES, NORMALIZE, seed)
            return first_images(MatchingConfig(**own), real, seed, own.get("generator"))

        return call

    def test_noise_is_normal_and_depends_on_the_seed_alone(self, first):
        one, again, other = (first(seed, ipc=10) for seed in (0, 0, 1))
        assert one.shape == (CLASSES, 10, *SPEC.shape)
        assert torch.equal(one, again)
        assert not torch.equal(one, other)
        # 7680 numbers: five deviations of their mean and of their variance.
        assert abs(one.mean()) < 5 / math.sqrt(one.numel())
        assert abs(one.var() - 1) < 5 * math.sqrt(2 / one.numel())

    def test_real_images_are_of_the_train_part_and_of_their_class(self, first, noisy):
        chosen = []
        for seed in (0, 1):
            images = first(seed, ipc=PER_CLASS // 2, init="real").flatten(0, 1)
            where = places(images, NORMALIZE.from_u8(noisy.train.images_u8))
            assert len(where.unique()) == len(where)
            assert noisy.train.labels[where].tolist() == [c for c in range(CLASSES) for _ in range(PER_CLASS // 2)]
            chosen.append(where.tolist())
        assert chosen[0] != chosen[1]

    def test_a_generators_are_its_samples(self, first, untrained):
        folder = untrained()
        expected = sample.sample_set(generator_file.load(folder), 3, seed=5)
        assert expected.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
        images = first(5, ipc=3, init="generator", generator=folder)
        assert torch.equal(images.flatten(0, 1), NORMALIZE.from_u8(expected.images))

    def test_too_few_real_images_are_refused(self, noisy):
        images, labels = noisy.train
        kept = (labels != 1) | (labels.eq(1).cumsum(0) <= 4)
        dataset = dataset_of(images[kept], labels[kept])
        check_first_images(settings(ipc=4, init="real"), dataset)
        with pytest.raises(ConfigError, match=r"^matching\.ipc is 5, but class 'b' has 4 training images"):
            check_first_images(settings(ipc=5, init="real"), dataset)
        check_first_images(settings(ipc=5), dataset)

    def test_a_generator_of_other_classes_is_refused(self, noisy, untrained):
        folder = untrained(DatasetSpec(**{**SPEC.to_dict(), "class_names": ("a", "b", "d")}))
        with pytest.raises(ConfigError, match="a, b, d"):
            check_first_images(settings(init="generator", generator=folder), noisy)


class TestStoredSet:
    def test_images_are_unclipped_pixels_ordered_by_class(self, distil, tmp_path):
        made = distil(iterations=2)
        saved = torch.load(checkpoint.path_at(tmp_path / "run", 2), weights_only=True)["states"]["images"]
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
        seen = NORMALIZE.from_unit(made.images)
        torch.testing.assert_close(seen, optimised.flatten(0, 1), rtol=1e-6, atol=1e-6)

    def test_it_says_where_it_is_from(self, distil, noisy):
        made = distil(iterations=2, seed=3)
        facts = made.provenance
        assert facts["method"] == "gradient matching"
        assert facts["stage"] == "matching"
        assert facts["seed"] == 3
        assert facts["iterations"] == 2
        assert facts["data"] == noisy.fingerprint
        assert facts["fingerprint"] == stable_hash(3, settings(iterations=2).matching)
        assert 0 < facts["seconds"] < 600
        whole = to_plain(settings(iterations=2, seed=3))
        assert {**whole, **facts["config"]} == whole
        assert whole.keys() - facts["config"].keys() == {"run", "evaluate"}

    @pytest.mark.parametrize(
        ("own", "name"),
        [
            ({"objective": "embedding", "augment": "dsa"}, "embedding matching, DSA"),
            ({"distance": "cos"}, "gradient matching, cos"),
            ({"pool": {"kind": "total random"}}, "gradient matching, pool total random"),
        ],
    )
    def test_its_method_is_told_by_what_is_not_plain(self, own, name):
        assert matching.method_name(settings(**own).matching) == name

    def test_its_seconds_include_those_of_its_generator(self, distil, untrained):
        made = distil(iterations=1, init="generator", generator=untrained())
        assert 1000 <= made.provenance["seconds"] < 1600

    def test_its_metrics_count_how_often_each_network_was_drawn(self, distil, tmp_path):
        pool = {"kind": "total random", "main": "mlp-w4", "various": ("mlp-w8", "mlp-w4", "convnet3-w4")}
        distil(iterations=6, pool=pool, outer=1, log_every=1)
        lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
        uses = [{key: value for key, value in line.items() if key.startswith("uses/")} for line in lines]
        assert {*uses[-1]} <= {"uses/mlp-w4 0", "uses/mlp-w4 2", "uses/mlp-w8", "uses/convnet3-w4"}
        assert [sum(counts.values()) for counts in uses] == [1, 2, 3, 4, 5, 6]
        # One more of one network in each line, that which the pool has drawn for the iteration.
        drawn = [{key for key in now if now[key] > before.get(key, 0)} for before, now in pairwise([{}, *uses])]
        weights = torch.full((4,), 0.25)
        names = ("mlp-w4 0", "mlp-w8", "mlp-w4 2", "convnet3-w4")
        expected = [rng.Draws(0, rng.POOL_MEMBER, step).choice(weights.tolist()) for step in range(6)]
        assert drawn == [{f"uses/{names[int(member)]}"} for member in expected]
        assert len({*uses[-1]}) > 1

    def test_of_one_network_there_is_nothing_to_count(self, distil, tmp_path):
        distil(iterations=1)
        assert "uses/" not in (tmp_path / "run/metrics.jsonl").read_text()

    def test_snapshots_are_the_sets_of_shorter_runs(self, distil, tmp_path):
        made = distil(iterations=3, snapshots=(0, 1, 3))
        files = sorted(path.name for path in (tmp_path / "run").glob("set-*"))
        assert files == [f"set-{number:08d}.safetensors" for number in (0, 1, 3)]
        snapshots = {number: set_file.load(tmp_path / f"run/set-{number:08d}.safetensors") for number in (0, 1, 3)}
        assert {number: each.provenance["iterations"] for number, each in snapshots.items()} == {0: 0, 1: 1, 3: 3}
        shorter = distil("shorter", iterations=1)
        assert torch.equal(snapshots[1].images, shorter.images)
        assert torch.equal(snapshots[3].images, made.images)
        noise = rng.Draws(0, "match-noise").normal(CLASSES, 2, *SPEC.shape).flatten(0, 1)
        assert torch.equal(snapshots[0].images, NORMALIZE.to_unit(noise))
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
                patch.setattr(Run, "stop_is_due", lambda *_, done=done, stop=stop: next(done) == stop)
                with pytest.raises(Stopped):
                    distil("parts", iterations=self.TOTAL, **RUNS[name])
            assert checkpoint.steps(folder)[-1] == stop
            assert not (folder / set_file.FILE).exists()
            momentum = torch.load(checkpoint.path_at(folder, stop), weights_only=True)["states"]["optimizer"]["state"]
            assert momentum[0]["momentum_buffer"].abs().sum() > 0
        parts = distil("parts", iterations=self.TOTAL, **RUNS[name])
        assert torch.equal(parts.images, whole.images)
        assert parts.hash == whole.hash

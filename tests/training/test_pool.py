import math
from collections import Counter
from typing import get_args

import pytest
import torch
from torch import Tensor, nn
from toy import same, state

from gdd.config import ConfigError, PoolKind, RefinePoolConfig
from gdd.data.batches import Batches
from gdd.data.pixels import Normalizer
from gdd.data.splits import Split
from gdd.models import registry
from gdd.models.registry import fresh_members
from gdd.rng import generator, seeded
from gdd.runtime.graphs import tensors_of
from gdd.training.matching import FreshPool
from gdd.training.pool import Exam, LearningPool, Lessons, SnapshotPool

SHAPE, CLASSES = (1, 16, 16), 4
MEMBERS = ("mlp-w8", "convnet3-w4-bn")
KINDS: tuple[PoolKind, ...] = get_args(PoolKind)
IMAGES = torch.randint(256, (40, *SHAPE), generator=generator(0, "images"), dtype=torch.uint8)
LABELS = torch.randint(CLASSES, (40,), generator=generator(0, "labels"))
NORMALIZE = Normalizer((0.5,), (0.25,))
OTHERS = ("mlp-w8", "lenet-w4", "mlp-w4")


def learning(seed: int = 0, images: Tensor = IMAGES, labels: Tensor = LABELS, **own) -> LearningPool:
    values = {"members": MEMBERS, "weights": (), "redraw_every": 3, "steps_before": 2, "steps_between": 1, **own}
    max_accuracy = values.pop("max_accuracy", 1.0)
    return LearningPool(lessons(seed, images, labels, max_accuracy=max_accuracy), **values)


def lessons(seed: int = 0, images: Tensor = IMAGES, labels: Tensor = LABELS, **own) -> Lessons:
    values = {"max_accuracy": 1.0, "batch_size": 6, "lr": 0.01, "augmentations": (), **own}
    return Lessons(images, labels, CLASSES, NORMALIZE, seed=seed, **values)


def grown(seed: int = 0, **own) -> SnapshotPool:
    return SnapshotPool(lessons(seed), **{"members": MEMBERS, "weights": (), "ages": (1, 3, 4), **own})


def fresh(kind: PoolKind = "main+various", iterations: int = 100, seed: int = 0, **own) -> FreshPool:
    values = {"main": "convnet3-w4", "main_probability": 0.9, "main_probability_end": None, "main_only": 0}
    values |= {"similar_depth": 3, "various": OTHERS, **own}
    return FreshPool(SHAPE, CLASSES, kind=kind, iterations=iterations, seed=seed, **values)


def draw(pool: LearningPool | SnapshotPool | FreshPool, step: int) -> tuple[int, nn.Module]:
    """Return which member was drawn, and its network."""
    before = list(pool.uses)
    network = pool.network(step)
    assert sum(pool.uses) == sum(before) + 1
    return next(member for member, uses in enumerate(before) if pool.uses[member] > uses), network


def untrained(name: str, member: int, age: int) -> dict[str, Tensor]:
    with seeded(0, "init-pool", member, age):
        return state(registry.build(name, SHAPE, CLASSES))


@pytest.fixture
def asked(monkeypatch) -> list[int]:
    """The steps of all real batches that members learn from, in order."""
    steps: list[int] = []
    batch = Batches.__call__
    monkeypatch.setattr(Batches, "__call__", lambda self, step: steps.append(step) or batch(self, step))
    return steps


@pytest.mark.parametrize(
    "make", [learning, grown, *(lambda kind=kind, **own: fresh(kind, main_probability=0.5, **own) for kind in KINDS)]
)
class TestAll:
    @pytest.mark.parametrize("k", range(1, 14, 2))
    def test_n_draws_equal_k_draws_and_the_rest(self, make, k, tmp_path):
        total = 14
        whole, first, second = make(), make(), make()
        drawn = [(member, state(network)) for member, network in (draw(whole, step) for step in range(total))]
        assert max(whole.uses) > 3  # so a learning member has been redrawn
        for step in range(k):
            first.network(step)
        torch.save(first.state_dict(), tmp_path / "pool.pt")
        second.load_state_dict(torch.load(tmp_path / "pool.pt", weights_only=True))
        for step in range(k, total):
            member, network = draw(second, step)
            assert member == drawn[step][0]
            assert same(state(network), drawn[step][1])
        assert second.uses == whole.uses
        assert second.state_dict().get("steps_trained") == whole.state_dict().get("steps_trained")

    def test_the_state_of_other_members_is_refused_even_before_the_first_draw(self, make):
        pool = make()
        for names in (pool.members[:-1], (*pool.members, "mlp-w8"), (*pool.members[:-1], "mlp-w9")):
            with pytest.raises(ValueError, match="the state is of the members"):
                pool.load_state_dict({**pool.state_dict(), "members": list(names)})

    def test_seeds_differ(self, make):
        draws = [[draw(make(seed=seed), step) for step in range(10)] for seed in (0, 1)]
        one, two = ({member: state(network) for member, network in some} for some in draws)
        assert one.keys() & two.keys()
        assert not any(same(one[member], two[member]) for member in one.keys() & two.keys())
        assert len(one) == 1 or [member for member, _ in draws[0]] != [member for member, _ in draws[1]]


class TestLearning:
    @pytest.mark.parametrize("weights", [(), (1.0, 3.0, 6.0), (0.2, 0.0, 0.1)])
    def test_frequencies_follow_the_weights(self, weights):
        members, count = ("mlp-w4", "mlp-w5", "mlp-w6"), 1500
        pool = learning(members=members, weights=weights, redraw_every=10**9, steps_before=0, steps_between=0)
        for step in range(count):
            pool.network(step)
        shares = torch.tensor(weights or (1.0, 1.0, 1.0))
        shares = shares / shares.sum()
        deviations = (count * shares * (1 - shares)).sqrt()
        assert ((torch.tensor(pool.uses) - count * shares).abs() <= 5 * deviations).all()

    def test_it_is_the_named_one_frozen_and_in_eval_mode(self):
        pool = learning()
        for step in range(8):
            member, network = draw(pool, step)
            assert state(network).keys() == untrained(MEMBERS[member], member, 0).keys()
            assert not any(module.training for module in network.modules())
            network.zero_grad()  # of its own learning
            before = state(network)
            images = torch.randn(2, *SHAPE, generator=generator(0, "x")).requires_grad_(True)
            network(images).square().sum().backward()
            # The image learns, the network does not, not even its running statistics.
            assert images.grad.abs().sum() > 0
            assert all(parameter.grad is None for parameter in network.parameters())
            assert same(state(network), before)

    @pytest.mark.parametrize(("before", "between", "redraw"), [(2, 1, 3), (0, 2, 4), (3, 0, 2), (0, 0, 2), (2, 1, 99)])
    def test_members_use_up_one_stream_of_batches(self, asked, before, between, redraw):
        pool = learning(steps_before=before, steps_between=between, redraw_every=redraw)
        used = 0
        for step in range(4 * min(redraw, 4)):
            member, _ = draw(pool, step)
            used += before if (pool.uses[member] - 1) % redraw == 0 else between
            assert asked == list(range(used))
            assert pool.steps_trained == used
        assert min(pool.uses) > min(redraw, 4)

    def test_only_the_drawn_member_learns(self):
        pool = learning(redraw_every=100)
        idle = 0
        for step in range(8):
            before = {member: state(learning.network) for member, learning in pool.alive.items()}
            drawn, network = draw(pool, step)
            assert pool.alive[drawn].network is network
            for other in before.keys() - {drawn}:
                assert same(state(pool.alive[other].network), before[other])
                idle += 1
        assert idle > 0

    @pytest.mark.parametrize("between", [0, 2])
    def test_after_redraw_every_uses_it_starts_anew_and_keeps_nothing_that_it_learnt(self, between):
        # With learning only between uses, the first use after a redraw is the bare initialisation again.
        pool = learning(members=MEMBERS[:1], redraw_every=3, steps_before=0, steps_between=between)
        seen = [state(pool.network(step)) for step in range(7)]
        bare = [untrained(MEMBERS[0], 0, age) for age in range(3)]
        assert not same(bare[0], bare[1])
        assert not same(bare[1], bare[2])
        for use, weights in enumerate(seen):
            assert same(weights, bare[use // 3]) is (between == 0 or use % 3 == 0)
        first, *_ = pool.alive.values()
        assert not any(moment.any() for moments in tensors_of(first.optimizer) for moment in moments)

    @pytest.mark.parametrize(("limit", "learns"), [(0.25, False), (0.26, True), (1.0, True)])
    def test_members_stop_at_their_accuracy(self, limit, learns):
        # One image under each label: whatever a network answers, a quarter of the batch is right.
        images, labels = torch.full((CLASSES, *SHAPE), 255, dtype=torch.uint8), torch.arange(CLASSES)
        pool = learning(images=images, labels=labels, members=MEMBERS[:1], max_accuracy=limit, redraw_every=10)
        networks = [pool.network(step) for step in range(3)]
        assert same(state(networks[-1]), untrained(MEMBERS[0], 0, 0)) is not learns
        # The batches count as used, so resuming does not depend on what was learnt.
        assert pool.steps_trained == 2 + 1 + 1


class TestSnapshots:
    def test_they_are_the_states_of_one_training_on_batches_of_the_members_own(self, asked):
        pool = grown()
        for step in range(30):
            pool.network(step)
        assert sorted(asked) == list(range(2 * 4))
        for member, name in enumerate(MEMBERS):
            network, optimizer = registry.build(name, SHAPE, CLASSES), None
            network.load_state_dict(untrained(name, member, 0))
            optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
            batches, ages = Batches(IMAGES, LABELS, 6, 0, "pool-batches"), {}
            for step in range(4):
                images_u8, labels = batches(4 * member + step)
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(network(NORMALIZE.from_u8(images_u8)), labels).backward()
                optimizer.step()
                ages[step + 1] = state(network)
            for age, snapshot in zip((1, 3, 4), pool.snapshots[member], strict=True):
                torch.testing.assert_close(state(snapshot), ages[age])

    def test_every_age_of_every_member_is_as_likely(self):
        pool = grown(members=("mlp-w4", "mlp-w5"), weights=(1.0, 2.0))
        drawn = Counter(id(pool.network(step)) for step in range(900))
        for member, share in enumerate((1 / 9, 2 / 9)):
            for snapshot in pool.snapshots[member]:
                assert abs(drawn[id(snapshot)] - 900 * share) < 5 * (900 * share) ** 0.5

    def test_it_is_frozen_and_in_eval_mode(self):
        for step in range(6):
            network = grown().network(step)
            assert not any(module.training for module in network.modules())
            assert not any(parameter.requires_grad for parameter in network.parameters())


class TestExam:
    VAL = Split(IMAGES, LABELS)

    @pytest.mark.parametrize("make", [learning, grown])
    def test_it_counts_what_members_answer_to_images_as_they_are_asked(self, make):
        pool = make()
        for step in range(6):
            pool.network(step)
        found = Exam(self.VAL, NORMALIZE, (), 0).accuracies(pool)
        networks = pool.networks()
        assert found.keys() == {f"accuracy/{name}" for name in networks}
        for name, network in networks.items():
            right = network.eval()(NORMALIZE.from_u8(IMAGES)).argmax(1) == LABELS
            assert found[f"accuracy/{name}"].item() == pytest.approx(right.float().mean().item())

    def test_a_member_whose_logits_are_nan_knows_nothing(self):
        """Were nan a class, it would know the images of the first."""
        pool = learning(members=("mlp-w8",))
        member = pool.network(0)  # frozen
        next(iter(member.parameters())).fill_(math.nan)
        assert (LABELS == 0).any()
        assert [share.item() for share in Exam(self.VAL, NORMALIZE, (), 0).accuracies(pool).values()] == [0]

    def test_the_images_are_augmented_as_the_questions_are(self):
        plain, augmented = Exam(self.VAL, NORMALIZE, (), 0), Exam(self.VAL, NORMALIZE, ("cutout",), 0)
        assert torch.equal(plain.labels, augmented.labels)
        changed = (plain.images_std != augmented.images_std).flatten(1)
        assert changed.any(1).all()
        assert changed.float().mean() < 0.5

    def test_without_validation_images_there_is_nothing_to_tell(self):
        assert Exam(Split(IMAGES[:0], LABELS[:0]), NORMALIZE, ("color",), 0).accuracies(learning()) == {}


class TestKinds:
    def test_members_are_those_named(self):
        expected = {
            "main": ("convnet3-w8",),
            **dict.fromkeys(("main+various", "total random"), ("convnet3-w8", "lenet")),
        }
        for kind, names in expected.items():
            assert fresh_members(kind, "convnet3-w8", ("lenet",), 3) == names
            assert fresh(kind, main="convnet3-w8", various=("lenet",)).members == names

    @pytest.mark.parametrize("depth", [1, 2, 3, 4])
    def test_similar_ones_are_every_convnet_of_the_paper(self, depth):
        main, *similar = fresh_members("main+similar", "convnet3-w12-gn", (), depth)
        assert main == "convnet3-w12-gn"
        assert len(similar) == len(set(similar)) == 4 * 4 * 2
        networks = [registry.parse(name) for name in similar]
        assert [network.name for network in networks] == similar
        assert {network.width for network in networks} == {12}
        assert {network.depth for network in networks} == {depth}
        # Table 3 of Zhou et al. 2024.
        assert {network.activation for network in networks} == {"relu", "sigmoid", "leakyrelu", "swish"}
        assert {network.norm for network in networks} == {"instance", "batch", "layer", "group"}
        assert {network.pooling for network in networks} == {"avg", "max"}
        # A main model of the same depth is among them in a form of its own.
        assert ("convnet3-gn-w12" in similar) is (depth == 3)

    def test_similar_ones_of_a_main_model_without_pools_have_none(self):
        """Nothing is left to draw a pool for, and pools would leave no pixel of a deep network's maps."""
        main, *similar = fresh_members("main+similar", "convnet-d9-w4-nopool", (), 9)
        assert len(similar) == len(set(similar)) == 4 * 4
        assert {registry.parse(name).pooling for name in similar} == {"none"}
        # Images of 32 pixels cannot be halved nine times.
        for name in (main, *similar):
            assert registry.build(name, (3, 32, 32), 2)(torch.zeros(1, 3, 32, 32)).shape == (1, 2)

    @pytest.mark.parametrize("main", ["resnet18", "mlp", "lenet-w4"])
    def test_only_a_convnet_has_similar_ones(self, main):
        with pytest.raises(ConfigError, match=rf"^matching\.pool\.main is '{main}', expected a convnet"):
            fresh("main+similar", main=main)
        assert fresh("main+various", main=main).members[0] == main


class TestProbabilities:
    @pytest.mark.parametrize("kind", ["main+similar", "main+various"])
    def test_the_main_model_has_its_share_and_the_others_divide_the_rest(self, kind):
        pool = fresh(kind, main_probability=0.75)
        for iteration in (0, 50, 99):
            main, *others = pool.probabilities(iteration).tolist()
            assert main == 0.75
            assert others == pytest.approx([0.25 / len(others)] * len(others), rel=1e-6)

    @pytest.mark.parametrize(("start", "end"), [(0.9, 0.1), (0.1, 0.9), (0.5, 0.5), (1.0, 0.0), (0.0, 1.0)])
    def test_the_schedule_is_a_line_from_end_to_end(self, start, end):
        pool = fresh(iterations=11, main_probability=start, main_probability_end=end)
        shares = torch.stack([pool.probabilities(iteration) for iteration in range(11)])
        assert shares[0, 0] == torch.tensor(start)
        assert shares[-1, 0] == torch.tensor(end)
        torch.testing.assert_close(shares[:, 0], torch.linspace(start, end, 11), rtol=0, atol=1e-7)
        torch.testing.assert_close(shares[:, 1:], (1 - shares[:, :1]).expand(-1, 3) / 3, rtol=0, atol=1e-7)

    @pytest.mark.parametrize(("start", "end"), [(0.9, 0.0), (0.7, 0.0), (0.9, 0.1), (0.3, 1.0)])
    def test_the_schedule_stays_in_its_range_and_reaches_its_end_whatever_the_length(self, start, end):
        # A share that rounding left below 0 would stop the run at its last iteration.
        for total in range(2, 200):
            last = fresh(iterations=total, main_probability=start, main_probability_end=end).probabilities(total - 1)
            assert last.min() >= 0, total
            assert last[0] == torch.tensor(end), total

    def test_the_schedule_of_one_iteration_is_its_start(self):
        pool = fresh(iterations=1, main_probability=0.6, main_probability_end=0.2)
        assert pool.probabilities(0)[0] == torch.tensor(0.6)

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_first_iterations_may_take_the_main_model_alone(self, kind):
        pool = fresh(kind, main_only=3, main_probability=0.5, main_probability_end=0.1)
        for iteration in range(6):
            alone = pool.probabilities(iteration).tolist() == [1.0] + [0.0] * (len(pool.members) - 1)
            assert alone is (iteration < 3 or kind == "main")

    def test_total_random_treats_all_alike(self):
        pool = fresh("total random", iterations=3, main_probability_end=0.5)
        for iteration in range(3):
            assert pool.probabilities(iteration).tolist() == [0.25] * 4

    def test_draws_follow_the_schedule(self):
        names = {"main": "mlp-w4", "various": ("mlp-w5",)}
        pool = fresh(iterations=1200, main_probability=1.0, main_probability_end=0.0, **names)
        main = torch.tensor([draw(pool, step)[0] == 0 for step in range(1200)]).float().view(4, 300).mean(1)
        # Quarters of the line from 1 to 0, each with a deviation of at most 1 / (2 sqrt(300)) = .029.
        assert (main - torch.tensor([0.875, 0.625, 0.375, 0.125])).abs().max() < 0.12


class TestFresh:
    @pytest.mark.parametrize("kind", KINDS)
    def test_every_draw_is_a_new_untrained_network_of_its_name_in_eval_mode(self, kind, asked):
        pool = fresh(kind, main_probability=0.2)
        ages: Counter[int] = Counter()
        before: dict[int, dict[str, Tensor]] = {}
        for iteration in range(12):
            member, network = draw(pool, iteration)
            assert not network.training
            weights = state(network)
            assert same(weights, untrained(pool.members[member], member, ages[member]))
            assert str(network) == str(registry.build(pool.members[member], SHAPE, CLASSES).eval())
            assert member not in before or not same(weights, before[member])
            ages[member] += 1
            before[member] = weights
        assert asked == []

    def test_its_state_is_a_few_numbers(self):
        pool = fresh("main+similar")
        for iteration in range(5):
            pool.network(iteration)
        assert pool.state_dict() == {"members": list(pool.members), "uses": pool.uses}
        assert len(pool.uses) == 33
        assert sum(pool.uses) == 5


def test_a_member_that_is_there_twice_has_two_curves():
    pool = learning(members=("mlp-w8", "mlp-w8", "mlp-w4"), redraw_every=99)
    for step in range(12):
        pool.network(step)
    assert pool.networks().keys() == {"mlp-w8 0", "mlp-w8 1", "mlp-w4"}


@pytest.mark.parametrize(
    ("settings", "uses"),
    [
        ({"members": MEMBERS[:1]}, 7),
        ({"members": MEMBERS[:1], "redraw_every": 7, "steps_before": 0, "steps_between": 4}, 7),
        ({"members": MEMBERS, "weights": (0.0, 1.0), "redraw_every": 2}, 3),
        ({"members": MEMBERS, "ages": (1, 3, 9)}, 30),
        ({"members": MEMBERS, "ages": (2,), "weights": (1.0, 0.0)}, 30),
        ({"members": MEMBERS, "redraw_every": 10_000, "steps_before": 5, "steps_between": 2}, 60),
    ],
)
def test_the_lessons_that_are_estimated_are_those_that_a_pool_gives(settings, uses, monkeypatch):
    """Where chance has no say, exactly: one member, or several that all live on or are trained once."""
    taught = []
    monkeypatch.setattr(Lessons, "teach", lambda own, member, steps: taught.append(len(steps)))
    life = {} if "ages" in settings else {"redraw_every": 3, "steps_before": 2, "steps_between": 1}
    config = RefinePoolConfig(**life | settings)
    pool = (
        SnapshotPool(lessons(), config.members, config.weights, config.ages)
        if config.ages
        else LearningPool(
            lessons(), config.members, config.weights, config.redraw_every, config.steps_before, config.steps_between
        )
    )
    for step in range(uses):
        pool.network(step)
    assert sum(taught) == config.lessons(uses)

from copy import deepcopy
from typing import get_args

import pytest
import torch
from pools import CLASSES, MEMBERS, SHAPE, StudentBatches, same, weights_of

from gdd.config import ConfigError, PoolConfig, PoolKind
from gdd.models import registry
from gdd.rng import generator, seeded
from gdd.training.pool import Pool, members, probabilities

KINDS: tuple[PoolKind, ...] = get_args(PoolKind)
SIMILAR = PoolConfig(main="convnet3-w12-gn")


def of_kind(kind: PoolKind = "main+various", seed: int = 0, total: int = 100, batches=None, **settings) -> Pool:
    """Return a pool whose every draw is a new network, unless it gets batches."""
    values = {"members": MEMBERS, "main": "convnet3-w4", "various": ("mlp-w8", "lenet-w4"), **settings}
    return Pool(PoolConfig(**values), kind, total, SHAPE, CLASSES, seed, batches)


class TestKinds:
    def test_members_are_those_named(self):
        settings = PoolConfig(members=MEMBERS, main="convnet3-w8", various=("lenet", "mlp"))
        assert members(settings, "members") == MEMBERS
        assert members(settings, "main") == ("convnet3-w8",)
        assert members(settings, "main+various") == ("convnet3-w8", "lenet", "mlp")
        assert members(settings, "total random") == ("convnet3-w8", "lenet", "mlp")

    @pytest.mark.parametrize("depth", [1, 2, 3, 4])
    def test_similar_ones_are_every_convnet_of_the_paper(self, depth):
        settings = PoolConfig(main="convnet3-w12-gn", similar_depth=depth)
        main, *similar = members(settings, "main+similar")
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

    def test_similar_ones_can_all_be_built_and_answer_differently(self):
        images = torch.randn(3, *SHAPE, generator=generator(0, "x"))
        answers = []
        for name in members(SIMILAR, "main+similar")[1:]:
            with seeded(0, "same"):
                network = registry.build(name, SHAPE, CLASSES).eval()
            assert sum(isinstance(module, torch.nn.Conv2d) for module in network.modules()) == 3
            answers.append(tuple(network(images).flatten().tolist()))
        assert len(set(answers)) == len(answers)

    @pytest.mark.parametrize("main", ["resnet18", "mlp", "lenet-w4"])
    def test_only_a_convnet_has_similar_ones(self, main):
        with pytest.raises(ConfigError, match=rf"^pool\.main is '{main}', expected a convnet"):
            members(PoolConfig(main=main), "main+similar")
        with pytest.raises(ConfigError, match=r"^pool\.main"):
            of_kind("main+similar", main=main)
        assert members(PoolConfig(main=main), "main+various")[0] == main

    def test_an_unknown_main_model_is_refused(self):
        with pytest.raises(ConfigError, match="convnet33"):
            members(PoolConfig(main="convnet33"), "main+similar")


class TestProbabilities:
    @pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "members"])
    @pytest.mark.parametrize("total", [1, 2, 7, 100])
    @pytest.mark.parametrize("end", [None, 0.0, 0.3, 1.0])
    def test_they_sum_to_1(self, kind, total, end):
        settings = PoolConfig(main="convnet3-w4", main_probability_end=end, main_only=2)
        for step in range(total):
            shares = probabilities(settings, kind, step, total)
            assert len(shares) == len(members(settings, kind))
            assert shares.double().sum().item() == pytest.approx(1, abs=1e-6)
            assert shares.min() >= 0

    def test_members_have_their_weights(self):
        settings = PoolConfig(members=MEMBERS, weights=(1.0, 3.0), main_only=50)
        assert probabilities(settings, "members", 0, 100).tolist() == [1, 3]
        assert probabilities(PoolConfig(members=MEMBERS), "members", 0, 100).tolist() == [1, 1]

    @pytest.mark.parametrize("kind", ["main+similar", "main+various"])
    def test_the_main_model_has_its_share_and_the_others_divide_the_rest(self, kind):
        settings = PoolConfig(main_probability=0.75)
        for step in (0, 50, 99):
            main, *others = probabilities(settings, kind, step, 100).tolist()
            assert main == 0.75
            assert others == pytest.approx([0.25 / len(others)] * len(others), rel=1e-6)

    @pytest.mark.parametrize(("start", "end"), [(0.9, 0.1), (0.1, 0.9), (0.5, 0.5), (1.0, 0.0), (0.0, 1.0)])
    def test_the_schedule_is_a_line_from_end_to_end(self, start, end):
        settings = PoolConfig(main_probability=start, main_probability_end=end)
        shares = torch.stack([probabilities(settings, "main+various", step, 11) for step in range(11)])
        assert shares[0, 0] == torch.tensor(start)
        assert shares[-1, 0] == torch.tensor(end)
        torch.testing.assert_close(shares[:, 0], torch.linspace(start, end, 11), rtol=0, atol=1e-7)
        torch.testing.assert_close(shares[:, 1:], (1 - shares[:, :1]).expand(-1, 3) / 3, rtol=0, atol=1e-7)

    @pytest.mark.parametrize(("start", "end"), [(0.9, 0.0), (0.7, 0.0), (0.9, 0.1), (0.3, 1.0)])
    def test_the_schedule_stays_in_its_range_and_reaches_its_end_whatever_the_length(self, start, end):
        # A share that rounding left below 0 would stop the run at its last step.
        settings = PoolConfig(main_probability=start, main_probability_end=end)
        for total in range(2, 200):
            last = probabilities(settings, "main+various", total - 1, total)
            assert last.min() >= 0, total
            assert last[0] == torch.tensor(end), total

    def test_a_schedule_that_ends_at_0_can_be_drawn_from_to_its_end(self):
        pool = of_kind(total=100, main_probability=0.9, main_probability_end=0.0)
        assert pool.draw(99)[0] != 0

    def test_the_schedule_of_one_step_is_its_start(self):
        settings = PoolConfig(main_probability=0.6, main_probability_end=0.2)
        assert probabilities(settings, "main+various", 0, 1)[0] == torch.tensor(0.6)

    @pytest.mark.parametrize("kind", ["main", "main+similar", "main+various", "total random"])
    def test_the_first_steps_may_take_the_main_model_alone(self, kind):
        settings = PoolConfig(main="convnet3-w4", main_only=3, main_probability=0.5, main_probability_end=0.1)
        for step in range(6):
            alone = probabilities(settings, kind, step, 100).tolist()[0] == 1
            assert alone is (step < 3 or kind == "main")

    def test_total_random_treats_all_alike(self):
        for step in range(3):
            settings = PoolConfig(main_probability=0.9, main_probability_end=0.5)
            assert probabilities(settings, "total random", step, 3).tolist() == [0.25] * 4

    @pytest.mark.parametrize(
        ("kind", "shares"),
        [("main", [1]), ("main+various", [0.6, 0.2, 0.2]), ("total random", [1 / 3] * 3), ("members", [0.25, 0.75])],
    )
    def test_draws_have_these_frequencies(self, kind, shares):
        count = 600
        settings = {"main": "mlp-w4", "various": ("mlp-w5", "mlp-w6"), "members": ("mlp-w4", "mlp-w5")}
        pool = of_kind(kind, total=count, main_probability=0.6, weights=(1.0, 3.0), **settings)
        counts = torch.bincount(torch.tensor([pool.draw(step)[0] for step in range(count)]), minlength=len(shares))
        expected = count * torch.tensor(shares)
        assert len(counts) == len(shares)
        assert ((counts - expected).abs() <= 5 * (expected * (1 - torch.tensor(shares))).sqrt()).all()

    def test_draws_follow_the_schedule(self):
        pool = of_kind("main+various", total=1200, main="mlp-w4", various=("mlp-w5",), main_probability=1.0,
                        main_probability_end=0.0)  # fmt: skip
        main = torch.tensor([pool.draw(step)[0] == 0 for step in range(1200)]).float().view(4, 300).mean(1)
        # Quarters of the line from 1 to 0, each with a deviation of at most 1 / (2 sqrt(300)) = .029.
        assert (main - torch.tensor([0.875, 0.625, 0.375, 0.125])).abs().max() < 0.12


class TestUntaught:
    @pytest.mark.parametrize("kind", KINDS)
    def test_every_draw_is_a_new_untrained_network(self, kind):
        pool = of_kind(kind, main_probability=0.5)
        ages, before = dict.fromkeys(range(len(pool.names)), 0), {}
        for step in range(12):
            member, network = pool.draw(step)
            with seeded(0, "init-pool", member, ages[member]):
                expected = registry.build(pool.names[member], SHAPE, CLASSES)
            weights = weights_of(network)
            assert same(weights, weights_of(expected))
            assert member not in before or not same(weights, before[member])
            ages[member] += 1
            before[member] = weights
        assert pool.uses == list(ages.values())
        assert pool.trained == 0

    def test_it_is_the_named_network(self):
        pool = of_kind("main+similar", main_probability=0.2)
        for step in range(12):
            member, network = pool.draw(step)
            with torch.device("meta"):
                expected = registry.build(pool.names[member], SHAPE, CLASSES)
            assert str(network) == str(expected)

    def test_what_the_user_does_to_one_does_not_reach_the_next(self):
        one, two = of_kind("main"), of_kind("main")
        for step in range(3):
            _, network = one.draw(step)
            for parameter in network.requires_grad_(True).parameters():
                parameter.data.zero_()
            _, other = two.draw(step)
            assert bool(next(other.parameters()).any())
        assert same(weights_of(one.draw(3)[1]), weights_of(two.draw(3)[1]))

    def test_its_state_is_a_few_numbers(self):
        pool = of_kind("main+similar")
        for step in range(5):
            pool.draw(step)
        state = pool.state_dict()
        assert state == {"names": list(pool.names), "uses": pool.uses, "trained": 0, "networks": {}, "optimizers": {}}
        assert len(state["uses"]) == 33
        assert sum(state["uses"]) == 5

    @pytest.mark.parametrize("kind", KINDS)
    def test_n_draws_equal_k_draws_and_the_rest(self, kind):
        whole = of_kind(kind, main_probability=0.5)
        drawn = [(member, weights_of(network)) for member, network in map(whole.draw, range(8))]
        first, second = (of_kind(kind, main_probability=0.5) for _ in range(2))
        for step in range(3):
            first.draw(step)
        second.load_state_dict(deepcopy(first.state_dict()))
        for step in range(3, 8):
            member, network = second.draw(step)
            assert member == drawn[step][0]
            assert same(weights_of(network), drawn[step][1])

    def test_seeds_differ(self):
        one, two = ([of_kind("main", seed=seed).draw(step) for step in range(2)] for seed in (0, 1))
        assert not any(same(weights_of(a), weights_of(b)) for (_, a), (_, b) in zip(one, two, strict=True))

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_same_pool_teaches_its_networks_when_it_gets_batches(self, kind):
        lessons = StudentBatches()
        counts = {"steps_before": 2, "steps_between": 1, "redraw_every": 100, "main_probability": 0.5}
        taught, plain = of_kind(kind, batches=lessons, **counts), of_kind(kind, **counts)
        for step in range(6):
            (member, network), (other, fresh_one) = taught.draw(step), plain.draw(step)
            assert member == other
            assert weights_of(network).keys() == weights_of(fresh_one).keys()
            assert not same(weights_of(network), weights_of(fresh_one))
        distinct = sum(uses > 0 for uses in taught.uses)
        assert len(taught.living) == distinct
        assert taught.trained == len(lessons.asked) == 2 * distinct + (6 - distinct)

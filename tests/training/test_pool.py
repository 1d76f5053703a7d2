from copy import deepcopy
from itertools import pairwise

import pytest
import torch
from pools import CLASSES, MEMBERS, SHAPE, StudentBatches, same, weights_of

from gdd.config import PoolConfig
from gdd.models import registry
from gdd.rng import generator, seeded
from gdd.training.pool import Pool


def make(seed: int = 0, batches=None, **settings) -> Pool:
    """Return a pool of members, which learn."""
    values = {"members": MEMBERS, "redraw_every": 3, "steps_before": 2, "steps_between": 1, **settings}
    return Pool(PoolConfig(**values), "members", 100, SHAPE, CLASSES, seed, batches or StudentBatches())


def fresh(seed: int, member: int, age: int) -> dict[str, torch.Tensor]:
    with seeded(seed, "init-pool", member, age):
        return registry.build(MEMBERS[member], SHAPE, CLASSES).state_dict()


class TestResuming:
    @pytest.mark.parametrize("k", range(1, 14, 2))
    def test_n_draws_equal_k_draws_and_the_rest(self, k):
        total = 14
        whole = make()
        drawn = []
        for step in range(total):
            member, network = whole.draw(step)
            drawn.append((member, weights_of(network)))
        assert min(whole.uses) > 3  # both members have been redrawn

        first = make()
        for step in range(k):
            first.draw(step)
        state = deepcopy(first.state_dict())
        second = make()
        second.load_state_dict(state)
        for step in range(k, total):
            member, network = second.draw(step)
            assert member == drawn[step][0]
            assert same(weights_of(network), drawn[step][1])
        assert second.uses == whole.uses
        assert second.trained == whole.trained

    def test_the_state_survives_a_file(self, tmp_path):
        pool = make()
        for step in range(4):
            pool.draw(step)
        torch.save(pool.state_dict(), tmp_path / "pool.pt")
        other = make(seed=0)
        other.load_state_dict(torch.load(tmp_path / "pool.pt", weights_only=True))
        for step in range(4, 8):
            (one, first), (two, second) = pool.draw(step), other.draw(step)
            assert one == two
            assert same(weights_of(first), weights_of(second))

    @pytest.mark.parametrize(
        ("others", "steps"),
        # Another number of them shows even before the first draw.
        [(("mlp-w8", "mlp-w8"), 4), *((MEMBERS[:1], steps) for steps in (0, 4)), ((*MEMBERS, "mlp-w8"), 4)],
    )
    def test_the_state_of_other_members_is_refused(self, others, steps):
        pool = make(redraw_every=100)
        for step in range(steps):
            pool.draw(step)
        assert len(pool.living) == (2 if steps else 0)
        # What gdd.checkpoint.load turns into a sentence.
        with pytest.raises((RuntimeError, ValueError, KeyError, TypeError, AttributeError)):
            make(members=others).load_state_dict(pool.state_dict())

    def test_the_global_generator_is_neither_used_nor_changed(self):
        torch.manual_seed(1)
        first = make().draw(0)
        torch.manual_seed(2)
        before = torch.get_rng_state()
        second = make().draw(0)
        assert first[0] == second[0]
        assert same(weights_of(first[1]), weights_of(second[1]))
        assert torch.equal(torch.get_rng_state(), before)

    def test_seeds_differ(self):
        one, two = ([make(seed=seed).draw(step) for step in range(20)] for seed in (0, 1))
        assert [member for member, _ in one] != [member for member, _ in two]
        for member in range(len(MEMBERS)):
            first, second = (next(network for other, network in draws if other == member) for draws in (one, two))
            assert not same(weights_of(first), weights_of(second))


class TestWeights:
    def draws(self, count: int, **settings) -> torch.Tensor:
        pool = make(redraw_every=10**9, steps_before=0, steps_between=0, **settings)
        drawn = torch.tensor([pool.draw(step)[0] for step in range(count)])
        return torch.bincount(drawn, minlength=len(pool.names))

    @pytest.mark.parametrize("weights", [(), (1.0, 3.0, 6.0), (0.2, 0.2, 0.1)])
    def test_frequencies_follow_the_weights(self, weights):
        count = 1500
        counts = self.draws(count, members=("mlp-w4", "mlp-w5", "mlp-w6"), weights=weights)
        shares = torch.tensor(weights or (1.0, 1.0, 1.0))
        shares = shares / shares.sum()
        deviations = (count * shares * (1 - shares)).sqrt()
        assert ((counts - count * shares).abs() < 5 * deviations).all()

    def test_a_member_of_weight_0_is_never_drawn(self):
        assert self.draws(500, weights=(0.0, 1.0)).tolist() == [0, 500]


class TestDrawnNetwork:
    def test_it_is_frozen_and_in_eval_mode(self):
        pool = make()
        for step in range(8):
            _, network = pool.draw(step)
            assert not any(module.training for module in network.modules())
            assert not any(parameter.requires_grad for parameter in network.parameters())
            before = weights_of(network)
            images = torch.randn(2, *SHAPE, generator=generator(0, "x")).requires_grad_(True)
            network(images).square().sum().backward()
            # The image learns, the network does not, not even its running statistics.
            assert images.grad.abs().sum() > 0
            assert all(parameter.grad is None or not parameter.requires_grad for parameter in network.parameters())
            assert same(weights_of(network), before)

    def test_it_is_the_named_member(self):
        pool = make()
        for step in range(6):
            member, network = pool.draw(step)
            assert weights_of(network).keys() == fresh(0, member, 0).keys()


class TestLearning:
    @pytest.mark.parametrize(("before", "between", "redraw"), [(2, 1, 3), (0, 2, 4), (3, 0, 2), (0, 0, 2)])
    def test_batches_are_used_up_one_after_another(self, before, between, redraw):
        lessons = StudentBatches()
        counts = {"steps_before": before, "steps_between": between, "redraw_every": redraw}
        pool = make(members=MEMBERS[:1], batches=lessons, **counts)
        used = 0
        for use in range(2 * redraw + 1):
            pool.draw(use)
            used += before if use % redraw == 0 else between
            assert lessons.asked == list(range(used))
        assert pool.trained == used

    def test_members_share_one_stream_of_batches(self):
        lessons = StudentBatches()
        pool = make(redraw_every=100, batches=lessons)
        for step in range(10):
            pool.draw(step)
        assert min(pool.uses) > 0
        assert lessons.asked == list(range(2 * 2 + 8 * 1))

    def test_a_member_learns_between_uses(self):
        pool = make(members=MEMBERS[:1], redraw_every=10)
        seen = [weights_of(pool.draw(step)[1]) for step in range(4)]
        assert not any(same(first, second) for first, second in pairwise(seen))

    def test_only_the_drawn_member_learns(self):
        pool = make(redraw_every=100)
        idle = 0
        for step in range(8):
            before = {member: weights_of(network) for member, (network, _) in pool.living.items()}
            drawn, network = pool.draw(step)
            assert pool.living[drawn][0] is network
            for other in before.keys() - {drawn}:
                assert same(weights_of(pool.living[other][0]), before[other])
                idle += 1
        assert idle > 0

    def test_it_starts_anew_after_redraw_every_uses(self):
        pool = make(members=MEMBERS[:1], redraw_every=3, steps_before=0, steps_between=0)
        seen = [weights_of(pool.draw(step)[1]) for step in range(9)]
        for use, weights in enumerate(seen):
            assert same(weights, fresh(0, 0, use // 3))
        assert not same(seen[2], seen[3])
        assert not same(seen[3], seen[6])

    def test_a_redrawn_member_keeps_nothing_of_what_it_learnt(self):
        # With learning only between uses, the first use after a redraw is the bare initialisation again.
        pool = make(members=MEMBERS[:1], redraw_every=3, steps_before=0, steps_between=2)
        seen = [weights_of(pool.draw(step)[1]) for step in range(7)]
        assert same(seen[3], fresh(0, 0, 1))
        assert same(seen[6], fresh(0, 0, 2))
        assert not same(seen[5], seen[3])
        (_, optimizer), *_ = pool.living.values()
        assert not optimizer.state_dict()["state"]  # a fresh optimiser has no momentum yet


class TestMaxAccuracy:
    @staticmethod
    def every_label_once(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """One image under each label: whatever a network answers, a quarter of the batch is right."""
        return torch.ones(CLASSES, *SHAPE), torch.arange(CLASSES)

    @pytest.mark.parametrize(("limit", "learns"), [(0.25, False), (0.26, True), (1.0, True)])
    def test_members_stop_at_their_accuracy(self, limit, learns):
        pool = make(members=MEMBERS[:1], max_accuracy=limit, redraw_every=10, batches=self.every_label_once)
        for step in range(3):
            _, network = pool.draw(step)
        assert same(weights_of(network), fresh(0, 0, 0)) is not learns
        # The batches count as used, so resuming does not depend on what was learnt.
        assert pool.trained == 2 + 1 + 1

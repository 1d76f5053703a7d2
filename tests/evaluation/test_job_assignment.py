"""Students are assigned to processes by what they cost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdd.config import EvaluateConfig
from gdd.data.spec import DatasetSpec
from gdd.evaluation.grid import assign_jobs, estimated_cost
from gdd.evaluation.recipe import Conditions, Job
from gdd.evaluation.sources import CEILING, FLOOR, Kind, Source

SPEC = DatasetSpec("toy", 3, 32, 32, tuple("abcdefghij"), (0.5,) * 3, (0.5,) * 3, True)
IMAGES = 50_000


def test_the_largest_job_goes_to_the_least_loaded_process():
    assert assign_jobs([5, 4, 3, 3, 3], 2) == [[0, 3], [1, 2, 4]]
    assert assign_jobs([1, 1, 1, 9], 2) == [[3], [0, 1, 2]]
    assert assign_jobs([], 2) == [[], []]
    assert assign_jobs([2, 1], 3) == [[0], [1], []]


@given(st.lists(st.floats(0, 1e15), max_size=40), st.integers(1, 9))
def test_every_job_is_assigned_once_and_loads_are_near_each_other(costs, world_size):
    assigned = assign_jobs(costs, world_size)
    assert sorted(index for indices in assigned for index in indices) == list(range(len(costs)))
    assert all(indices == sorted(indices) for indices in assigned)
    loads = [sum(costs[index] for index in indices) for indices in assigned]
    # The most loaded process got its last job when it was the least loaded.
    assert max(loads) <= sum(costs) / world_size + max(costs, default=0) * (1 + 1e-9)


def cost(arch: str = "convnet3-w128", ipc: int | None = 10, kind: Kind = FLOOR, **settings) -> float:
    conditions = Conditions.of(EvaluateConfig(archs=(arch,), **settings), SPEC)
    return estimated_cost(Job(Source("x", kind, "h"), ipc, "fixed", arch, 0), conditions, SPEC, IMAGES)


def test_it_is_the_forward_flop_of_all_epochs():
    # ConvNet3 of width 128: 3 -> 128 at 32x32, 128 -> 128 at 16x16 and 8x8, 2048 -> 10; a multiply-add is 2.
    flop = 2 * 9 * (3 * 128 * 32**2 + 128 * 128 * (16**2 + 8**2)) + 2 * 128 * 16 * 10
    assert cost() == pytest.approx(300 * 100 * flop)
    assert cost(ipc=50) == pytest.approx(5 * cost())


def test_the_ceiling_counts_all_images_and_its_own_epochs():
    assert cost(ipc=None, kind=CEILING, all_epochs=3) == pytest.approx(cost() / (300 * 100) * 3 * IMAGES)


def test_every_candidate_is_trained():
    chosen = cost(teacher="real", select_alpha=(0.1, 0.5), select_temperature=(1.0, 2.0, 4.0))
    assert chosen == pytest.approx(6 * cost())

"""A pool's members are the same on all processes, whatever the rounding of each."""

from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing

from gdd.data.pixels import Normalizer
from gdd.training.pool import LearningPool, Lessons, SnapshotPool

MEMBERS = ("convnet3-bn-w4", "mlp-w8")


def pools() -> list[LearningPool | SnapshotPool]:
    images = torch.arange(12 * 16 * 16).view(12, 1, 16, 16).to(torch.uint8)
    how = {"max_accuracy": 1.0, "batch_size": 6, "lr": 0.01, "augmentations": (), "seed": 0}
    lessons = Lessons(images, torch.arange(12) % 3, 3, Normalizer((0.5,), (0.25,)), **how)
    living = LearningPool(lessons, MEMBERS, (), redraw_every=4, steps_before=2, steps_between=1)
    return [living, SnapshotPool(lessons, MEMBERS, (), ages=(1, 3))]


def work(rank: int, folder: Path) -> None:
    """Let a pool be drawn from some times on one of two processes, of which one rounds otherwise."""
    store = distributed.FileStore(str(folder / "store"), 2)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    plain = torch.optim.SGD.step

    def perturbed(self: torch.optim.SGD, *rest: object) -> None:
        plain(self, *rest)
        for parameter in self.param_groups[0]["params"]:
            parameter.data += 1e-3 * rank

    torch.optim.SGD.step = perturbed  # type: ignore[method-assign]
    states = []
    for pool in pools():
        for step in range(8):
            states.append(pool.network(step).state_dict())
            states[-1] = {name: value.clone() for name, value in states[-1].items()}
    torch.save(states, folder / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_members_agree_and_are_those_of_one_process(tmp_path: Path) -> None:
    multiprocessing.spawn(work, (tmp_path,), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    alone = [
        {name: value.clone() for name, value in pool.network(step).state_dict().items()}
        for pool in pools()
        for step in range(8)
    ]
    assert len(first) == len(second) == len(alone)
    for states in zip(first, second, alone, strict=True):
        for name in states[0]:
            assert torch.equal(states[0][name], states[1][name]), name
            assert torch.equal(states[0][name], states[2][name]), name

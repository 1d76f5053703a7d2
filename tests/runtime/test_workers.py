"""Processes that do tasks at once: how many, that they do them all, and that none fails or ends unheard."""

import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from gdd.config import ConfigError, RunConfig
from gdd.runtime import workers
from gdd.runtime.signals import SIGNALS
from gdd.runtime.workers import Team, team_for

CPU = torch.device("cpu")


class TestTeam:
    @pytest.mark.parametrize(
        ("cores", "tasks", "settings", "team"),
        [
            (8, 72, {}, Team(8, 1)),
            (8, 2, {}, Team(2, 4)),
            (8, 3, {}, Team(3, 2)),
            (8, 72, {"threads": 2}, Team(4, 2)),
            (2, 72, {"threads": 1}, Team(2, 1)),
            (8, 72, {"workers": 3}, Team(3, 2)),
            (2, 72, {"workers": 4}, Team(4, 1)),
            (2, 72, {"workers": 3, "threads": 2}, Team(3, 2)),
            (8, 2, {"workers": 3}, Team(2, 4)),
        ],
    )
    def test_cores_are_shared_among_as_many_as_can_work(self, cores, tasks, settings, team, monkeypatch):
        monkeypatch.setattr(workers, "count_cores", lambda: cores)
        assert team_for(RunConfig(**settings), CPU, 1, tasks) == team

    @pytest.mark.parametrize(
        ("settings", "device", "world_size", "tasks"),
        [
            ({"workers": 1}, CPU, 1, 72),
            ({"threads": 8}, CPU, 1, 72),
            ({}, CPU, 1, 1),
            ({"workers": 4}, CPU, 2, 72),
            ({"workers": 4}, torch.device("cuda"), 1, 72),
        ],
    )
    def test_a_process_that_works_alone_keeps_its_threads(self, settings, device, world_size, tasks, monkeypatch):
        monkeypatch.setattr(workers, "count_cores", lambda: 8)
        assert team_for(RunConfig(**settings), device, world_size, tasks) == Team(1, torch.get_num_threads())


class Planted:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("planted",)


def test_what_workers_share_is_tensors_in_a_file_and_nothing_else_is_read_from_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = {"network": torch.nn.Linear(3, 2), "images": torch.arange(6, dtype=torch.uint8), "name": "set"}
    rest = workers._save(tmp_path / "file", content)
    assert len(rest) < 5000
    back = workers._load(tmp_path / "file", rest)
    torch.testing.assert_close(back["network"](torch.ones(3)), content["network"](torch.ones(3)), rtol=0, atol=0)
    assert torch.equal(back["images"], content["images"])
    assert back["name"] == "set"
    torch.save([Planted()], tmp_path / "file")
    with pytest.raises(pickle.UnpicklingError):
        workers._load(tmp_path / "file", rest)
    assert not (tmp_path / "planted").exists()


Late = Callable[[], Any]


@dataclass
class Facts:
    """Tell what a task is done with; carries a tensor."""

    scale: Tensor

    def __call__(self, late: Late) -> Callable[[int], dict[str, Any]]:
        return lambda task: {
            "product": float(self.scale * task * late()),
            "process": os.getpid(),
            "threads": torch.get_num_threads(),
            "blocked": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
            "products": torch.backends.cuda.matmul.fp32_precision,
        }


def fail(late: Late) -> Callable[[Exception | int], None]:
    """Raise what is the task, or end the process by a signal of that number."""

    def work(task: Exception | int) -> None:
        if isinstance(task, Exception):
            raise task
        os.kill(os.getpid(), task)

    return work


def in_order(count: int) -> Callable[[int], int | None]:
    left = list(range(count))
    return lambda worker: left.pop(0) if left else None


def results(folder: Path, team: Team, tasks: list[Any], make: Any, late: Late = lambda: None, **settings: bool) -> Any:
    run: Any = SimpleNamespace(folder=folder, settings=RunConfig(**settings))
    return workers.run_tasks(run, team, tasks, make, late, in_order(len(tasks)))


def test_tasks_are_done_once_by_processes_that_are_set_up_and_hear_no_signal(tmp_path):
    asked = []

    def late() -> Tensor:
        asked.append(os.getpid())
        return torch.tensor(3.0)

    done = list(results(tmp_path, Team(2, 3), [1, 2, 3, 4], Facts(torch.tensor(2.0)), late, tf32=False))
    assert sorted(one["product"] for one in done) == [6, 12, 18, 24]
    assert asked == [os.getpid()]
    assert os.getpid() not in {one["process"] for one in done}
    for one in done:
        assert one["threads"] == 3
        assert one["products"] == "ieee"
        assert {*SIGNALS} <= one["blocked"]
    assert list(tmp_path.iterdir()) == []
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (ConfigError("data.name is 'x'"), "data.name is 'x'"),
        (ZeroDivisionError("a bug"), "a bug"),
    ],
    ids=["mistake", "bug"],
)
def test_what_a_task_raises_is_raised_here(task, said, tmp_path):
    with pytest.raises(type(task), match=said) as error:
        list(results(tmp_path, Team(1, 1), [task], fail))
    assert "in work" in error.value.__notes__[0]  # where it was raised
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_is_told_in_a_sentence(tmp_path):
    with pytest.raises(ConfigError, match=r"^one of run.workers was ended by SIGKILL; the same command goes on"):
        list(results(tmp_path, Team(2, 1), [int(signal.SIGKILL), 0], fail))
    assert multiprocessing.active_children() == []


def test_what_is_fetched_late_may_fail_here(tmp_path):
    def late() -> None:
        raise ConfigError("test images have another shape")

    with pytest.raises(ConfigError, match="another shape"):
        list(results(tmp_path, Team(1, 1), [1], Facts(torch.ones(())), late))
    assert multiprocessing.active_children() == []


def test_closing_ends_the_processes(tmp_path):
    begun: Generator[Any] = results(tmp_path, Team(2, 1), list(range(1000)), Facts(torch.ones(())), lambda: 1.0)
    next(begun)
    assert multiprocessing.active_children()
    begun.close()
    assert multiprocessing.active_children() == []
    assert list(tmp_path.iterdir()) == []

"""What is replayed is what the step does, on a tape in place of a CUDA graph."""

import gc
import logging
import weakref

import pytest
import torch
from tape import as_on_a_card
from torch import Tensor

from gdd import rng
from gdd.runtime import graphs
from gdd.runtime.graphs import Replayed

CPU = torch.device("cpu")


class Walk:
    """A weight that is moved by what a step is given and draws."""

    def __init__(self, captured: bool = True, wrong: bool = False, asks: bool = False) -> None:
        self.weight, self.wrong, self.asks, self.calls = torch.zeros(3), wrong, asks, 0
        self.step = Replayed(self.take, self.changed, CPU)

    def changed(self) -> list[list[Tensor]]:
        return [[self.weight]]

    def take(self, kind: str, step: Tensor, lr: Tensor, values: Tensor) -> dict[str, Tensor]:
        self.calls += 1
        if self.asks and float(values.sum()) > 1e9:
            return {}
        draws = rng.Draws(0, "walk", 0 if self.wrong else step).normal(3)
        move = values + (draws if kind == "drawn" else 0) + (self.calls if self.wrong else 0)
        self.weight.add_(move * lr)
        return {"size": self.weight.norm(), "step": step * 2}


def walked(steps: int, captured: bool, kinds: tuple[str, ...] = ("drawn", "plain"), **how: bool) -> tuple[Walk, list]:
    with as_on_a_card(captured=captured):
        walk = Walk(**how)
        found = []
        for step in range(steps):
            results = walk.step(kinds[step % len(kinds)], step, 1 / (1 + step), torch.full((3,), float(step)))
            found.append({name: value.item() for name, value in results.items()})
    return walk, found


def test_replays_are_the_steps_to_the_bit():
    eager, wanted = walked(12, captured=False)
    walk, found = walked(12, captured=True)
    assert found == wanted
    assert [one["step"] for one in found] == [2 * step for step in range(12)]
    assert torch.equal(walk.weight, eager.weight)
    # Each kind is taken twice, captured, and taken once more to compare.
    assert (eager.calls, walk.calls) == (12, 8)


def test_a_batch_of_another_size_is_another_kind():
    with as_on_a_card(captured=True):
        weight, sizes = torch.zeros(()), [4, 4, 2, 4, 2, 4, 2, 4, 2]
        step = Replayed(lambda kind, values: {"sum": weight.add_(values.sum())}, lambda: [[weight]], CPU)
        for size in sizes:
            step("it", torch.ones(size))
    assert weight == sum(sizes)
    assert len(step.kinds) == 2


def test_a_step_that_its_replay_parts_from_goes_on_eagerly_and_says_so(caplog):
    with caplog.at_level(logging.WARNING):
        walk, _ = walked(8, captured=True, kinds=("plain",), wrong=True)
    assert "not replayed as a graph" in caplog.text
    assert "did not do what the step does" in caplog.text
    assert caplog.text.count("replayed") == 1
    # Seven steps by themselves and one for the capture: no step was taken twice or left out.
    moves = [call / (1 + step) for step, call in enumerate([1, 2, 4, 5, 6, 7, 8, 9])]
    moves = [move + step / (1 + step) for step, move in enumerate(moves)]
    torch.testing.assert_close(walk.weight, torch.full((3,), sum(moves)))


def test_a_step_that_asks_for_a_value_goes_on_eagerly_and_says_so(caplog):
    _, wanted = walked(8, captured=False, asks=True)
    with caplog.at_level(logging.WARNING):
        walk, found = walked(8, captured=True, asks=True)
    assert found == wanted
    assert not walk.step.captures
    assert "not permitted when stream is capturing" in caplog.text


def test_on_a_cpu_a_step_gets_pythons_numbers():
    seen = []
    step = Replayed(lambda kind, *inputs: seen.append(inputs) or {}, list, CPU)
    step("it", 3, 0.1)
    assert seen == [(3, 0.1)]


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch):
    monkeypatch.setattr(graphs, "_said", set())


@pytest.mark.parametrize("wanted", [True, False])
def test_steps_that_are_few_are_not_captured(wanted):
    with as_on_a_card(captured=True):
        assert Replayed(dict, list, CPU, wanted=wanted).captures is wanted


def test_a_step_whose_weights_stay_is_found_among_counts_and_moments_that_do_not():
    """Counts and losses are larger than what a step changes of a million weights."""
    weights, moments, count = torch.ones(100), torch.ones(100), torch.zeros(())
    made = []

    def take(kind: str, step: Tensor) -> dict[str, Tensor]:
        made.append(step)
        if len(made) != 3:  # the third call is the capture
            weights.add_(1e-3)
        moments.mul_(0.5)
        count.add_(1)
        return {"loss": count * 100}

    with as_on_a_card(captured=True):
        step = Replayed(take, lambda: [[weights], [moments, count]], CPU)
        for index in range(6):
            step("it", index)
    assert not step.captures
    torch.testing.assert_close(weights, torch.full((100,), 1 + 6e-3))


def test_kinds_beyond_the_limit_are_taken_eagerly(monkeypatch):
    monkeypatch.setattr(graphs, "_MOST", 2)
    weight = torch.zeros(())
    with as_on_a_card(captured=True) as tape:
        step = Replayed(lambda kind, by: {"at": weight.add_(by).clone()}, lambda: [[weight]], CPU)
        for index in range(15):
            assert step(index % 3, float(index))["at"] == sum(range(index + 1))
    assert tape.made == 2
    assert len(step.kinds) == 2


def test_too_little_memory_to_compare_leaves_the_step_eager(monkeypatch, caplog):
    weight, short = torch.zeros(()), [False]

    def take(kind: str, by: Tensor) -> dict[str, Tensor]:
        weight.add_(by)
        if short.pop() if short else False:
            raise torch.OutOfMemoryError
        return {}

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    with as_on_a_card(captured=True), caplog.at_level(logging.WARNING):
        step = Replayed(take, lambda: [[weight]], CPU)
        for index in range(6):
            if index == 2:
                short.append(True)
            step("it", 1.0)
    assert weight == 6
    assert "not enough memory" in caplog.text


def test_a_step_keeps_nothing_alive():
    """Or a card would keep every student until Python looks for cycles."""
    gc.disable()
    try:
        walk = Walk()
        alive = weakref.ref(walk)
        del walk
        assert alive() is None
    finally:
        gc.enable()


def test_a_count_that_a_replay_leaves_out_is_found_however_far_it_is():
    """After a resume counts are large: one more is little of them, and all of what a step changes."""
    count, calls = torch.tensor(10_000.0), []

    def take(kind: str, step: Tensor) -> dict[str, Tensor]:
        calls.append(step)
        if len(calls) != 3:  # the third call is the capture
            count.add_(1)
        return {}

    with as_on_a_card(captured=True):
        step = Replayed(take, lambda: [[count]], CPU)
        for index in range(6):
            step("it", index)
    assert not step.captures
    assert count == 10_006

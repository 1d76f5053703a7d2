"""Steps that a GPU takes again without Python: captured once as a CUDA graph, then replayed.

A step of gdd has a thousand small kernels, which Python hands over one by one: on an H200 the card waited for four
fifths of a step. A graph hands them over at once.

Such a step is a function of numbers and tensors. What it changes (weights, moments, averages) stays in its place in
memory; what it draws it draws on the device, by counters; and it asks the device for nothing.
"""

import inspect
import logging
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, distributed, nn

from gdd.rng import Count

logger = logging.getLogger(__name__)

Rate = float | Tensor  # a number as `rng.Count` is one
Scalars = dict[str, Tensor]  # what a step returns

# By how much of the change that a step makes its replay may miss it: kernels that add in any order round differently.
_TOLERANCE = 0.05
# Kinds of a step that are captured; each keeps its inputs and results.
_MOST = 64


def stands_still(device: torch.device) -> bool:
    """Tell whether steps on a device find their inputs in one place: on a GPU, captured or not, for equal bits."""
    return device.type == "cuda"


def can_capture() -> bool:
    """Tell whether steps can be captured: not those of several processes, which speak to each other in a step."""
    return torch.cuda.is_available() and not distributed.is_initialized()


def new_graph(pool: list[Any]) -> "Graph":
    """Return a graph in the memory of `pool`, which graphs share that are never replayed at once."""
    pool[:] = pool or [torch.cuda.graph_pool_handle()]
    return Graph(pool[0])


class Graph:
    """One captured CUDA graph."""

    def __init__(self, pool: Any) -> None:
        self.graph, self.pool = torch.cuda.CUDAGraph(), pool

    def capture(self, call: Callable[[], Scalars]) -> Scalars:
        """Note down what `call` would have the device do; return where its results will be."""
        # Threads that read images ahead may ask for memory meanwhile.
        captured = torch.cuda.graph(self.graph, pool=self.pool, capture_error_mode="thread_local")
        # What cannot be captured must not leave the process on the stream of captures.
        with torch.cuda.stream(torch.cuda.current_stream()), captured:
            return call()

    def replay(self) -> None:
        """Do it."""
        self.graph.replay()


@dataclass
class _Kind:
    """What is kept of the steps of one kind."""

    inputs: tuple[Tensor, ...]  # where a graph looks for them
    uses: int = 0
    graph: Graph | None = None
    results: Scalars = field(default_factory=dict)


class Replayed:
    """A step, eager on a CPU; on a GPU each kind of it is captured at its second use and replayed from its third on.

    At the third use the replay is compared with the step itself. If it does something else, or if the capture fails,
    steps go on eagerly, which is said once. So do those of several processes, which speak to each other in a step.
    """

    def __init__(
        self,
        take: Callable[..., Scalars],
        changed: Callable[[], Iterable[Sequence[Tensor]]],
        device: torch.device,
        *,
        wanted: bool = True,
    ) -> None:
        """Take a step and what it changes.

        Args:
            take: the step: maps a kind and inputs, numbers and tensors, to results.
            changed: returns all tensors that it changes, at any time after the first step, in groups that are compared:
                those of one network, or what its optimiser remembers.
            device: where it is taken.
            wanted: False for steps that are too few for a capture to pay.
        """
        self._take, self._changed, self.device = _weakly(take), _weakly(changed), device
        self.still = wanted and stands_still(device)
        self.captures = self.still and can_capture()
        self.kinds: dict[Hashable, _Kind] = {}
        self._pool: list[Any] = []

    def __call__(self, kind: Hashable, *inputs: Count | Rate) -> Scalars:
        """Take the step; its results hold until the next one.

        Args:
            kind: what decides which operations the step has, besides the shapes of its inputs.
            inputs: what else differs from step to step.
        """
        if not self.still:
            return self._take()(kind, *inputs)
        known = self._known(kind, inputs)
        for place, value in zip(known.inputs, inputs, strict=True):
            if not isinstance(value, Tensor):
                place.fill_(value)
            elif value is not place:
                place.copy_(value)
        known.uses += 1
        if not self.captures or known.uses == 1:
            return self._take()(kind, *known.inputs)
        try:
            return self._replayed(kind, known)
        except _Parted as parted:
            return self._given_up(parted.results, "a replay did not do what the step does")
        except _Short:
            self._given_up({}, "there is not enough memory to compare a replay with the step")
            torch.cuda.empty_cache()
            return self._take()(kind, *known.inputs)

    def _known(self, kind: Hashable, inputs: tuple[Count | Rate, ...]) -> _Kind:
        """Return the kind of these inputs, with places for them."""
        shapes = tuple((one.shape, one.dtype) if isinstance(one, Tensor) else type(one) for one in inputs)
        known = self.kinds.get((kind, shapes)) or _Kind(tuple(map(self._place, inputs)))
        if len(self.kinds) < _MOST:
            self.kinds[kind, shapes] = known
        return known

    def _place(self, value: Count | Rate) -> Tensor:
        if isinstance(value, Tensor):
            return torch.empty_like(value, device=self.device, requires_grad=False)
        dtype = torch.int64 if isinstance(value, int) else torch.float32
        return torch.zeros((), dtype=dtype, device=self.device)

    def _replayed(self, kind: Hashable, known: _Kind) -> Scalars:
        def take() -> Scalars:
            results: Scalars = self._take()(kind, *known.inputs)
            return results

        if known.graph is None:
            results = {name: value.clone() for name, value in take().items()}
            try:
                graph = new_graph(self._pool)
                known.results, known.graph = graph.capture(take), graph
            except Exception as error:  # of every kind: what cannot be captured says so in many ways
                return self._given_up(results, " ".join(str(error).split())[:200])
            return results
        if known.uses == 3:
            self._compare(take, known)
        else:
            known.graph.replay()
        return known.results

    @torch.no_grad()
    def _compare(self, take: Callable[[], Scalars], known: _Kind) -> None:
        """Take a step eagerly and, from the same start, by its graph, which must come to the same."""
        assert known.graph is not None
        groups = [list(group) for group in self._changed()()]
        before: _Groups = []
        try:
            before += _copies(groups)
            with torch.enable_grad():
                results = {name: value.clone() for name, value in take().items()}
            after = _copies(groups)
        except torch.OutOfMemoryError as error:
            if before:
                _put(groups, before)
            raise _Short from error
        _put(groups, before)
        known.graph.replay()
        alike = [*map(_alike, groups, after, before)]
        alike += [_alike([value], [results[name]]) for name, value in known.results.items()]
        if not all(alike):
            _put(groups, after)
            raise _Parted(results)

    def _given_up(self, results: Scalars, reason: str) -> Scalars:
        if reason not in _said:
            logger.warning("steps are not replayed as a graph, so the GPU waits for Python (%s)", reason)
            _said.add(reason)
        self.captures = False
        self.kinds.clear()
        return results


class _Parted(Exception):
    """A replay did something else than the step."""

    def __init__(self, results: Scalars) -> None:
        super().__init__()
        self.results = results


class _Short(Exception):
    """There was not enough memory."""


_said = set[str]()  # reasons for which steps are not replayed


def _weakly(call: Callable[..., Any]) -> Callable[[], Callable[..., Any]]:
    """Return what gives a function back; a method of an object that is alive, which a step must not keep so."""
    if not inspect.ismethod(call):
        return lambda: call
    reference = weakref.WeakMethod(call)

    def found() -> Callable[..., Any]:
        method = reference()
        assert method is not None
        return method

    return found


_Groups = list[list[Tensor]]


def _copies(groups: _Groups) -> _Groups:
    return [[place.clone() for place in group] for group in groups]


def _put(groups: _Groups, values: _Groups) -> None:
    for group, copies in zip(groups, values, strict=True):
        for place, value in zip(group, copies, strict=True):
            place.copy_(value)


def _alike(these: list[Tensor], those: list[Tensor], before: list[Tensor] | None = None) -> bool:
    """Tell whether tensors are as far from others as rounding takes them, by what has changed since `before`, or by 0.

    Counts and other single numbers are compared one by one, which a sum over all weights would hide.
    """
    before = before or [*map(torch.zeros_like, those)]
    apart, change = [], []
    for one, other, start in zip(these, those, before, strict=True):
        distances = [(other.double() - value.double()).square().sum() for value in (one, start)]
        if one.ndim == 0 or not one.is_floating_point():
            if not distances[0] <= _TOLERANCE**2 * distances[1]:
                return False
        else:
            apart.append(distances[0])
            change.append(distances[1])
    return not apart or bool(torch.stack(apart).sum() <= _TOLERANCE**2 * torch.stack(change).sum())


def tensors_of(*parts: nn.Module | torch.optim.Optimizer) -> Iterator[list[Tensor]]:
    """Yield weights and buffers of each network, and what each optimiser remembers."""
    for part in parts:
        if isinstance(part, nn.Module):
            yield [*part.parameters(), *part.buffers()]
        else:
            yield [value for state in part.state.values() for value in state.values() if isinstance(value, Tensor)]

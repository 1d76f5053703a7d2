"""Steps that a GPU takes again without Python: captured once as a CUDA graph, then replayed.

A step of gdd has a thousand small kernels, which Python hands over one by one: on an H200 the card waited for nine
tenths of a step. A graph hands them over at once.

Such a step is a function of numbers and tensors. What it changes (weights, moments, averages) stays in its place in
memory; what it draws it draws on the device, by counters; and it asks the device for nothing.
"""

import logging
from collections.abc import Callable, Hashable, Iterable, Iterator
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
        with torch.cuda.graph(self.graph, pool=self.pool):
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
        changed: Callable[[], Iterable[Tensor]],
        device: torch.device,
        *,
        wanted: bool = True,
    ) -> None:
        """Take a step and what it changes.

        Args:
            take: the step: maps a kind and inputs, numbers and tensors, to results.
            changed: returns all tensors that it changes, at any time after the first step.
            device: where it is taken.
            wanted: False for steps that are too few for a capture to pay.
        """
        self.take, self.changed, self.device = take, changed, device
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
            return self.take(kind, *inputs)
        known = self._known(kind, inputs)
        for place, value in zip(known.inputs, inputs, strict=True):
            if not isinstance(value, Tensor):
                place.fill_(value)
            elif value is not place:
                place.copy_(value)
        known.uses += 1
        if not self.captures or known.uses == 1:
            return self.take(kind, *known.inputs)
        try:
            return self._replayed(kind, known)
        except _Parted as parted:
            return self._given_up(parted.results, "a replay did not do what the step does")

    def _known(self, kind: Hashable, inputs: tuple[Count | Rate, ...]) -> _Kind:
        """Return the kind of these inputs, with places for them."""
        shapes = tuple((one.shape, one.dtype) if isinstance(one, Tensor) else type(one) for one in inputs)
        if (kind, shapes) not in self.kinds:
            if len(self.kinds) >= _MOST:
                self.kinds.clear()  # and whatever their graphs keep
            self.kinds[kind, shapes] = _Kind(tuple(map(self._place, inputs)))
        return self.kinds[kind, shapes]

    def _place(self, value: Count | Rate) -> Tensor:
        if isinstance(value, Tensor):
            return torch.empty_like(value)
        dtype = torch.int64 if isinstance(value, int) else torch.float32
        return torch.zeros((), dtype=dtype, device=self.device)

    def _replayed(self, kind: Hashable, known: _Kind) -> Scalars:
        def take() -> Scalars:
            return self.take(kind, *known.inputs)

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
        places = [*self.changed()]
        before = [place.clone() for place in places]
        with torch.enable_grad():
            results = {name: value.clone() for name, value in take().items()}
        after = [place.clone() for place in places]
        for place, value in zip(places, before, strict=True):
            place.copy_(value)
        known.graph.replay()
        apart = _distance([*places, *known.results.values()], [*after, *results.values()])
        change = _distance([*after, *results.values()], [*before, *map(torch.zeros_like, results.values())])
        if not apart <= _TOLERANCE * change:
            for place, value in zip(places, after, strict=True):
                place.copy_(value)
            raise _Parted(results)

    def _given_up(self, results: Scalars, reason: str) -> Scalars:
        logger.warning("steps are not replayed as a graph, so the GPU waits for Python (%s)", reason)
        self.captures = False
        self.kinds.clear()
        return results


class _Parted(Exception):
    """A replay did something else than the step."""

    def __init__(self, results: Scalars) -> None:
        super().__init__()
        self.results = results


def _distance(these: Iterable[Tensor], those: Iterable[Tensor]) -> float:
    """Return the Euclidean distance of many tensors from as many others."""
    squares = [(one.double() - other.double()).square().sum() for one, other in zip(these, those, strict=True)]
    return float(torch.stack(squares).sum().sqrt())


def tensors_of(*parts: nn.Module | torch.optim.Optimizer) -> Iterator[Tensor]:
    """Yield weights and buffers of networks, and what optimisers remember."""
    for part in parts:
        if isinstance(part, nn.Module):
            yield from part.parameters()
            yield from part.buffers()
        else:
            for state in part.state.values():
                yield from (value for value in state.values() if isinstance(value, Tensor))

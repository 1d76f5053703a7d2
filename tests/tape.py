"""A CUDA graph that is not there: what a step asks of the CPU is noted down once, and done again as it stands.

As a card would, a tape knows nothing of Python: numbers are those of the step that it was made of, results come to the
same places in memory, and asking for a value while it runs is an error. So a replay is right only if the step is a
function of tensors that stand still.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from gdd import rng
from gdd.runtime import graphs
from gdd.training import optimizers

aten = torch.ops.aten
_ASKS = (aten.item.default, aten._local_scalar_dense.default, aten.equal.default, aten.nonzero.default)
_NEW = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "detach", "alias", "lift_fresh"}


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple[Any, Any, Any, list[Tensor | None]]] = []
        self.before: dict[int, tuple[Tensor, Tensor]] = {}  # what is written to, as it was

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _ASKS:
            raise RuntimeError(f"operation not permitted when stream is capturing: {func}")
        written = [
            leaf
            for argument, value in zip(func._schema.arguments, args, strict=False)
            if argument.alias_info is not None and argument.alias_info.is_write
            for leaf in pytree.tree_leaves(value)
            if isinstance(leaf, Tensor)
        ]
        if func is aten.native_batch_norm.default:  # which does not say that it does
            written += [one for one in args[3:5] if one is not None]
        with torch._C._DisableTorchDispatch():
            for tensor in written:
                self.before.setdefault(tensor.data_ptr(), (tensor, tensor.detach().clone()))
        answer = func(*args, **kwargs)
        if not func.is_view and func.overloadpacket.__name__ not in _NEW:
            known = {tensor.data_ptr() for tensor in written}
            results = [one for one in pytree.tree_leaves(answer) if isinstance(one, Tensor)]
            # The place of each result; none of what is written where it was.
            places = [None if one.data_ptr() in known and one.numel() else one for one in results]
            self.done.append((func, args, kwargs, places))
        return answer


class Tape:
    """Stands in for `graphs.Graph`."""

    made = 0  # tapes so far
    replays = 0

    def capture(self, call: Callable[[], graphs.Scalars]) -> graphs.Scalars:
        """Note down what `call` does; as on a card, nothing is done by that."""
        with _Recorder() as recorder:
            results = call()
        with torch.no_grad():
            for tensor, value in recorder.before.values():
                tensor.copy_(value)
        self.done = recorder.done
        Tape.made += 1
        return results

    @torch.no_grad()
    def replay(self) -> None:
        Tape.replays += 1
        for func, args, kwargs, places in self.done:
            answer = func(*args, **kwargs)
            values = [one for one in pytree.tree_leaves(answer) if isinstance(one, Tensor)]
            for place, value in zip(places, values, strict=True):
                if place is not None:
                    place.copy_(value)


@contextlib.contextmanager
def as_on_a_card(*, captured: bool) -> Iterator[type[Tape]]:
    """Take steps as on a card, where inputs stand still and optimisers are fused; `captured` or eagerly."""
    Tape.made = Tape.replays = 0
    with (
        patch.object(graphs, "stands_still", lambda device: True),
        patch.object(graphs, "can_capture", lambda: captured),
        patch.object(graphs, "new_graph", lambda pool: Tape()),
        patch.object(rng, "_counted_in_numpy", lambda device: False),
        patch.object(optimizers, "_on_gpu", lambda network: True),
    ):
        yield Tape

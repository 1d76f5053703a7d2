"""Backpropagation in Python: torch's own engine asks the driver for a GPU as soon as one tensor of a graph is on it.

It calls the nodes of the graph one by one, as `torch/csrc/autograd/engine.cpp` does, and knows no hooks. One thing
differs: a node computes the gradients of all its inputs, also of those that nobody asked for.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge

Edge = tuple[Node, int]


def run_backward(
    roots: Sequence[Tensor],
    gradients: Sequence[Tensor],
    retain_graph: bool,
    create_graph: bool,
    inputs: Sequence[Tensor],
    allow_unreachable: bool = False,
    accumulate_grad: bool = False,
) -> tuple[Tensor | None, ...]:
    """Do what `torch.autograd.graph._engine_run_backward` does."""
    begin = [_edge(root) for root in roots]
    wanted = [_edge(one) for one in inputs]
    needed = _leading_to({node for node, _ in wanted}, begin)
    waiting = defaultdict[Node, int](int)
    for node in _nodes(begin):
        for after, _ in node.next_functions:
            waiting[after] += 1
    arrived = defaultdict[Node, dict[int, Tensor]](dict)
    found = dict[Edge, Tensor]()
    with torch.set_grad_enabled(create_graph):
        for (node, place), gradient in zip(begin, gradients, strict=True):
            _add(arrived[node], place, _fitted(gradient, node, place))
        ready = list(dict.fromkeys(node for node, _ in begin if not waiting[node]))
        while ready:
            node = ready.pop()
            own = arrived.pop(node, {})
            found |= {edge: own[edge[1]] for edge in wanted if edge[0] is node and edge[1] in own}
            passed = _called(node, own, accumulate_grad) if own and (not wanted or node in needed) else ()
            for index, (after, place) in enumerate(node.next_functions):
                if after is None:
                    continue
                if index < len(passed) and passed[index] is not None:
                    _add(arrived[after], place, _fitted(passed[index], after, place))
                waiting[after] -= 1
                if not waiting[after]:
                    ready.append(after)
    return tuple(found.get(edge) for edge in wanted)


def _edge(tensor: Tensor) -> Edge:
    edge = get_gradient_edge(tensor)
    return edge.node, edge.output_nr


def _nodes(edges: Sequence[Edge]) -> Iterator[Node]:
    stack, seen = [node for node, _ in edges], set[Node]()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        stack += [after for after, _ in node.next_functions]


def _leading_to(targets: set[Node], begin: Sequence[Edge]) -> set[Node]:
    """Return the nodes on the way to the targets, without these."""
    before = defaultdict[Node, list[Node]](list)
    for node in _nodes(begin):
        for after, _ in node.next_functions:
            before[after].append(node)
    stack, leading = list(targets), set[Node]()
    while stack:
        for node in before[stack.pop()]:
            if node not in leading:
                leading.add(node)
                stack.append(node)
    return leading


def _called(node: Node, own: dict[int, Tensor], accumulate: bool) -> Sequence[Tensor | None]:
    if (variable := getattr(node, "variable", None)) is not None:
        if accumulate:
            (gradient,) = own.values()
            with torch.no_grad():
                variable.grad = gradient.detach() if variable.grad is None else variable.grad.add_(gradient)
        return ()
    passed: Any = node(*(own.get(place) for place in range(len(node._input_metadata))))
    return passed if isinstance(passed, tuple) else (passed,)


def _fitted(gradient: Tensor, node: Node, place: int) -> Tensor:
    """Return the gradient in the shape and type of what it is the gradient of, as the engine validates it."""
    wanted = node._input_metadata[place]
    if gradient.shape != wanted.shape:
        gradient = gradient.sum_to_size(wanted.shape)
    return gradient if gradient.dtype == wanted.dtype else gradient.to(wanted.dtype)


def _add(arrived: dict[int, Tensor], place: int, gradient: Tensor) -> None:
    arrived[place] = arrived[place] + gradient if place in arrived else gradient

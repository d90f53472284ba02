"""A module's forward replaced by its traced graph, with quantizers on the inputs of chosen functions.

The module stays the object that it was, with its attributes, children, hooks and `state_dict` keys: it only
gets a subclass of its class, whose forward is the graph's.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from openwork.quantization.trace.arguments import Arguments, tensors_in
from openwork.quantization.trace.graph import TraceRefused, trace
from openwork.quantization.trace.operations import kind_of, place
from openwork.quantization.trace.source import Source, rewritten

OUTPUT = -1
"""The operand that stands for what a function gives."""


@dataclass(frozen=True)
class Insertion:
    """A quantizer, a child of the module by its name, to put on one operand of the function at `place`, or on
    what it gives (operand -1).
    """

    place: int
    kind: str
    operand: int
    quantizer: str


@dataclass(frozen=True)
class Traced:
    """A module's graph in evaluation mode, and in training mode where that differs; and the places of the
    functions with a kind in each.
    """

    module: nn.Module
    evaluation: fx.Graph
    training: fx.Graph | None
    places: tuple[list[fx.Node], list[fx.Node]]


def traced(module: nn.Module, name: str, arguments: Arguments, kinds: Sequence[str]) -> Traced:
    """Trace the module both ways and check that the trace has the functions that the run had.

    kinds: of the functions, in the order of the run. Raises TraceRefused with the reason.
    """
    evaluation, places = _trace(module, name, arguments, kinds, training=False)
    _check_same(module, evaluation, arguments)
    training, train_places = _trace(module, name, arguments, kinds, training=True)
    if str(evaluation.python_code("self").src) == str(training.python_code("self").src):
        return Traced(module, evaluation, None, (places, []))
    return Traced(module, evaluation, training, (places, train_places))


def _trace(
    module: nn.Module, name: str, arguments: Arguments, kinds: Sequence[str], training: bool
) -> tuple[fx.Graph, list[fx.Node]]:
    before = module.training
    # Only the module's own flag: its children are leaves, which run as they would in evaluation.
    module.training = training
    try:
        with torch.random.fork_rng(devices=[]):
            graph, values = trace(module, name, arguments)
    finally:
        module.training = before
    places = [node for node in graph.nodes if _kind(node, values) is not None]
    found = [_kind(node, values) for node in places]
    if found != list(kinds):
        raise TraceRefused(
            f"its trace in {'training' if training else 'evaluation'} mode has other operations than its "
            f"run: {', '.join(map(str, found)) or 'none'} for {', '.join(kinds)}"
        )
    return graph, places


@torch.no_grad()
def _check_same(module: nn.Module, graph: fx.Graph, arguments: Arguments) -> None:
    """Bit for bit: the graph runs the same operations."""
    outputs = []
    for forward in (type(module).forward, Source.of(graph).forward()):
        given = arguments.copied()
        outputs.append(tensors_in(forward(module, *given.args, **given.kwargs)))
    for one, other in zip(*outputs, strict=True):
        if not torch.equal(one.nan_to_num(), other.nan_to_num()):
            raise TraceRefused("its trace gives other results than its forward")


def _kind(node: fx.Node, values: dict[fx.Node, Any]) -> str | None:
    if node.op not in ("call_function", "call_method"):
        return None
    tensors = [leaf for leaf in pytree.tree_leaves(values.get(node)) if isinstance(leaf, Tensor)]
    return kind_of(node.target) if tensors else None


def install(traced: Traced, insertions: Iterable[Insertion]) -> None:
    """Give the module its traced forward with the quantizers put in; they are its children already."""
    insertions = list(insertions)
    module = traced.module
    sources = [_source(traced.evaluation, traced.places[0], insertions)]
    if traced.training is not None:
        sources.append(_source(traced.training, traced.places[1], insertions))
    module.__class__ = rewritten(type(module), tuple(sources))


def _source(graph: fx.Graph, places: Sequence[fx.Node], insertions: Iterable[Insertion]) -> Source:
    for insertion in insertions:
        _insert(graph, places[insertion.place], insertion)
    return Source.of(graph)


def _insert(graph: fx.Graph, node: fx.Node, insertion: Insertion) -> None:
    _out_of_place(node)
    if insertion.operand == OUTPUT:
        with graph.inserting_after(node):
            rounded = graph.create_node("call_module", insertion.quantizer, (node,))
        node.replace_all_uses_with(rounded, delete_user_cb=lambda user: user is not rounded)
        return
    args, kwargs = list(node.args), dict(node.kwargs)
    at, name = place(insertion.kind, insertion.operand)
    given = args[at] if at < len(args) else kwargs[name]
    with graph.inserting_before(node):
        rounded = graph.create_node("call_module", insertion.quantizer, (given,))
    if at < len(args):
        args[at] = rounded
    else:
        kwargs[name] = rounded
    node.args, node.kwargs = tuple(args), kwargs


_IN_PLACE: dict[Any, Any] = {
    operator.iadd: operator.add,
    "add_": "add",
    "__iadd__": "add",
    operator.imul: operator.mul,
    "mul_": "mul",
    "__imul__": "mul",
}


def _out_of_place(node: fx.Node) -> None:
    """A sum or product that is written into a tensor which others may read would reach the quantizer's input
    while that is off.
    """
    if node.target in _IN_PLACE:
        node.target = _IN_PLACE[node.target]

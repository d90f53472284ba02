"""What a part of a graph computes, found by computing it: for shapes, masks, positions and moved axes.

Exporters write the same small function (an additive mask, the positions of the tokens, the axes of attention
heads) in dozens of ways. A rule that knew each spelling would be long and never complete; instead the part
between a value and the inputs it depends on (its *cone*) is evaluated for a few batch sizes, lengths and
masks, and compared with the function that the operator means: small sizes, and sizes beyond each number in
the cone, where a window, a clamp or a chunk begins. Cones hold only shapes, constants, and what the rule
names as their source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from openwork.graph.evaluate import Nodes
from openwork.graph.model import ModelError, attributes, constant, dims, is_onnx, needed, topological
from openwork.graph.sums_of_sizes import size_of, terms_of
from openwork.graph.thresholds import beyond, thresholds

Array = NDArray[Any]
Sizes = dict[str, int]

FIRST_PROBES = ((2, 3), (3, 5), (1, 2), (5, 1))
"""Sizes of the first two free dimensions; none is the same function of the other in all of them."""

EQUAL_SIZES = "equal sizes"
"""Where a graph keeps in its `meta` which names of free dimensions mean one size: name -> first name."""

MAX_NODES = 200


@dataclass(frozen=True)
class Cone:
    """The nodes that make a value from graph inputs, shapes and constants."""

    value: ir.Value
    nodes: tuple[ir.Node, ...]
    sources: frozenset[ir.Value]
    shapes: tuple[ir.Node, ...]
    """Shape nodes whose input's shape is known by name, so that what they read need not be computed."""
    assumed: frozenset[str] = frozenset()
    """Two names of free dimensions that are tried with one size, beside those that the graph says are one."""

    @property
    def thresholds(self) -> tuple[int, ...]:
        """Where the part may begin to compute something else: its numbers that are no sizes of its values."""
        fixed = {d for node in self.nodes for v in (*node.inputs, *node.outputs) if v for d in _fixed(v)}
        return thresholds(self.nodes, fixed)

    @cached_property
    def _computed(self) -> Nodes:
        return Nodes(self.nodes, self.value)

    def evaluate(self, sizes: Mapping[str, int], contents: Mapping[ir.Value, Array]) -> Array:
        """The value's content for these sizes of the free dimensions and these contents of the sources."""
        known = dict(contents)
        for node in self.shapes:
            known[node.outputs[0]] = shape_content(node, sizes)
        fixed = constant(self.value)
        found = fixed if fixed is not None else known.get(self.value)
        return found if found is not None else self._computed.run(known)


def _fixed(value: ir.Value) -> list[int]:
    """The sizes of a computed value that are numbers."""
    stored = constant(value) is not None
    return [] if stored else [d for d in dims(value) or () if isinstance(d, int)]


def named(value: ir.Value) -> bool:
    """Whether every dimension is an integer or has a name of one free dimension."""
    shape = dims(value)
    return shape is not None and all(
        isinstance(d, int) or (d is not None and d.isidentifier()) for d in shape
    )


def shape_content(node: ir.Node, sizes: Mapping[str, int]) -> Array:
    """What a Shape node gives for these sizes; raises KeyError where they do not say it."""
    value, found = needed(node, 0), attributes(node)
    made = sized(value, sizes)[found.get("start", 0) : found.get("end")]
    return np.array(made, np.int64)


def cone(value: ir.Value, stop: frozenset[ir.Value] = frozenset()) -> Cone | None:
    """The cone of a value; None if it is too large or holds a node that is not standard ONNX.

    stop: values taken as sources, besides the graph's inputs.
    """
    free = free_sizes(value)
    shapes: list[ir.Node] = []
    cut = set(stop)
    pending, seen = [value], set()
    while pending:
        current = pending.pop()
        node = current.producer()
        if current in seen or current in stop or node is None:
            continue
        seen.add(current)
        if not is_onnx(node) or len(seen) > MAX_NODES:
            return None
        if node.op_type == "Shape" and node.inputs[0] is not None and _bound(node.inputs[0], free):
            shapes.append(node)
            cut.add(current)
        else:
            pending.extend(operand for operand in node.inputs if operand is not None)
    nodes = topological([value], cut)
    read = {operand for node in nodes for operand in node.inputs if operand is not None} | {value}
    sources = frozenset(v for v in read if v in stop or v.is_graph_input())
    return Cone(value, tuple(nodes), sources, tuple(shapes))


def _bound(value: ir.Value, free: set[str]) -> bool:
    return dims(value) is not None and all(
        terms_of(value, axis, free) is not None for axis in range(len(dims(value) or ()))
    )


def _inputs(value: ir.Value) -> list[ir.Value]:
    return list(value.graph.inputs) if isinstance(value.graph, ir.Graph) else []


def free_sizes(value: ir.Value) -> set[str]:
    """The names of the free dimensions of the inputs of the graph that holds the value."""
    return {d for entry in _inputs(value) for d in dims(entry) or () if isinstance(d, str)}


def free_names(inputs: Iterable[ir.Value]) -> list[str]:
    """The names of the free dimensions of some inputs, in order of appearance."""
    return list(dict.fromkeys(d for value in inputs for d in dims(value) or () if isinstance(d, str)))


def merged(names: Sequence[str], equal: Mapping[str, str], pairs: Iterable[frozenset[str]]) -> dict[str, str]:
    """`equal` after each of the pairs is one: every name but the first of its kind -> the first."""
    first = {name: equal.get(name, name) for name in names}
    for pair in pairs:
        a, b = sorted((first[name] for name in pair), key=names.index)
        first = {name: a if kind == b else kind for name, kind in first.items()}
    return {name: kind for name, kind in first.items() if kind != name}


@dataclass(frozen=True)
class Ladder:
    """Sizes that all differ: two to begin with, then `base`, `base + step`, and on."""

    first: tuple[int, int]
    base: int
    step: int

    def __getitem__(self, index: int) -> int:
        return self.first[index] if index < 2 else self.base + self.step * (index - 2)


def spread(names: Iterable[str], equal: Mapping[str, str], ladder: Ladder) -> Sizes:
    """Sizes for names: the next of the ladder for each, or that of the name which `equal` gives."""
    sizes: Sizes = {}
    for name in names:
        first = equal.get(name, name)
        sizes[name] = sizes[first] if first in sizes else ladder[len(set(sizes.values()))]
    return sizes


@dataclass(frozen=True)
class Probe:
    """Sizes of all free dimensions to try. large: one is beyond a threshold, where the model need not run."""

    sizes: Sizes
    large: bool


def samples(found: Cone) -> Iterator[Probe]:
    """What to try for a cone: small sizes, each name with its own, and another in each probe; then each name
    beyond each threshold of the cone, the others small."""
    names = free_names(_inputs(found.value))
    known = found.value.graph.meta.get(EQUAL_SIZES, {}) if isinstance(found.value.graph, ir.Graph) else {}
    equal = merged(names, known, {found.assumed} if found.assumed else set())
    for probe, first in enumerate(FIRST_PROBES):
        yield Probe(spread(names, equal, Ladder(first, 6 + probe, 4)), False)
    small, sizes = spread(names, equal, Ladder((1, 3), 6, 4)), beyond(found.thresholds)
    for name in names:
        for size in sizes if equal.get(name, name) == name else ():
            large = {other: size if equal.get(other, other) == name else small[other] for other in names}
            yield Probe(large, True)


def sized(value: ir.Value, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The shape of a value whose dimensions are integers, names, and sums of these.

    Raises KeyError where one is none of them.
    """
    found = [size_of(value, axis, sizes) for axis in range(len(dims(value) or ()))]
    if None in found:
        raise KeyError(f"a dimension of {value.name!r}")
    return tuple(size for size in found if size is not None)


def unfed(_: Probe) -> Iterator[Mapping[ir.Value, Array]]:
    """No content: for a cone without sources."""
    return iter([{}])


Feeds = Callable[[Probe], Iterator[Mapping[ir.Value, Array]]]


def evaluations(found: Cone, feeds: Feeds = unfed) -> Iterator[tuple[Probe, Mapping[ir.Value, Array], Array]]:
    """(probe, the sources' contents, the cone's value) for every probe and all contents that it is fed.

    A large size with which the part cannot be computed is left out: the model does not run with it.
    """
    for probe in samples(found):
        for contents in feeds(probe):
            try:
                value = found.evaluate(probe.sizes, contents)
            except ModelError:
                if probe.large:
                    break
                raise
            yield probe, contents, value

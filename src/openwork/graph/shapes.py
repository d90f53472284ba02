"""Shapes of all values, with the names of the free dimensions kept.

onnx's own inference goes first. Where an exporter computes a shape with operators that it cannot follow, the
graph's shapes are inferred again with numbers in place of the names (`graph/concrete.py`), for several of
them. Every name has numbers of its own in each. A dimension takes the name that it follows in all of them,
or the number that it keeps while all names change. Anything else (2 L, L - 1, H / 2) gets a name of its own,
the same for all dimensions that have the same numbers in every set.

Numbers in the model may be where it begins to do something else, so sizes beyond each are tried too
(`graph/thresholds.py`). Sizes that the model does not run with say nothing: five strided convolutions need
large ones, a table of nine positions small ones. Where it runs with none because an operation pairs two names
element by element, it means one size by both, and they are given the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
import onnx_ir as ir

from openwork.graph.concrete import Concrete, Shape
from openwork.graph.inference import infer_types
from openwork.graph.model import Dim, dims
from openwork.graph.probe import EQUAL_SIZES, Ladder, Sizes, free_names, free_sizes, merged, spread
from openwork.graph.thresholds import thresholds

LADDERS = (
    *(Ladder(first, 7 + number, 4) for number, first in enumerate(((2, 3), (3, 5), (5, 2)))),
    *(Ladder(first, 211 + 41 * n, 67 + 4 * n) for n, first in enumerate(((67, 131), (173, 89), (113, 193)))),
)
"""Small and large sizes; three of a kind, since H / 2 is 1 for both 2 and 3. The large ones lie further apart
than strides, so that what a model divides by 32 still tells names apart, and a size from a number."""
MET = 67
"""The numbers below it are met by the large ones: each name is beyond them."""
FEWEST = 3


def infer(model: ir.Model) -> None:
    """Give every value of the model its shape and element type, where they can be known.

    The names that stand for one size are left in the graph's `meta` under `EQUAL_SIZES`.
    """
    infer_types(model)
    graph = model.graph
    if all(_settled(value) for node in graph for value in node.outputs):
        return
    names, equal, ladders = free_names(graph.inputs), dict[str, str](), _ladders(graph)
    messages = dict[ir.Node, onnx.NodeProto]()
    for _ in range(len(names) + 1):
        runs = [Concrete(graph, sizes, messages) for sizes in _probes(names, equal, ladders)]
        pairs = _pairs(runs)
        if not pairs:
            break
        equal = merged(names, equal, pairs)
    graph.meta[EQUAL_SIZES] = equal
    valid = _valid(runs)
    if len(valid) < min(FEWEST, len(runs)):
        return
    naming = _Naming([run.sizes for run in valid])
    for node in graph:
        for value in node.outputs:
            if not _settled(value):
                _settle(value, naming, [run.shape(value) for run in valid])


def _ladders(graph: ir.Graph) -> list[Ladder]:
    """Ladders of sizes to try: some for every graph, and one beyond each of its numbers, where a chunk or a
    clamp begins."""
    beyond = [number + 2 for number in thresholds(graph) if number >= MET]
    return [*LADDERS, *(Ladder((size, size + 4), size + 11, 6) for size in beyond)]


def _probes(names: Sequence[str], equal: Mapping[str, str], ladders: Sequence[Ladder]) -> list[Sizes]:
    """Sizes to try; one set is enough where nothing is free."""
    if not names:
        return [{}]
    return [spread(names, equal, ladder) for ladder in ladders]


def _pairs(runs: Sequence[Concrete]) -> set[frozenset[str]]:
    """The names that a node pairs which worked in no run."""
    worked = set[ir.Node]().union(*(run.worked for run in runs))
    hopeless = {node for run in runs for node in run.pairs} - worked
    met = [set.intersection(*(run.pairs[n] for run in runs if n in run.pairs)) for n in hopeless]
    return set[frozenset[str]]().union(*met)


def _valid(runs: Sequence[Concrete]) -> list[Concrete]:
    """The runs in which every node worked that worked in any."""
    worked = set[ir.Node]().union(*(run.worked for run in runs))
    return [run for run in runs if not run.failed & worked]


def _settled(value: ir.Value) -> bool:
    shape = dims(value)
    free = free_sizes(value)
    return shape is not None and all(isinstance(d, int) or d in free for d in shape)


def _settle(value: ir.Value, naming: _Naming, shapes: Sequence[Shape | None]) -> None:
    known = [shape for shape in shapes if shape is not None]
    if len(known) != len(shapes) or len({len(shape) for shape in known}) != 1:
        return
    before = dims(value) or (None,) * len(known[0])
    found: list[Dim] = []
    for axis in range(len(known[0])):
        name = naming.dim([shape[axis] for shape in known])
        found.append(name if name is not None else before[axis] if axis < len(before) else None)
    value.shape = ir.Shape(found)


class _Naming:
    """What a dimension is called that has certain numbers in the sets of sizes that were tried."""

    def __init__(self, probes: Sequence[Sizes]) -> None:
        self._probes = probes
        self._made: dict[tuple[int, ...], str] = {}

    def dim(self, sizes: Sequence[int | None]) -> Dim:
        """The name of the free dimension that it always equals, the integer that it always is, or a name for
        its own; None where it was not always found."""
        numbers = tuple(size for size in sizes if size is not None)
        if len(numbers) < len(sizes):
            return None
        for name in self._probes[0]:
            if all(probe[name] == size for probe, size in zip(self._probes, numbers, strict=True)):
                return name
        if len(set(numbers)) == 1:
            return numbers[0]
        if numbers not in self._made:
            self._made[numbers] = self._new_name()
        return self._made[numbers]

    def _new_name(self) -> str:
        number = len(self._made)
        while f"size_{number}" in (*self._probes[0], *self._made.values()):
            number += 1
        return f"size_{number}"

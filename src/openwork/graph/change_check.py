"""The invariants of `openwork.graph.verify` where one change may have broken them."""

from __future__ import annotations

import onnx_ir as ir

from openwork.graph.model import ModelError, describe, is_openwork
from openwork.graph.rewrite import Replacement
from openwork.graph.verify import check_native

CLOSEST = 1e-9
"""Positions nearer to each other than this are numbered anew."""


class ChangeCheck:
    """Knows the order of a graph's nodes and its names, and checks one change after another against them.

    What a change can break is: the new nodes, the nodes that read what it made or moved, the graph's outputs,
    and the names. All else is as it was before.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self._position: dict[ir.Node, float] = {}
        self._floor: dict[ir.Node, float] = {}
        self._names: dict[str, ir.Value] = {}
        self.renew()

    def renew(self) -> None:
        """Read the whole graph again."""
        self._position = {node: float(number) for number, node in enumerate(self.graph)}
        self._floor = {node: position - 1 for node, position in self._position.items()}
        values = [*self.graph.inputs, *self.graph.initializers.values()]
        values += [value for node in self.graph for value in node.outputs]
        self._names = {value.name: value for value in values if value.name}

    def change(self, anchor: ir.Node, replacement: Replacement) -> None:
        """Raise ModelError where the change that was just applied at the anchor broke an invariant."""
        self._place(replacement.before or anchor, [n for n in replacement.nodes if n not in self._position])
        moved = [new for _, new in replacement.values]
        made = [value for node in replacement.nodes for value in node.outputs]
        readers = {use.node for value in (*moved, *made) for use in value.uses()}
        for node in dict.fromkeys((*replacement.nodes, *readers)):
            if node.graph is self.graph:
                self._check(node)
        read = [value for node in replacement.nodes for value in node.inputs if value is not None]
        for value in dict.fromkeys((*made, *moved, *read, *(old for old, _ in replacement.values))):
            self._check_name(value)
        for value in self.graph.outputs:
            if not self._lives(value):
                raise ModelError(f"The graph's output {value.name!r} is made by no node.")

    def _place(self, behind: ir.Node, nodes: list[ir.Node]) -> None:
        """Give new nodes, which stand together in front of another one, positions between their neighbours'.

        The floor of a node is a position that everything in front of it keeps below or at.
        """
        low, high = self._floor[behind], self._position[behind]
        step = (high - low) / (len(nodes) + 1)
        if step < CLOSEST:
            self.renew()
            return
        for number, node in enumerate(nodes, start=1):
            self._floor[node], self._position[node] = low + step * (number - 1), low + step * number
        self._floor[behind] = low + step * len(nodes)

    def _check(self, node: ir.Node) -> None:
        for index, value in enumerate(node.inputs):
            if value is not None and not self._made_before(value, node):
                raise ModelError(
                    f"{describe(node)} reads {value.name!r} as its input {index}, but nothing makes that "
                    "value before it."
                )
        if is_openwork(node):
            check_native(node)

    def _made_before(self, value: ir.Value, node: ir.Node) -> bool:
        maker = value.producer()
        if maker is None:
            return self._lives(value)
        return maker.graph is self.graph and self._position[maker] < self._position[node]

    def _lives(self, value: ir.Value) -> bool:
        """Whether the value is the graph's: an input, an initializer with data, or made by a node of it."""
        maker = value.producer()
        if maker is not None:
            return maker.graph is self.graph
        if value.is_graph_input():
            return value.graph is self.graph
        return value.const_value is not None and self.graph.initializers.get(str(value.name)) is value

    def _check_name(self, value: ir.Value) -> None:
        if not value.name or not self._lives(value):
            return
        other = self._names.setdefault(value.name, value)
        if other is not value and other.name == value.name and self._lives(other):
            raise ModelError(f"The value {value.name!r} is made more than once.")
        self._names[value.name] = value

"""The graph's invariants, checked around every change."""

from __future__ import annotations

import onnx_ir as ir

from openwork.engine.operators import DOMAIN, Problem, examine
from openwork.engine.shapes import may_be_equal
from openwork.graph.model import ModelError, describe
from openwork.graph.slots import form_of, row_of, slot


def verify(model: ir.Model) -> None:
    """Raise ModelError, naming the node and what is wrong, if the graph breaks an invariant.

    Every value is made once, before it is read; initializers have data; the graph's outputs are made; every
    openwork node has the operands, element types, shapes and attributes that docs/program.md gives it.
    """
    graph = model.graph
    made: set[ir.Value] = set()
    names: set[str] = set()
    for value in graph.inputs:
        _declare(value, "the graph's inputs", made, names)
    for name, value in graph.initializers.items():
        if value.const_value is None:
            raise ModelError(f"The initializer {name!r} has no data.")
        if value not in made:
            _declare(value, "the initializers", made, names)
    for node in graph:
        _check_node(node, made, names)
    for value in graph.outputs:
        if value not in made:
            raise ModelError(f"The graph's output {value.name!r} is made by no node.")


def _declare(value: ir.Value, where: str, made: set[ir.Value], names: set[str]) -> None:
    if value in made or (value.name and value.name in names):
        raise ModelError(f"The value {value.name!r} of {where} is made more than once.")
    made.add(value)
    if value.name:
        names.add(value.name)


def _check_node(node: ir.Node, made: set[ir.Value], names: set[str]) -> None:
    for index, value in enumerate(node.inputs):
        if value is not None and value not in made:
            raise ModelError(
                f"{describe(node)} reads {value.name!r} as its input {index}, but nothing makes that value "
                "before it."
            )
    if node.domain == DOMAIN:
        check_native(node)
    for value in node.outputs:
        _declare(value, describe(node), made, names)


def check_native(node: ir.Node) -> None:
    """Raise ModelError if an openwork node does not have the form that docs/program.md gives it."""
    found = examine(row_of(node), form_of(node), may_be_equal)
    if isinstance(found, Problem):
        held = slot(node, found.place)
        called = "" if held is None else f" ({held.name!r})"
        raise ModelError(
            f"{describe(node)}: '{found.place}'{called} must be {found.expected}, but it is {found.found}."
        )

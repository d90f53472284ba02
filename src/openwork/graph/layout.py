"""Where the channels of images stand.

ONNX keeps them second ([B, C, H, W]); an operator whose row wants "channels last" reads and makes
[B, H, W, C]. A rule that makes such an operator calls `around`, which puts ToChannelsLast in front of it and
ToChannelsFirst behind it. The rules of this file then move each ToChannelsFirst behind operators that work
element by element, and drop it where it meets a ToChannelsLast, so that between two such operators nothing is
moved at all; a quantizer in front of a move is done by it. Height and width may be free.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from openwork.engine.operators import DOMAIN, OPERATORS, Slot
from openwork.engine.shapes import ANY
from openwork.graph.model import (
    attributes,
    consumers,
    dims,
    is_openwork,
    know_dims,
    make,
    native_producer,
    only_consumer,
)
from openwork.graph.rewrite import Replacement, Rule, never, precedes
from openwork.graph.slots import filled, rebuilt, row_of, slot, slots

LAST, FIRST = "ToChannelsLast", "ToChannelsFirst"
IMAGE_AXES = 4
"""Batch, channels, height, width."""
PERMUTATION = {LAST: (0, 2, 3, 1), FIRST: (0, 3, 1, 2)}
"""What ONNX's Transpose calls the two."""


def moved(op_type: str, value: ir.Value, name: str) -> ir.Node:
    """A node that moves the channels of an image."""
    return make(op_type, {"x": value}, {}, name)


def around(
    op_type: str, inputs: Mapping[str, ir.Value | None], values: Mapping[str, Any], name: str, old: ir.Value
) -> list[ir.Node]:
    """An operator that wants channels last, for images with channels first: the nodes in order, of which the
    last makes its first output with channels first, in the place of `old`.

    inputs: by slot; those whose slot is an image are moved. values: the attributes.
    """
    row = OPERATORS[op_type]
    if row.layout != "channels last":
        raise ValueError(f"{op_type} does not want its channels last; make it as it is.")
    nodes: list[ir.Node] = []
    given = dict(inputs)
    for entry in row.activations:
        value = given.get(entry.name)
        if value is not None and _is_image(entry):
            nodes.append(moved(LAST, value, f"{name}.{entry.name}"))
            given[entry.name] = nodes[-1].outputs[0]
    nodes.append(make(op_type, given, values, name))
    made = nodes[-1].outputs[0]
    shape = dims(old)
    if shape is not None and len(shape) == IMAGE_AXES:
        know_dims(made, [shape[axis] for axis in PERMUTATION[LAST]])
    return [*nodes, moved(FIRST, made, f"{name}.y")]


def _is_image(entry: Slot) -> bool:
    return len(entry.shape) == 4 and "..." not in entry.shape


@dataclass(frozen=True)
class _Pair:
    node: ir.Node
    source: ir.Value


def _match_pair(node: ir.Node) -> _Pair | None:
    """One that undoes another one; one that quantizes does more than that."""
    other = native_producer(filled(node, "x"), FIRST if node.op_type == LAST else LAST)
    if other is None or attributes(node) or attributes(other):
        return None
    return _Pair(node, filled(other, "x"))


def _check_pair(found: _Pair) -> str | None:
    source = found.source
    fixed = source.producer() is None or source.is_graph_output()
    if found.node.outputs[0].is_graph_output() and fixed:
        return "it makes an output of the graph out of an input or of another output"
    return None


def _replace_pair(found: _Pair) -> Replacement:
    return Replacement((), [(found.node.outputs[0], found.source)])


_MOVES = frozenset({LAST, FIRST})

CANCEL = Rule("cancel moves of channels", _MOVES, _match_pair, _check_pair, _replace_pair, domain=DOMAIN)


def _match_equal(node: ir.Node) -> tuple[ir.Node, ir.Node] | None:
    """An earlier one of the same value."""
    for other in consumers(filled(node, "x")):
        same = native_producer(other.outputs[0], node.op_type) and attributes(other) == attributes(node)
        if other is not node and same and precedes(other, node):
            return None if node.outputs[0].is_graph_output() else (node, other)
    return None


def _replace_equal(found: tuple[ir.Node, ir.Node]) -> Replacement:
    node, other = found
    return Replacement((), [(node.outputs[0], other.outputs[0])])


SHARE = Rule("share moves of channels", _MOVES, _match_equal, never, _replace_equal, domain=DOMAIN)


@dataclass(frozen=True)
class _Push:
    node: ir.Node
    moves: dict[str, ir.Node | None]
    """For each input the ToChannelsFirst that makes it, or None."""


def elementwise() -> frozenset[str]:
    """The operators that do the same to every element, wherever it stands."""
    return frozenset(name for name, row in OPERATORS.items() if row.layout == "any")


def _values(node: ir.Node) -> dict[str, ir.Value]:
    """What a node reads that is no tensor of the engine."""
    stored = {entry.name for entry in row_of(node).tensors}
    return {name: value for name, value in slots(node).items() if name not in stored}


def _is_elementwise(node: ir.Node) -> bool:
    """Whether no element depends on where it stands: all values are alike, and no stored numbers go with the
    last dimension."""
    values = list(_values(node).values())
    stored = [slot(node, entry.name) for entry in row_of(node).tensors if entry.shape == (ANY,)]
    if any(value is not None and dims(value) != (1,) for value in stored):
        return False
    return all(dims(value) == dims(values[0]) for value in values)


def _match_push(node: ir.Node) -> _Push | None:
    moves = {name: native_producer(value, FIRST) for name, value in _values(node).items()}
    if not any(moves.values()) or not _is_elementwise(node):
        return None
    return _Push(node, moves) if _pays(node, list(moves.values())) else None


def _pays(node: ir.Node, moves: list[ir.Node | None]) -> bool:
    """Whether fewer moves remain, or as many but further down.

    That is so where only moves to channels last read the result, since all of them go, and where the moves
    that nobody else reads are no fewer than those that come: the one behind, and one in front of each input
    that is not moved yet in either way.
    """
    made, readers = node.outputs[0], consumers(node.outputs[0])
    if readers and not made.is_graph_output() and all(is_openwork(reader, LAST) for reader in readers):
        return True
    going = {move for move in moves if move is not None and only_consumer(move.outputs[0]) is node}
    still = {value for value in _values(node).values() if native_producer(value, FIRST) is None}
    coming = 1 + sum(not _moved_already(value) for value in still)
    return len(going) >= coming


def _moved_already(value: ir.Value) -> bool:
    """Whether a value with channels first is read with channels last elsewhere."""
    return any(is_openwork(reader, LAST) and not attributes(reader) for reader in consumers(value))


def _replace_push(found: _Push) -> Replacement:
    node, nodes = found.node, []
    changed: dict[str, ir.Value | None] = {}
    for name, move in found.moves.items():
        value = filled(node, name)
        if move is None:
            nodes.append(moved(LAST, value, f"{node.name}.{name}"))
        changed[name] = nodes[-1].outputs[0] if move is None else filled(move, "x")
    made = rebuilt(node, changed)
    back = moved(FIRST, made.outputs[0], f"{node.name}.y")
    return Replacement([*nodes, made, back], [(node.outputs[0], back.outputs[0])])


PUSH = Rule(
    "move channels behind an elementwise operator",
    elementwise(),
    _match_push,
    never,
    _replace_push,
    domain=DOMAIN,
)

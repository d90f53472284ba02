"""Transposes that leave the last axis where it is, behind operators that work row by row.

Sequences stand batch first or length first, and a model turns them around each attention. What stands between
two such turns (norms, products, sums, quantizers) reads rows and does not care in which order they come, so a
turn goes behind it, until it meets the one that turns back.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from openwork.engine.operators import DOMAIN, OPERATORS, Slot
from openwork.engine.shapes import ANY, LEADING
from openwork.graph.model import attributes, consumers, is_openwork, needed, producer, same_dims
from openwork.graph.rewrite import Replacement, Rule, never
from openwork.graph.slots import is_read, rebuilt, row_of, slot, slots

Perm = tuple[int, ...]


def _by_rows(entry: Slot) -> bool:
    return entry.shape[:1] == (LEADING,) or (entry.optional and entry.shape == (ANY,))


ROW_WISE = frozenset(
    name for name, row in OPERATORS.items() if all(map(_by_rows, (*row.activations, *row.outputs)))
)
"""The operators that make each row of their results of the same rows of what they read, where all of it has
one shape: what may have any other one, as the other value of a sum, must not."""


@dataclass(frozen=True)
class _Push:
    node: ir.Node
    perm: Perm


def _turn(value: ir.Value | None) -> Perm | None:
    """The permutation of the Transpose that makes a value, where it moves rows and does not cut them."""
    node = producer(value, "Transpose")
    perm = None if node is None else attributes(node).get("perm")
    return tuple(perm) if perm and perm[-1] == len(perm) - 1 else None


def _inverse(perm: Perm) -> Perm:
    return tuple(perm.index(axis) for axis in range(len(perm)))


def _activations(node: ir.Node) -> list[ir.Value]:
    tensors = {entry.name for entry in row_of(node).tensors}
    return [value for name, value in slots(node).items() if name not in tensors]


def _is_row_wise(node: ir.Node) -> bool:
    any_shape = [slot(node, entry.name) for entry in row_of(node).activations if entry.shape == (ANY,)]
    first = _activations(node)[0]
    return all(value is None or same_dims(value, first) for value in any_shape)


def _region(start: ir.Node, perm: Perm) -> set[ir.Node]:
    """The row-wise nodes, from one on, that read nothing but what is turned so or what they make."""
    found = {start}
    pending = [start]
    while pending:
        for reader in (n for value in pending.pop().outputs for n in consumers(value)):
            if reader in found or not is_openwork(reader, *ROW_WISE) or not _is_row_wise(reader):
                continue
            if all(_turn(v) == perm or v.producer() in found for v in _activations(reader)):
                found.add(reader)
                pending.append(reader)
    return found


def _pays(region: set[ir.Node], perm: Perm) -> bool:
    """Whether fewer turns are left once all of these nodes read what is not turned."""
    turns = {v.producer() for node in region for v in _activations(node) if _turn(v) == perm}
    gone = {t for t in turns if t is not None and _all_in(t.outputs[0], region)}
    added = 0
    for value in (value for node in region for value in node.outputs if is_read(value)):
        outside = [reader for reader in consumers(value) if reader not in region]
        back = [reader for reader in outside if _turn(reader.outputs[0]) == _inverse(perm)]
        gone |= set(back)
        added += value.is_graph_output() or len(back) < len(outside)
    return len(gone) > added


def _all_in(value: ir.Value, region: set[ir.Node]) -> bool:
    return not value.is_graph_output() and all(reader in region for reader in consumers(value))


def _match(node: ir.Node) -> _Push | None:
    perms = {_turn(value) for value in _activations(node)}
    perm = next(iter(perms)) if len(perms) == 1 else None
    if perm is None or not _is_row_wise(node) or not _pays(_region(node, perm), perm):
        return None
    return _Push(node, perm)


def _replace(found: _Push) -> Replacement:
    node = found.node
    tensors = {entry.name for entry in row_of(node).tensors}
    changed: dict[str, ir.Value | None] = {
        name: needed(turn, 0)
        for name, value in slots(node).items()
        if name not in tensors and (turn := value.producer()) is not None
    }
    made = rebuilt(node, changed)
    nodes, values = [made], []
    for old, new in zip(node.outputs, made.outputs, strict=False):
        if is_read(old):
            nodes.append(_turned(new, old, found.perm, f"{node.name}.turn"))
            values.append((old, nodes[-1].outputs[0]))
    return Replacement(nodes, values)


def _turned(value: ir.Value, like: ir.Value, perm: Perm, name: str) -> ir.Node:
    made = ir.Node("", "Transpose", [value], [ir.AttrInt64s("perm", perm)], name=name)
    made.outputs[0].shape, made.outputs[0].type = like.shape, like.type
    return made


PUSH_TURN = Rule("turn rows later", ROW_WISE, _match, never, _replace, domain=DOMAIN)


def _match_pair(node: ir.Node) -> tuple[ir.Node, ir.Value] | None:
    """A turn, and what was turned before it so that this one turns it back."""
    perm, first = _turn(node.outputs[0]), _turn(needed(node, 0))
    maker = needed(node, 0).producer()
    if perm is None or first is None or maker is None or perm != _inverse(first):
        return None
    source = needed(maker, 0)
    fixed = source.producer() is None or source.is_graph_output()
    # An output of the graph cannot be an input of it, nor another output.
    return None if node.outputs[0].is_graph_output() and fixed else (node, source)


def _replace_pair(found: tuple[ir.Node, ir.Value]) -> Replacement:
    return Replacement((), [(found[0].outputs[0], found[1])])


CANCEL_TURNS = Rule("cancel turns of rows", frozenset({"Transpose"}), _match_pair, never, _replace_pair)

"""The one way to change a graph: rules, and how a replacement takes its place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from openwork.graph.model import dims, graph_of, know_dims
from openwork.graph.part import captured, graphs_of


@dataclass(frozen=True)
class Replacement:
    """New nodes, in order, and which old value each new one stands for.

    before: the node in front of which the new ones are inserted; the anchor, if it is None.
    note: a sentence for the report where the new nodes do less than the old ones, as was asked for; else "".
    """

    nodes: Sequence[ir.Node]
    values: Sequence[tuple[ir.Value, ir.Value]]
    before: ir.Node | None = None
    note: str = ""


def _no_parts(_: Any) -> Iterable[ir.Node]:
    return ()


@dataclass(frozen=True)
class Rule:
    """A rewrite: what it looks for, when it may apply, and what it puts there.

    match: from an anchor node, what replace needs to know; None where the pattern is not there.
    check: of a match, the reason why it must not be replaced; None if it may.
    replace: of a match, the replacement.
    domain: of the anchors. lasting: whether a refusal stands although another rule took the node later.
    parts: of a match that is refused, the other nodes of the pattern, which the reason explains too.
    """

    name: str
    anchors: frozenset[str]
    match: Callable[[ir.Node], Any | None]
    check: Callable[[Any], str | None]
    replace: Callable[[Any], Replacement]
    domain: str = ""
    lasting: bool = False
    parts: Callable[[Any], Iterable[ir.Node]] = _no_parts

    def starts_at(self, node: ir.Node) -> bool:
        """Whether the node is one of the anchors."""
        domains = (self.domain,) if self.domain else ("", "ai.onnx")
        return node.op_type in self.anchors and node.domain in domains


ORIGINS = "origins"
"""Where a node that a rule made keeps in its `meta` the names of the model's nodes that it stands for."""


def origins(node: ir.Node) -> frozenset[str]:
    """The names of the model's nodes that a node stands for: its own where no rule made it."""
    found: frozenset[str] = node.meta.get(ORIGINS, frozenset((str(node.name),)))
    return found


def apply(graph: ir.Graph, anchor: ir.Node, replacement: Replacement) -> None:
    """Insert the new nodes, move the old values' uses to the new ones, remove what nobody reads."""
    nodes = [node for node in replacement.nodes if node.graph is None]
    graph.insert_before(replacement.before or anchor, nodes)
    for old, new in replacement.values:
        _rename(old, new)
        if new.producer() in nodes:
            know_dims(new, dims(old) or ())
        old.replace_all_uses_with(new, replace_graph_outputs=True)
    makers = [node for old, _ in replacement.values if (node := old.producer()) is not None]
    removed = _sweep_dead(graph, [anchor, *makers])
    stood_for = origins(anchor).union(*map(origins, removed))
    for node in nodes:
        node.meta[ORIGINS] = stood_for


def _rename(old: ir.Value, new: ir.Value) -> None:
    """An output of the graph keeps its name, and a new value takes the name of the one it stands for."""
    if new.producer() is None or new.is_graph_output():
        return
    if old.is_graph_output() or new.name is None or new.name.startswith("val_"):
        name, old.name = old.name, f"{old.name}.before.{id(old):x}"
        new.name = name


def _sweep_dead(graph: ir.Graph, starts: Sequence[ir.Node]) -> list[ir.Node]:
    """Remove the nodes that nobody reads, and those that only they read; gives them."""
    pending, removed = list(starts), list[ir.Node]()
    while pending:
        node = pending.pop()
        if node.graph is None or any(value.uses() or value.is_graph_output() for value in node.outputs):
            continue
        read = [*node.inputs, *captured(node)]
        pending.extend(maker for v in read if v is not None and (maker := v.producer()) is not None)
        graph.remove(node, safe=True)
        _let_go(node)
        removed.append(node)
    return removed


def _let_go(node: ir.Node) -> None:
    """The bodies of a node that was removed read nothing any more."""
    for inner in (inner for body in graphs_of(node) for inner in body):
        _let_go(inner)
        for place in range(len(inner.inputs)):
            inner.replace_input_with(place, None)


def remove_unused(graph: ir.Graph) -> None:
    """Remove the nodes and initializers that no output of the graph needs."""
    for node in reversed(list(graph)):
        if not any(value.uses() or value.is_graph_output() for value in node.outputs):
            graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]


def home(node: ir.Node) -> ir.Graph:
    """The graph that a rule registers its new initializers in."""
    return graph_of(node)


def never(_: Any) -> str | None:
    """A check for rules whose every match may be replaced."""
    return None


def precedes(first: ir.Node, second: ir.Node) -> bool:
    """Whether a node stands in front of another one of its graph."""
    return next(node is first for node in home(first) if node is first or node is second)

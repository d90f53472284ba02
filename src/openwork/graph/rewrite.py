"""The one way to change a graph: rules, and the driver that applies them in order until none applies."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from openwork.engine.operators import DOMAIN
from openwork.graph.model import ModelError, describe, graph_of
from openwork.graph.verify import verify

log = logging.getLogger(__name__)

MAX_CHANGES = 100_000


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


@dataclass(frozen=True)
class Rule:
    """A rewrite: what it looks for, when it may apply, and what it puts there.

    match: from an anchor node, what replace needs to know; None where the pattern is not there.
    check: of a match, the reason why it must not be replaced; None if it may.
    replace: of a match, the replacement.
    domain: of the anchors. lasting: whether a refusal stands although another rule took the node later.
    """

    name: str
    anchors: frozenset[str]
    match: Callable[[ir.Node], Any | None]
    check: Callable[[Any], str | None]
    replace: Callable[[Any], Replacement]
    domain: str = ""
    lasting: bool = False


@dataclass(frozen=True)
class Change:
    """One change: its number (from 1), the rule, the node it started from, the nodes it made.

    note: what it left out of the model's meaning, on request; "" where it left out nothing.
    """

    number: int
    rule: str
    node: str
    made: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True)
class Refusal:
    """A pattern that was found and left alone, and why."""

    rule: str
    node: str
    reason: str


@dataclass
class Outcome:
    """What a driver did: the changes in order, and the refusals that still stand at the end."""

    changes: list[Change] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)


class Driver:
    """Applies an ordered list of rules to a model, in place."""

    def __init__(self, model: ir.Model, rules: Sequence[Rule], stop_after: int | None = None) -> None:
        if stop_after is not None and stop_after < 0:
            raise ValueError(f"stop_after must be at least 0 or None, but it is {stop_after}.")
        self.model, self.rules = model, rules
        self.limit = MAX_CHANGES if stop_after is None else stop_after
        self.bounded = stop_after is not None
        self.changes: list[Change] = []
        self.refused: dict[tuple[ir.Node, Rule], str] = {}

    def run(self) -> Outcome:
        """Apply the rules until none applies or the limit is reached, verifying around every change."""
        verify(self.model)
        while self._pass():
            pass
        remove_unused(self.model.graph)
        verify(self.model)
        return Outcome(self.changes, self._standing())

    def _pass(self) -> bool:
        before = len(self.changes)
        for rule in self.rules:
            while self._sweep(rule):
                pass
        return len(self.changes) > before

    def _sweep(self, rule: Rule) -> bool:
        before = len(self.changes)
        for node in list(self.model.graph):
            if self._full():
                return False
            if node.graph is not None and node.op_type in rule.anchors and node.domain in _domains(rule):
                self._try(rule, node)
        return len(self.changes) > before

    def _full(self) -> bool:
        if len(self.changes) < self.limit:
            return False
        if not self.bounded:
            raise ModelError(
                f"The graph rules made {self.limit} changes without coming to an end; a rule undoes another."
            )
        return True

    def _try(self, rule: Rule, node: ir.Node) -> None:
        found = rule.match(node)
        reason = None if found is None else rule.check(found)
        self.refused.pop((node, rule), None)
        if reason is not None:
            self.refused[node, rule] = reason
        elif found is not None:
            self._apply(rule, node, rule.replace(found))

    def _apply(self, rule: Rule, node: ir.Node, replacement: Replacement) -> None:
        name = describe(node)
        apply(self.model.graph, node, replacement)
        made = tuple(describe(node) for node in replacement.nodes)
        self.changes.append(Change(len(self.changes) + 1, rule.name, name, made, replacement.note))
        log.debug("%d: %s at %s", len(self.changes), rule.name, name)
        try:
            verify(self.model)
        except ModelError as error:
            raise ModelError(
                f"Change {len(self.changes)} ({rule.name} at {name}) broke the graph: {error}"
            ) from error

    def _standing(self) -> list[Refusal]:
        standing = []
        for (node, rule), why in self.refused.items():
            if node.graph is not None or rule.lasting:
                node.meta.setdefault("refusals", []).append((rule.name, why))
                standing.append(Refusal(rule.name, describe(node), why))
                log.info("%s refused at %s: %s", rule.name, describe(node), why)
        return standing


def _domains(rule: Rule) -> tuple[str, ...]:
    return (DOMAIN,) if rule.domain == DOMAIN else ("", "ai.onnx")


def apply(graph: ir.Graph, anchor: ir.Node, replacement: Replacement) -> None:
    """Insert the new nodes, move the old values' uses to the new ones, remove what nobody reads."""
    nodes = [node for node in replacement.nodes if node.graph is None]
    graph.insert_before(replacement.before or anchor, nodes)
    for old, new in replacement.values:
        _rename(old, new)
        old.replace_all_uses_with(new, replace_graph_outputs=True)
    _sweep_dead(
        graph, [anchor, *(node for old, _ in replacement.values if (node := old.producer()) is not None)]
    )


def _rename(old: ir.Value, new: ir.Value) -> None:
    """An output of the graph keeps its name, and a new value takes the name of the one it stands for."""
    if new.producer() is None or new.is_graph_output():
        return
    if old.is_graph_output() or new.name is None or new.name.startswith("val_"):
        name, old.name = old.name, f"{old.name}.before.{id(old):x}"
        new.name = name


def _sweep_dead(graph: ir.Graph, starts: Sequence[ir.Node]) -> None:
    pending = list(starts)
    while pending:
        node = pending.pop()
        if node.graph is None or any(value.uses() or value.is_graph_output() for value in node.outputs):
            continue
        pending.extend(maker for v in node.inputs if v is not None and (maker := v.producer()) is not None)
        graph.remove(node, safe=True)


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

"""Applies the phases' rules to a graph until none applies."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from openwork.engine.operators import DOMAIN
from openwork.graph.change_check import ChangeCheck
from openwork.graph.model import ModelError, constant, describe
from openwork.graph.phase import Condition, Phase
from openwork.graph.rewrite import Replacement, Rule, apply, remove_unused
from openwork.graph.slots import reads_stored, refused_numbers, refused_operand
from openwork.graph.verify import verify

log = logging.getLogger(__name__)

MAX_CHANGES = 100_000


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


def _refused(replacement: Replacement) -> str | None:
    """Why the operators do not take what the model gives them, whatever the rule says; None if they do."""
    nodes = replacement.nodes
    problems = [
        problem for node in nodes for problem in (refused_numbers(node), refused_operand(node, nodes))
    ]
    return next(filter(None, problems), None) or _refused_result(replacement)


def _refused_result(replacement: Replacement) -> str | None:
    for old, new in replacement.values:
        readers = [use.node for use in old.uses() if not reads_stored(use.node, use.idx)]
        if constant(new) is not None and readers:
            return f"its result would be stored, and {describe(readers[0])} reads computed values"
    return None


@dataclass
class Outcome:
    """What a driver did: the changes in order, and the refusals that still stand at the end."""

    changes: list[Change] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)


class Driver:
    """Applies phases to a model, in place.

    Every change is verified by itself: the new nodes, those that read them, and the names. The whole model is
    verified before the first change, after every pass and at the end.

    stop_after : make this many changes at most. thorough : verify the whole model after every change too, and
    raise where a phase's condition does not hold, which is only logged otherwise.
    """

    def __init__(
        self, model: ir.Model, phases: Sequence[Phase], stop_after: int | None = None, thorough: bool = False
    ) -> None:
        if stop_after is not None and stop_after < 0:
            raise ValueError(f"stop_after must be at least 0 or None, but it is {stop_after}.")
        self.model, self.phases, self.thorough = model, phases, thorough
        self.limit = MAX_CHANGES if stop_after is None else stop_after
        self.bounded = stop_after is not None
        self.changes: list[Change] = []
        self.refused: dict[tuple[ir.Node, Rule], str] = {}
        self.parts: dict[tuple[ir.Node, Rule], tuple[ir.Node, ...]] = {}
        self.check = ChangeCheck(model.graph)

    def run(self) -> Outcome:
        """Apply the phases until no rule applies or the limit is reached."""
        verify(self.model)
        while self._pass():
            verify(self.model)
            self.check.renew()
        remove_unused(self.model.graph)
        verify(self.model)
        return Outcome(self.changes, self._standing())

    def _pass(self) -> bool:
        before = len(self.changes)
        for phase in self.phases:
            if phase.last and len(self.changes) > before:
                break
            self._demand(phase, phase.requires, "begins, but not all of this holds")
            while self._round(phase.rules):
                pass
            self._demand(phase, phase.leaves, "has ended, but not all of this holds")
        return len(self.changes) > before

    def _round(self, rules: Iterable[Rule]) -> bool:
        before = len(self.changes)
        for rule in rules:
            while self._sweep(rule):
                pass
        return len(self.changes) > before

    def _demand(self, phase: Phase, conditions: Iterable[Condition], when: str) -> None:
        if self.bounded and len(self.changes) >= self.limit:
            return
        refused = {node for node, _ in self.refused}
        for condition in conditions:
            faults = list(condition.faults(self.model.graph, refused))
            if not faults:
                continue
            text = (
                f"The phase {phase.name} {when}: {condition.sentence}; against it stand {', '.join(faults)}."
            )
            if self.thorough:
                raise ModelError(text)
            log.warning("%s", text)

    def _sweep(self, rule: Rule) -> bool:
        before = len(self.changes)
        for node in [node for node in self.model.graph if rule.starts_at(node)]:
            if self._full():
                return False
            if node.graph is not None:
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
        replacement = None if found is None or reason is not None else rule.replace(found)
        if replacement is not None:
            reason = _refused(replacement)
        # Another rule may have taken a part of the pattern; why the whole was refused explains it still.
        if found is not None or rule.domain == DOMAIN:
            self.refused.pop((node, rule), None)
        if reason is not None:
            self.refused[node, rule] = reason
            self.parts[node, rule] = tuple(rule.parts(found))
        elif replacement is not None:
            self._apply(rule, node, replacement)

    def _apply(self, rule: Rule, node: ir.Node, replacement: Replacement) -> None:
        name = describe(node)
        apply(self.model.graph, node, replacement)
        made = tuple(map(describe, replacement.nodes))
        self.changes.append(Change(len(self.changes) + 1, rule.name, name, made, replacement.note))
        log.debug("%d: %s at %s", len(self.changes), rule.name, name)
        try:
            self.check.change(node, replacement)
            if self.thorough:
                verify(self.model)
        except ModelError as error:
            raise ModelError(
                f"Change {len(self.changes)} ({rule.name} at {name}) broke the graph: {error}"
            ) from error

    def _standing(self) -> list[Refusal]:
        """The refusals that still stand.

        Why a whole pattern is refused explains its parts, so what smaller rules say of those is left out.
        """
        stand = {key: why for key, why in self.refused.items() if key[0].graph is not None or key[1].lasting}
        wholes = {part: key for key in stand for part in self.parts.get(key, ()) if part is not key[0]}
        for part, (node, rule) in wholes.items():
            if part.graph is not None:
                why = f"{stand[node, rule]} ({describe(node)})"
                part.meta.setdefault("refusals", []).append((rule.name, why))
        standing = []
        for (node, rule), why in stand.items():
            if node in wholes and not self.parts.get((node, rule)):
                continue
            node.meta.setdefault("refusals", []).append((rule.name, why))
            standing.append(Refusal(rule.name, describe(node), why))
            log.info("%s refused at %s: %s", rule.name, describe(node), why)
        return standing

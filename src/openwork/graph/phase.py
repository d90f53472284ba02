"""A phase of the reduction: rules that belong together, what they rely on, and what they leave."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from openwork.graph.model import describe
from openwork.graph.rewrite import Rule


@dataclass(frozen=True)
class Condition:
    """What a graph looks like: a sentence, and of a single node whether it stands against it.

    A node that a rule has refused does not count: its reason is known.
    """

    sentence: str
    broken_by: Callable[[ir.Node], bool]

    def faults(self, graph: ir.Graph, refused: set[ir.Node]) -> Iterator[str]:
        """The nodes that stand against it, as messages name them."""
        return (describe(node) for node in graph if node not in refused and self.broken_by(node))


@dataclass(frozen=True)
class Phase:
    """Rules in order. Each runs until it applies nowhere, and all of them until none applies.

    requires : what holds when the phase begins. leaves : what holds when it has ended. last : whether it has
    its turn only where the phases before it change nothing any more.
    """

    name: str
    rules: tuple[Rule, ...]
    requires: tuple[Condition, ...] = ()
    leaves: tuple[Condition, ...] = ()
    last: bool = False

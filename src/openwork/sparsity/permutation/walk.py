"""A walk over an exported graph: what is known of each tensor, and what a rule needs to say more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from openwork.sparsity.permutation.relations import Relations, Use
from openwork.sparsity.permutation.values import Source, Value

Known = Value | Source | list[Any] | None
Rule = Callable[["Walk", fx.Node], Known]


@dataclass(frozen=True)
class Consumer:
    """A weight that channels enter. axis, blocks : the weight's axis of input channels and its blocks."""

    use: Use
    out_axis: int
    in_axis: int
    blocks: int = 1


@dataclass
class Walk:
    """The state of a walk over a graph: what is known of each node, and the weights met."""

    relations: Relations = field(default_factory=Relations)
    known: dict[fx.Node, Known] = field(default_factory=dict)
    consumers: dict[str, Consumer] = field(default_factory=dict)

    def value(self, node: fx.Node) -> Value:
        """What is known of a tensor, a stored one counted element by element."""
        found = self.known.get(node)
        if isinstance(found, Source):
            return found.value(self.relations)
        return found if isinstance(found, Value) else Value(None, shape_of(node))

    def source(self, node: object) -> Source | None:
        found = self.known.get(node) if isinstance(node, fx.Node) else None
        return found if isinstance(found, Source) else None

    def refuse(self, node: fx.Node, reason: str) -> Known:
        """Whatever enters `node` keeps its order."""
        for argument in node.all_input_nodes:
            self._refuse_value(self.known.get(argument), argument, reason)
        return Value(None, shape_of(node), reason) if isinstance(node.meta.get("val"), Tensor) else None

    def _refuse_value(self, found: Known, node: fx.Node, reason: str) -> None:
        for part in found if isinstance(found, list) else [found]:
            value = part.value(self.relations) if isinstance(part, Source) else part
            if isinstance(value, Value) and value.atoms is not None:
                self.relations.fix(value.atoms.flatten(), reason)


def shape_of(node: fx.Node) -> tuple[int, ...]:
    value = node.meta.get("val")
    return tuple(int(size) for size in value.shape) if isinstance(value, Tensor) else ()


def place(node: fx.Node) -> str:
    """Where an operator stands: its name and the module it belongs to."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    module = stack[-1][0] if stack else ""
    return f"{name_of(node)} of {module or 'the model'}"


def name_of(node: fx.Node) -> str:
    target = node.target
    name = target._schema.name.split("::")[1] if isinstance(target, torch._ops.OpOverload) else str(target)
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name


def argument(node: fx.Node, index: int, name: str, default: Any = None) -> Any:
    return node.args[index] if len(node.args) > index else node.kwargs.get(name, default)


def rule(table: dict[str, Rule], *names: str) -> Callable[[Rule], Rule]:
    """Write a function into a table of rules, under the names of the operators that it is for."""

    def register(function: Rule) -> Rule:
        table.update(dict.fromkeys(names, function))
        return function

    return register

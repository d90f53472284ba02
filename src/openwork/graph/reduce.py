"""From any ONNX graph to openwork operators, as far as the rules reach."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from openwork.engine.operators import DOMAIN, pair
from openwork.graph.driver import Change, Driver, Refusal
from openwork.graph.model import describe, dims
from openwork.graph.rules import phases_for
from openwork.graph.slots import row_of

LEFT = "left"
"""Where a node that no rule was let at keeps in its `meta` why."""
KEPT = "kept"
"""The domain of nodes that no rule may change, while the rules are at work."""


def reduce(
    model: ir.Model,
    stop_after: int | None = None,
    *,
    rounding: str = "exact",
    thorough: bool = False,
    keep: Collection[str] = (),
) -> tuple[ir.Model, list[Change], list[Refusal]]:
    """Apply the phases of `graph/rules` in place, until no rule applies or `stop_after` changes are made.

    model: of `read`. rounding: "exact" (every quantizer means its rounding and its clamps) or "relaxed"
    (roundings between float operators are left out, with a note in the change; clamps stay). thorough: verify
    the whole model after each change, and what each phase leaves; tests do. keep: the names of nodes that
    stay as they are.
    Returns the model, the changes in order, and the refusals that still stand, each with its reason. Raises
    ModelError if a rule breaks an invariant of the graph (a defect: the message names the change's number),
    and ValueError for another rounding.
    """
    kept = _hide(model.graph, frozenset(keep))
    outcome = Driver(model, phases_for(rounding), stop_after, thorough).run()
    for node, domain in kept.items():
        node.domain = domain
    if stop_after is None:
        _name_tensors(model.graph)
    return model, outcome.changes, outcome.refusals


def _hide(graph: ir.Graph, names: Collection[str]) -> dict[ir.Node, str]:
    """Move the nodes of these names to a domain that no rule knows; gives the domain of each."""
    hidden = {node: node.domain for node in graph if node.name in names}
    for node in hidden:
        node.domain = KEPT
    return hidden


def _name_tensors(graph: ir.Graph) -> None:
    """Give each tensor that only one step reads the step's name: `encoder.layer.0.output.dense.weight`."""
    for node in graph:
        entries = pair(row_of(node).inputs, list(node.inputs)) if node.domain == DOMAIN else None
        for slot, value in entries or ():
            name = f"{node.name}.{slot.name}"
            if (
                slot.tensor
                and value is not None
                and len(value.uses()) == 1
                and name not in graph.initializers
            ):
                value.name = name


def lowerable(model: ir.Model) -> list[tuple[ir.Node, str]]:
    """The nodes that have no native operator, each with the reason why; empty if the whole graph has one."""
    reasons = ((node, why_not_native(node)) for node in model.graph)
    return [(node, reason) for node, reason in reasons if reason is not None]


def why_not_native(node: ir.Node) -> str | None:
    """Why a node of a reduced graph has no native operator; None where it is one."""
    if node.domain == DOMAIN:
        return None
    if LEFT in node.meta:
        return str(node.meta[LEFT])
    refusals = node.meta.get("refusals", [])
    if refusals:
        return "; ".join(f"{rule}: {reason}" for rule, reason in refusals)
    shapes = ", ".join(map(_shape, node.inputs))
    return f"openwork does not run {describe(node)} of {shapes or 'nothing'} itself"


def _shape(value: ir.Value | None) -> str:
    if value is None:
        return "absent"
    shape = dims(value)
    return "unknown shape" if shape is None else str(list(shape))

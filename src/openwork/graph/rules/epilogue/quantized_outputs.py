"""A quantizer goes into the step whose output it reads, where its operator quantizes.

An operator whose own output is u8 where it has y_scale gives the integers in place of the float; one with an
output of its own for them gives both.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from openwork.engine.operators import DOMAIN, OPERATORS
from openwork.graph.model import attributes, is_openwork, native_producer, needed, only_consumer
from openwork.graph.rewrite import Replacement, Rule
from openwork.graph.rules.products.followed import Follow, alone
from openwork.graph.slots import output, rebuilt

IN_PLACE = frozenset(
    row.name for row in OPERATORS.values() if any(slot.scale == "y_scale" for slot in row.outputs)
)
"""The operators whose output may be float or integers."""

BESIDE = {
    row.name: slot.name for row in OPERATORS.values() for slot in row.outputs if "y_scale" in slot.needs
}
"""The operators with an output for the integers beside the float one, and its name."""


def quantizer(node: ir.Node) -> dict[str, Any]:
    """The scale and zero point of a Quantize."""
    found = attributes(node)
    return {"y_scale": found["y_scale"], "y_zero_point": found["y_zero_point"]}


def made_by(value: ir.Value, op_types: frozenset[str]) -> ir.Node | None:
    """The openwork node that makes the value, if it is of one of these types."""
    node = value.producer()
    return node if is_openwork(node) and node is not None and node.op_type in op_types else None


def takes_quantizer(value: ir.Value) -> bool:
    """Whether a float that one node alone reads can be made as integers: by what makes it, through what keeps
    numbers, or through a part of a Concat. One that was dequantized can, whoever reads it."""
    if native_producer(value, "Dequantize") is not None:
        return True
    if only_consumer(value) is None:
        return False
    kept = native_producer(value, "Reshape", "MaxPool", "GlobalMaxPool")
    if kept is not None:
        return takes_quantizer(needed(kept, 0))
    joined = native_producer(value, "Concat")
    if joined is not None:
        return any(takes_quantizer(needed(joined, index)) for index in range(1, len(joined.inputs)))
    return made_by(value, IN_PLACE) is not None


def _match_in_place(node: ir.Node) -> Follow | None:
    step = made_by(needed(node, 0), IN_PLACE)
    return None if step is None else Follow(node, step)


def _replace_in_place(found: Follow) -> Replacement:
    made = rebuilt(found.step, {}, **quantizer(found.node))
    others = list(zip(found.step.outputs[1:], made.outputs[1:], strict=True))
    values = [(found.node.outputs[0], made.outputs[0]), *others]
    return Replacement([made], values, before=found.step if others else None)


QUANTIZED_OUTPUT = Rule(
    "quantize into its producer",
    frozenset({"Quantize"}),
    _match_in_place,
    alone,
    _replace_in_place,
    domain=DOMAIN,
)


def _match_beside(node: ir.Node) -> Follow | None:
    step = made_by(needed(node, 0), frozenset(BESIDE))
    return None if step is None else Follow(node, step)


def _check_beside(found: Follow) -> str | None:
    if "y_scale" in attributes(found.step):
        return "the layer norm already gives u8 with another scale"
    return None


def _replace_beside(found: Follow) -> Replacement:
    return both(found.step, found.node, rebuilt(found.step, {}, **quantizer(found.node)))


def both(step: ir.Node, quantize: ir.Node, made: ir.Node) -> Replacement:
    """One step with both outputs, where the old one stood: before all readers of the float."""
    integers = output(made, BESIDE[made.op_type])
    return Replacement(
        [made], [(step.outputs[0], made.outputs[0]), (quantize.outputs[0], integers)], before=step
    )


QUANTIZED_NORM = Rule(
    "quantize into layer norm",
    frozenset({"Quantize"}),
    _match_beside,
    _check_beside,
    _replace_beside,
    domain=DOMAIN,
)

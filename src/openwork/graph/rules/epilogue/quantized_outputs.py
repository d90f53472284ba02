"""A quantizer goes into the step whose output it reads: products, attention, layer norm."""

from __future__ import annotations

import onnx_ir as ir

from openwork.engine.operators import DOMAIN
from openwork.graph.model import (
    attributes,
    make,
    native_producer,
    needed,
    with_attributes,
)
from openwork.graph.rewrite import Replacement, Rule
from openwork.graph.rules.epilogue.followers import LINEARS, Follow, alone


def _match_quantize(node: ir.Node) -> Follow | None:
    made = native_producer(needed(node, 0), *LINEARS, "Attention")
    return None if made is None else Follow(node, made)


def _check_quantize(found: Follow) -> str | None:
    return alone(found)


def _quantizer(node: ir.Node) -> dict[str, object]:
    found = attributes(node)
    return {"y_scale": found["y_scale"], "y_zero_point": found["y_zero_point"]}


def _replace_quantize(found: Follow) -> Replacement:
    before = found.linear
    made = make(
        before.op_type, before.inputs, with_attributes(before, **_quantizer(found.node)), before.name or ""
    )
    return Replacement([made], [(found.node.outputs[0], made.outputs[0])])


QUANTIZED_OUTPUT = Rule(
    "quantize into its producer",
    frozenset({"Quantize"}),
    _match_quantize,
    _check_quantize,
    _replace_quantize,
    domain=DOMAIN,
)


def _match_norm(node: ir.Node) -> Follow | None:
    norm = native_producer(needed(node, 0), "LayerNorm")
    return None if norm is None else Follow(node, norm)


def _check_norm(found: Follow) -> str | None:
    if "y_scale" in attributes(found.linear):
        return "the layer norm already gives u8 with another scale"
    return None


def _replace_norm(found: Follow) -> Replacement:
    """One layer norm with both outputs, where the old one stood: before all readers of the float."""
    norm = found.linear
    made = make("LayerNorm", norm.inputs, with_attributes(norm, **_quantizer(found.node)), norm.name or "")
    values = [(norm.outputs[0], made.outputs[0]), (found.node.outputs[0], made.outputs[1])]
    return Replacement([made], values, before=norm)


QUANTIZED_NORM = Rule(
    "quantize into layer norm",
    frozenset({"Quantize"}),
    _match_norm,
    _check_norm,
    _replace_norm,
    domain=DOMAIN,
)

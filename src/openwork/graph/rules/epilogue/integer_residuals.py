"""A residual that was dequantized goes into its step as the integers that it was."""

from __future__ import annotations

import onnx_ir as ir

from openwork.engine.operators import DOMAIN, OPERATORS
from openwork.graph.model import attributes, native_producer
from openwork.graph.rewrite import Replacement, Rule
from openwork.graph.rules.products.followed import Follow
from openwork.graph.slots import filled, rebuilt, slot


def _match_integers(step: ir.Node) -> Follow | None:
    """A step whose residual was dequantized: it takes the integers."""
    made = native_producer(slot(step, "residual"), "Dequantize")
    return None if made is None else Follow(made, step)


def _check_integers(found: Follow) -> str | None:
    if "x_scale" not in attributes(found.step):
        return "it is a product of floats, whose residual is float"
    return None


def _replace_integers(found: Follow) -> Replacement:
    step, read = found.step, attributes(found.node)
    values = {"residual_scale": read["x_scale"], "residual_zero_point": read["x_zero_point"]}
    made = rebuilt(step, {"residual": filled(found.node, "x")}, **values)
    return Replacement([made], [(step.outputs[0], made.outputs[0])])


RESIDUAL_INTEGERS = Rule(
    "residual as integers",
    frozenset(name for name, row in OPERATORS.items() if row.epilogue and row.takes("residual")),
    _match_integers,
    _check_integers,
    _replace_integers,
    domain=DOMAIN,
)

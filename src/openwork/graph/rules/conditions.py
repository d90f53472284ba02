"""What the phases leave, as conditions on single nodes."""

from __future__ import annotations

import onnx_ir as ir

from openwork.engine.operators import ACTIVATIONS, operator_of_activation
from openwork.graph.layout import FIRST, LAST
from openwork.graph.model import (
    constant,
    is_onnx,
    is_openwork,
    native_producer,
    needed,
    only_consumer,
    operand,
)
from openwork.graph.phase import Condition
from openwork.graph.qoperators import FORMS as QOPERATORS
from openwork.graph.qoperators import MICROSOFT
from openwork.graph.rules.epilogue.quantized_outputs import IN_PLACE, made_by
from openwork.graph.rules.functions.layer_norm import LAYER_NORM
from openwork.graph.rules.functions.normalize import LP_NORMALIZE
from openwork.graph.rules.functions.unary import UNARY
from openwork.graph.rules.prepare.constants import ANCHORS as FOLDED
from openwork.graph.rules.products.followed import is_plain, maker
from openwork.graph.rules.products.linear import ANCHORS as PRODUCTS


def _of_constants(node: ir.Node) -> bool:
    given = [value for value in node.inputs if value is not None]
    return is_onnx(node, *FOLDED) and bool(given) and all(constant(value) is not None for value in given)


def _with_constant_weight(node: ir.Node) -> bool:
    return is_onnx(node, *PRODUCTS) and constant(needed(node, 1)) is not None


_NAMED = LAYER_NORM.anchors | LP_NORMALIZE.anchors | UNARY.anchors | {"Relu"}
_ALONE = frozenset(operator_of_activation(name) for name in ACTIVATIONS if name != "none")


def _left_behind(node: ir.Node) -> bool:
    """Whether an activation or a quantizer still stands behind a step that would take it."""
    source = operand(node, 0)
    if source is None or only_consumer(source) is None:
        return False
    if is_openwork(node, *_ALONE):
        step = maker(source)
        return step is not None and is_plain(step)
    return is_openwork(node, "Quantize") and made_by(source, IN_PLACE) is not None


CONSTANTS_FOLDED = Condition("no node computes something from constants alone", _of_constants)
QOPERATORS_EXPANDED = Condition(
    "every QOperator node is written as Q/DQ",
    lambda node: node.op_type in QOPERATORS.get(node.domain if node.domain == MICROSOFT else "", ()),
)
PRODUCTS_MADE = Condition("every product with a constant weight is a Linear", _with_constant_weight)
FUNCTIONS_NAMED = Condition(
    "every function that ONNX has one operator for is an operator of ours",
    lambda node: is_onnx(node, *_NAMED),
)
EPILOGUES_TAKEN = Condition("what may follow a product without anything else stands in it", _left_behind)


def _undoes(node: ir.Node) -> bool:
    if not is_openwork(node, FIRST, LAST):
        return False
    return native_producer(operand(node, 0), FIRST if node.op_type == LAST else LAST) is not None


MOVES_MEET_NOT = Condition("no move of channels undoes the one before it", _undoes)

"""Fold standard ONNX nodes of initializers; a DequantizeLinear only where no integer product wants it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import onnx_ir as ir

from openwork.graph.edit import add_initializer
from openwork.graph.evaluate import run_onnx_node
from openwork.graph.model import Array, ModelError, constant
from openwork.graph.rewrite import Replacement, Rule, home

ANCHORS = frozenset(
    (
        *("Abs", "Add", "And", "Cast", "CastLike", "Concat", "ConstantOfShape", "Div", "Equal", "Erf"),
        *("Exp", "Expand", "Flatten", "Floor", "Gather", "GatherND", "Greater", "GreaterOrEqual"),
        *("Identity", "Less", "LessOrEqual", "Log", "MatMul", "Max", "Min", "Mod", "Mul", "Neg", "Not"),
        *("Or", "Pow", "QuantizeLinear", "Range", "Reciprocal", "Reshape", "Shape", "Size", "Slice"),
        *("Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tile", "Transpose", "Unsqueeze", "Where"),
        # Of weights and tables: a weight behind an activation, a normalized table.
        *("BatchNormalization", "Ceil", "Clip", "Cos", "CumSum", "Einsum", "Elu", "Gelu", "Gemm"),
        *("GroupNormalization", "HardSigmoid", "HardSwish", "LayerNormalization", "LeakyRelu"),
        *("LogSoftmax", "LpNormalization", "Mish", "PRelu", "Pad", "ReduceL2", "ReduceMax"),
        *("ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "Relu", "Round", "Selu", "Sigmoid"),
        *("Sign", "Sin", "Softmax", "Softplus", "Softsign", "Tanh", "Trilu"),
    )
)
MAX_BYTES = 1 << 30


@dataclass(frozen=True)
class _Stored:
    """A node of initializers alone, and what it makes, computed when it is first asked for."""

    node: ir.Node

    @cached_property
    def results(self) -> list[Array | None]:
        return run_onnx_node(self.node, [constant(value) for value in self.node.inputs])


def _match(node: ir.Node) -> _Stored | None:
    if not node.inputs or any(value is not None and constant(value) is None for value in node.inputs):
        return None
    return _Stored(node)


def _check(found: _Stored) -> str | None:
    if any(value.is_graph_output() for value in found.node.outputs):
        return "its result is an output of the graph, which a node must make"
    try:
        size = sum(result.nbytes for result in found.results if result is not None)
    except ModelError as error:
        return str(error)
    return f"its result would take {size} bytes" if size > MAX_BYTES else None


def _replace(found: _Stored) -> Replacement:
    graph, values = home(found.node), []
    for old, array in zip(found.node.outputs, found.results, strict=False):
        if array is not None:
            values.append((old, add_initializer(graph, f"{old.name}.folded", array)))
    return Replacement((), values)


FOLD_CONSTANTS = Rule("fold constants", ANCHORS, _match, _check, _replace)
FOLD_DEQUANTIZED = Rule(
    "fold dequantized constants", frozenset({"DequantizeLinear"}), _match, _check, _replace
)

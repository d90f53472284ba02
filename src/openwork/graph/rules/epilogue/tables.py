"""Functions of one u8 value that end in u8 again: 256 bytes say what becomes of each integer.

Whatever stands between (dequantize, a sigmoid, a round trip, the product with the value itself), each element
of the result depends on one element of the value alone, so the graph itself is asked for all 256.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from openwork.engine.operators import ACTIVATIONS, DOMAIN, operator_of_activation
from openwork.graph.byte_functions import BYTES, outcome
from openwork.graph.edit import add_initializer
from openwork.graph.model import (
    Array,
    constant,
    dims,
    is_onnx,
    is_openwork,
    make,
    native_producer,
    needed,
    only_consumer,
    topological,
)
from openwork.graph.rewrite import Replacement, Rule, home, never, precedes
from openwork.graph.slots import rebuilt, row_of, slot

_NATIVE = frozenset(
    {
        *("Quantize", "Dequantize", "Lookup", "Add", "Multiply"),
        *(operator_of_activation(name) for name in ACTIVATIONS if name != "none"),
    }
)
_ONNX = frozenset(
    {
        *("Abs", "Ceil", "Celu", "Clip", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish"),
        *("LeakyRelu", "Log", "Mish", "Neg", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid"),
        *("Sign", "Softplus", "Softsign", "Sqrt", "Tanh", "ThresholdedRelu"),
        *("Add", "Div", "Max", "Min", "Mul", "Pow", "Sub"),
    }
)
MOST_NODES = 32


def _by_element(node: ir.Node | None) -> bool:
    """Whether a node does the same to every element, with numbers that are the same for all."""
    if node is None or not (is_openwork(node, *_NATIVE) or is_onnx(node, *_ONNX)):
        return False
    shapes = []
    for value in node.inputs:
        array = constant(value)
        table = is_openwork(node, "Lookup") and value is node.inputs[-1]
        if array is not None and array.size != 1 and not table:
            return False
        if value is not None and array is None:
            shapes.append(dims(value))
    return len(set(shapes)) == 1 and shapes[0] == dims(node.outputs[0])


@dataclass(frozen=True)
class _Function:
    """A Quantize, the u8 value that decides it, and the nodes between, makers first."""

    quantize: ir.Node
    source: ir.Value
    nodes: Sequence[ir.Node]


def _source(quantize: ir.Node) -> _Function | None:
    """The nearest u8 value that the result of a Quantize depends on alone."""
    passed = {quantize}
    while True:
        leaves = _leaves(passed)
        floats = [leaf for leaf in leaves if leaf.dtype != ir.DataType.UINT8]
        if len(leaves) == 1 and not floats:
            nodes = topological(quantize.outputs, set(leaves))
            return _Function(quantize, leaves[0], [node for node in nodes if node in passed])
        makers = [node for leaf in floats or leaves if (node := leaf.producer()) is not None]
        latest = _latest(makers)
        blocked = len(makers) < len(floats) or (floats and not all(map(_by_element, makers)))
        if latest is None or blocked or not _by_element(latest) or len(passed) >= MOST_NODES:
            return None
        passed.add(latest)


def _latest(makers: Sequence[ir.Node]) -> ir.Node | None:
    """The one behind all others, which depends on none that is not behind them: of two bytes that one value
    decides, the earlier may be that value."""
    latest = None
    for node in makers:
        latest = node if latest is None or precedes(latest, node) else latest
    return latest


def _leaves(nodes: set[ir.Node]) -> list[ir.Value]:
    """The computed values that nodes read and do not make."""
    read = [v for node in nodes for v in node.inputs if v is not None and constant(v) is None]
    return list(dict.fromkeys(v for v in read if v.producer() not in nodes))


def table_of(function: Sequence[ir.Node], source: ir.Value) -> Array | None:
    """What becomes of each integer, u8 [256]; None where it cannot be computed."""
    made = outcome(function, source, np.arange(BYTES, dtype=np.uint8))
    return None if made is None else np.asarray(made, np.uint8).reshape(BYTES)


def _match(node: ir.Node) -> _Function | None:
    return _source(node)


def _replace(found: _Function) -> Replacement:
    table = table_of(found.nodes, found.source)
    assert table is not None
    old = found.quantize.outputs[0]
    named = found.source.producer() is None or found.source.is_graph_output()
    if np.array_equal(table, np.arange(BYTES)) and not (named and old.is_graph_output()):
        return Replacement((), [(old, found.source)])
    name = found.quantize.name or ""
    held = add_initializer(home(found.quantize), f"{name}.table", table)
    made = make("Lookup", [found.source, held], {}, name)
    return Replacement([made], [(old, made.outputs[0])])


def _check(found: _Function) -> str | None:
    return "it cannot be computed" if table_of(found.nodes, found.source) is None else None


LOOKUP = Rule("function of bytes", frozenset({"Quantize"}), _match, _check, _replace, domain=DOMAIN)


def _match_again(node: ir.Node) -> ir.Node | None:
    return None if native_producer(needed(node, 0), "Lookup") is None else node


def _replace_again(node: ir.Node) -> Replacement:
    first = native_producer(needed(node, 0), "Lookup")
    assert first is not None
    before, after = constant(first.inputs[1]), constant(node.inputs[1])
    assert before is not None
    assert after is not None
    table = add_initializer(home(node), f"{node.name}.table", after[before])
    made = make("Lookup", [needed(first, 0), table], {}, node.name or "")
    return Replacement([made], [(node.outputs[0], made.outputs[0])])


LOOKUP_AGAIN = Rule(
    "function of a function of bytes",
    frozenset({"Lookup"}),
    _match_again,
    never,
    _replace_again,
    domain=DOMAIN,
)


def _match_product(node: ir.Node) -> ir.Node | None:
    made = needed(node, 0).producer()
    if made is None or not is_openwork(made) or not row_of(made).takes("lookup"):
        return None
    return node if only_consumer(made.outputs[0]) is node else None


def _check_product(node: ir.Node) -> str | None:
    made = needed(node, 0).producer()
    assert made is not None
    return None if slot(made, "lookup") is None else "the product has a table already"


def _replace_product(node: ir.Node) -> Replacement:
    step = needed(node, 0).producer()
    assert step is not None
    made = rebuilt(step, {"lookup": node.inputs[1]})
    return Replacement([made], [(node.outputs[0], made.outputs[0])])


LOOKUP_INTO_PRODUCT = Rule(
    "function of bytes into product",
    frozenset({"Lookup"}),
    _match_product,
    _check_product,
    _replace_product,
    domain=DOMAIN,
)

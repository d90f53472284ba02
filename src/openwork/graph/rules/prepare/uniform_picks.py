"""Elements that are picked of equal ones: which, does not matter, and only how many is left.

RoBERTa picks the types of its tokens, all 0, by their positions, which are computed from the tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from openwork.graph.edit import add_initializer
from openwork.graph.model import Array, constant, dims, needed, producer
from openwork.graph.rewrite import Replacement, Rule, home, never


@dataclass(frozen=True)
class _Pick:
    node: ir.Node
    number: Array


def _match(node: ir.Node) -> _Pick | None:
    data, indices = needed(node, 0), needed(node, 1)
    spread = producer(data, "Expand")
    held = constant(data if spread is None else needed(spread, 0))
    if held is None or held.size == 0 or constant(indices) is not None or dims(indices) is None:
        return None
    first = held.reshape(-1)[:1]
    return _Pick(node, first) if np.array_equal(held, np.broadcast_to(first, held.shape)) else None


def _replace(found: _Pick) -> Replacement:
    node, indices = found.node, needed(found.node, 1)
    number = add_initializer(home(node), f"{node.name}.number", found.number)
    sizes = ir.Value(shape=ir.Shape([len(dims(indices) or ())]), type=ir.TensorType(ir.DataType.INT64))
    shape = ir.Node("", "Shape", [indices], outputs=[sizes], name=f"{node.name}.shape")
    made = ir.Value(shape=node.outputs[0].shape, type=node.outputs[0].type)
    expand = ir.Node("", "Expand", [number, sizes], outputs=[made], name=node.name)
    return Replacement([shape, expand], [(node.outputs[0], made)])


UNIFORM_PICK = Rule("pick among equal elements", frozenset({"GatherElements"}), _match, never, _replace)

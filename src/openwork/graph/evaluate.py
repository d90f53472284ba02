"""Computing standard ONNX nodes, for constants, shapes and masks: one, or many that make a value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import onnx_ir as ir

from openwork.graph.model import Array, ModelError, constant, describe
from openwork.graph.part import Part


def _divides_safely(node: ir.Node) -> bool:
    """Whether the node passes `_check_division` with every content."""
    if node.op_type not in ("Div", "Mod"):
        return True
    divisor = node.inputs[1]
    array = constant(divisor)
    if array is not None:
        return array.dtype.kind == "f" or not _is_fatal(array)
    return divisor is not None and divisor.dtype in (
        ir.DataType.FLOAT,
        ir.DataType.DOUBLE,
        ir.DataType.FLOAT16,
    )


def _is_fatal(divisor: Array) -> bool:
    return divisor.dtype.kind in "iu" and bool(np.isin(divisor, (0, -1)).any())


def _check_division(node: ir.Node, arrays: Sequence[Array | None]) -> None:
    """Raise ModelError where a processor may trap, which would end the process: integers divided by 0, the
    lowest one divided by -1."""
    divided, divisor = arrays[:2]
    if divided is None or divisor is None or not _is_fatal(divisor):
        return
    lowest = divided.dtype.kind == "i" and bool((divided == np.iinfo(divided.dtype).min).any())
    if lowest or bool((divisor == 0).any()):
        raise ModelError(
            f"{describe(node)} cannot be evaluated: it divides an integer by 0, or the lowest by -1."
        )


_PARTS: WeakKeyDictionary[ir.Node, dict[Any, Part]] = WeakKeyDictionary()
"""The parts of single nodes that were computed before, by what they read and its types; nothing changes a
node's attributes once it is made."""


def run_onnx_node(node: ir.Node, inputs: Sequence[Array | None]) -> list[Array | None]:
    """The outputs of one standard ONNX node, None for absent ones.

    Raises ModelError if it cannot be computed.
    """
    arrays = [None if array is None else np.asarray(array) for array in inputs]
    if node.op_type in ("Div", "Mod"):
        _check_division(node, arrays)
    contents = {v: a for v, a in zip(node.inputs, arrays, strict=True) if v is not None and a is not None}
    present = [value for value in node.outputs if value.name != ""]
    # A rule may have given the node other values to read since.
    key = (*node.inputs, *(None if array is None else array.dtype for array in arrays))
    known = _PARTS.setdefault(node, {})
    if key not in known:
        known[key] = Part([node], present, contents)
    results = dict(zip(present, known[key].run(contents), strict=True))
    return [results.get(value) for value in node.outputs]


@dataclass(frozen=True)
class Nodes:
    """Nodes, in topological order, that make a value; computed as one session where that is safe."""

    nodes: tuple[ir.Node, ...]
    wanted: ir.Value
    parts: dict[Any, Part] = field(default_factory=dict, compare=False)

    def run(self, known: Mapping[ir.Value, Array]) -> Array:
        """The wanted value, from the known ones and the graph's initializers.

        Raises ModelError where it cannot be computed.
        """
        if not all(_divides_safely(node) for node in self.nodes):
            return self._one_by_one(known)
        key = tuple(array.dtype for array in known.values())
        if key not in self.parts:
            self.parts[key] = Part(self.nodes, [self.wanted], known)
        return self.parts[key].run(known)[0]

    def _one_by_one(self, known: Mapping[ir.Value, Array]) -> Array:
        values: dict[ir.Value, Array | None] = dict(known)
        for node in self.nodes:
            operands = [None if v is None else values[v] if v in values else constant(v) for v in node.inputs]
            for value, result in zip(node.outputs, run_onnx_node(node, operands), strict=True):
                values.setdefault(value, result)
        found = values.get(self.wanted)
        if found is None:
            raise ModelError(f"The value {self.wanted.name!r} has no content.")
        return found

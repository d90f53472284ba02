"""A round trip: a value quantized and dequantized on one grid, which rounds it and clamps it at both ends."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from openwork.graph.model import attributes, native_producer, needed, operand

Grid = tuple[float, int]


def grid_of(node: ir.Node) -> Grid:
    """scale and zero point of a Quantize or a Dequantize."""
    values = attributes(node)
    side = "y" if node.op_type == "Quantize" else "x"
    return values[f"{side}_scale"], values[f"{side}_zero_point"]


@dataclass(frozen=True)
class RoundTrip:
    """A Dequantize that reads a Quantize on the same grid."""

    quantize: ir.Node
    dequantize: ir.Node

    @property
    def source(self) -> ir.Value:
        """The value before the rounding."""
        return needed(self.quantize, 0)

    @property
    def grid(self) -> Grid:
        """Where its results lie."""
        return grid_of(self.quantize)


def round_trip(node: ir.Node | None) -> RoundTrip | None:
    """The round trip that ends in this node."""
    dequantize = native_producer(node.outputs[0], "Dequantize") if node is not None else None
    quantize = native_producer(operand(dequantize, 0), "Quantize") if dequantize is not None else None
    if dequantize is None or quantize is None or grid_of(quantize) != grid_of(dequantize):
        return None
    return RoundTrip(quantize, dequantize)

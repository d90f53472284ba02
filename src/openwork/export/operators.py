"""QuantizeLinear and DequantizeLinear as torch's two exporters take them."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

INTEGERS: dict[str, torch.dtype] = {"s8": torch.int8, "u8": torch.uint8}


class Operators(Protocol):
    """Writes Q/DQ into the graph that is being traced."""

    def quantize_dequantize(self, x: Tensor, scale: Tensor, zero_point: Tensor, axis: int | None) -> Tensor:
        """x, f32, rounded to the integers of `zero_point`'s type; axis: of the channels of scale, or None."""
        ...

    def dequantize(self, integers: Tensor, scale: Tensor, axis: int | None) -> Tensor:
        """scale * integers: s8 to f32 of the same shape."""
        ...


class DynamoOperators:
    """For `torch.onnx.export(dynamo=True)`."""

    def quantize_dequantize(self, x: Tensor, scale: Tensor, zero_point: Tensor, axis: int | None) -> Tensor:
        integers = _symbolic("QuantizeLinear", (x, scale, zero_point), zero_point.dtype, axis)
        return _symbolic("DequantizeLinear", (integers, scale, zero_point), torch.float32, axis)

    def dequantize(self, integers: Tensor, scale: Tensor, axis: int | None) -> Tensor:
        return _symbolic("DequantizeLinear", (integers, scale), torch.float32, axis)


def _symbolic(name: str, inputs: tuple[Tensor, ...], dtype: torch.dtype, axis: int | None) -> Tensor:
    attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
    return torch.onnx.ops.symbolic(name, inputs, attributes, dtype=dtype, shape=inputs[0].shape)


class LegacyOperators:
    """For `torch.onnx.export(dynamo=False)`, which traces with values: the functions below return such."""

    def quantize_dequantize(self, x: Tensor, scale: Tensor, zero_point: Tensor, axis: int | None) -> Tensor:
        result: Tensor = _QuantizeDequantize.apply(x, scale, zero_point, axis)  # type: ignore[no-untyped-call]
        return result

    def dequantize(self, integers: Tensor, scale: Tensor, axis: int | None) -> Tensor:
        result: Tensor = _Dequantize.apply(integers, scale, axis)  # type: ignore[no-untyped-call]
        return result


class _QuantizeDequantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor, axis: int | None) -> Tensor:
        return x.clone()

    @staticmethod
    def symbolic(g: Any, x: Any, scale: Any, zero_point: Any, axis: int | None) -> Any:
        attributes = {} if axis is None else {"axis_i": axis}
        integers = g.op("QuantizeLinear", x, scale, zero_point, **attributes)
        return g.op("DequantizeLinear", integers, scale, zero_point, **attributes).setType(x.type())


class _Dequantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, integers: Tensor, scale: Tensor, axis: int | None) -> Tensor:
        return integers.to(scale.dtype)

    @staticmethod
    def symbolic(g: Any, integers: Any, scale: Any, axis: int | None) -> Any:
        attributes = {} if axis is None else {"axis_i": axis}
        kind = integers.type().with_dtype(torch.float32)
        return g.op("DequantizeLinear", integers, scale, **attributes).setType(kind)


OPERATORS: dict[str, Operators] = {"dynamo": DynamoOperators(), "legacy": LegacyOperators()}

"""What the rules for weighted layers share: reading a constant weight, and naming the layer."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from openwork.graph.evaluate import run_onnx_node
from openwork.graph.model import Array, attributes, constant, dims, needed, operand, producer

WEIGHT_LIMIT = 127
MAX_REDUCTION = 66_000
"""255 * 127 * K < 2^31: docs/arithmetic.md, Linear."""


@dataclass(frozen=True)
class Weight:
    """A weight of a quantized layer as the engine holds it: s8 [N, K], or a convolution's [N, KH, KW, C], and
    f32 [N]. rest : what is added to the values where the weight has a zero point or holds -128."""

    values: NDArray[np.int8]
    scale: NDArray[np.float32]
    rest: tuple[NDArray[np.int8], ...] = ()

    @property
    def parts(self) -> tuple[NDArray[np.int8], ...]:
        """The integers that the weight is the sum of: one, or more where it leaves [-127, 127]."""
        return (self.values, *self.rest)


def product(node: ir.Node) -> str | None:
    """The reason why a MatMul or Gemm is not x times a weight plus a bias; None if it is."""
    if node.op_type == "MatMul":
        return None
    found = attributes(node)
    if found.get("transA", 0):
        return "Gemm transposes its first operand"
    if found.get("alpha", 1.0) != 1.0 or found.get("beta", 1.0) != 1.0:
        return "Gemm scales its operands by alpha or beta"
    return None


def rows_are_outputs(node: ir.Node) -> bool:
    """Whether the second operand stands as [N, K]."""
    return node.op_type == "Gemm" and bool(attributes(node).get("transB", 0))


def dequantized(value: ir.Value | None) -> tuple[ir.Node, bool] | None:
    """The DequantizeLinear of a constant behind a value, and whether a Transpose lies between."""
    node = producer(value, "DequantizeLinear", "Transpose")
    swapped = node is not None and node.op_type == "Transpose"
    if node is not None and swapped:
        if list(attributes(node).get("perm", (1, 0))) != [1, 0]:
            return None
        node = producer(operand(node, 0), "DequantizeLinear")
    if node is None or constant(operand(node, 0)) is None:
        return None
    return node, swapped


def _zero_points(node: ir.Node, integers: Array) -> Array | str:
    """The weight's integers less their zero points, in [-255, 255], or why there are none."""
    point = operand(node, 2)
    zero = np.zeros(1, np.int32) if point is None else constant(point)
    if zero is None:
        return "the zero point of its weight is not a constant"
    if integers.dtype not in (np.int8, np.uint8):
        return f"its weight is {integers.dtype}; only 8-bit integers are run"
    if zero.size == 1:
        return integers.astype(np.int32) - zero.astype(np.int32).reshape(())
    axis = int(attributes(node).get("axis", 1)) % integers.ndim
    if zero.shape != (integers.shape[axis],):
        return "its weight has neither one zero point nor one for each channel"
    along = [1] * integers.ndim
    along[axis] = zero.size
    return integers.astype(np.int32) - zero.astype(np.int32).reshape(along)


def read_weight(found: tuple[ir.Node, bool], by_rows: bool) -> Weight | str:
    """The weight s8 [N, K] with its scales, or the reason why it has no native form.

    found: of `dequantized`. by_rows: whether the product wants it as [N, K] (else [K, N]).
    """
    node, swapped = found
    integers, scale = constant(needed(node, 0)), constant(needed(node, 1))
    if integers is None or integers.ndim != 2 or scale is None:
        return "its weight is not a constant matrix with constant scales"
    centred = _zero_points(node, integers)
    if isinstance(centred, str):
        return centred
    output_axis = 0 if by_rows != swapped else 1
    oriented = _orient_scale(node, scale, integers.shape, output_axis)
    if isinstance(oriented, str):
        return oriented
    values = centred if output_axis == 0 else centred.T
    return centred_weight(values, oriented)


def read_kernel(node: ir.Node) -> Weight | str:
    """The weight of a convolution, s8 [n, kernel height, kernel width, channels of a group], of the
    DequantizeLinear that gives it as [n, channels of a group, kernel..], or why it has no native form."""
    integers, scale = constant(needed(node, 0)), constant(needed(node, 1))
    if integers is None or integers.ndim not in (3, 4) or scale is None:
        return "its weight is not a constant of three or four axes with constant scales"
    centred = _zero_points(node, integers)
    if isinstance(centred, str):
        return centred
    rows = centred.reshape(len(centred), -1)
    oriented = _orient_scale(node, scale, rows.shape, 0)
    if isinstance(oriented, str):
        return oriented
    found = centred_weight(rows, oriented)
    if isinstance(found, str):
        return found
    image = (*integers.shape[:2], *(1, *integers.shape[2:])[-2:])
    parts = [np.ascontiguousarray(part.reshape(image).transpose(0, 2, 3, 1)) for part in found.parts]
    return Weight(parts[0], found.scale, tuple(parts[1:]))


def overflows(x_scale: float, weight: Weight) -> bool:
    """Whether the scale of a product's sums is no finite binary32 number."""
    with np.errstate(over="ignore"):
        return not bool(np.isfinite(np.float32(x_scale) * weight.scale).all())


def _orient_scale(node: ir.Node, scale: Array, shape: tuple[int, ...], output_axis: int) -> Array | str:
    outputs = shape[output_axis]
    if attributes(node).get("block_size", 0) or scale.ndim > 1:
        return "the scale of its weight is blocked; weights have one scale per output channel"
    if scale.size == 1:
        return np.full(outputs, scale.reshape(()), np.float32)
    axis = attributes(node).get("axis", 1) % max(2, len(dims(needed(node, 0)) or ()))
    if axis != output_axis:
        return "the scale of its weight varies along the reduction axis, not by output channel alone"
    return scale.astype(np.float32)


def centred_weight(values: Array, scale: Array) -> Weight | str:
    """Integers [N, K] less their zero points, with scales [N], as a weight; or why they are none."""
    if values.shape[1] > MAX_REDUCTION:
        return f"its reduction of {values.shape[1]} may overflow INT32; at most {MAX_REDUCTION} is run"
    if not np.all(np.isfinite(scale) & (scale > 0)):
        return "the scales of its weight are not all positive and finite"
    first, *rest = _parts(values)
    return Weight(first, scale, tuple(rest))


def _parts(values: Array) -> list[NDArray[np.int8]]:
    """Integers in [-127, 127] whose sum these are; at least one."""
    parts: list[NDArray[np.int8]] = []
    left = values
    while not parts or left.any():
        part = np.clip(left, -WEIGHT_LIMIT, WEIGHT_LIMIT)
        parts.append(np.ascontiguousarray(part.astype(np.int8)))
        left = left - part
    return parts


def channel_bias(value: ir.Value | None, outputs: int) -> Array | None:
    """A constant f32 [N], possibly dequantized; None if the value is anything else."""
    return None if value is None or len(dims(value) or ()) != 1 else constant_bias(value, outputs)


def constant_bias(value: ir.Value | None, outputs: int) -> Array | None:
    """A constant f32 [N] or [1, .., N], possibly dequantized; None if the value is anything else."""
    array = constant(value)
    node = producer(value, "DequantizeLinear")
    if (
        array is None
        and node is not None
        and all(constant(v) is not None for v in node.inputs if v is not None)
    ):
        array = run_onnx_node(node, [constant(v) for v in node.inputs])[0]
    if array is None or array.dtype != np.float32 or array.size not in (1, outputs):
        return None
    if array.size != 1 and array.shape[-1] != outputs:
        return None
    return np.broadcast_to(array.reshape(-1), (outputs,)).astype(np.float32)


_SUFFIX = re.compile(r"[._](weight|kernel)([._](quantized|q|int8|DequantizeLinear))*$|_quantized$")
_SCOPES = "pkg.torch.onnx.name_scopes"


def layer_name(node: ir.Node, weight: ir.Value | None, bias: ir.Value | None) -> str:
    """The layer's name: the module's that owns the weight, by the best trace that the exporter left of it."""
    for value, ending in ((weight, "weight"), (bias, "bias")):
        text = str(value.name) if value is not None and value.name else ""
        if ending == "weight" and _SUFFIX.search(text) and not text.startswith("onnx::"):
            return _SUFFIX.sub("", text)
        if text.endswith("." + ending):
            return text[: -len(ending) - 1]
    scopes = re.findall(r"'([^']*)'", node.metadata_props.get(_SCOPES, ""))
    if len(scopes) > 1 and scopes[-2]:
        return str(scopes[-2])
    path = (node.name or str(node.outputs[0].name)).strip("/")
    return re.sub(r"/(MatMul|Gemm)(_\d+)?$", "", path).replace("/", ".")

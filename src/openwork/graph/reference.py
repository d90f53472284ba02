"""The meaning of every operator of docs/program.md, in NumPy, with the bits that docs/arithmetic.md defines.

Each function takes the operator's inputs in ONNX order (None where an optional one is absent) and its
attributes, and returns its outputs. `run` interprets a whole graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from openwork.engine.operators import ACTIVATIONS, DOMAIN, operator_of_activation
from openwork.graph.evaluate import run_onnx_node
from openwork.graph.model import ModelError, attributes, constant
from openwork.graph.numerics import binary32, elements, images, tables
from openwork.graph.numerics.attention import attention, softmax_parts
from openwork.graph.numerics.binary32 import Float, dot16, fma, quiet, sum16
from openwork.graph.numerics.convolution import conv
from openwork.graph.numerics.epilogue import Channels, apply_activation, finish, looked_up, store
from openwork.graph.numerics.group_norm import group_norm
from openwork.graph.slots import row_of

Array = NDArray[Any]
Attributes = Mapping[str, Any]


def linear(
    x: Array,
    residual: Array | None,
    weight: Array,
    weight_scale: Float | None,
    bias: Float | None,
    y_multiplier: Float | None,
    lookup: NDArray[np.uint8] | None,
    a: Attributes,
) -> Array:
    """x u8 [..., K] times weight s8 [N, K], exact, then scaled and stored by the epilogue: [..., N].

    Without a weight_scale both are f32, or the weight is BF16 (uint16) and x rounded: `linear_float`.
    """
    if weight_scale is None:
        return looked_up(linear_float(x, residual, weight, bias, a, y_multiplier), lookup)
    # |sum| <= 255 * 127 * K < 2^53, so the binary64 product of integers is exact in any order.
    centred = x.astype(np.float64) - a["x_zero_point"]
    total = (centred @ weight.astype(np.float64).T).astype(np.float32)
    scale = np.float32(a["x_scale"]) * weight_scale
    offset = np.zeros_like(scale) if bias is None else bias
    return looked_up(finish(total, Channels(scale, offset, y_multiplier), residual, a), lookup)


def linear_float(
    x: Float,
    residual: Array | None,
    weight: Float,
    bias: Float | None,
    a: Attributes,
    y_multiplier: Float | None = None,
) -> Array:
    """x f32 [..., K] times weight f32 [N, K], one fma per input channel in increasing order: [..., N]."""
    x, weight = binary32.factors(x, weight)
    total = np.zeros((*x.shape[:-1], weight.shape[0]), np.float32)
    for i in range(x.shape[-1]):
        total = fma(x[..., i, None], weight[:, i], total)
    scale, offset = np.ones(weight.shape[0], np.float32), np.zeros(weight.shape[0], np.float32)
    return finish(total, Channels(scale, offset if bias is None else bias, y_multiplier), residual, a)


def dynamic_quantizer(x: Float) -> tuple[np.float32, int]:
    """The scale and the zero point of u8 by the range of all of x and 0; NaN are passed over."""
    numbers = x[~np.isnan(x)]
    low = np.float32(min(numbers.min(initial=0), 0))
    high = np.float32(max(numbers.max(initial=0), 0))
    with quiet():
        scale = (high - low) / np.float32(255) if high > low else np.float32(1)
        if not np.isfinite(scale) or scale < np.finfo(np.float32).tiny:
            return np.float32(1), 0
        return np.float32(scale), int(min(np.rint(-low / scale), np.float32(255)))


def dynamic_linear(
    x: Float,
    residual: Float | None,
    weight: Array,
    weight_scale: Float,
    bias: Float | None,
    a: Attributes,
) -> Array:
    """x f32 [..., K], quantized to u8 by its own range, times weight s8 [N, K]: Linear by that quantizer."""
    scale, zero_point = dynamic_quantizer(x)
    given = {**a, "x_scale": float(scale), "x_zero_point": zero_point}
    integers = binary32.quantize(x, float(scale), zero_point)
    return linear(integers, residual, weight, weight_scale, bias, None, None, given)


def layer_norm(
    x: Float, gamma: Float, beta: Float, y_multiplier: Float | None, a: Attributes
) -> tuple[Float, Array | None]:
    """Normalize each row to mean 0 and variance 1, then scale and shift: y, and y quantized if asked for."""
    n = np.float32(x.shape[-1])
    with quiet():
        d = x - (sum16(x) / n)[..., None]
        variance = dot16(d, d) / n
        rstd = np.float32(1) / np.sqrt(variance + np.float32(a["epsilon"]))
        y = fma(d * rstd[..., None], gamma, beta)
    return y, store(y, a, y_multiplier) if "y_scale" in a else None


def embedding_sum(
    ids: Array,
    type_ids: Array | None,
    behind: Float | None,
    word: Float,
    position: Float,
    type_: Float | None,
    a: Attributes,
) -> Float:
    """(word[ids] + type[type_ids]) + position[S..S + L), S the keys of a past [B, G, S, D], or 0.

    With a padding_id p the rows of `position` are p for that id, and p + 1, p + 2 .. for the others in turn.
    """
    padding = a.get("padding_id")
    first = 0 if behind is None else behind.shape[2]
    first = first if padding is None else padding + 1
    end = first + ids.shape[1]
    if end > len(position):
        raise ModelError(
            f"EmbeddingSum: the text has {end} tokens, but the model has only {len(position)} positions."
        )
    y = word[tables.checked_rows("EmbeddingSum", word, ids, "ids")]
    if type_ids is not None and type_ is not None:
        y = y + type_[tables.checked_rows("EmbeddingSum", type_, type_ids, "type_ids")]
    rows = np.arange(first, end) if padding is None else tables.positions_of_tokens(ids, padding)
    return y + position[rows]


def mean_pool(x: Float, mask: Array, a: Attributes) -> Float:
    """Mean over the kept positions: [B, L, H] -> [B, H]; 0 where the mask keeps nothing."""
    total = np.zeros((x.shape[0], x.shape[2]), np.float32)
    kept = mask != 0
    with quiet():
        for position in range(x.shape[1]):
            total = np.where(kept[:, position, None], total + x[:, position], total)
        count = binary32.maximum(kept.sum(1).astype(np.float32), np.float32(1e-9))
        return np.divide(total, count[:, None], dtype=np.float32)


def l2_normalize(x: Float, a: Attributes) -> Float:
    """x / max(its Euclidean norm, epsilon), over the last axis."""
    with quiet():
        norm = np.sqrt(dot16(x, x))
        return np.asarray(x / binary32.maximum(norm, np.float32(a["epsilon"]))[..., None], np.float32)


def quantize(x: Float, a: Attributes) -> Array:
    """x as u8 with y_scale and y_zero_point."""
    return binary32.quantize(x, a["y_scale"], a["y_zero_point"])


def dequantize(x: Array, a: Attributes) -> Float:
    """(x - x_zero_point) * x_scale, the difference exact: ONNX's DequantizeLinear of u8."""
    return elements.dequantized(x, a, "x")


def softmax(x: Float, a: Attributes) -> Array:
    """exp(x - max) over its sum, along the last axis."""
    e, z, _ = softmax_parts(x, np.ones(x.shape, np.bool_))
    with quiet():
        return store(np.asarray(e * (np.float32(1) / z)[..., None], np.float32), a)


def p_relu(x: Float, slope: Float, a: Attributes) -> Float:
    """x, or slope * x where x is negative, with a slope of each of the last dimension."""
    return fma(slope, binary32.minimum(np.float32(0), x), binary32.maximum(x, np.float32(0)))


def lookup(x: Array, table: Array, a: Attributes) -> Array:
    """The table's byte for each byte."""
    return np.asarray(table[x])


def reshape(x: Array, a: Attributes) -> Array:
    """The same elements under another shape: 0 keeps the size at its place, -1 takes what is left."""
    target = [x.shape[place] if size == 0 else size for place, size in enumerate(a["shape"])]
    return x.reshape(target)


def slice_(x: Array, a: Attributes) -> Array:
    """The elements from `begin` to `end` along `axis`."""
    return np.take(x, range(a["begin"], a["end"]), a["axis"])


def concat(tables: NDArray[np.uint8] | None, *inputs: Any) -> Array:
    """The inputs side by side along `axis`, each through its row of the tables where there are any."""
    arrays, a = inputs[:-1], inputs[-1]
    made = arrays if tables is None else [row[x] for row, x in zip(tables, arrays, strict=True)]
    return np.concatenate(made, a["axis"])


def activation(name: str) -> Callable[[Float, Attributes], Float]:
    """The meaning of an activation as an operator of its own, element by element."""
    return lambda x, a: apply_activation(x, {**a, "activation": name})


MEANING: dict[str, Callable[..., Any]] = {
    "EmbeddingSum": embedding_sum,
    "EmbeddingBag": tables.embedding_bag,
    "Gather": tables.gather,
    "Interaction": tables.interaction,
    "LayerNorm": layer_norm,
    "Linear": linear,
    "DynamicLinear": dynamic_linear,
    "Attention": attention,
    "MeanPool": mean_pool,
    "L2Normalize": l2_normalize,
    "Quantize": quantize,
    "Dequantize": dequantize,
    "Add": elements.on_two_values(np.add),
    "Multiply": elements.on_two_values(np.multiply),
    "Lookup": lookup,
    "Concat": concat,
    "Conv": conv,
    "Reshape": reshape,
    "Slice": slice_,
    "Softmax": softmax,
    "PRelu": p_relu,
    "GroupNorm": group_norm,
    "MaxPool": images.max_pool,
    "AveragePool": images.average_pool,
    "GlobalMaxPool": images.global_max_pool,
    "GlobalAveragePool": images.global_average_pool,
    "Pad": images.pad,
    "Upsample": images.upsample,
    "ToChannelsLast": images.to_channels_last,
    "ToChannelsFirst": images.to_channels_first,
    **{operator_of_activation(name): activation(name) for name in ACTIVATIONS if name != "none"},
}


def compute(node: ir.Node, inputs: list[Array | None]) -> list[Array | None]:
    """The outputs of one openwork node; raises ModelError for an operator it does not know."""
    row = row_of(node)
    filled = inputs + [None] * (len(row.inputs) - len(inputs))
    outputs = MEANING[node.op_type](*filled, attributes(node))
    return list(outputs) if isinstance(outputs, tuple) else [outputs]


def run(model: ir.Model, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Interpret a graph: outputs by name from inputs by name.

    Nodes of the domain "openwork" mean what this module says; any other node is computed by onnx's own
    reference evaluator, so that a partly reduced graph has a meaning too.
    Raises ModelError for a missing or unknown input name.
    """
    graph = model.graph
    expected = {str(value.name) for value in graph.inputs}
    if expected != set(inputs):
        raise ModelError(f"The model's inputs are {sorted(expected)}, but {sorted(inputs)} were given.")
    values: dict[ir.Value, Array | None] = {
        value: np.asarray(inputs[str(value.name)]) for value in graph.inputs
    }
    for value in graph.initializers.values():
        values[value] = constant(value)
    for node in graph:
        operands = [None if value is None else values[value] for value in node.inputs]
        results = compute(node, operands) if node.domain == DOMAIN else run_onnx_node(node, operands)
        values.update(zip(node.outputs, results, strict=False))
    outputs = {str(value.name): values[value] for value in graph.outputs}
    return {name: array for name, array in outputs.items() if array is not None}

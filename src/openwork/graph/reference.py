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
from openwork.graph.numerics import binary32, elements, fixed_attention, images
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


def _rows(table: Float, ids: Array, name: str) -> Float:
    if ids.size and not 0 <= ids.min() <= ids.max() < len(table):
        raise ModelError(
            f"EmbeddingSum: {name} must lie in [0, {len(table) - 1}], the rows of its table, but they reach "
            f"from {ids.min()} to {ids.max()}."
        )
    return table[ids]


def embedding_sum(
    ids: Array, type_ids: Array | None, word: Float, position: Float, type_: Float | None, a: Attributes
) -> Float:
    """(word[ids] + type[type_ids]) + position[0..L)."""
    if ids.shape[1] > len(position):
        raise ModelError(
            f"EmbeddingSum: the text has {ids.shape[1]} tokens, but the model has only {len(position)} "
            f"positions."
        )
    y = _rows(word, ids, "ids")
    if type_ids is not None and type_ is not None:
        y = y + _rows(type_, type_ids, "type_ids")
    return y + position[: ids.shape[1]]


def _heads(x: Float, heads: int) -> Float:
    batch, length, channels = x.shape
    return x.reshape(batch, length, heads, channels // heads).transpose(0, 2, 1, 3)


def round_trip(x: Float, a: Attributes, name: str) -> Float:
    """x quantized with the attributes NAME_scale and NAME_zero_point, and back; as it is without them."""
    scale, zero_point = a.get(f"{name}_scale"), a.get(f"{name}_zero_point", 0)
    if scale is None:
        return x
    centred = binary32.quantize(x, scale, zero_point).astype(np.float32) - np.float32(zero_point)
    return np.asarray(centred * np.float32(scale), np.float32)


def scores(q: Float, k: Float, a: Attributes) -> Float:
    """s[..., i, j] = (sum over d of q[i, d] * k[j, d]) * scale, by fma in increasing order of d.

    The sum is rounded to u8 and back where there is a score_scale.
    """
    total = np.zeros((*q.shape[:-1], k.shape[-2]), np.float32)
    for d in range(q.shape[-1]):
        total = fma(q[..., :, None, d], k[..., None, :, d], total)
    with quiet():
        return np.asarray(round_trip(total, a, "score") * np.float32(a["scale"]), np.float32)


def softmax_parts(s: Float, kept: NDArray[np.bool_]) -> tuple[Float, Float]:
    """e = exp(s - max) where kept, else +0, and its sum over the last axis."""
    with quiet():
        top = np.where(kept, s, -np.inf).max(-1, keepdims=True).astype(np.float32)
        e = np.where(kept, binary32.exp(s - top), np.float32(0)).astype(np.float32)
    return e, sum16(e)


def attention_float(q: Float, k: Float, v: Float, kept: NDArray[np.bool_], a: Attributes) -> Float:
    """The general form, in binary32, of heads q, k, v [..., L, D] over the kept keys.

    Probabilities are rounded to u8 and back, before they weigh, where there is a probability_scale.
    """
    p, z = softmax_parts(scores(q, k, a), np.broadcast_to(kept, (*q.shape[:-1], len(kept))))
    with quiet():
        factor = (np.float32(1) / z)[..., None]
        if "probability_scale" in a:
            p, factor = round_trip(p * factor, a, "probability"), np.ones_like(factor)
    total = np.zeros(q.shape, np.float32)
    for j in range(len(kept)):
        total = fma(p[..., j, None], v[..., None, j, :], total)
    with quiet():
        return np.asarray(total * factor, np.float32)


def attention_head(q: Float, k: Float, v: Float, kept: NDArray[np.bool_], a: Attributes) -> Float:
    """One head, q, k, v [L, D]: in fixed point where its numbers allow it and nothing is rounded inside; 0
    where nothing is kept."""
    if not kept.any():
        return np.zeros(q.shape, np.float32)
    rounded = "score_scale" in a or "probability_scale" in a
    if not rounded and fixed_attention.allowed(q, k[kept], v[kept], a["scale"]):
        return fixed_attention.attention(q, k[kept], v[kept], a["scale"])
    return attention_float(q, k, v, kept, a)


def attention(q: Float, k: Float | None, v: Float | None, mask: Array | None, a: Attributes) -> Array:
    """softmax(q k^T * scale over the kept keys) v, per head: [B, L, H]; 0 where the mask keeps nothing.

    Without k and v, the three are the thirds of q [B, L, 3H].
    """
    if k is None or v is None:
        q, k, v = np.split(q, 3, axis=-1)
    queries, keys, values = (_heads(x, a["heads"]) for x in (q, k, v))
    kept = np.ones(q.shape[:2], np.bool_) if mask is None else mask.astype(np.bool_)
    y = np.zeros(queries.shape, np.float32)
    for b, h in np.ndindex(*queries.shape[:2]):
        y[b, h] = attention_head(queries[b, h], keys[b, h], values[b, h], kept[b], a)
    return store(y.transpose(0, 2, 1, 3).reshape(q.shape), a)


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
    e, z = softmax_parts(x, np.ones(x.shape, np.bool_))
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
    "LayerNorm": layer_norm,
    "Linear": linear,
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

"""Windows, clamps and chunks begin at a number of the graph: what small sizes show says nothing beyond it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import attention_bound
from graph_models import assert_close, reduced
from openwork.graph import read
from openwork.graph.model import dims
from openwork.graph.thresholds import ALWAYS, beyond, thresholds

CONSTANTS: dict[str, np.ndarray[Any, Any]] = {
    "heads": np.array([0, 0, 2, 4]),
    "joined": np.array([0, 0, 8]),
    "scale": np.float32(0.5),
    "low": np.float32(-1e9),
    "nought": np.float32(0),
    "one": np.array(1),
    "zero": np.array(0),
    "axis0": np.array([0]),
    "axis1": np.array([1]),
    "axis2": np.array([2]),
    "axis12": np.array([1, 2]),
    "first": np.array([1]),
    "tiny": np.float32(1e-9),
    "rest": np.array([1, 1]),
}
ATTENTION = """
  q0 = MatMul(x, wq)  k0 = MatMul(x, wk)  v0 = MatMul(x, wv)
  q1 = Reshape(q0, heads)  k1 = Reshape(k0, heads)  v1 = Reshape(v0, heads)
  q = Transpose<perm=[0,2,1,3]>(q1)  k = Transpose<perm=[0,2,3,1]>(k1)  v = Transpose<perm=[0,2,1,3]>(v1)
  s0 = MatMul(q, k)  s = Mul(s0, scale)  xs = Shape(x)  length = Gather(xs, one)
  {middle}
  p = Softmax<axis=-1>(masked)  o = MatMul(p, v)  o1 = Transpose<perm=[0,2,1,3]>(o)  y = Reshape(o1, joined)
"""
KEPT = """
  place = Range(zero, length, one)  row = Unsqueeze(place, axis0)  column = Unsqueeze(place, axis1)
  boolean = Cast<to=9>(mask)  keys = Unsqueeze(boolean, axis12)  {near}
  keep = And(keys, near)  bias = Where(keep, nought, low)  masked = Add(s, bias)
"""


def model(inputs: str, body: str, output: str = "o0,o1,o2", **constants: Any) -> onnx.ModelProto:
    """A model of opset 18 with an output y, from ONNX's text; output: names for its dimensions."""
    text = f'<ir_version: 9, opset_import: ["": 18]> g ({inputs}) => (float[{output}] y) {{ {body} }}'
    made = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    weights = {name: rng.standard_normal((8, 8)).astype(np.float32) for name in ("wq", "wk", "wv")}
    for name, array in (CONSTANTS | weights | constants).items():
        made.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return made


def feeds(length: int, batch: int = 2) -> dict[str, Any]:
    rng = np.random.default_rng(length)
    mask = np.ones((batch, length), np.int64)
    mask[0, length - length // 3 :] = 0
    return {"x": rng.standard_normal((batch, length, 8)).astype(np.float32), "mask": mask}


def masked_attention(near: str, **constants: Any) -> onnx.ModelProto:
    body = ATTENTION.format(middle=KEPT.format(near=near))
    return model("float[b,l,8] x, int64[b,l] mask", body, **constants)


@pytest.mark.parametrize(
    ("near", "limit"),
    [
        ("d = Sub(row, column)  away = Abs(d)  near = LessOrEqual(away, limit)", 64),
        ("near = Less(row, limit)", 64),
        ("near = Less(row, limit)", 6),
        ("d = Sub(column, row)  near = Less(d, limit)", 300),
    ],
)
def test_a_window_beside_the_key_mask_is_no_key_mask(near: str, limit: int) -> None:
    length = limit + 9
    found = reduced(masked_attention(near, limit=np.array(limit)), feeds(length))
    node = found.node("Attention")
    assert node.inputs[3] is None
    assert node.inputs[4] is not None
    assert_close(found, 4 * attention_bound.relative(8, 8, length))


def test_a_window_that_nothing_leaves_is_the_key_mask() -> None:
    found = reduced(masked_attention("near = GreaterOrEqual(row, zero)"), feeds(40))
    assert "Attention" in found.operators


def test_a_stored_mask_of_limited_length_says_nothing_beyond_it() -> None:
    """Exporters slice a mask of the longest text; here it hides nothing."""
    table = np.ones((1, 1, 40, 40), bool)
    near = (
        "size = Unsqueeze(length, axis0)  cut0 = Slice(table, axis0, size, axis2)"
        "  near = Slice(cut0, axis0, size, axis3)"
    )
    found = reduced(masked_attention(near, table=table, axis3=np.array([3])), feeds(30))
    assert "Attention" in found.operators


def test_a_scale_that_grows_with_the_length_is_no_constant() -> None:
    grows = (
        "number = Cast<to=1>(length)  most = Max(number, limit)  grown = Div(most, limit)"
        "  masked = Mul(s, grown)"
    )
    proto = model("float[b,l,8] x", ATTENTION.format(middle=grows), limit=np.float32(200))
    found = reduced(proto, {"x": feeds(300)["x"]})
    assert "Attention" not in found.operators
    assert_close(found, 1e-5)


@pytest.mark.parametrize(
    "weights",
    [
        "place = Range(zero, length, one)  near = Less(place, eight)  kept = Cast<to=1>(near)"
        "  column = Unsqueeze(kept, axis1)  w = Mul(number, column)  count = ReduceSum<keepdims=0>(w, axis1)",
        "w = Identity(number)  all = ReduceSum<keepdims=0>(w, axis1)  most = Cast<to=1>(eight)"
        "  count = Min(all, most)",
    ],
)
def test_a_pool_of_the_first_eight_tokens_is_no_mean_over_all(weights: str) -> None:
    body = f"""
      h = Tanh(x)  wide = Unsqueeze(mask, axis2)  number = Cast<to=1>(wide)
      ms = Shape(mask)  length = Gather(ms, one)  {weights}
      divisor = Max(count, tiny)  weighted = Mul(h, w)  total = ReduceSum<keepdims=0>(weighted, axis1)
      y = Div(total, divisor)
    """
    proto = model("float[b,l,8] x, int64[b,l] mask", body, "o0,o1", eight=np.array(8))
    found = reduced(proto, feeds(20))
    assert "MeanPool" not in found.operators
    assert_close(found, 1e-5)


CHUNKS = """
  a = Relu(x)  xs = Shape(x)  size = Gather(xs, first)  number = Cast<to=1>(size)
  quotient = Div(number, limit)  up = Ceil(quotient)  count = Cast<to=7>(up)  {reshaped}  y = Tanh(z)
"""


@pytest.mark.parametrize(
    "reshaped",
    [
        "shape = Concat<axis=0>(count, rest)  z = Expand(a, shape)",
        "part = Div(size, count)  shape = Concat<axis=0>(count, part, last)  z = Reshape(a, shape)",
    ],
)
def test_chunks_that_begin_at_a_number_keep_their_shape(reshaped: str) -> None:
    proto = model(
        "float[1,l,8] x", CHUNKS.format(reshaped=reshaped), limit=np.float32([512]), last=np.array([8])
    )
    for length in (4, 1024):
        assert_close(reduced(proto, {"x": feeds(length, 1)["x"]}), 1e-6)


def test_a_length_padded_to_a_multiple_is_no_constant() -> None:
    body = """
      xs = Shape(x)  size = Slice(xs, first, axis2)  number = Cast<to=1>(size)  quotient = Div(number, limit)
      up = Ceil(quotient)  whole = Mul(up, limit)  missing = Sub(whole, number)  more = Cast<to=7>(missing)
      pads = Concat<axis=0>(four, more, axis0)  padded = Pad(x, pads)  y = Relu(padded)
    """
    proto = model("float[b,l,8] x", body, limit=np.float32([512]), four=np.array([0, 0, 0, 0]))
    (value,) = read(proto).graph.outputs
    found = dims(value)
    assert found is not None
    assert found[0] == "b"
    assert not isinstance(found[1], int)
    assert found[2] == 8


def test_positions_that_stop_at_a_number_are_no_positions() -> None:
    body = """
      words = Gather(table, ids)  shape = Shape(ids)  length = Gather(shape, one)
      place = Range(zero, length, one)  held = Min(place, limit)  rows = Gather(positions, held)
      y = Add(words, rows)
    """
    rng = np.random.default_rng(0)
    tables = {"table": rng.standard_normal((9, 8)), "positions": rng.standard_normal((20, 8))}
    stored = {name: array.astype(np.float32) for name, array in tables.items()}
    proto = model("int64[b,l] ids", body, limit=np.array(19), **stored)
    found = reduced(proto, {"ids": rng.integers(0, 9, (2, 40))})
    assert "EmbeddingSum" not in found.operators
    assert_close(found, 1e-6)


def test_sizes_lie_beyond_every_number() -> None:
    proto = masked_attention("near = Less(row, limit)", limit=np.array(300))
    numbers = thresholds(read(proto).graph)
    assert 300 in numbers
    assert all(size > 302 or size in (ALWAYS, *(n + 2 for n in numbers)) for size in beyond(numbers))
    assert max(beyond(numbers)) > 2 * 300
    assert beyond([]) == [ALWAYS]

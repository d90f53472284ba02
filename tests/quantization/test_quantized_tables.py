"""Tables of embeddings as INT8: which ones, what they hold, and from where that is asked for."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from graph_models import Builder
from openwork.export import ExportOptions
from openwork.quantization.float_onnx import OnnxCalibration, quantize_onnx


def network(b: Builder, shared: bool = False) -> onnx.ModelProto:
    """A product of rows of a table, one of them zeros; something else reads the table too if it is shared."""
    rows = b.rng.standard_normal((6, 4)).astype(np.float32)
    rows[2] = 0
    table = b.constant(rows, "table")
    picked = b.add("Gather", table, b.input("ids", ["batch"], TensorProto.INT64))
    made = b.add("MatMul", picked, b.normal(4, 3, name="weight"))
    return b.model(y=made, z=b.add("Add", b.input("x", [6, 4]), table)) if shared else b.model(y=made)


def stored(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_each_row_has_a_scale_of_its_own() -> None:
    model = network(Builder(np.random.default_rng(0)))
    table = stored(model)["table"]
    found = quantize_onnx(model, {"ids": np.arange(6)}, how=OnnxCalibration(tables="int8"))
    tensors = stored(found.model)
    assert "table" not in tensors
    rows, scales = tensors["table:rows"], tensors["table:row_scales"]
    assert (rows.dtype, scales.shape) == (np.int8, (6,))
    assert np.abs(rows).max(1).tolist() == [127, 127, 0, 127, 127, 127]
    assert (np.abs(rows * scales[:, None] - table) <= scales[:, None] / 2 + 1e-7).all()
    assert [choice.name for choice in found.choices if choice.kind == "table"] == ["table"]


def test_tables_stay_float_unless_asked_for_or_where_something_else_reads_them() -> None:
    feed = {"ids": np.arange(6)}
    plain = quantize_onnx(network(Builder(np.random.default_rng(0))), feed)
    assert stored(plain.model)["table"].dtype == np.float32
    model = network(Builder(np.random.default_rng(0)), shared=True)
    feed["x"] = np.ones((6, 4), np.float32)
    shared = quantize_onnx(model, feed, how=OnnxCalibration(tables="int8"))
    assert stored(shared.model)["table"].dtype == np.float32


@pytest.mark.parametrize(
    "take", [lambda: ExportOptions(tables="int4"), lambda: OnnxCalibration(tables="int4")]
)
def test_another_way_to_store_tables_is_refused(take: object) -> None:
    with pytest.raises(ValueError, match='Tables are stored as "float" or "int8", but not as \'int4\''):
        take()  # type: ignore[operator]

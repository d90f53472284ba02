"""Reading: shapes with names, constants as initializers, and a full sentence for every kind of bad file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from graph_models import Builder
from openwork.graph import ModelError, read
from openwork.graph.model import dims


def small_model() -> onnx.ModelProto:
    b = Builder(np.random.default_rng(0))
    x = b.input("x", ["batch", "length", 6])
    sizes = b.add("Shape", x)
    target = b.add("Concat", b.add("Slice", sizes, b.integers(0), b.integers(2)), b.integers(2, 3), axis=0)
    return b.model(y=b.add("Reshape", b.add("Add", x, b.normal(6)), target))


def test_shapes_keep_the_names_of_free_dimensions() -> None:
    graph = read(small_model()).graph
    assert dims(graph.outputs[0]) == ("batch", "length", 2, 3)
    assert dims(graph.inputs[0]) == ("batch", "length", 6)


def test_shapes_that_onnx_cannot_infer_are_found_with_numbers() -> None:
    b = Builder(np.random.default_rng(0))
    x = b.input("x", ["batch", "length", 6])
    sizes = b.add("Cast", b.add("Shape", x), to=TensorProto.FLOAT)
    half = b.add("Mul", sizes, b.constant(np.array([1, 1, 0.5], np.float32)))
    whole = b.add("Cast", half, to=TensorProto.INT64)
    y = b.add("Reshape", x, b.add("Concat", whole, b.integers(2), axis=0))
    model = b.model(y=b.add("Relu", y))
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    assert "length" not in str(inferred.graph.output[0].type)
    assert dims(read(model).graph.outputs[0]) == ("batch", "length", 3, 2)


def test_unnamed_dimensions_get_names_and_constants_become_initializers() -> None:
    constant = helper.make_node("Constant", [], ["c"], value=helper.make_tensor("v", 1, [1], [2.0]))
    graph = helper.make_graph(
        [constant, helper.make_node("Add", ["x", "c"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", 1, [None, 3])],
        [helper.make_tensor_value_info("y", 1, [None, 3])],
    )
    model = read(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9))
    assert dims(model.graph.inputs[0]) == ("x_0", 3)
    assert [node.op_type for node in model.graph] == ["Add"]
    assert list(model.graph.initializers) == ["c"]


def test_the_callers_message_is_left_alone() -> None:
    model = small_model()
    before = model.SerializeToString(deterministic=True)
    read(model)
    assert model.SerializeToString(deterministic=True) == before


def test_external_data_is_read_and_missed(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(small_model(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert dims(read(path).graph.outputs[0]) == ("batch", "length", 2, 3)
    data = tmp_path / "weights.bin"
    data.write_bytes(data.read_bytes()[:10])
    with pytest.raises(ModelError, match=r"model\.onnx.*"):
        read(path)
    data.unlink()
    with pytest.raises(ModelError, match=r"model\.onnx is not a valid ONNX model"):
        read(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.onnx is not a file; give the path of an ONNX model\."):
        read(tmp_path / "none.onnx")


@pytest.mark.parametrize(
    "content", [b"", b"not a model at all", b"\x00" * 100, b"PK\x03\x04" + bytes(range(256))]
)
def test_files_that_are_not_onnx(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.onnx is not (a whole|an|a valid) ONNX model"):
        read(path)


def test_truncated_files(tmp_path: Path) -> None:
    whole, path = small_model().SerializeToString(), tmp_path / "model.onnx"
    for size in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelError, match=r"model\.onnx"):
            read(path)


def test_altered_bytes_give_a_model_or_an_error(tmp_path: Path) -> None:
    """A protobuf has no checksum: some altered bytes are other models. None may end in another exception."""
    whole, path = small_model().SerializeToString(), tmp_path / "model.onnx"
    rng = np.random.default_rng(1)
    refused = 0
    for position in range(0, len(whole), 3):
        changed = bytearray(whole)
        changed[position] ^= int(rng.integers(1, 256))
        path.write_bytes(changed)
        try:
            read(path)
        except ModelError:
            refused += 1
    assert refused > 20


def test_a_model_without_opset_or_with_an_unknown_one() -> None:
    model = small_model()
    del model.opset_import[:]
    with pytest.raises(ModelError, match=r"is not a valid ONNX model: .*must specify opset_import"):
        read(model)
    model.opset_import.append(helper.make_opsetid("", 6))
    with pytest.raises(ModelError, match="uses opset 6, but this reader knows opsets 7 to"):
        read(model)


@pytest.mark.parametrize("dtype", [TensorProto.COMPLEX64, TensorProto.COMPLEX128])
def test_unsupported_input_types(dtype: int) -> None:
    b = Builder(np.random.default_rng(0))
    model = b.model(y=b.add("Identity", b.input("x", [3], dtype)))
    name = TensorProto.DataType.Name(dtype)
    with pytest.raises(ModelError, match=f"the input 'x' has the element type {name}, which no engine takes"):
        read(model)


def test_an_invalid_graph_is_refused() -> None:
    model = small_model()
    model.graph.node[0].input[0] = "nowhere"
    with pytest.raises(ModelError, match=r"The model is not a valid ONNX model: .*nowhere"):
        read(model)

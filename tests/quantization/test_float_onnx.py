"""Quantization of float ONNX models: what is quantized, the numbers, the cache, and what is refused."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from openwork.cli.app import app
from openwork.graph.model import ModelError
from openwork.qdq.affine import choose_affine
from openwork.quantization import QuantizationOptions
from openwork.quantization.float_onnx import OnnxCalibration, quantize_onnx
from openwork.quantization.scales.cache import StaleCache, read_cache
from openwork.sparsity import Pattern

Array = np.ndarray[Any, Any]
FLOAT = TensorProto.FLOAT


def _tensor(name: str, *shape: int, seed: int = 0) -> onnx.TensorProto:
    values = np.random.default_rng([seed, *name.encode()]).standard_normal(shape).astype(np.float32) * 0.3
    return numpy_helper.from_array(values, name)


def _residual_net(opset: int = 18) -> onnx.ModelProto:
    """Conv, BatchNorm, ReLU, Conv, residual add, ReLU, ConvTranspose, pool, Gemm."""
    variance = numpy_helper.from_array(np.linspace(0.5, 2, 8, dtype=np.float32), "v")
    stored = [
        _tensor("w1", 8, 4, 3, 3), _tensor("g", 8), _tensor("b", 8), _tensor("m", 8), variance,
        _tensor("w2", 8, 8, 3, 3), _tensor("c2", 8), _tensor("wt", 8, 6, 2, 2), _tensor("wf", 5, 6),
        _tensor("cf", 5),
    ]  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["a", "g", "b", "m", "v"], ["n"], "norm"),
        helper.make_node("Relu", ["n"], ["r"], "relu"),
        helper.make_node("Conv", ["r", "w2", "c2"], ["s"], "second", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["s", "r"], ["t"], "residual"),
        helper.make_node("Relu", ["t"], ["u"], "relu2"),
        helper.make_node("ConvTranspose", ["u", "wt"], ["p"], "up"),
        helper.make_node("GlobalAveragePool", ["p"], ["q"], "pool"),
        helper.make_node("Flatten", ["q"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "wf", "cf"], ["y"], "last", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", FLOAT, ["batch", 4, 8, 8])],
        [helper.make_tensor_value_info("y", FLOAT, ["batch", 5])],
        stored,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def _attention() -> onnx.ModelProto:
    stored = [
        _tensor("table", 10, 8),
        _tensor("wq", 8, 8),
        _tensor("wk", 8, 8),
        _tensor("gamma", 8),
        _tensor("wo", 8, 3),
    ]
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"], "embed"),
        helper.make_node("MatMul", ["e", "wq"], ["q"], "query"),
        helper.make_node("MatMul", ["e", "wk"], ["k"], "key"),
        helper.make_node("Transpose", ["k"], ["kt"], "transpose", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "kt"], ["s"], "scores"),
        helper.make_node("Softmax", ["s"], ["p"], "softmax"),
        helper.make_node("MatMul", ["p", "k"], ["c"], "context"),
        helper.make_node("Add", ["c", "e"], ["h"], "residual"),
        helper.make_node("LayerNormalization", ["h", "gamma"], ["l"], "norm"),
        helper.make_node("MatMul", ["l", "wo"], ["y"], "output"),
    ]
    graph = helper.make_graph(
        nodes,
        "attention",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "length"])],
        [helper.make_tensor_value_info("y", FLOAT, ["batch", "length", 3])],
        stored,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _images(count: int = 4, seed: int = 1) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((3, 4, 8, 8)).astype(np.float32) for _ in range(count)]


def _run(model: onnx.ModelProto, feed: dict[str, Array]) -> Array:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feed)[0])


def _cosine(a: Array, b: Array) -> float:
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))


def _ops(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def _integers(model: onnx.ModelProto) -> dict[str, Array]:
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return {name: array for name, array in arrays.items() if array.dtype == np.int8 and array.ndim > 1}


@pytest.mark.parametrize("target", [None, "tensorrt", "onnxruntime"])
@pytest.mark.parametrize("opset", [13, 18, 20])
def test_a_convolutional_net_keeps_its_outputs(target: str | None, opset: int) -> None:
    model = _residual_net(opset)
    quantized = quantize_onnx(model, _images(), how=OnnxCalibration(target=target))
    x = _images(1, seed=9)[0]
    # INT8 with 8 input channels: each product's noise is about 1/255 of its range.
    assert _cosine(_run(model, {"x": x}), _run(quantized.model, {"x": x})) > 0.995
    assert quantized.folded == ("norm",)
    assert "BatchNormalization" not in _ops(quantized.model)
    assert set(_integers(quantized.model)) == {"w1", "w2", "wt", "wf"}


def test_every_input_of_a_residual_addition_is_int8() -> None:
    model = quantize_onnx(_residual_net(), _images(), how=OnnxCalibration(target="tensorrt")).model
    made_by = {output: node for node in model.graph.node for output in node.output}
    add = next(node for node in model.graph.node if node.op_type == "Add")
    for name in add.input:
        assert made_by[name].op_type == "DequantizeLinear"
        assert made_by[made_by[name].input[0]].op_type == "QuantizeLinear"
    # Readers of one tensor share its quantizer: x, the ReLU's output, the convolution's, the sum, the
    # pooled vector.
    assert _ops(model).count("QuantizeLinear") == 5


def test_onnxruntime_s_outputs_are_quantized_after_the_relu() -> None:
    model = quantize_onnx(_residual_net(), _images(), how=OnnxCalibration(target="onnxruntime")).model
    readers = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    made_by = {output: node for node in model.graph.node for output in node.output}
    assert sorted(made_by[node.input[0]].op_type for node in readers if node.input[0] in made_by) == [
        "Conv", "ConvTranspose", "Flatten", "Relu", "Relu",
    ]  # fmt: skip
    biases = [t for t in model.graph.initializer if t.data_type == TensorProto.INT32]
    assert len(biases) == 3


def test_attention_is_quantized_by_tensorrt_s_rules() -> None:
    model = _attention()
    ids = np.random.default_rng(0).integers(0, 10, (4, 2, 6))
    quantized = quantize_onnx(
        model, list(ids), QuantizationOptions(observer="max"), OnnxCalibration(target="tensorrt")
    )
    rows = {choice.name: choice for choice in quantized.choices}
    assert {name for name, choice in rows.items() if choice.quantized} == {
        "embed", "query", "key", "scores", "context", "output",
    }  # fmt: skip
    assert "goes to a LayerNormalization" in rows["residual"].reason
    assert _cosine(_run(model, {"ids": ids[0]}), _run(quantized.model, {"ids": ids[0]})) > 0.995
    assert "residual  Add" in quantized.table()


def test_the_own_style_quantizes_weighted_layers_and_migrates_scales() -> None:
    model = _attention()
    gamma = next(t for t in model.graph.initializer if t.name == "gamma")
    spread = np.array([0.2, 0.2, 0.3, 0.2, 0.2, 30, 0.2, 0.2], np.float32)
    gamma.CopyFrom(numpy_helper.from_array(spread, "gamma"))
    ids = np.random.default_rng(0).integers(0, 10, (4, 2, 6))
    moved = quantize_onnx(model, list(ids))
    assert [c.name for c in moved.choices if c.quantized] == ["query", "key", "output"]
    assert moved.entries["l"].multiplier is not None
    assert "Mul" in _ops(moved.model)
    kept = quantize_onnx(model, list(ids), QuantizationOptions(style="openwork", migrate=False))
    exact = _run(model, {"ids": ids[0]})
    errors = [np.abs(_run(q.model, {"ids": ids[0]}) - exact).mean() for q in (moved, kept)]
    assert errors[0] < errors[1]


def test_scales_are_those_of_the_tensors() -> None:
    model, images = _residual_net(), _images()
    quantized = quantize_onnx(
        model, images, QuantizationOptions(observer="max"), OnnxCalibration(target="tensorrt")
    )
    values = np.concatenate(images)
    expected = choose_affine(float(values.min()), float(values.max()), "s8")
    assert quantized.entries["x"].affine == expected
    stored = {t.name: numpy_helper.to_array(t) for t in quantized.model.graph.initializer}
    assert stored["x:scale"] == np.float32(expected.scale)
    weight = numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == "wt"))
    assert np.allclose(stored["wt:scale"], np.abs(weight).max(axis=(0, 2, 3)) / 127, rtol=1e-6)


def test_zeros_stay_zeros_and_their_pattern_is_written_down() -> None:
    model = _residual_net()
    tensor = next(t for t in model.graph.initializer if t.name == "w2")
    weight = numpy_helper.to_array(tensor).copy()
    weight[:, [0, 1, 4, 6]] = 0
    tensor.CopyFrom(numpy_helper.from_array(weight, "w2"))
    quantized = quantize_onnx(model, _images())
    integers = _integers(quantized.model)["w2"]
    assert not integers[:, [0, 1, 4, 6]].any()
    props = {p.key: p.value for p in quantized.model.metadata_props}
    pattern = Pattern.parse(props["openwork.pattern.w2"])
    assert pattern.holds(integers.transpose(2, 3, 0, 1).reshape(9, 8, 8))
    assert pattern.zeros >= 0.5
    helper.set_model_props(model, {"openwork.pattern.w1": "2:4"})
    with pytest.raises(
        ValueError, match="The model says that w1 keeps to 2:4, but it does not: matrix 0, row 0"
    ):
        quantize_onnx(model, _images())


def test_a_weight_with_two_readers_is_stored_once() -> None:
    stored = [_tensor("w", 8, 8)]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "one"),
        helper.make_node("Relu", ["a"], ["r"], "relu"),
        helper.make_node("MatMul", ["r", "w"], ["y"], "two"),
    ]
    graph = helper.make_graph(
        nodes,
        "shared",
        [helper.make_tensor_value_info("x", FLOAT, ["batch", 8])],
        [helper.make_tensor_value_info("y", FLOAT, ["batch", 8])],
        stored,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    data = np.random.default_rng(0).standard_normal((64, 8)).astype(np.float32)
    quantized = quantize_onnx(model, data, QuantizationOptions(style="openwork", migrate=False))
    assert list(_integers(quantized.model)) == ["w"]
    assert _cosine(_run(model, {"x": data}), _run(quantized.model, {"x": data})) > 0.999


def test_the_cache_spares_the_data_and_knows_its_model(tmp_path: Path) -> None:
    cache = tmp_path / "scales.json"
    how = OnnxCalibration(target="tensorrt", cache=cache)
    first = quantize_onnx(_residual_net(), _images(), how=how)
    again = quantize_onnx(_residual_net(), None, how=how)
    assert (first.cached, again.cached) == (False, True)
    assert first.model == again.model
    assert json.loads(cache.read_text())["format"] == "openwork.calibration"
    other = _residual_net()
    other.graph.initializer[0].CopyFrom(_tensor("w1", 8, 4, 3, 3, seed=5))
    with pytest.raises(StaleCache, match="belongs to another model"):
        quantize_onnx(other, None, how=how)
    with pytest.raises(StaleCache, match="was made with observer = 'mse', but 'max' is asked for"):
        quantize_onnx(_residual_net(), None, QuantizationOptions(observer="max"), how)
    document = json.loads(cache.read_text())
    document["version"] = 7
    cache.write_text(json.dumps(document))
    with pytest.raises(ValueError, match="is a calibration cache of version 7, but this is version 1"):
        read_cache(cache)
    cache.write_text(cache.read_text()[:-30])
    with pytest.raises(ValueError, match="cannot be read as a calibration cache"):
        quantize_onnx(_residual_net(), None, how=how)
    document["version"] = 1
    document["tensors"]["x"]["scale"] = -1
    cache.write_text(json.dumps(document))
    with pytest.raises(ValueError, match="is a damaged calibration cache"):
        read_cache(cache)


def test_data_come_from_wherever_they_lie(tmp_path: Path) -> None:
    images = np.concatenate(_images())
    np.savez(tmp_path / "all.npz", x=images)
    folder = tmp_path / "folder"
    folder.mkdir()
    for i in range(0, len(images), 3):
        np.save(folder / f"{i:02}.npy", images[i : i + 3])
    how = OnnxCalibration(target="tensorrt", batch=3)
    results = [
        quantize_onnx(_residual_net(), data, how=how).entries
        for data in (
            _images(),
            images,
            {"x": images},
            tmp_path / "all.npz",
            folder,
            ((i, i) for i in _images()),
        )
    ]
    assert all(result == results[0] for result in results)


def test_data_that_do_not_fit_are_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    net = _residual_net()
    bad = _images()
    bad[1][0, 0, 0, 0] = np.nan
    for data, match in (
        ([], "Calibration needs at least one batch of data, but none came"),
        (None, "Calibration needs data; give batches of the model's inputs"),
        (bad, "The input of x holds 1 values that are NaN or infinite"),
        (
            [np.zeros((1, 3, 8, 8), np.float32)],
            r"Calibration batch 0: the input 'x' takes the shape \[batch, 4, \S+, \S+\], but the data have "
            r"\[1, 3, 8, 8\]; give samples",
        ),
        ([np.zeros((4, 8, 8), np.float32)], r"takes the shape \[batch, 4, .*, but the data have \[4, 8, 8\]"),
        (
            [{"image": _images(1)[0]}],
            "lack the input 'x'; the model's inputs are x, and the data are named image",
        ),
        ([np.zeros((1, 4, 8, 8), np.int64)], "the input 'x' takes .*float.*, but the data are int64"),
        (tmp_path, "holds no .npy or .npz file"),
        (tmp_path / "none.npz", "none.npz, but there is no such file or folder; give the path of a .npy"),
    ):
        with pytest.raises(ValueError, match=match):
            quantize_onnx(net, data)  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING):
        quantize_onnx(net, _images(1))
    assert "The input of x was seen in one batch only; its range may be too narrow" in caplog.text


def _product(*shape: str | int) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "product")],
        "product",
        [helper.make_tensor_value_info("x", FLOAT, shape)],
        [helper.make_tensor_value_info("y", FLOAT, ["batch", 8])],
        [_tensor("w", 16, 8)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_data_of_a_wrong_width_are_refused_where_only_the_input_is_observed() -> None:
    wrong = np.ones((8, 15), np.float32)
    with pytest.raises(
        ValueError, match=r"input 'x' takes the shape \[batch, 16\], but the data have \[8, 15\]"
    ):
        quantize_onnx(_product("batch", 16), wrong)
    with pytest.raises(ValueError, match="Calibration batch 0 cannot be run: "):
        quantize_onnx(_product("batch", "width"), wrong)
    with pytest.raises(ValueError, match=r"takes the shape \[4, 16\], but the data have \[3, 16\]"):
        quantize_onnx(_product(4, 16), [np.ones((3, 16), np.float32)])


def test_data_of_one_sign_are_quantized_in_every_style() -> None:
    rows = np.random.default_rng(0).uniform(2, 2.2, (32, 16)).astype(np.float32)
    for sign in (1, -1):
        for style in ("tensorrt", "onnxruntime", "openwork"):
            made = quantize_onnx(_product("batch", 16), sign * rows, QuantizationOptions(style=style))
            exact, found = (
                _run(_product("batch", 16), {"x": sign * rows}),
                _run(made.model, {"x": sign * rows}),
            )
            assert _cosine(exact, found) > 0.999
            if style == "openwork":
                assert made.entries["x"].zero_point == (0 if sign == 1 else 255)


def test_a_file_that_holds_no_arrays_is_told_what_it_is(tmp_path: Path) -> None:
    text, cut, objects = (tmp_path / name for name in ("text.npz", "cut.npz", "objects.npz"))
    text.write_text("1, 2, 3")
    np.savez(cut, x=np.ones(99))
    cut.write_bytes(cut.read_bytes()[:-40])
    np.savez(objects, x=np.array([{}], object))
    for path, match in (
        (text, "it is neither a .npy nor a .npz file, whatever its name says. Write numbers with numpy.save"),
        (cut, "File is not a zip file. Write numbers"),
        (objects, "Object arrays cannot be loaded"),
    ):
        with pytest.raises(ValueError, match=f"{path.name} holds no arrays that NumPy can read: {match}"):
            quantize_onnx(_product("batch", 16), path)


def test_models_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    twice = quantize_onnx(_residual_net(), _images())
    with pytest.raises(ModelError, match="has QuantizeLinear or DequantizeLinear nodes already"):
        quantize_onnx(twice.model, _images())
    with pytest.raises(
        ValueError, match="The glob 'nothing' names nothing to quantize; there is: first, second"
    ):
        quantize_onnx(_residual_net(), _images(), QuantizationOptions(exclude=("nothing",)))
    with pytest.raises(
        ValueError, match=r"Nothing is left to quantize in this model\. first: excluded by '\*'"
    ):
        quantize_onnx(_residual_net(), _images(), QuantizationOptions(exclude=("*",)))
    nan = _residual_net()
    weight = numpy_helper.to_array(nan.graph.initializer[0]).copy()
    weight[2, 0, 0, 0] = np.nan
    nan.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w1"))
    with pytest.raises(ValueError, match="NaN"):
        quantize_onnx(nan, _images())
    with pytest.raises(ModelError, match="is not a file"):
        quantize_onnx(tmp_path / "none.onnx", _images())


def test_layers_by_name_are_left_in_float() -> None:
    options = QuantizationOptions(
        exclude=("up",), overrides={"last": None, "first": QuantizationOptions(observer="max")}
    )
    quantized = quantize_onnx(_residual_net(), _images(), options)
    rows = {choice.name: choice.reason for choice in quantized.choices}
    assert rows["up"] == "excluded by 'up'"
    assert rows["last"] == "left in float by the override 'last'"
    assert set(_integers(quantized.model)) == {"w1", "w2"}
    values = np.concatenate(_images())
    assert quantized.entries["x"].affine == choose_affine(float(values.min()), float(values.max()), "s8")


def test_a_channel_of_zeros_is_fine() -> None:
    model = _residual_net()
    weight = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight[3] = 0
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w1"))
    quantized = quantize_onnx(model, _images())
    assert not _integers(quantized.model)["w1"][3].any()
    assert np.isfinite(_run(quantized.model, {"x": _images(1)[0]})).all()


def test_a_model_of_a_fixed_batch_gets_batches_of_that_size() -> None:
    model = _residual_net()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    quantized = quantize_onnx(model, np.concatenate(_images()))
    assert quantized.entries["x"].values == 12 * 4 * 8 * 8
    with pytest.raises(ValueError, match="The model takes 4 samples at once, but the data hold 3"):
        quantize_onnx(model, _images()[0])


def test_the_command_writes_a_model_and_says_how_to_go_on(tmp_path: Path) -> None:
    onnx.save(_residual_net(), tmp_path / "net.onnx")
    np.savez(tmp_path / "data.npz", x=np.concatenate(_images()))
    output, record = tmp_path / "net.qdq.onnx", tmp_path / "record.json"
    arguments = [
        "quantize",
        str(tmp_path / "net.onnx"),
        "-o",
        str(output),
        "--cache",
        str(tmp_path / "scales.json"),
    ]
    data, target = ["--data", str(tmp_path / "data.npz")], ["--target", "tensorrt"]
    result = CliRunner().invoke(app, [*arguments, *data, *target, "--json", str(record)])
    assert result.exit_code == 0, result.output
    assert "5 of 5 layers are INT8." in result.output
    assert "1 normalizations were folded into the convolutions before them." in result.output
    assert f"trtexec --onnx={output}" in result.output
    assert {row["name"] for row in json.loads(record.read_text())["layers"]} == {
        "first", "second", "residual", "up", "last",
    }  # fmt: skip
    x = _images(1, seed=9)[0]
    assert _cosine(_run(_residual_net(), {"x": x}), _run(onnx.load(output), {"x": x})) > 0.995
    again = CliRunner().invoke(app, [*arguments, *target])
    assert "no data were run" in again.output
    refused = CliRunner().invoke(app, [*arguments, *data])
    assert refused.exit_code == 2
    assert "was made with style = 'tensorrt', but 'openwork' is asked for" in " ".join(refused.output.split())
    unknown = CliRunner().invoke(app, [*arguments, *data, "--target", "gpu"])
    assert unknown.exit_code == 2
    assert "A target is 'tensorrt' or 'onnxruntime', but it is 'gpu'" in " ".join(unknown.output.split())


def test_a_model_with_external_data_is_quantized_into_one_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weight = numpy_helper.from_array(rng.standard_normal((64, 64)).astype(np.float32), "w")
    text = '<ir_version: 9, opset_import: ["": 18]> g (float[n,64] x) => (float[n,64] y) { y = MatMul(x, w) }'
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(weight)
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    onnx.save(model, source / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    x = rng.standard_normal((8, 64)).astype(np.float32)
    quantize_onnx(source / "m.onnx", [{"x": x}]).write(target / "q.onnx")
    (source / "m.data").unlink()
    (made,) = onnxruntime.InferenceSession(str(target / "q.onnx")).run(None, {"x": x})
    right = x @ numpy_helper.to_array(weight)
    assert np.abs(made - right).max() < 0.05 * np.abs(right).max()

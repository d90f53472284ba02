"""ONNX files as they come: old opsets and IR versions, names of any kind, tensors outside of the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from openwork.graph import model_files
from openwork.graph.model import ModelError
from openwork.quantization import QuantizationOptions
from openwork.quantization.float_onnx import OnnxCalibration, quantize_onnx
from openwork.quantization.scales.cache import StaleCache

Array = np.ndarray[Any, Any]
STYLES = ("tensorrt", "onnxruntime", "openwork")


def _same(name: str) -> str:
    return name


def _stored(opset: int) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {
        "w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 8, 3, 3), "wf": (8, 5), "cf": (5,), "beta": (8,),
        "mean": (8,),
    }  # fmt: skip
    made = {name: (rng.standard_normal(shape) * 0.3).astype(np.float32) for name, shape in shapes.items()}
    made |= {"gamma": np.ones(8, np.float32), "variance": np.ones(8, np.float32)}
    if opset >= 11:
        made |= {"low": np.array(0, np.float32), "high": np.array(6, np.float32)}
    return made | ({"axes": np.array([0], np.int64)} if opset >= 13 else {})


def net(
    opset: int = 18,
    ir_version: int = 9,
    inputs: bool = False,
    names: Callable[[str], str] = _same,
    titles: Callable[[str], str] = _same,
) -> onnx.ModelProto:
    """Convolutions, BatchNorm, a residual addition, Clip, Unsqueeze and Softmax, as that opset writes them.

    inputs: the initializers are inputs, too. names, titles: of tensors and nodes.
    """

    def node(op: str, reads: list[str], gives: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(op, [names(x) for x in reads], [names(gives)], titles(gives), **attributes)

    old = {"axes": [0]} if opset < 13 else {}
    axes = ["axes"] if opset >= 13 else []
    clip = {"min": 0.0, "max": 6.0} if opset < 11 else {}
    nodes = [
        node("Conv", ["x", "w1", "b1"], "a", pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["a", "gamma", "beta", "mean", "variance"], "n"),
        node("Relu", ["n"], "r"),
        node("Conv", ["r", "w2"], "s", pads=[1, 1, 1, 1]),
        node("Add", ["s", "r"], "t"),
        node("Clip", ["t", *(["low", "high"] if opset >= 11 else [])], "u", **clip),
        node("GlobalAveragePool", ["u"], "p"),
        node("Flatten", ["p"], "f"),
        node("Unsqueeze", ["f", *axes], "o", **old),
        node("Squeeze", ["o", *axes], "q", **old),
        node("Gemm", ["q", "wf", "cf"], "g"),
        node("Softmax", ["g"], "y", axis=1),
    ]
    stored = _stored(opset)
    value, types = helper.make_tensor_value_info, {"f": TensorProto.FLOAT, "i": TensorProto.INT64}
    given = [value(names("x"), TensorProto.FLOAT, ["batch", 3, 8, 8])]
    if inputs:
        given += [value(names(name), types[array.dtype.kind], array.shape) for name, array in stored.items()]
    graph = helper.make_graph(
        nodes,
        "net",
        given,
        [value(names("y"), TensorProto.FLOAT, ["batch", 5])],
        [numpy_helper.from_array(array, names(name)) for name, array in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def images(name: str = "x") -> dict[str, Array]:
    return {name: np.random.default_rng(1).standard_normal((4, 3, 8, 8)).astype(np.float32)}


def run(model: onnx.ModelProto | Path, feed: dict[str, Array]) -> Array:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, options, ["CPUExecutionProvider"])
    return np.asarray(session.run(None, feed)[0])


def agree(found: Array, right: Array) -> None:
    """Probabilities of five classes, by INT8 in three layers."""
    assert found.shape == right.shape
    assert np.abs(found - right).max() < 0.02


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("opset", [7, 8, 9, 10, 11, 12, 13, 17, 18])
def test_old_opsets_with_initializers_as_inputs_are_converted(opset: int, style: Any) -> None:
    model = net(opset, ir_version=3, inputs=True)
    made = quantize_onnx(model, images(), QuantizationOptions(style=style))
    assert {"INT8"} <= {"INT8" if choice.quantized else choice.reason for choice in made.choices}
    assert sum(choice.quantized for choice in made.choices) >= 3
    assert [value.name for value in made.model.graph.input] == ["x"]
    agree(run(made.model, images()), run(model, images()))


def test_what_cannot_be_converted_is_refused_in_a_sentence() -> None:
    model = net(12)
    model.graph.node.append(helper.make_node("Unknown", ["y"], ["z"]))
    model.graph.output[0].name = "z"
    with pytest.raises(ModelError):
        quantize_onnx(model, images())
    upsample = helper.make_model(
        helper.make_graph(
            [helper.make_node("Upsample", ["x"], ["y"], scales=[1.0, 1.0, 2.0, 2.0])],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 16, 16])],
        ),
        opset_imports=[helper.make_opsetid("", 8)],
        ir_version=3,
    )
    with pytest.raises(
        (ModelError, ValueError),
        match=r"cannot be converted to opset 18 \(.+\); export it again|Nothing is left",
    ):
        quantize_onnx(upsample, images())


@pytest.mark.parametrize(
    "form", ["{}:scale", "a b {}", "ü{}λ", "/x/{}.y:0", "{}\n", "{}\"'", "{}/QuantizeLinear", "*[{}]"]
)
def test_tensors_and_nodes_have_any_names(form: str) -> None:
    model = net(names=form.format, titles=form.format)
    feed = images(form.format("x"))
    for style in STYLES:
        made = quantize_onnx(model, feed, QuantizationOptions(style=style))
        agree(run(made.model, feed), run(model, feed))


@pytest.mark.parametrize("style", STYLES)
def test_names_that_quantizers_would_take_are_left_to_whom_they_belong(style: Any) -> None:
    taken = {
        "r": "x:scale", "s": "x/QuantizeLinear:0", "w2": "x:zero_point", "a": "w1:scale",
        "t": "w1/DequantizeLinear:0", "g": "q/DequantizeLinear", "n": "b1:bias_integers",
    }  # fmt: skip
    model = net(names=lambda name: taken.get(name, name), titles=lambda name: f"x/QuantizeLinear_{name}")
    for target in (None, style) if style != "openwork" else (None, "onnxruntime"):
        made = quantize_onnx(
            model, images(), QuantizationOptions(style=style), OnnxCalibration(target=target)
        )
        agree(run(made.model, images()), run(model, images()))
        outputs = [name for node in made.model.graph.node for name in node.output]
        assert len(outputs) == len(set(outputs))


@pytest.mark.parametrize("title", ["same", ""])
def test_nodes_of_one_name_or_none_get_names_of_their_own(title: str) -> None:
    right = run(net(), images())
    made = quantize_onnx(net(titles=lambda _: title), images())
    agree(run(made.model, images()), right)
    names = [node.name for node in made.model.graph.node]
    assert len(set(names)) == len(names)
    assert len({choice.name for choice in made.choices}) == len(made.choices)
    first = made.choices[0].name
    left = quantize_onnx(net(titles=lambda _: title), images(), QuantizationOptions(exclude=(first,)))
    assert [choice.name for choice in left.choices if not choice.quantized] == [first]


@pytest.mark.parametrize("opset", [10, 12, 18])
def test_external_data_come_in_and_go_out_where_they_are_large(
    opset: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    onnx.save(net(opset), source / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    made = quantize_onnx(source / "m.onnx", images())
    small = made.write(target / "small.onnx")
    monkeypatch.setattr(model_files, "LARGEST_MESSAGE", 100)
    monkeypatch.setattr(model_files, "LARGE", 64)
    large = made.write(target / "large.onnx")
    (source / "m.data").unlink()
    assert sorted(file.name for file in target.iterdir()) == ["large.onnx", "large.onnx.data", "small.onnx"]
    assert large.stat().st_size < small.stat().st_size
    right = run(net(opset), images())
    agree(run(small, images()), right)
    assert np.array_equal(run(large, images()), run(small, images()))
    outside = [t for t in onnx.load(large, load_external_data=False).graph.initializer if t.external_data]
    offsets = [int(entry.value) for t in outside for entry in t.external_data if entry.key == "offset"]
    assert offsets
    assert all(offset % model_files.ALIGNMENT == 0 for offset in offsets)
    # What was written is read again, as any model with external data.
    with pytest.raises(ModelError, match="has QuantizeLinear or DequantizeLinear nodes already"):
        quantize_onnx(large, images())


def test_a_cache_fits_a_model_with_external_data_until_these_change(tmp_path: Path) -> None:
    path, cache = tmp_path / "m.onnx", OnnxCalibration(cache=tmp_path / "cache.json")
    onnx.save(net(), path, save_as_external_data=True, location="m.data", size_threshold=0)
    first = quantize_onnx(path, images(), how=cache)
    second = quantize_onnx(path, None, how=cache)
    assert second.cached
    assert np.array_equal(run(first.model, images()), run(second.model, images()))
    # One number of the second convolution, which is held apart from the graph.
    data = bytearray((tmp_path / "m.data").read_bytes())
    weight = _stored(18)["w2"].tobytes()
    at = bytes(data).index(weight) + 100
    data[at : at + 4] = np.float32(0.125).tobytes()
    (tmp_path / "changed").mkdir()
    (tmp_path / "changed" / "m.onnx").write_bytes(path.read_bytes())
    (tmp_path / "changed" / "m.data").write_bytes(bytes(data))
    with pytest.raises(StaleCache, match="belongs to another model"):
        quantize_onnx(tmp_path / "changed" / "m.onnx", None, how=cache)

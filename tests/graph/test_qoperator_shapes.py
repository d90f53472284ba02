"""Shapes in files of operators on integers: what onnx does not infer of another domain's follows from what
each of them means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnxruntime import quantization as ort_quantization

from graph_models import Builder, runtime
from image_models import agrees, away_from_ties, built
from openwork.graph import lowerable, read, reduce
from openwork.graph.model import dims

MICROSOFT = "com.microsoft"
CHANNELS, SIZE = 24, 16


@pytest.mark.parametrize("opset", [13, 17, 18, 20])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_a_mean_whose_axes_are_an_attribute(opset: int, keepdims: int, tmp_path: Path) -> None:
    """From opset 18 on those of ReduceMean are an input."""
    spellings = []
    for integers in (True, False):
        b = Builder(np.random.default_rng(3), opset, domains=(MICROSOFT,))
        pair, out = b.quantizer(0.05, 117), b.quantizer(0.0107, 128)
        q = b.add("QuantizeLinear", b.input("x", ["n", 8, 6, 5]), *pair)
        if integers:
            given = [q, *pair, *out]
            values = {"axes": [2, 3], "keepdims": keepdims}
            b.nodes.append(
                helper.make_node("QLinearReduceMean", given, ["y"], "mean", domain=MICROSOFT, **values)
            )
            model = b.model(y="y")
            sizes = ["n", 8, 1, 1] if keepdims else ["n", 8]
            model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.UINT8, sizes))
        else:
            # The twin of the newest opset serves all.
            b.opset = 20
            floats = b.add("DequantizeLinear", q, *pair)
            made = b.add("ReduceMean", floats, b.integers(2, 3), keepdims=keepdims)
            model = b.model(y=b.add("QuantizeLinear", made, *out))
        spellings.append(model)
    feeds = {"x": away_from_ties(np.random.default_rng(4), (2, 8, 6, 5))}
    # ONNX Runtime has no kernel for it on this kind of machine; of its twin it has.
    expected = agrees(spellings[1], feeds, tmp_path)
    found = built(spellings[0], feeds, tmp_path)
    assert "global_average_pool" in found.steps
    np.testing.assert_array_equal(found.outputs["y"], expected.outputs["y"])


@pytest.mark.parametrize("opset", [17, 20])
def test_the_shape_of_such_a_mean_is_inferred(opset: int) -> None:
    b = Builder(np.random.default_rng(3), opset, domains=(MICROSOFT,))
    q = b.add("QuantizeLinear", b.input("x", ["n", 8, 6, 5]), *b.quantizer(0.05, 117))
    given = [q, *b.quantizer(0.05, 117), *b.quantizer(0.0107, 128)]
    b.nodes.append(
        helper.make_node("QLinearReduceMean", given, ["m"], "mean", domain=MICROSOFT, axes=[3], keepdims=0)
    )
    model = b.model(y=b.add("DequantizeLinear", "m", *b.quantizer(0.0107, 128)))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["a", "b", "c"]))
    found = {value.name: dims(value) for node in read(model).graph for value in node.outputs}
    assert found["m"] == ("n", 8, 6)


@pytest.mark.parametrize(("opset", "native"), [(12, False), (13, True)])
def test_a_softmax_over_several_axes_stays(opset: int, native: bool) -> None:
    """What the attribute says of the file that the operator comes from."""
    b = Builder(np.random.default_rng(3), 20, domains=(MICROSOFT,))
    pair, out = b.quantizer(0.05, 117), b.quantizer(1 / 255, 0)
    given = [b.add("QuantizeLinear", b.input("x", ["n", 3, 4]), *pair), *pair, *out]
    values = {"axis": 1, "opset": opset}
    b.nodes.append(helper.make_node("QLinearSoftmax", given, ["y"], "soft", domain=MICROSOFT, **values))
    model = b.model(y="y")
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.UINT8, ["n", 3, 4]))
    left = [why for _, why in lowerable(reduce(read(model))[0])]
    assert any("a softmax over several axes together" in why for why in left) == (not native)


class Network:
    """A small ShuffleNet or ShuffleNetV2 of floats."""

    def __init__(self, splits: bool, looked_up: bool) -> None:
        self.b, self.looked_up = Builder(np.random.default_rng(0), 18), looked_up
        x = self.b.input("x", ["n", 3, SIZE, SIZE])
        y = self.b.add("Relu", self.conv(x, 3, CHANNELS, kernel=3, stride=2))
        y = self.b.add("MaxPool", y, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
        for _ in range(2):
            y = self.split(y) if splits else self.grouped(y)
        y = self.b.add("ReduceMean", y, self.b.integers(2, 3), keepdims=0)
        weight = self.b.normal(10, CHANNELS, scale=0.2)
        self.model = self.b.model(y=self.b.add("Gemm", y, weight, self.b.normal(10), transB=1))

    def conv(
        self, x: str, inputs: int, outputs: int, *, kernel: int = 1, groups: int = 1, stride: int = 1
    ) -> str:
        weight = self.b.normal(outputs, inputs // groups, kernel, kernel, scale=0.3)
        pads, strides = [kernel // 2] * 4, [stride, stride]
        return self.b.add("Conv", x, weight, self.b.normal(outputs), group=groups, strides=strides, pads=pads)

    def shuffled(self, x: str) -> str:
        b, pixels = self.b, (SIZE // 4, SIZE // 4)
        if self.looked_up:
            shape = b.add("Shape", x)
            parts = [b.add("Slice", shape, b.integers(i), b.integers(i + 1), b.integers(0)) for i in range(4)]
            each = b.add("Div", parts[1], b.integers(2))
            split = b.add("Concat", parts[0], b.integers(2), each, *parts[2:], axis=0)
            joined = b.add("Concat", parts[0], b.integers(-1), *parts[2:], axis=0)
        else:
            split = b.integers(-1, 2, CHANNELS // 2, *pixels)
            joined = b.integers(-1, CHANNELS, *pixels)
        turned = b.add("Transpose", b.add("Reshape", x, split), perm=[0, 2, 1, 3, 4])
        return b.add("Reshape", turned, joined)

    def grouped(self, x: str) -> str:
        y = self.shuffled(self.b.add("Relu", self.conv(x, CHANNELS, CHANNELS, groups=3)))
        y = self.conv(y, CHANNELS, CHANNELS, kernel=3, groups=CHANNELS)
        return self.b.add("Relu", self.b.add("Add", self.conv(y, CHANNELS, CHANNELS, groups=3), x))

    def split(self, x: str) -> str:
        half = CHANNELS // 2
        self.b.add("Split", x, self.b.integers(half, half), axis=1)
        first, second = (f"half{len(self.b.nodes)}.{i}" for i in range(2))
        self.b.nodes[-1].output[:] = [first, second]
        y = self.conv(self.b.add("Relu", self.conv(second, half, half)), half, half, kernel=3, groups=half)
        y = self.b.add("Relu", self.conv(y, half, half))
        return self.shuffled(self.b.add("Concat", first, y, axis=1))


class Images(ort_quantization.CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        shape = (1, 3, SIZE, SIZE)
        self.images = iter([{"x": rng.standard_normal(shape).astype(np.float32)} for _ in range(4)])

    def get_next(self) -> Any:
        return next(self.images, None)


def quantized(model: onnx.ModelProto, format_name: str, folder: Path) -> onnx.ModelProto:
    source, path = folder / "float.onnx", folder / "quantized.onnx"
    onnx.save(model, source)
    form = getattr(ort_quantization.QuantFormat, format_name)
    ort_quantization.quantize_static(str(source), str(path), Images(), quant_format=form, per_channel=True)
    return onnx.load(path)


def unstated(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without what a tool has written down of the shapes inside."""
    del model.graph.value_info[:]
    return model


@pytest.mark.parametrize("format_name", ["QOperator", "QDQ"])
@pytest.mark.parametrize("looked_up", [False, True])
@pytest.mark.parametrize("splits", [False, True])
def test_networks_that_shuffle(splits: bool, looked_up: bool, format_name: str, tmp_path: Path) -> None:
    model = unstated(quantized(Network(splits, looked_up).model, format_name, tmp_path))
    feeds = {"x": np.random.default_rng(2).standard_normal((2, 3, SIZE, SIZE)).astype(np.float32)}
    assert lowerable(reduce(read(model))[0]) == []
    found, expected = built(model, feeds, tmp_path), runtime(model, feeds)["y"]
    # What lies at a tie moves the sums a little: one step of the last quantizer, or two.
    step = np.abs(np.diff(np.unique(expected))).min()
    assert np.abs(found.outputs["y"] - expected).max() <= 2.01 * step
    assert np.array_equal(found.outputs["y"].argmax(-1), expected.argmax(-1))

"""Native convolutions against torch and ONNX Runtime: whole numbers, so every witness gives the same bits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from native_steps import add_step
from openwork import _native as native

Array = NDArray[Any]
ISAS = native.isas()
# Powers of two, so that scaling is exact and only the last rounding is left.
SCALE, Y_SCALE, Y_ZERO_POINT = 2.0**-9, 2.0**-3, 121


@dataclass(frozen=True)
class Layer:
    """A convolution in ONNX's words."""

    name: str
    n: int
    channels: int
    size: tuple[int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    groups: int = 1
    batch: int = 1

    @property
    def grid(self) -> dict[str, Any]:
        """What native.conv takes beside the tensors."""
        return {"strides": self.strides, "dilations": self.dilations, "pads": self.pads}

    @property
    def step(self) -> dict[str, Any]:
        """The attributes of a step."""
        return {"kernel": self.kernel, "groups": self.groups, **self.grid}


LAYERS = [
    Layer("first", 64, 3, (30, 31), (7, 7), (2, 2), pads=(3, 3, 3, 3), batch=2),
    Layer("three by three", 40, 64, (9, 10), (3, 3), pads=(1, 1, 1, 1)),
    Layer("asymmetric", 17, 24, (8, 9), (3, 5), (1, 2), pads=(0, 3, 2, 1)),
    Layer("stride 3", 16, 13, (11, 10), (2, 3), (3, 3), pads=(1, 0, 0, 1)),
    Layer("dilated", 32, 20, (12, 12), (3, 3), dilations=(2, 3), pads=(2, 3, 2, 3)),
    Layer("pointwise", 48, 50, (5, 6), (1, 1), batch=2),
    Layer("pointwise stride 2", 48, 32, (7, 7), (1, 1), (2, 2)),
    Layer("more padding than kernel", 8, 4, (3, 3), (3, 3), pads=(4, 4, 4, 4)),
    Layer("one pixel", 12, 7, (1, 1), (3, 3), pads=(1, 1, 1, 1), batch=2),
    Layer("one axis", 24, 10, (1, 50), (1, 9), pads=(0, 4, 0, 4)),
    Layer("groups of few channels", 64, 64, (8, 8), (3, 3), pads=(1, 1, 1, 1), groups=8),
    Layer("groups of many channels", 128, 64, (6, 6), (3, 3), pads=(1, 1, 1, 1), groups=2),
    Layer("depthwise", 72, 72, (9, 11), (3, 3), pads=(1, 1, 1, 1), groups=72, batch=2),
    Layer("depthwise stride 2", 40, 40, (12, 9), (5, 5), (2, 2), pads=(2, 1, 2, 2), groups=40),
]
by_name = pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)


def draw(layer: Layer, seed: int) -> tuple[Array, Array]:
    """x u8 [B, H, W, C] and a weight s8 [N, KH, KW, C / groups]."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (layer.batch, *layer.size, layer.channels), np.uint8)
    weight = rng.integers(-127, 128, (layer.n, *layer.kernel, layer.channels // layer.groups), np.int8)
    return x, weight


def packings(layer: Layer, weight: Array, isa: str) -> list[Any]:
    """The weight in one dense and one shuffled form, and depthwise, as far as they hold it."""
    forms = [form.name for form in native.forms(isa)]
    shuffled = "window64" if "window64" in forms else "window16"
    # No kernel makes more than 32 output channels at once in the dense form, which takes whole groups only.
    whole = layer.groups == 1 or (layer.n // layer.groups) % 32 == 0
    packed = []
    alone = layer.groups == layer.channels == layer.n
    for form in (["dense"] if whole else []) + [shuffled] + (["depthwise"] if alone else []):
        run = native.conv_run(weight.shape, layer.groups, layer.dilations, form)
        packed.append(native.PackedWeights.pack(weight, form, isa, layer.groups, run))
    return packed


def torch_sums(layer: Layer, x: Array, weight: Array, zero_point: int) -> Array:
    """The exact sums f64 [B, OH, OW, N]; the padding holds the zero point, so it adds nothing."""
    centred = torch.from_numpy(x.astype(np.float64) - zero_point).permute(0, 3, 1, 2)
    top, left, bottom, right = layer.pads
    y = torch.nn.functional.conv2d(
        torch.nn.functional.pad(centred, (left, right, top, bottom)),
        torch.from_numpy(weight.astype(np.float64)).permute(0, 3, 1, 2),
        stride=layer.strides,
        dilation=layer.dilations,
        groups=layer.groups,
    )
    return np.asarray(y.permute(0, 2, 3, 1))


def run_onnx(layer: Layer, op: str, inputs: list[Array], output: int) -> Array:
    """One ONNX node on NHWC arrays: all but the first are constants."""
    attributes = {
        "strides": layer.strides,
        "dilations": layer.dilations,
        "pads": layer.pads,
        "group": layer.groups,
        "kernel_shape": layer.kernel,
    }
    names = [f"i{i}" for i in range(len(inputs))]
    graph = helper.make_graph(
        [helper.make_node(op, names, ["y"], **attributes)],
        "one",
        [helper.make_tensor_value_info("i0", TensorProto.UINT8, [None] * 4)],
        [helper.make_tensor_value_info("y", output, [None] * 4)],
        [numpy_helper.from_array(a, n) for a, n in zip(inputs[1:], names[1:], strict=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    (y,) = session.run(None, {"i0": inputs[0]})
    return np.asarray(np.transpose(y, (0, 2, 3, 1)))


def nchw(array: Array) -> Array:
    return np.ascontiguousarray(np.transpose(array, (0, 3, 1, 2)))


@pytest.mark.parametrize("isa", ISAS)
@by_name
def test_sums_are_those_of_torch(layer: Layer, isa: str) -> None:
    x, weight = draw(layer, 1)
    ones = np.ones(layer.n, np.float32)
    for zero_point in (0, 113, 255):
        expected = torch_sums(layer, x, weight, zero_point).astype(np.float32)
        for packed in packings(layer, weight, isa):
            for threads in (1, 2):
                found = native.conv(x, packed, ones, x_zero_point=zero_point, threads=threads, **layer.grid)
                assert np.array_equal(found, expected), (packed.form, zero_point, threads)


@by_name
def test_sums_are_those_of_onnx_runtime(layer: Layer) -> None:
    x, weight = draw(layer, 2)
    zero_point = np.uint8(99)
    expected = run_onnx(layer, "ConvInteger", [nchw(x), nchw(weight), zero_point], TensorProto.INT32)
    for packed in packings(layer, weight, native.active_isa()):
        found = native.conv(x, packed, np.ones(layer.n, np.float32), x_zero_point=99, **layer.grid)
        assert np.array_equal(found, expected.astype(np.float32)), packed.form


@by_name
def test_quantized_outputs_are_those_of_onnx_runtime(layer: Layer) -> None:
    x, weight = draw(layer, 3)
    bias = np.random.default_rng(4).integers(-3000, 3000, layer.n, np.int32)
    zero, symmetric = np.uint8(99), np.int8(0)
    inputs = [nchw(x), np.float32(SCALE), zero, nchw(weight), np.float32(1), symmetric]
    inputs += [np.float32(Y_SCALE), np.uint8(Y_ZERO_POINT), bias]
    expected = run_onnx(layer, "QLinearConv", inputs, TensorProto.UINT8)
    scale = np.full(layer.n, SCALE, np.float32)
    for packed in packings(layer, weight, native.active_isa()):
        found = native.conv(
            x,
            packed,
            scale,
            bias=bias.astype(np.float32) * np.float32(SCALE),
            x_zero_point=99,
            y_scale=Y_SCALE,
            y_zero_point=Y_ZERO_POINT,
            **layer.grid,
        )
        assert np.array_equal(found, expected), packed.form


@pytest.mark.parametrize("isa", ISAS)
def test_residual_and_activation_follow_the_sums(isa: str) -> None:
    layer = LAYERS[1]
    x, weight = draw(layer, 5)
    sums = torch_sums(layer, x, weight, 0)
    residual = np.random.default_rng(6).standard_normal(sums.shape).astype(np.float32)
    expected = np.maximum(sums * SCALE, 0).astype(np.float32) + residual
    for packed in packings(layer, weight, isa):
        scale = np.full(layer.n, SCALE, np.float32)
        found = native.conv(x, packed, scale, activation="relu", residual=residual, **layer.grid)
        assert np.array_equal(found, expected)


def stored(array: NDArray[np.float32], dtype: type) -> Array:
    """BF16 as the upper halves of binary32, or binary32 as it is."""
    return np.ascontiguousarray(array.view(np.uint16)[..., 1::2]) if dtype == np.uint16 else array


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_float_convolutions_of_whole_numbers_are_exact(isa: str, dtype: type) -> None:
    layer = replace(LAYERS[0], batch=1)
    rng = np.random.default_rng(7)
    x = rng.integers(-8, 9, (1, *layer.size, 3)).astype(np.float32)
    weight = rng.integers(-8, 9, (layer.n, *layer.kernel, 3)).astype(np.float32)
    packed = native.PackedWeights.pack(stored(weight, dtype), "dense", isa, 1, "patch")
    found = native.conv(stored(x, dtype), packed, np.ones(layer.n, np.float32), **layer.grid)
    assert np.array_equal(found, torch_sums(layer, x, weight, 0).astype(np.float32))


def test_times_are_of_every_weight_and_repeat() -> None:
    layer = LAYERS[1]
    packed = packings(layer, draw(layer, 8)[1], native.active_isa())
    seconds = native.time_conv(packed, (1, *layer.size), repeats=3, pads=layer.pads)
    assert seconds.shape == (len(packed), 3)
    assert (seconds > 0).all()


def test_what_does_not_fit_is_refused() -> None:
    layer = LAYERS[1]
    x, weight = draw(layer, 9)
    (packed, *_) = packings(layer, weight, native.active_isa())
    ones = np.ones(layer.n, np.float32)
    cases: dict[str, dict[str, Any]] = {
        r"conv\(\): expected x of shape \[1, 9, 10, 64\], found \[1, 9, 10, 63\]\.": {"x": x[..., 1:].copy()},
        r"Expected x of uint8 for weights of i8, of uint16": {"x": x.astype(np.float32)},
        r"conv\(\): expected scale of shape \[40\], found \[39\]\.": {"scale": ones[1:]},
        r"conv\(\): expected residual of shape \[1, 7, 8, 40\], found \[1, 7, 8, 41\]\.": {
            "residual": np.zeros((1, 7, 8, 41), np.float32)
        },
        r"Expected the convolution's stride along the width from 1 to 2\^30, found 0\.": {"strides": (1, 0)},
        r"Expected the convolution's padding at the begin of the height from 0": {"pads": (-1, 0, 0, 0)},
        r"reaches over 21 pixels of a padded height of 9": {"dilations": (10, 1)},
        r"conv\(\): expected x_zero_point from 0 to 255, found 256\.": {"x_zero_point": 256},
        r"conv\(\): expected y_scale to be a positive finite number, found 0": {"y_scale": 0.0},
        r"conv\(\): expected 4 integers as the attribute pads, found 2\.": {"pads": (1, 1)},
        r"conv\(\): expected no attribute padding, because nothing here reads it": {"padding": (1, 1)},
    }
    for sentence, changed in cases.items():
        with pytest.raises(ValueError, match=sentence):
            native.conv(**({"x": x, "weights": packed, "scale": ones} | changed))


def two_layers(isa: str) -> tuple[Any, list[Any]]:
    """Images [B, 30, 31, 3] through a first layer and, with its input added, a 3x3 layer; the weights."""
    first, second = LAYERS[0], Layer("second", 64, 64, (15, 16), (3, 3), pads=(1, 1, 1, 1))
    weights = [packings(layer, draw(layer, 10)[1], isa)[0] for layer in (first, second)]
    scale, bias = np.full(64, 2.0**-12, np.float32), np.linspace(-1, 1, 64, dtype=np.float32)
    program = native.Program(isa)
    x, hidden = program.value("u8", [-1, 30, 31, 3]), program.value("u8", [-1, 15, 16, 64])
    y = program.value("f32", [-1, 15, 16, 64])
    tensors = {"weight_scale": scale, "bias": bias}
    ending = {"x_scale": 1.0, "x_zero_point": 9, "activation": "relu", "y_scale": 0.05, "y_zero_point": 0}
    add_step(program, "conv", "first", x=x, y=hidden, weights=weights[0], **tensors, **first.step, **ending)
    ending = {"x_scale": 1.0, "x_zero_point": 0, "activation": "none"}
    ending |= {"residual_scale": 0.05, "residual_zero_point": 0}
    tactics = [(weights[1], 300), (weights[1], -1)]
    read = {"x": hidden, "residual": hidden, "weights": tactics}
    add_step(program, "conv", "second", y=y, **read, **tensors, **second.step, **ending)
    program.finish([x], [y])
    return program, weights


@pytest.mark.parametrize("isa", ISAS)
def test_convolutions_run_in_a_program(isa: str) -> None:
    program, (first, second) = two_layers(isa)
    scale, bias = np.full(64, 2.0**-12, np.float32), np.linspace(-1, 1, 64, dtype=np.float32)
    for batch in (1, 2, 5):
        x = np.random.default_rng(batch).integers(0, 256, (batch, 30, 31, 3), np.uint8)
        grids = LAYERS[0].grid, {"pads": (1, 1, 1, 1)}
        ending = {"bias": bias, "x_zero_point": 9, "activation": "relu", "y_scale": 0.05}
        hidden = native.conv(x, first, scale, **grids[0], **ending)
        sums = native.conv(hidden, second, scale, bias=bias, **grids[1])
        expected = (hidden.astype(np.float64) * np.float64(np.float32(0.05)) + sums).astype(np.float32)
        for threads in (1, 2, 3):
            (found,) = native.Context(program, threads).run([x])
            # One rounding of the exact sum in the one, of a sum in binary64 in the other.
            assert np.array_equal(found, expected)


@pytest.mark.parametrize("isa", ISAS)
def test_height_and_width_may_be_free(isa: str) -> None:
    program = native.Program(isa)
    layer = Layer("strided", 40, 64, (9, 10), (3, 3), strides=(2, 2), pads=(1, 1, 1, 1))
    packed = packings(layer, draw(layer, 3)[1], isa)[0]
    scale = np.full(40, 2.0**-12, np.float32)
    x, y = program.value("u8", [-1, -2, -3, 64]), program.value("f32", [-1, -4, -5, 40])
    numbers = {"x_scale": 1.0, "x_zero_point": 0, "activation": "none", "weight_scale": scale}
    add_step(program, "conv", "c", x=x, y=y, weights=packed, **numbers, **layer.step)
    program.finish([x], [y])
    context = native.Context(program, 2)
    for size in ((9, 10), (1, 7), (32, 3)):
        image = np.random.default_rng(size[0]).integers(0, 256, (2, *size, 64), np.uint8)
        (found,) = context.run([image])
        assert np.array_equal(found, native.conv(image, packed, scale, **layer.grid))


def test_sizes_that_disagree_are_refused_when_run() -> None:
    isa = native.active_isa()
    program = native.Program(isa)
    layer = LAYERS[1]
    packed = packings(layer, draw(layer, 3)[1], isa)[0]
    x, y = program.value("u8", [-1, -2, -3, 64]), program.value("f32", [-1, -3, -2, 40])
    numbers = {
        "x_scale": 1.0,
        "x_zero_point": 0,
        "activation": "none",
        "weight_scale": np.ones(40, np.float32),
    }
    add_step(program, "conv", "c", x=x, y=y, weights=packed, **numbers, **layer.step)
    program.finish([x], [y])
    with pytest.raises(ValueError, match=r'Step "c": expected to make \[1, 9, 8, 40\]'):
        native.Context(program, 1).run([np.zeros((1, 8, 9, 64), np.uint8)])


def float_weights(layer: Layer, isa: str) -> Any:
    weight = np.ones((layer.n, *layer.kernel, layer.channels), np.float32)
    return native.PackedWeights.pack(weight, "dense", isa)


def test_a_program_refuses_convolutions_that_do_not_fit() -> None:
    isa = native.active_isa()
    layer = LAYERS[1]
    packed = packings(layer, draw(layer, 11)[1], isa)
    scale = np.ones(layer.n, np.float32)
    cases: dict[str, dict[str, Any]] = {
        r'Step "c" \(conv\): expected x with its channels, the last dimension, fixed': {"x": [-1, 9, 10, -2]},
        r"expected weights of 63 input channels in all groups, found 64\.": {"x": [-1, 9, 10, 63]},
        r"expected y of shape \[free 0, 9, 10, 40\], found \[free 0, 9, 11, 40\]\.": {"y": [-1, 9, 11, 40]},
        r"Expected a kernel that fits into the padded input, found one that reaches over 21 pixels": {
            "dilations": (10, 1)
        },
        r"expected -1 as max_rows of the last weights, found 5\.": {"weights": [(packed[0], 5)]},
        r"expected weight_scale of shape \[40\], found \[39\]\.": {"weight_scale": scale[1:]},
        r"expected weights of the kernel and groups \[3, 3, 2\], found \[3, 3, 1\]\.": {"groups": 2},
        r"expected a list of integers as the attribute strides, found an integer\.": {"strides": 1},
        r"expected x of type f32, found u8\.": {"weights": float_weights(layer, isa)},
    }
    for sentence, changed in cases.items():
        product = {"weight_scale": scale, "x_scale": 1.0, "x_zero_point": 0, "activation": "none"}
        product |= {"weights": packed[0], **layer.step}
        product |= {k: v for k, v in changed.items() if k not in ("x", "y")}
        program = native.Program(isa)
        x = program.value("u8", changed.get("x", [-1, 9, 10, 64]))
        y = program.value("f32", changed.get("y", [-1, 9, 10, 40]))
        with pytest.raises(ValueError, match=sentence):
            add_step(program, "conv", "c", x=x, y=y, **product)


def test_products_refuse_the_weights_of_convolutions() -> None:
    (packed, *_) = packings(LAYERS[1], draw(LAYERS[1], 12)[1], native.active_isa())
    sentence = r"Expected the weights of a matrix, found those of a convolution; use conv\(\) or time_conv"
    with pytest.raises(ValueError, match=sentence):
        native.linear(np.zeros((2, 576), np.uint8), packed, np.ones(40, np.float32))
    with pytest.raises(ValueError, match=sentence):
        native.time_linear([packed], 5)
    program = native.Program(native.active_isa())
    x, y = program.value("u8", [2, 576]), program.value("f32", [2, 40])
    with pytest.raises(ValueError, match=r"expected the weights of a matrix, found those"):
        add_step(program, "linear", "l", x=x, y=y, weights=packed)

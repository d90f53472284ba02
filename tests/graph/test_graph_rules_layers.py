"""The rules for weighted layers and quantizers, on random graphs, and their refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from graph_models import Builder, Reduced, assert_close, assert_steps, reduced

SEEDS = range(4)
SCALE, POINT = 0.05, 117


def sizes(rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Batch, length, and the input and output channels of a layer."""
    return tuple(
        int(v) for v in (rng.integers(1, 4), rng.integers(1, 6), rng.integers(1, 40), rng.integers(1, 40))
    )  # type: ignore[return-value]


def dequantized_weight(b: Builder, k: int, n: int, form: str, dtype: type = np.int8, low: int = -127) -> str:
    """A weight [k, n] by DequantizeLinear: per channel, per tensor, or transposed."""
    offset = 128 if dtype is np.uint8 else 0
    values = b.rng.integers(low, 128, (k, n)) + offset
    values.flat[0] = low + offset
    scales = b.rng.uniform(0.001, 0.02, n).astype(np.float32)
    per_tensor = form == "per tensor"
    scale = b.number(0.01) if per_tensor else b.constant(scales)
    point = b.constant(np.array(offset, dtype) if per_tensor else np.full(n, offset, dtype))
    if form in ("transposed after", "rows"):
        made = b.add(
            "DequantizeLinear", b.constant(values.T.astype(dtype), "layer.weight"), scale, point, axis=0
        )
        return made if form == "rows" else b.add("Transpose", made, perm=[1, 0])
    source = b.constant(values.astype(dtype), "layer.weight")
    return b.add("DequantizeLinear", source, scale, point, axis=-1 if form == "last axis" else 1)


def quantized_layer(seed: int, form: str, **options: Any) -> tuple[Reduced, int]:
    """One Q/DQ layer with a bias, as MatMul and Add, or as Gemm for the form "rows"."""
    b = Builder(np.random.default_rng(seed))
    batch, length, k, n = sizes(b.rng)
    rows = form == "rows"
    shape = (batch * length, k) if rows else (batch, length, k)
    x = b.input("x", ["rows", k] if rows else ["batch", "length", k])
    dtype = options.get("x_dtype", np.uint8)
    point = options.get("x_point", POINT if dtype is np.uint8 else 0)
    read = b.round_trip(x, SCALE, point, dtype)
    weight = dequantized_weight(b, k, n, form, options.get("w_dtype", np.int8), options.get("low", -127))
    bias = b.normal(n, name="layer.bias")
    y = (
        b.add("Gemm", read, weight, bias, transB=1)
        if rows
        else b.add("Add", bias, b.add("MatMul", read, weight))
    )
    feeds = {"x": b.rng.standard_normal(shape).astype(np.float32)}
    return reduced(b.model(y=y), feeds), k


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("form", ["channels", "last axis", "per tensor", "transposed after", "rows"])
@pytest.mark.parametrize("x_dtype", [np.uint8, np.int8])
def test_quantized_layers_become_linear(seed: int, form: str, x_dtype: type) -> None:
    found, k = quantized_layer(seed, form, x_dtype=x_dtype)
    assert found.operators == ["Quantize", "Linear"]
    node = found.node("Linear")
    assert node.attributes["x_zero_point"].value == (POINT if x_dtype is np.uint8 else 128)
    assert node.name == "layer"
    assert [value.name for value in node.inputs[2:]] == ["layer.weight", "layer.weight_scale", "layer.bias"]
    # ONNX Runtime sums k products |q w| <= 6 in float32; one quantization step of x more may appear at a tie.
    assert_close(found, 2 * (k + 2) * 2.0**-24 * 10 + 1e-5)


def test_unsigned_symmetric_weights_are_shifted() -> None:
    found, _ = quantized_layer(1, "channels", w_dtype=np.uint8)
    assert found.operators == ["Quantize", "Linear"]
    assert_close(found, 1e-4)


def test_a_weight_of_minus_128_is_a_sum_of_two_that_have_none() -> None:
    found, k = quantized_layer(2, "channels", low=-128)
    assert found.operators == ["Quantize", "Linear", "Linear"]
    first, second = (node for node in found.nodes if node.op_type == "Linear")
    weights = [node.inputs[2].const_value.numpy().astype(int) for node in (first, second)]
    assert min(weight.min() for weight in weights) == -127
    assert sum(weights).min() == -128
    assert np.count_nonzero(weights[1]) < weights[1].size / 10
    assert second.inputs[1] is first.outputs[0]
    assert_close(found, 2 * (k + 2) * 2.0**-24 * 10 + 1e-5)


@pytest.mark.parametrize("per_tensor", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("by_rows", [False, True])
def test_an_asymmetric_weight_is_a_sum_with_its_bias_in_it(
    dtype: type, per_tensor: bool, by_rows: bool
) -> None:
    """The bias of a Gemm stands in the first product, one that is added behind a MatMul in the last."""
    b, k, n = Builder(np.random.default_rng(1)), 24, 10
    low = np.iinfo(dtype).min
    values = b.rng.integers(low, low + 256, (n, k)).astype(dtype)
    points = b.rng.integers(low + 3, low + 120, n).astype(dtype)
    scales = b.rng.uniform(0.001, 0.02, n).astype(np.float32)
    point, scale = (b.constant(array[0] if per_tensor else array) for array in (points, scales))
    held = b.constant(values if by_rows else np.ascontiguousarray(values.T), "layer.weight")
    weight = b.add("DequantizeLinear", held, scale, point, axis=0 if by_rows else 1)
    read = b.round_trip(b.input("x", ["rows", k]), SCALE, POINT)
    y = (
        b.add("Gemm", read, weight, b.normal(n), transB=1)
        if by_rows
        else b.add("Add", b.add("MatMul", read, weight), b.normal(n))
    )
    found = reduced(b.model(y=b.add("Relu", y)), {"x": b.rng.standard_normal((9, k)).astype(np.float32)})
    assert found.operators == ["Quantize", "Linear", "Linear"]
    last = found.nodes[-1]
    assert (last.attributes["activation"].value, last.attributes["activation_last"].value) == ("relu", 1)
    centred = values.astype(int) - (points[0] if per_tensor else points[:, None].astype(int))
    parts = [node.inputs[2].const_value.numpy().astype(int) for node in found.nodes[1:]]
    assert np.array_equal(sum(parts), centred)
    assert_close(found, 2 * (k + 2) * 2.0**-24 * 30 + 1e-5)


def layer_with_weight(values: np.ndarray, scale: np.ndarray, point: np.ndarray, **attributes: Any) -> Reduced:
    b = Builder(np.random.default_rng(0))
    read = b.round_trip(b.input("x", ["rows", values.shape[0]]), SCALE, POINT)
    parts = b.constant(values), b.constant(scale), b.constant(point)
    y = b.add("MatMul", read, b.add("DequantizeLinear", *parts, **attributes))
    return reduced(b.model(y=y), {"x": np.ones((2, values.shape[0]), np.float32)})


def test_an_asymmetric_weight_of_few_values_is_one_product() -> None:
    weight = np.array([[2, 3, 130, 1]] * 3, np.uint8)
    found = layer_with_weight(weight, np.array(0.1, np.float32), np.array(3, np.uint8))
    assert found.operators == ["Quantize", "Linear"]
    held = found.node("Linear").inputs[2].const_value.numpy()
    assert held.tolist() == [[-1] * 3, [0] * 3, [127] * 3, [-2] * 3]
    assert_close(found, 1e-5)


def test_a_weight_whose_zero_points_do_not_fit_stays_float() -> None:
    """One for each row of the reduction: no sum of integer products."""
    weight, point = np.ones((3, 4), np.int8), np.array([0, 1, 2], np.int8)
    found = layer_with_weight(weight, np.full(3, 0.1, np.float32), point, axis=0)
    assert found.operators == ["Quantize", "Dequantize", "Linear f32"]
    assert_close(found, 1e-5)


def test_scales_along_the_reduction_axis_are_refused() -> None:
    weight = np.ones((3, 4), np.int8)
    found = layer_with_weight(weight, np.full(3, 0.1, np.float32), np.zeros(3, np.int8), axis=0)
    assert found.operators == ["Quantize", "Dequantize", "Linear f32"]
    assert found.reasons == [
        "the scale of its weight varies along the reduction axis, not by output channel alone"
    ]


def test_a_weight_quantized_in_the_graph_is_folded() -> None:
    b = Builder(np.random.default_rng(4))
    x = b.input("x", ["rows", 8])
    pair = b.number(0.01), b.constant(np.array(0, np.int8))
    weight = b.add("DequantizeLinear", b.add("QuantizeLinear", b.normal(8, 5, scale=0.2), *pair), *pair)
    y = b.add("MatMul", b.round_trip(x, SCALE, POINT), weight)
    found = reduced(b.model(y=y), {"x": b.rng.standard_normal((3, 8)).astype(np.float32)})
    assert found.operators == ["Quantize", "Linear"]
    assert_close(found, 1e-5)


def test_qlinear_matmul_is_a_linear_with_a_quantized_output() -> None:
    b = Builder(np.random.default_rng(5))
    x, y_scale = b.input("x", ["rows", 16]), 0.03
    q, out = b.quantizer(SCALE, POINT), b.quantizer(y_scale, 90)
    weight = (
        b.constant(b.rng.integers(-127, 128, (16, 6)).astype(np.int8)),
        b.number(0.002),
        b.constant(np.int8(0)),
    )
    product = b.add("QLinearMatMul", b.add("QuantizeLinear", x, *q), *q, *weight, *out)
    found = reduced(b.model(y=product), {"x": b.rng.standard_normal((40, 16)).astype(np.float32)})
    assert found.operators == ["Quantize", "Linear"]
    assert_steps(found, 1, 1)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("gemm", [False, True])
def test_float_layers_become_linear_of_floats(seed: int, gemm: bool) -> None:
    b = Builder(np.random.default_rng(seed))
    _, rows, k, n = sizes(b.rng)
    x = b.input("x", ["rows", k])
    if gemm:
        y = b.add("Gemm", x, b.normal(n, k), b.normal(n), transB=1)
    else:
        y = b.add("Add", b.add("MatMul", x, b.normal(k, n)), b.normal(n))
    found = reduced(b.model(y=y), {"x": b.rng.standard_normal((rows, k)).astype(np.float32)})
    assert found.operators == ["Linear f32"]
    assert_close(found, 2 * (k + 1) * 2.0**-24 * 8)


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"transA": 1}, "Gemm transposes its first operand"),
        ({"alpha": 0.5}, "Gemm scales its operands by alpha or beta"),
    ],
)
def test_odd_gemms_stay(attributes: dict[str, Any], reason: str) -> None:
    b = Builder(np.random.default_rng(0))
    y = b.add("Gemm", b.input("x", [4, 4]), b.normal(4, 4), b.normal(4), **attributes)
    found = reduced(b.model(y=y), {"x": b.rng.standard_normal((4, 4)).astype(np.float32)})
    assert found.operators == ["onnx.Gemm"]
    assert found.left == [f"Gemm: linear in float: {reason}"]
    assert_close(found, 1e-5)


def test_a_product_of_two_computed_values_stays() -> None:
    b = Builder(np.random.default_rng(0))
    x = b.input("x", ["rows", 4])
    y = b.add("MatMul", x, b.add("Transpose", x, perm=[1, 0]))
    found = reduced(b.model(y=y), {"x": b.rng.standard_normal((3, 4)).astype(np.float32)})
    assert found.operators == ["onnx.Transpose", "onnx.MatMul"]
    assert "openwork does not run MatMul" in found.left[1]


@pytest.mark.parametrize("activation", ["Relu", "Gelu"])
@pytest.mark.parametrize("quantized", [False, True])
def test_activation_residual_and_quantizer_go_into_the_product(activation: str, quantized: bool) -> None:
    b = Builder(np.random.default_rng(9))
    x, r = b.input("x", ["rows", 24]), b.input("r", ["rows", 16])
    weight = b.normal(24, 16, scale=0.2)
    if quantized:
        weight, x = dequantized_weight(b, 24, 16, "channels"), b.round_trip(x, SCALE, POINT)
    y = b.add(activation, b.add("Add", b.add("MatMul", x, weight), b.normal(16)))
    y = b.add("QuantizeLinear", b.add("Add", r, y), *b.quantizer(0.04, 100))
    feeds = {name: b.rng.standard_normal((50, k)).astype(np.float32) for name, k in (("x", 24), ("r", 16))}
    found = reduced(b.model(y=y), feeds)
    assert found.operators == (["Quantize", "Linear"] if quantized else ["Linear f32"])
    node = found.node("Linear")
    assert node.attributes["activation"].value == activation.lower()
    assert node.attributes["y_zero_point"].value == 100
    assert node.inputs[1].name == "r"
    # A tie of x's quantizer moves one sum by SCALE * 0.02 * 127 = 0.13, up to 4 steps of 0.04.
    assert_steps(found, 4 if quantized else 1, 1)


@pytest.mark.parametrize(("activation", "name"), [("Relu", "relu"), ("HardSwish", "hard_swish")])
def test_an_activation_after_the_residual_comes_last(activation: str, name: str) -> None:
    b = Builder(np.random.default_rng(9))
    x, r = b.input("x", ["rows", 6]), b.input("r", ["rows", 5])
    y = b.add(activation, b.add("Add", r, b.add("MatMul", x, b.normal(6, 5))))
    feeds = {"x": np.ones((2, 6), np.float32), "r": np.ones((2, 5), np.float32)}
    found = reduced(b.model(y=y), feeds)
    assert found.operators == ["Linear f32"]
    node = found.node("Linear")
    assert (node.attributes["activation"].value, node.attributes["activation_last"].value) == (name, 1)
    assert_close(found, 1e-5)


def test_a_second_activation_stays_its_own_step() -> None:
    b = Builder(np.random.default_rng(9))
    x, r = b.input("x", ["rows", 6]), b.input("r", ["rows", 5])
    y = b.add("Relu", b.add("Add", r, b.add("Tanh", b.add("MatMul", x, b.normal(6, 5)))))
    feeds = {"x": np.ones((2, 6), np.float32), "r": np.ones((2, 5), np.float32)}
    found = reduced(b.model(y=y), feeds)
    assert found.operators == ["Linear f32", "Relu"]
    assert found.reasons == ["the product already has something after it"]
    assert_close(found, 1e-5)


def test_a_clip_goes_into_the_product_with_its_ends() -> None:
    b = Builder(np.random.default_rng(9))
    x = b.input("x", ["rows", 6])
    y = b.add("Clip", b.add("MatMul", x, b.normal(6, 5)), b.number(-1.0), b.number(1.5))
    found = reduced(b.model(y=y), {"x": b.rng.standard_normal((9, 6)).astype(np.float32)})
    assert found.operators == ["Linear f32"]
    node = found.node("Linear")
    assert [node.attributes[name].value for name in ("activation", "alpha", "beta")] == ["clip", -1.0, 1.5]
    assert_close(found, 1e-5)


def test_a_product_that_is_read_twice_keeps_its_value() -> None:
    b = Builder(np.random.default_rng(9))
    y = b.add("MatMul", b.input("x", ["rows", 6]), b.normal(6, 5))
    z = b.add("Relu", y)
    found = reduced(b.model(y=y, z=z), {"x": b.rng.standard_normal((2, 6)).astype(np.float32)})
    assert found.operators == ["Linear f32", "Relu"]
    assert found.reasons == ["the product is read by other nodes too"]
    assert_close(found, 1e-5)


def test_of_two_products_one_takes_the_other_as_residual() -> None:
    b = Builder(np.random.default_rng(9))
    x = b.input("x", ["rows", 6])
    y = b.add("Add", b.add("MatMul", x, b.normal(6, 5)), b.add("MatMul", x, b.normal(6, 5)))
    found = reduced(b.model(y=y), {"x": b.rng.standard_normal((2, 6)).astype(np.float32)})
    assert found.operators == ["Linear f32", "Linear f32"]
    assert_close(found, 1e-5)


def test_quantizers_without_a_native_form_stay_with_their_reasons() -> None:
    b = Builder(np.random.default_rng(3))
    x = b.input("x", ["rows", 8])
    per_axis = b.constant(np.full(8, 0.1, np.float32)), b.constant(np.zeros(8, np.uint8))
    y = b.add("QuantizeLinear", x, *per_axis, axis=1)
    z = b.add("QuantizeLinear", x, b.number(0.1), b.constant(np.int8(0)))
    found = reduced(b.model(y=y, z=z), {"x": np.ones((2, 8), np.float32)})
    assert found.operators == ["onnx.QuantizeLinear"] * 2
    assert found.reasons == [
        "its scale is not one constant number (activations are quantized per tensor)",
        "its signed integers are an output of the graph",
    ]


def test_equal_quantizers_of_one_value_are_shared() -> None:
    b = Builder(np.random.default_rng(3))
    x = b.input("x", ["rows", 8])
    products = [
        b.add("MatMul", b.round_trip(x, SCALE, POINT), dequantized_weight_named(b, name)) for name in "ab"
    ]
    found = reduced(
        b.model(y=products[0], z=products[1]), {"x": b.rng.standard_normal((2, 8)).astype(np.float32)}
    )
    assert found.operators == ["Quantize", "Linear", "Linear"]
    assert_close(found, 1e-5)


def dequantized_weight_named(b: Builder, name: str) -> str:
    values = b.rng.integers(-127, 128, (8, 3)).astype(np.int8)
    return b.add("DequantizeLinear", b.constant(values, f"{name}.weight"), b.number(0.01))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_layer_norm_gives_both_its_float_and_its_bytes(seed: int) -> None:
    b = Builder(np.random.default_rng(seed))
    k = int(b.rng.integers(2, 40))
    x = b.input("x", ["batch", "length", k])
    normal = b.add("LayerNormalization", x, b.normal(k), b.normal(k), epsilon=1e-12, axis=-1)
    product = b.add("MatMul", b.round_trip(normal, SCALE, POINT), dequantized_weight(b, k, k, "channels"))
    y = b.add("Add", product, normal)
    found = reduced(b.model(y=y), {"x": b.rng.standard_normal((2, 3, k)).astype(np.float32)})
    assert found.operators == ["LayerNorm", "Linear"]
    norm, linear = found.node("LayerNorm"), found.node("Linear")
    assert linear.inputs[0] is norm.outputs[1]
    assert linear.inputs[1] is norm.outputs[0]
    # A tie in the quantizer moves one product by up to SCALE * 0.02 * 127.
    assert_close(found, SCALE * 0.02 * 127 + 1e-4)


def test_two_quantizers_of_one_layer_norm() -> None:
    b = Builder(np.random.default_rng(3))
    x = b.input("x", ["rows", 8])
    normal = b.add("LayerNormalization", x, b.normal(8), b.normal(8))
    y, z = (b.add("QuantizeLinear", normal, *b.quantizer(scale, 100)) for scale in (0.05, 0.04))
    found = reduced(b.model(y=y, z=z), {"x": b.rng.standard_normal((20, 8)).astype(np.float32)})
    assert found.operators == ["LayerNorm", "Quantize"]
    assert found.reasons == ["the layer norm already gives u8 with another scale"]
    assert_steps(found, 1, 1)


def test_integer_inputs_do_not_become_native_adds() -> None:
    b = Builder(np.random.default_rng(3))
    x = b.input("x", ["rows"], TensorProto.INT64)
    found = reduced(b.model(y=b.add("Add", x, x)), {"x": np.arange(3)})
    assert found.operators == ["onnx.Add"]
    assert_close(found, 1e-9)


def _multiplied(b: Builder, value: str, multiplier: np.ndarray, dtype: type = np.uint8) -> str:
    return b.round_trip(b.add("Mul", value, b.constant(multiplier)), SCALE, POINT, dtype)


def _product(b: Builder, value: str, k: int, n: int) -> str:
    weight = b.constant(b.rng.integers(-127, 128, (k, n)).astype(np.int8))
    scale, point = b.constant(np.full(n, 0.01, np.float32)), b.constant(np.zeros(n, np.int8))
    read = b.add("DequantizeLinear", weight, scale, point, axis=1)
    return b.add("Add", b.add("MatMul", value, read), b.normal(n))


def _multipliers(b: Builder, n: int) -> np.ndarray:
    return b.rng.uniform(0.3, 3.0, n).astype(np.float32)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_multiplier_before_a_quantizer_goes_into_the_layer_norm(seed: int) -> None:
    b = Builder(np.random.default_rng(seed))
    x = b.input("x", ["rows", 24])
    normal = b.add("LayerNormalization", x, b.normal(24), b.normal(24))
    multiplier = _multipliers(b, 24)
    # Each reader has its own Mul and quantizer, as an exporter writes them.
    first, second = (_product(b, _multiplied(b, normal, multiplier), 24, 24) for _ in range(2))
    found = reduced(
        b.model(y=b.add("Add", first, second)), {"x": b.rng.standard_normal((9, 24)).astype(np.float32)}
    )
    assert sorted(found.operators) == ["LayerNorm", "Linear", "Linear"]
    norm = found.node("LayerNorm")
    assert np.array_equal(norm.inputs[3].const_value.numpy(), multiplier)
    linears = [node for node in found.nodes if node.op_type == "Linear"]
    assert all(linear.inputs[0] is norm.outputs[1] for linear in linears)
    # A tie in the quantizer moves a product by SCALE * 0.01 * 127; one in each product is allowed.
    assert_close(found, 2 * SCALE * 0.01 * 127 + 1e-4)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_multiplier_before_a_quantizer_goes_into_the_product(seed: int) -> None:
    b = Builder(np.random.default_rng(seed))
    x = b.input("x", ["rows", 20])
    hidden = b.add("Gelu", _product(b, b.round_trip(x, SCALE, POINT), 20, 30))
    multiplier = _multipliers(b, 30)
    y = _product(b, _multiplied(b, hidden, multiplier), 30, 12)
    found = reduced(b.model(y=y), {"x": b.rng.standard_normal((7, 20)).astype(np.float32)})
    assert found.operators == ["Quantize", "Linear", "Linear"]
    assert np.array_equal(found.nodes[1].inputs[5].const_value.numpy(), multiplier)
    assert_close(found, 2 * SCALE * 0.01 * 127 + 1e-4)


def test_a_multiplier_that_is_not_positive_is_a_step_that_quantizes() -> None:
    b = Builder(np.random.default_rng(4))
    x = b.input("x", ["rows", 8])
    normal = b.add("LayerNormalization", x, b.normal(8), b.normal(8))
    multiplier = np.array([1, 2, 3, -1, 1, 1, 1, 1], np.float32)
    found = reduced(
        b.model(y=_product(b, _multiplied(b, normal, multiplier), 8, 8)),
        {"x": b.rng.standard_normal((5, 8)).astype(np.float32)},
    )
    assert found.operators == ["LayerNorm", "Multiply", "Linear"]
    assert "y_scale" in found.node("Multiply").attributes
    assert "y_scale" not in found.node("LayerNorm").attributes
    assert_close(found, 2 * SCALE * 0.01 * 127 + 1e-4)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_a_subnormal_scale_stays_with_its_reason(dtype: type) -> None:
    b = Builder(np.random.default_rng(4))
    x = b.input("x", ["rows", 8])
    y = b.round_trip(x, 1e-40, 3, dtype)
    found = reduced(b.model(y=y), {"x": b.rng.standard_normal((5, 8)).astype(np.float32)})
    assert found.operators == ["onnx.QuantizeLinear", "onnx.DequantizeLinear"]
    assert len(found.reasons) == 2
    assert all("which is not a normal number of at most 2^119" in reason for reason in found.reasons)
    assert_close(found, 1e-6)

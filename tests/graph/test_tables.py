"""Functions of bytes: whatever stands between a Dequantize and a Quantize is one table of 256."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from graph_models import Builder, reduced
from image_models import agrees, fed, quantized, quantized_weight

Function = Callable[[Builder, str], str]


def hard_swish_written_out(b: Builder, x: str) -> str:
    gate = b.add("Clip", b.add("Add", x, b.number(3.0)), b.number(0.0), b.number(6.0))
    return b.add("Div", b.add("Mul", x, gate), b.number(6.0))


def silu(b: Builder, x: str) -> str:
    return b.add("Mul", x, b.add("Sigmoid", x))


def rounded_silu(b: Builder, x: str) -> str:
    """As ONNX Runtime's quantizer leaves it: the gate is rounded too."""
    return b.add("Mul", x, b.round_trip(b.add("Sigmoid", x), 1 / 255, 0))


FUNCTIONS: dict[str, Function] = {
    **{op: (lambda b, x, op=op: b.add(op, x)) for op in ("Sigmoid", "Tanh", "Relu", "HardSwish")},
    **{op: (lambda b, x, op=op: b.add(op, x)) for op in ("HardSigmoid", "Elu", "Softplus", "Gelu")},
    "LeakyRelu": lambda b, x: b.add("LeakyRelu", x, alpha=0.1),
    "Clip": lambda b, x: b.add("Clip", x, b.number(-0.7), b.number(1.3)),
    "Clip of one end": lambda b, x: b.add("Clip", x, "", b.number(1.3)),
    "SiLU": silu,
    "SiLU with a rounded gate": rounded_silu,
    "hard swish written out": hard_swish_written_out,
    "numbers": lambda b, x: b.add("Add", b.add("Mul", x, b.number(-0.5)), b.number(0.25)),
    "another scale": lambda b, x: x,
    "two roundings": lambda b, x: b.round_trip(b.round_trip(x, 0.11, 90), 0.23, 120),
}


def builder() -> Builder:
    return Builder(np.random.default_rng(3))


@pytest.mark.parametrize("shape", [(7, 20), (2, 8, 5, 6)])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_of_what_is_fed_is_a_table(name: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    b = builder()
    x, feeds = fed(b, *shape)
    found = agrees(b.model(y=quantized(b, FUNCTIONS[name](b, x), 0.0371, 101)), feeds, tmp_path)
    assert found.steps == ["quantize", "lookup"]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_behind_a_rounded_convolution_goes_into_it(name: str, tmp_path: Path) -> None:
    b = builder()
    x, feeds = fed(b, 2, 8, 5, 6)
    weight, _ = quantized_weight(b, (12, 8, 1, 1))
    y = b.round_trip(b.add("Conv", x, weight, b.normal(12)), 0.031, 119)
    found = agrees(b.model(y=quantized(b, FUNCTIONS[name](b, y), 0.0371, 101)), feeds, tmp_path)
    assert found.steps == ["to_channels_last", "conv", "to_channels_first"]


def test_every_byte_of_a_table_is_what_onnx_runtime_makes_of_it() -> None:
    b = builder()
    x = b.add("DequantizeLinear", b.input("x", ["n"], 2), *b.quantizer(0.05, 117))
    y = b.add("QuantizeLinear", rounded_silu(b, x), *b.quantizer(0.0271, 13))
    found = reduced(b.model(y=y), {"x": np.arange(256, dtype=np.uint8)})
    assert found.operators == ["Lookup"]
    off = np.abs(found.before["y"].astype(int) - found.after["y"].astype(int))
    assert off.max() <= 1
    assert np.count_nonzero(off) <= 2


def test_a_function_that_changes_no_byte_is_no_step() -> None:
    b = builder()
    x = b.add("DequantizeLinear", b.input("x", ["n", 4], 2), *b.quantizer(0.05, 0))
    y = b.add("QuantizeLinear", b.add("Abs", x), *b.quantizer(0.05, 0))
    z = b.add("Relu", b.add("DequantizeLinear", y, *b.quantizer(0.05, 0)))
    found = reduced(b.model(z=z), {"x": np.arange(8, dtype=np.uint8).reshape(2, 4)})
    assert found.operators == ["Dequantize", "Relu"]


@pytest.mark.parametrize("op", ["Softmax", "CumSum", "per channel"])
def test_what_is_no_function_of_one_element_is_no_table(op: str, tmp_path: Path) -> None:
    b = builder()
    x, feeds = fed(b, 6, 12)
    if op == "CumSum":
        y = b.add(op, x, b.constant(np.int64(1)))
    elif op == "Softmax":
        y = b.add(op, x)
    else:
        y = b.add("Mul", x, b.normal(12))
    found = reduced(b.model(y=quantized(b, y)), feeds)
    assert "Lookup" not in found.operators


def test_a_sum_of_two_values_is_no_table_of_either() -> None:
    b = builder()
    x, feeds = fed(b, 6, 12)
    y, more = fed(b, 6, 12, name="z")
    b.inputs[1].type.tensor_type.shape.dim[0].dim_param = "x_0"
    found = reduced(b.model(y=quantized(b, b.add("Add", x, y))), {**feeds, **more})
    assert found.operators == ["Quantize", "Quantize", "Add"]


def test_a_float_that_others_read_keeps_its_function(tmp_path: Path) -> None:
    """The table and the float function stand side by side."""
    b = builder()
    x, feeds = fed(b, 6, 12)
    z = b.add("Tanh", x)
    found = agrees(b.model(y=quantized(b, z, 0.0091, 128), z=z), feeds, tmp_path)
    assert sorted(found.steps) == ["dequantize", "lookup", "quantize", "tanh"]

"""The invariants of a graph: each broken one is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from openwork.graph import ModelError, verify
from openwork.graph.model import make, with_attributes

F32, U8, I64 = ir.DataType.FLOAT, ir.DataType.UINT8, ir.DataType.INT64


def value(name: str, dtype: ir.DataType, *shape: int | str) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))


def tensor(name: str, array: np.ndarray) -> ir.Value:
    made = ir.tensor(array, name=name)
    return ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(made.dtype), const_value=made)


class Fixture:
    """A graph of one Linear, and the parts to break."""

    def __init__(self) -> None:
        self.x, self.r = value("x", U8, "rows", 8), value("r", F32, "rows", 4)
        self.weight = tensor("w", np.zeros((4, 8), np.int8))
        self.scale, self.bias = tensor("s", np.ones(4, np.float32)), tensor("b", np.zeros(4, np.float32))
        self.attributes: dict[str, Any] = {"x_scale": 0.5, "x_zero_point": 3, "activation": "relu"}

    def model(self, node: ir.Node | None = None) -> ir.Model:
        inputs = [self.x, self.r, self.weight, self.scale, self.bias]
        node = node or make("Linear", inputs, self.attributes, "layer")
        node.outputs[0].name = node.outputs[0].name or "y"
        held = [v for v in node.inputs if v is not None and v.const_value is not None]
        graph = ir.Graph(
            [v for v in node.inputs if v is not None and v.const_value is None],
            node.outputs[:1],
            nodes=[node],
            initializers=held,
            opset_imports={"": 20, "openwork": 1},
            name="g",
        )
        return ir.Model(graph, ir_version=10)


def test_a_right_graph_passes() -> None:
    fixture = Fixture()
    verify(fixture.model())


def refuse(fixture: Fixture, message: str, node: ir.Node | None = None) -> None:
    with pytest.raises(ModelError, match=message):
        verify(fixture.model(node))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x_zero_point": 256}, "'x_zero_point' must be an integer from 0 to 255, but it is 256"),
        ({"x_scale": 0.0}, r"'x_scale' must be a number from 1\.17549e-38 to 3\.40282e\+38, but it is 0.0"),
        ({"x_scale": float("inf")}, "'x_scale' must be a number from .*, but it is inf"),
        ({"activation": "swish"}, "'activation' must be one of none, relu, .* but it is 'swish'"),
        ({"other": 1}, "'other' must be absent .the attributes of Linear are: x_scale, .* but it is 1"),
        ({"x_zero_point": 1.5}, "'x_zero_point' must be an integer from 0 to 255, but it is 1.5"),
    ],
)
def test_attributes(changed: dict[str, Any], message: str) -> None:
    fixture = Fixture()
    fixture.attributes |= changed
    refuse(fixture, "openwork.Linear 'layer'.*" + message)


def test_missing_attribute() -> None:
    fixture = Fixture()
    del fixture.attributes["x_scale"]
    refuse(fixture, "'x_zero_point' must be given only together with 'x_scale'")


@pytest.mark.parametrize(
    ("part", "broken", "message"),
    [
        (
            "x",
            value("x", F32, "rows", 8),
            r"'x' \('x'\) must be u8 \[\.\.\.,K\] since 'x_scale' is there, but it is f32 \['rows', 8\]",
        ),
        (
            "x",
            value("x", U8, "rows", 9),
            r"'weight' \('w'\) must be s8 \[N,K\] .* in agreement .*\(9 as K\), but it is s8 \[4, 8\]",
        ),
        ("r", value("r", F32, "rows", 5), r"'weight' \('w'\) must be .*\(5 as N\)"),
        ("r", value("r", F32, 2, 3, 4), r"'residual' .* \(\['rows'\] as the leading dimensions\)"),
        ("weight", tensor("w", np.zeros((4, 8), np.float32)), "'weight' .* must be s8 .* but it is f32"),
        (
            "weight",
            value("w", ir.DataType.INT8, 4, 8),
            "'weight' .* must be an initializer, but it is computed",
        ),
        (
            "scale",
            tensor("s", np.ones((1, 4), np.float32)),
            r"'weight_scale' .* must be f32 \[N\] .*\(1 dimension\), but it is f32 \[1, 4\]",
        ),
        ("scale", None, "'weight_scale' must be given exactly where 'x_scale' is, but it is absent"),
    ],
)
def test_operands(part: str, broken: Any, message: str) -> None:
    fixture = Fixture()
    setattr(fixture, part, broken)
    refuse(fixture, message)


def test_unknown_operators_and_too_many_inputs() -> None:
    fixture = Fixture()
    node = ir.Node("openwork", "Convolve", [fixture.x], name="c")
    sentence = "openwork.Convolve 'c' is not an operator of openwork; engine/operators/rows.py lists them"
    refuse(fixture, sentence, node)
    fixture = Fixture()
    extended = ir.Node("openwork", "Relu", [fixture.r, fixture.x], name="r")
    refuse(fixture, "has 2 inputs, but Relu takes 1", extended)


def test_bytes_exactly_where_there_is_a_scale() -> None:
    fixture = Fixture()
    fixture.attributes |= {"y_scale": 0.1, "y_zero_point": 1}
    model = fixture.model()
    verify(model)
    model.graph.outputs[0].type = ir.TensorType(F32)
    with pytest.raises(
        ModelError, match=r"'y' must be u8 \[\.\.\.,N\] since 'y_scale' is there, but it is f32"
    ):
        verify(model)


def test_a_layer_norm_with_bytes_needs_their_scale() -> None:
    x, gamma = value("x", F32, "rows", 4), tensor("g", np.ones(4, np.float32))
    node = make("LayerNorm", [x, gamma, gamma], {"epsilon": 1e-5, "y_scale": 0.1, "y_zero_point": 3}, "n")
    quantized = ir.Model(
        ir.Graph([x], node.outputs, nodes=[node], initializers=[gamma], name="g"), ir_version=10
    )
    verify(quantized)
    for name in ("y_scale", "y_zero_point"):
        del node.attributes[name]
    with pytest.raises(ModelError, match="'yq' must be given only together with 'y_scale'"):
        verify(quantized)
    assert with_attributes(node, epsilon=1.0) == {"epsilon": 1.0}


def test_the_order_of_values() -> None:
    model = Fixture().model()
    graph = model.graph
    first = make("Relu", [graph.outputs[0]], {}, "early")
    graph.insert_before(graph[0], first)
    with pytest.raises(
        ModelError, match="'early' reads 'y' as its input 0, but nothing makes that value before it"
    ):
        verify(model)


def test_values_are_made_once_and_outputs_at_all() -> None:
    model = Fixture().model()
    model.graph.outputs.append(value("z", F32, 3))
    with pytest.raises(ModelError, match="The graph's output 'z' is made by no node"):
        verify(model)
    model = Fixture().model()
    model.graph.outputs[0].name = "x"
    with pytest.raises(ModelError, match=r"The value 'x' of openwork\.Linear 'layer' is made more than once"):
        verify(model)
    model = Fixture().model()
    model.graph.initializers["w"].const_value = None
    with pytest.raises(ModelError, match="The initializer 'w' has no data"):
        verify(model)

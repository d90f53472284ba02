"""Sums that do more than add one value to another stay what they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from graph_models import Builder
from openwork.graph import PHASES, read, reduce
from openwork.graph.driver import Driver
from openwork.graph.model import make
from openwork.graph.ranges import EVERYTHING, range_of


def behind_a_product(other: ir.Value, **given: Any) -> list[str]:
    """What the epilogue makes of `Linear -> Add` with another value, or with a stored one."""
    b = Builder(np.random.default_rng(0))
    model, *_ = reduce(read(b.model(y=b.add("MatMul", b.input("x", ["rows", 4]), b.normal(4, 3)))))
    product = model.graph.outputs[0]
    product.name = "product"
    stored = other.const_value is not None
    node = make("Add", {"a": product, "constant" if stored else "b": other}, given, "sum")
    node.outputs[0].name = "y"
    model.graph.append(node)
    if stored:
        model.graph.register_initializer(other)
    else:
        model.graph.inputs.append(other)
    model.graph.outputs[0] = node.outputs[0]
    Driver(model, [phase for phase in PHASES if phase.name == "epilogue"], thorough=True).run()
    return [each.op_type for each in model.graph]


def test_a_sum_of_two_values_is_a_residual_with_what_it_ends_in() -> None:
    def value() -> ir.Value:
        return ir.Value(name="r", shape=ir.Shape(["rows", 3]), type=ir.TensorType(ir.DataType.FLOAT))

    number = ir.tensor(np.ones(1, np.float32), name="c")
    stored = ir.Value(name="c", shape=number.shape, type=ir.TensorType(ir.DataType.FLOAT), const_value=number)
    assert behind_a_product(value()) == ["Linear"]
    assert behind_a_product(value(), activation="relu") == ["Linear"]
    assert behind_a_product(value(), y_scale=0.1, y_zero_point=3) == ["Linear"]
    assert behind_a_product(stored) == ["Linear", "Add"]


def test_ranges_know_what_else_a_sum_does() -> None:
    def relu(name: str) -> ir.Value:
        x = ir.Value(name=name, shape=ir.Shape([2, 3]), type=ir.TensorType(ir.DataType.FLOAT))
        return make("Clip", {"x": x}, {"alpha": -1.0, "beta": 4.0}, name).outputs[0]

    number = ir.tensor(np.array([2.5], np.float32), name="c")
    stored = ir.Value(name="c", shape=number.shape, type=ir.TensorType(ir.DataType.FLOAT), const_value=number)
    a, b = relu("a"), relu("b")
    assert range_of(make("Add", {"a": a, "b": b}, {}, "s").outputs[0]) == (-2.0, 8.0)
    assert range_of(make("Add", {"a": a, "constant": stored}, {}, "s").outputs[0]) == (1.5, 6.5)
    for given in ({"activation": "relu"}, {"y_scale": 0.1, "y_zero_point": 3}):
        assert range_of(make("Add", {"a": a, "b": b}, given, "s").outputs[0]) == EVERYTHING

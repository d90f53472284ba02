"""Free dimensions: each keeps its name, a number is what never changes, the rest gets names of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto

from graph_models import Builder, assert_close, reduced
from openwork.graph import read
from openwork.graph.model import dims
from openwork.graph.probe import Cone, Sizes, free_names, samples


def builder() -> Builder:
    return Builder(np.random.default_rng(0))


def probed_sizes(value: ir.Value) -> list[Sizes]:
    """The sizes that are tried for a part of the value's graph, none of them beyond a number."""
    part = Cone(value, (), frozenset(), ())
    return [probe.sizes for probe in samples(part) if not probe.large]


def opaque(b: Builder, x: str, factors: Sequence[float], last: int | None = None) -> str:
    """x reshaped to its own shape times `factors`, through numbers that onnx's inference cannot follow."""
    sizes = b.add("Cast", b.add("Shape", x), to=TensorProto.FLOAT)
    scaled = b.add("Mul", sizes, b.constant(np.array(factors, np.float32)))
    target = b.add("Cast", scaled, to=TensorProto.INT64)
    return b.add("Reshape", x, target if last is None else b.add("Concat", target, b.integers(last), axis=0))


def output_dims(model: onnx.ModelProto, name: str = "y") -> tuple[object, ...]:
    (value,) = [output for output in read(model).graph.outputs if output.name == name]
    found = dims(value)
    assert found is not None
    return found


def test_a_third_free_dimension_is_no_constant() -> None:
    b = builder()
    x = b.input("x", ["batch", "length", "width"])
    model = b.model(y=b.add("Relu", opaque(b, x, (1, 1, 1))))
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    assert "width" not in str(inferred.graph.output[0].type)
    assert output_dims(model) == ("batch", "length", "width")


def test_height_and_width_of_an_image_are_free() -> None:
    b = builder()
    x = b.input("x", ["N", 3, "H", "W"])
    assert output_dims(b.model(y=b.add("Relu", opaque(b, x, (1, 1, 1, 1))))) == ("N", 3, "H", "W")


def test_what_strides_leave_of_an_image_is_unknown_and_not_one() -> None:
    """Five strides of 2 make 1 of every height up to 32."""
    b = builder()
    y = opaque(b, b.input("x", ["N", 3, "H", "W"]), (1, 1, 1, 1))
    for _ in range(5):
        y = b.add("MaxPool", y, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    found = output_dims(b.model(y=y))
    assert found[:2] == ("N", 3)
    assert not any(isinstance(d, int) or d in ("N", "H", "W") for d in found[2:])


@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_expressions_stay_unknown(factor: float) -> None:
    b = builder()
    y = opaque(b, b.input("x", ["batch", "length", 8]), (1, factor, 1 / factor))
    found = output_dims(b.model(y=b.add("Relu", y)))
    assert (found[0], found[2]) == ("batch", int(8 / factor))
    assert found[1] not in ("batch", "length")
    assert not isinstance(found[1], int)


def test_a_length_but_one_stays_unknown() -> None:
    b = builder()
    y = opaque(b, b.input("x", ["batch", "length", 8]), (1, 1, 1))
    found = output_dims(b.model(y=b.add("Slice", y, b.integers(1), b.integers(2**31 - 1), b.integers(1))))
    assert (found[0], found[2]) == ("batch", 8)
    assert not isinstance(found[1], int)
    assert found[1] not in ("batch", "length")


def test_two_sequences_keep_their_lengths() -> None:
    b = builder()
    first, second = (b.input(name, ["batch", length, 8]) for name, length in (("a", "L1"), ("b", "L2")))
    y, z = (b.add("Relu", opaque(b, value, (1, 1, 1))) for value in (first, second))
    model = b.model(y=y, z=z, scores=b.add("MatMul", y, b.add("Transpose", z, perm=[0, 2, 1])))
    assert output_dims(model) == ("batch", "L1", 8)
    assert output_dims(model, "z") == ("batch", "L2", 8)
    assert output_dims(model, "scores") == ("batch", "L1", "L2")


def test_a_name_on_two_axes() -> None:
    b = builder()
    x = b.input("x", ["n", "n", "m"])
    assert output_dims(b.model(y=b.add("Relu", opaque(b, x, (1, 1, 1))))) == ("n", "n", "m")


def test_unnamed_dimensions_are_each_their_own() -> None:
    b = builder()
    x = b.input("x", ["", "", ""])
    for value in b.inputs:
        for dim in value.type.tensor_type.shape.dim:
            dim.Clear()
    model = b.model(y=b.add("Relu", opaque(b, x, (1, 1, 1))))
    assert output_dims(model) == ("x_0", "x_1", "x_2")


def test_names_that_are_added_stand_for_one_size() -> None:
    """The older exporter gives every input names of its own; the sum says that they are equal."""
    b = builder()
    ids, kinds = (b.input(name, [f"{name}_0", f"{name}_1"], TensorProto.INT64) for name in ("ids", "kinds"))
    total = b.add("Add", b.add("Gather", b.normal(9, 6), ids), b.add("Gather", b.normal(2, 6), kinds))
    graph = read(b.model(y=b.add("Relu", opaque(b, total, (1, 1, 1))))).graph
    assert dims(graph.outputs[0]) == ("ids_0", "ids_1", 6)
    assert all(
        sizes["ids_1"] == sizes["kinds_1"] != sizes["ids_0"] for sizes in probed_sizes(graph.outputs[0])
    )


def test_lengths_beyond_a_table_of_positions_say_nothing() -> None:
    b = builder()
    x = b.input("x", ["batch", "length", 6])
    y = opaque(b, x, (1, 1, 1))
    length = b.add("Gather", b.add("Shape", x), b.integers(1))
    positions = b.add("Slice", b.normal(9, 6), b.integers(0), length, b.integers(0))
    assert output_dims(b.model(y=b.add("Add", y, positions))) == ("batch", "length", 6)


def test_every_name_has_its_own_size_in_every_probe() -> None:
    b = builder()
    x = b.input("x", ["a", "b", "c", "d", "e"])
    graph = read(b.model(y=b.add("Relu", x))).graph
    names = free_names(graph.inputs)
    probes = probed_sizes(graph.outputs[0])
    assert all(len({sizes[name] for name in names}) == len(names) for sizes in probes)
    assert all(len({sizes[name] for sizes in probes}) > 1 for name in names)


def test_a_mask_is_probed_by_the_names_of_its_dimensions() -> None:
    """Of x [length, batch, 6] the first dimension is not the batch."""
    b = builder()
    x, mask = b.input("x", ["length", "batch", 6]), b.input("mask", ["batch", "length"], TensorProto.INT64)
    states = b.add("Transpose", x, perm=[1, 0, 2])
    weights = b.add("Cast", b.add("Unsqueeze", mask, b.integers(-1)), to=TensorProto.FLOAT)
    weights = b.add("Expand", weights, b.add("Shape", states))
    total = b.add("ReduceSum", b.add("Mul", states, weights), b.integers(1), keepdims=0)
    count = b.add("Clip", b.add("ReduceSum", weights, b.integers(1), keepdims=0), b.number(1e-9))
    feeds = {
        "x": b.rng.standard_normal((5, 3, 6)).astype(np.float32),
        "mask": np.array([[1, 1, 0, 0, 1], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]]),
    }
    found = reduced(b.model(y=b.add("Div", total, count)), feeds)
    assert found.operators == ["onnx.Transpose", "MeanPool"]
    assert_close(found, 1e-6)


def strided(b: Builder, x: str, depth: int, **pool: int) -> str:
    """Convolutions of stride 2, or pools behind one of them, one after the other."""
    for number in range(depth):
        if pool and number:
            x = b.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], **pool)
            continue
        weight = b.normal(4, 3 if number == 0 else 4, 3, 3)
        x = b.add("Conv", x, weight, strides=[2, 2], pads=[1] * 4)
    return x


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_sizes_that_strides_make_of_two_images_stay_apart(depth: int) -> None:
    b = builder()
    first, second = b.input("x", ["b", 3, "h", "w"]), b.input("z", ["b", 3, "h2", "w2"])
    made = [strided(b, image, depth) for image in (first, second)]
    model = read(b.model(y=b.add("Relu", made[0]), v=b.add("Relu", made[1])))
    relus = [node.inputs[0] for node in model.graph if node.op_type == "Relu"]
    names = [dim for value in relus for dim in (dims(value) or ())[2:]]
    assert len(names) == 4
    assert len(set(names)) == 4
    assert all(isinstance(name, str) for name in names)


def test_a_width_behind_pools_that_count_up_is_no_constant() -> None:
    b = builder()
    y = strided(b, b.input("x", ["b", 3, "h", "w"]), 3, ceil_mode=1)
    height, width = (dims(read(b.model(y=y)).graph.outputs[0]) or ())[2:]
    assert isinstance(height, str)
    assert isinstance(width, str)
    assert height != width

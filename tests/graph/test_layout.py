"""Moves of channels around an operator that wants them last: a convolution that only this file knows."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from graph_models import Builder, runtime
from openwork.engine.operators import OPERATORS, Operator, Slot
from openwork.graph import PHASES, lowerable, read, run
from openwork.graph import layout as moves
from openwork.graph.driver import Driver
from openwork.graph.edit import add_initializer
from openwork.graph.model import constant, make, needed
from openwork.graph.phase import Phase
from openwork.graph.reference import MEANING
from openwork.graph.rewrite import Replacement, Rule, home, never

ROW = Operator(
    "ColumnConvolution",
    (
        Slot("x", ("f32",), ("B", "H", "W", "C")),
        Slot("weight", ("f32",), ("2", "N", "C"), tensor=True),
    ),
    (Slot("y", ("f32",), ("B", "H", "W", "N")),),
    layout="channels last",
)
CHANNELS = 3
SIZE = (4, 5)


def column_convolution(x: Any, weight: Any, a: Any) -> Any:
    """Each pixel and the one above it, times a matrix each; above the first row lie zeros."""
    above = np.concatenate([np.zeros_like(x[:, :1]), x[:, :-1]], 1)
    return (above @ weight[0].T + x @ weight[1].T).astype(np.float32)


def replace(node: ir.Node) -> Replacement:
    weight = constant(needed(node, 1))
    assert weight is not None
    tensor = add_initializer(home(node), f"{node.name}.weight", weight[..., 0].transpose(2, 0, 1))
    made = moves.around(
        "ColumnConvolution", {"x": needed(node, 0), "weight": tensor}, {}, node.name or "", node.outputs[0]
    )
    return Replacement(made, [(node.outputs[0], made[-1].outputs[0])])


CONVOLUTIONS = Phase(
    "convolutions", (Rule("convolution", frozenset({"Conv"}), lambda node: node, never, replace),)
)


@pytest.fixture(autouse=True)
def operator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPERATORS, ROW.name, ROW)
    monkeypatch.setitem(MEANING, ROW.name, column_convolution)


def convolution(b: Builder, x: str) -> str:
    return b.add("Conv", x, b.normal(CHANNELS, CHANNELS, 2, 1, scale=0.5), pads=[1, 0, 0, 0])


def image(b: Builder, name: str = "x", free: bool = True) -> str:
    return b.input(name, ["batch", CHANNELS, *(("height", "width") if free else SIZE)])


def driven(proto: onnx.ModelProto, phases: tuple[Phase, ...] = PHASES) -> ir.Model:
    model = read(proto)
    Driver(model, [CONVOLUTIONS, *phases], thorough=True).run()
    return model


def counts(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


def assert_same(proto: onnx.ModelProto, model: ir.Model, rng: np.random.Generator, seed: object = "") -> None:
    """Sums of 2 x 3 products, at most 12 in a row of layers, each of which may double a number."""
    free = isinstance(model.graph.inputs[0].shape[2], ir.SymbolicDim)  # type: ignore[index]
    for batch, size in ((1, SIZE), (2, (1, 3) if free else SIZE)):
        shape = (batch, CHANNELS, *size)
        feeds = {
            str(value.name): rng.standard_normal(shape).astype(np.float32) for value in model.graph.inputs
        }
        wanted, found = runtime(proto, feeds), run(model, feeds)
        for name, array in wanted.items():
            assert found[name].shape == array.shape, f"seed {seed}"
            bound = 12 * 8 * 2.0**-24 * max(1.0, float(np.abs(array).max()))
            assert np.abs(found[name] - array).max() <= bound * 8, f"seed {seed}: {name}"


def test_a_chain_moves_its_image_once_each_way() -> None:
    b = Builder(np.random.default_rng(0))
    x = b.add("Relu", convolution(b, image(b, free=False)))
    y = b.add("Add", convolution(b, x), x)
    y = convolution(b, b.add("Sigmoid", y))
    proto = b.model(y=y)
    model = driven(proto)
    found = counts(model)
    assert (found[moves.LAST], found[moves.FIRST]) == (1, 1)
    assert [model.graph[0].op_type, model.graph[-1].op_type] == [moves.LAST, moves.FIRST]
    assert_same(proto, model, b.rng)


def test_a_residual_from_outside_is_moved_where_that_saves_a_move() -> None:
    b = Builder(np.random.default_rng(0))
    x, r = image(b, free=False), image(b, "r", free=False)
    y = convolution(b, b.add("Add", convolution(b, x), r))
    proto = b.model(y=y)
    model = driven(proto)
    assert (counts(model)[moves.LAST], counts(model)[moves.FIRST]) == (2, 1)
    assert_same(proto, model, b.rng)
    b = Builder(np.random.default_rng(0))
    proto = b.model(y=b.add("Add", convolution(b, image(b, free=False)), image(b, "r", free=False)))
    model = driven(proto)
    assert (counts(model)[moves.LAST], counts(model)[moves.FIRST]) == (1, 1)
    assert_same(proto, model, b.rng)


def test_an_image_that_others_read_as_it_was_stays_for_them() -> None:
    b = Builder(np.random.default_rng(1))
    y = convolution(b, image(b))
    proto = b.model(y=y, z=convolution(b, y), shape=b.add("Transpose", y, perm=[3, 2, 1, 0]))
    model = driven(proto)
    assert (counts(model)[moves.LAST], counts(model)[moves.FIRST]) == (1, 2)
    assert_same(proto, model, b.rng)


def test_moves_that_are_left_are_operators() -> None:
    b = Builder(np.random.default_rng(0))
    proto = b.model(y=convolution(b, image(b)))
    model = driven(proto)
    assert [node.op_type for node in model.graph] == [moves.LAST, "ColumnConvolution", moves.FIRST]
    assert lowerable(model) == []
    assert_same(proto, model, b.rng)


def pushed(other: ir.Value, *, stored: bool) -> list[str]:
    """What becomes of `ToChannelsFirst -> Multiply with another value -> ToChannelsLast`."""
    x = ir.Value(name="x", shape=ir.Shape([1, 4, 5, 3]), type=ir.TensorType(ir.DataType.FLOAT))
    first = moves.moved(moves.FIRST, x, "first")
    slot = "constant" if stored else "b"
    product = make("Multiply", {"a": first.outputs[0], slot: other}, {}, "product")
    last = moves.moved(moves.LAST, product.outputs[0], "last")
    last.outputs[0].name = "y"
    inputs, tensors = ([x], [other]) if stored else ([x, other], [])
    graph = ir.Graph(inputs, last.outputs, nodes=[first, product, last], initializers=tensors, name="g")
    graph.opset_imports.update({"": 17, "openwork": 1})
    model = ir.Model(graph, ir_version=9)
    Driver(model, [phase for phase in PHASES if phase.name == "layout"], thorough=True).run()
    return [node.op_type for node in model.graph]


def test_what_goes_with_the_last_dimension_is_not_moved() -> None:
    """Numbers of each column, or a column for each image, would be another thing with the channels last."""
    moved = [moves.FIRST, "Multiply", moves.LAST]

    def stored(*numbers: float) -> ir.Value:
        tensor = ir.tensor(np.array(numbers, np.float32), name="c")
        return ir.Value(
            name="c", shape=tensor.shape, type=ir.TensorType(ir.DataType.FLOAT), const_value=tensor
        )

    assert pushed(stored(2.0), stored=True) == ["Multiply"]
    assert pushed(stored(*range(5)), stored=True) == moved
    for shape, expected in (([1, 3, 4, 5], [moves.LAST, "Multiply"]), ([1, 1, 1, 5], moved)):
        b = ir.Value(name="b", shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))
        assert pushed(b, stored=False) == expected


def quantized_image(moved_before: bool, readers: int = 1) -> list[str]:
    """What becomes of `Quantize -> ToChannelsLast`, on an image whose channels may have been moved before."""
    shape = [1, 4, 5, 3] if moved_before else [1, 3, 4, 5]
    x = ir.Value(name="x", shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))
    before = [moves.moved(moves.FIRST, x, "before")] if moved_before else []
    image = before[0].outputs[0] if before else x
    quantize = make("Quantize", {"x": image}, {"y_scale": 0.1, "y_zero_point": 3}, "q")
    last = moves.moved(moves.LAST, quantize.outputs[0], "last")
    outputs = [last.outputs[0], *([quantize.outputs[0]] if readers > 1 else [])]
    for index, value in enumerate(outputs):
        value.name = f"y{index}"
    graph = ir.Graph([x], outputs, nodes=[*before, quantize, last], name="g")
    graph.opset_imports.update({"": 17, "openwork": 1})
    model = ir.Model(graph, ir_version=9)
    feeds = {"x": np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    wanted = run(model, feeds)
    Driver(model, [phase for phase in PHASES if phase.name == "layout"], thorough=True).run()
    found = run(model, feeds)
    assert all(found[name].tobytes() == array.tobytes() for name, array in wanted.items())
    return [node.op_type for node in model.graph]


def test_a_quantizer_is_done_while_channels_are_moved() -> None:
    assert quantized_image(False) == [moves.LAST]
    assert quantized_image(True) == ["Quantize"]
    assert quantized_image(False, readers=2) == ["Quantize", moves.LAST]


def test_only_an_operator_that_wants_it_is_moved() -> None:
    value = ir.Value(name="x", shape=ir.Shape([1, 2, 3, 4]), type=ir.TensorType(ir.DataType.FLOAT))
    with pytest.raises(ValueError, match="Relu does not want its channels last; make it as it is"):
        moves.around("Relu", {"x": value}, {}, "r", value)


def test_integers_are_moved_as_they_are() -> None:
    value = ir.Value(name="x", shape=ir.Shape(["b", 2, "h", 4]), type=ir.TensorType(ir.DataType.UINT8))
    made = moves.moved(moves.LAST, value, "m").outputs[0]
    assert made.dtype == ir.DataType.UINT8
    assert [str(dim) for dim in made.shape] == ["b", "h", "4", "2"]  # type: ignore[union-attr]


@pytest.mark.parametrize("seed", range(25))
def test_random_graphs_mean_the_same(seed: int) -> None:
    rng = np.random.default_rng(seed)
    b = Builder(rng)
    free = bool(seed % 2)
    values = [image(b, free=free), image(b, "r", free=free)]
    for _ in range(int(rng.integers(3, 12))):
        pick = values[int(rng.integers(max(0, len(values) - 4), len(values)))]
        kind = int(rng.integers(5))
        if kind < 2:
            values.append(convolution(b, pick))
        elif kind < 4:
            values.append(b.add(("Relu", "Tanh")[kind - 2], pick))
        else:
            other = values[int(rng.integers(len(values)))]
            if other != pick:
                values.append(b.add("Add", pick, other))
    outputs = {f"y{index}": value for index, value in enumerate(dict.fromkeys([values[-1], values[-2]]))}
    made = {name: value for name, value in outputs.items() if value not in ("x", "r")}
    proto = b.model(**made)
    model = driven(proto)
    assert_same(proto, model, rng, seed)
    found = counts(model)
    assert found[moves.LAST] + found[moves.FIRST] <= 2 * counts_of(proto)["Conv"], f"seed {seed}"


def counts_of(proto: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in proto.graph.node)

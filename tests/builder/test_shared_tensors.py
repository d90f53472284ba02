"""A layer that a model uses many times is stored once in the engine, and packed once in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from engine_samples import pruned
from graph_models import Builder, runtime
from openwork import build, load
from openwork.backends.cpu.weights import pack_weights
from openwork.backends.target import choose_target
from openwork.engine.engine_file import read_engine

LAYERS, WIDTH = 6, 256
SCALE = 0.02


def model(pattern: str | None, copies: bool) -> onnx.ModelProto:
    """One layer six times; copies: with an initializer and a DequantizeLinear of its own each time."""
    b = Builder(np.random.default_rng(0))
    x = b.input("x", ["rows", WIDTH])
    values = b.rng.integers(-100, 101, (WIDTH, WIDTH)).astype(np.int8)
    values = values if pattern is None else pruned(np.where(values == 0, 1, values), pattern)
    bias = b.rng.standard_normal(WIDTH).astype(np.float32)
    shared: list[str] = []
    for number in range(LAYERS):
        if copies or not shared:
            weight = b.constant(values.T.astype(np.int8), f"layer.{number}.weight")
            shared = [
                b.add("DequantizeLinear", weight, b.number(2e-4)),
                b.constant(bias, f"layer.{number}.bias"),
            ]
        product = b.add("MatMul", b.round_trip(x, SCALE, 128), shared[0])
        x = b.add("Relu", b.add("Add", product, shared[1]))
    return b.model(y=x)


@pytest.mark.parametrize("pattern", [None, "2:4"])
@pytest.mark.parametrize("copies", [False, True])
def test_a_layer_that_is_used_many_times_is_stored_once(
    pattern: str | None, copies: bool, tmp_path: Path
) -> None:
    made = model(pattern, copies)
    path = tmp_path / "m.engine"
    build(made, path, shapes=[[8]], timing_cache=tmp_path / "cache.json", progress=False)
    file = read_engine(path)
    steps = [step for step in file.program.steps if step.op == "linear"]
    assert len(steps) == LAYERS
    assert len({(step.tensors["weight"], step.pattern) for step in steps}) == 1
    # Besides the weight: its scales, its bias, and at most two multipliers of what it makes.
    stored = sum(file.tensors.mapped[name].nbytes for name in file.tensors)
    assert stored <= WIDTH * WIDTH + 4 * 4 * WIDTH
    # What the engine has besides, the program and the report, grows with the layers, not with their width.
    assert path.stat().st_size <= stored + LAYERS * 4096
    x = np.random.default_rng(1).uniform(-2, 2, (8, WIDTH)).astype(np.float32)
    given, expected = load(path).run({"x": x})["y"], runtime(made, {"x": x})["y"]
    # A tie in a quantizer moves a product by one step of it times one weight: few of them, and small.
    np.testing.assert_allclose(given, expected, rtol=0, atol=6 * SCALE * 2e-4 * 100)


def test_steps_that_name_one_weight_share_what_is_packed(tmp_path: Path) -> None:
    path = tmp_path / "m.engine"
    build(model(None, False), path, shapes=[[8]], timing_cache=tmp_path / "cache.json", progress=False)
    file = read_engine(path)
    packed = pack_weights(file.program, file.tensors, choose_target(None, 1).isa)
    assert len(packed) == LAYERS
    forms = {weights.form: weights for found in packed.values() for weights, _ in found.tactics}
    assert all(weights is forms[weights.form] for found in packed.values() for weights, _ in found.tactics)


def test_a_table_that_is_tied_to_the_last_layer_is_stored_once(tmp_path: Path) -> None:
    b = Builder(np.random.default_rng(0))
    ids = b.input("ids", ["batch", "length"], onnx.TensorProto.INT64)
    table = b.normal(40, 16, name="words")
    length = b.add("Gather", b.add("Shape", ids), b.integers(1), axis=0)
    positions = b.add("Slice", b.normal(9, 16), b.integers(0), length, b.integers(0))
    summed = b.add("Add", b.add("Gather", table, ids), positions)
    y = b.add("MatMul", b.add("Relu", summed), b.add("Transpose", table, perm=[1, 0]))
    made = b.model(y=y)
    path = tmp_path / "m.engine"
    build(made, path, shapes=[[2, 5]], timing_cache=tmp_path / "cache.json", progress=False)
    file = read_engine(path)
    named = {slot: name for step in file.program.steps for slot, name in step.tensors.items()}
    assert named["word"] == named["weight"]
    feeds = {"ids": np.array([[1, 2, 3, 0, 39], [7, 7, 8, 9, 1]])}
    # Sums of 16 products below 16 in another order.
    np.testing.assert_allclose(load(path).run(feeds)["y"], runtime(made, feeds)["y"], rtol=0, atol=1e-4)

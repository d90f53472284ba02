"""Which whole engine is kept: native steps only where the model gains by them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from openwork import build, load
from openwork.bench.latency import Options, Timing
from openwork.builder import draft, race
from openwork.builder.race import WHOLE
from openwork.builder.shape_names import fitted, translated
from openwork.engine.program import Named, Program, Value

SIZE = 8


def network() -> onnx.ModelProto:
    """Quantized: two Einsums, which have no native step, with a Relu between, and a native product."""
    rng = np.random.default_rng(0)
    tensors, nodes = [], []

    def constant(name: str, array: np.ndarray) -> str:
        tensors.append(numpy_helper.from_array(array, name))
        return name

    scale, zero = constant("s", np.float32(0.05)), constant("z", np.uint8(100))

    def quantized(name: str) -> str:
        nodes.append(helper.make_node("QuantizeLinear", [name, scale, zero], [f"{name}.q"], f"{name}.Q"))
        nodes.append(
            helper.make_node("DequantizeLinear", [f"{name}.q", scale, zero], [f"{name}.d"], f"{name}.D")
        )
        return f"{name}.d"

    def weight(name: str, *shape: int) -> str:
        constant(f"{name}.i", rng.integers(-127, 128, shape, np.int8))
        nodes.append(
            helper.make_node(
                "DequantizeLinear", [f"{name}.i", constant(f"{name}.s", np.float32(0.01))], [name]
            )
        )
        return name

    def einsum(source: str, name: str) -> str:
        given = [quantized(source), weight(f"{name}.w", 4, 4)]
        nodes.append(helper.make_node("Einsum", given, [name], name, equation="bchw,dc->bdhw"))
        return name

    nodes_of_relu = helper.make_node("Relu", [einsum("x", "c0")], ["r"], "relu")
    nodes.append(nodes_of_relu)
    top = einsum("r", "c1")
    nodes.append(helper.make_node("Flatten", [top], ["f"], "flat"))
    nodes.append(
        helper.make_node("MatMul", [quantized("f"), weight("w", 4 * SIZE * SIZE, 10)], ["y"], "head")
    )
    ports = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4, SIZE, SIZE]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 10]),
    ]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], tensors)
    return helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 18)])


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets every engine of a name take a stated time, by shape, and once more where the race is close."""

    def state(**by_name: list[float]) -> None:
        shapes = iter(range(100))

        def measured(runners: Mapping[str, Callable[[], object]], _: Options) -> dict[str, Timing]:
            number = next(shapes)
            for run in runners.values():
                run()
            taken = {name: np.full(3, 1e3 * by_name[name][number % len(by_name[name])]) for name in runners}
            return {name: Timing(times, times) for name, times in taken.items()}

        monkeypatch.setattr(race, "measure", measured)

    return state


def built(folder: Path, **options: Any) -> Path:
    path = folder / "m.engine"
    chosen = {"native": "on", "shapes": [[1], [3]], "threads": 1, **options}
    build(network(), path, timing_cache=folder / "t.json", progress=False, **chosen)
    return path


def check(path: Path) -> None:
    """The engine gives what ONNX Runtime gives, but for roundings at ties."""
    x = np.random.default_rng(1).normal(0, 1, (2, 4, SIZE, SIZE)).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(network().SerializeToString(), options, ["CPUExecutionProvider"])
    expected = session.run(None, {"x": x})[0]
    made = load(path, threads=1).run({"x": x})["y"]
    assert np.linalg.norm(made - expected) < 0.02 * np.linalg.norm(expected)


def operators(path: Path) -> list[list[str]]:
    """The operators of each part that ONNX Runtime runs."""
    engine = load(path, threads=1)
    return [[node.split()[0] for node in part.nodes] for part in engine.report.fallbacks]


def test_what_is_faster_at_every_shape_is_kept(tmp_path: Path, seconds: Callable[..., None]) -> None:
    seconds(native=[0.9, 0.5], joined=[0.95, 0.6], onnxruntime=[1.0, 1.0])
    path = built(tmp_path)
    report = load(path).report
    assert [time.shape for time in report.whole] == [(1,), (3,)]
    assert report.whole[1].seconds == {"native": 0.5, "joined": 0.6, "onnxruntime": 1.0}
    assert [layer.name for layer in report.layers] == ["head"]
    check(path)


def test_native_steps_between_parts_of_onnx_runtime_join_it_with_their_quantizers(
    tmp_path: Path, seconds: Callable[..., None]
) -> None:
    seconds(native=[0.9, 0.9], joined=[0.8, 0.8], onnxruntime=[1.0, 1.0])
    path = built(tmp_path)
    report = load(path).report
    assert [layer.name for layer in report.layers] == ["head"]
    # One part: the Einsums, the Relu, and every quantizer around them.
    (part,) = operators(path)
    assert part.count("Einsum") == 2
    assert part.count("Relu") == 1
    assert part.count("QuantizeLinear") >= 2
    assert "What stands between parts of ONNX Runtime" in " ".join(report.notes)
    check(path)


def test_a_draft_of_the_race_that_cannot_be_made_is_left_out(
    tmp_path: Path,
    seconds: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    seconds(native=[0.9, 0.9], onnxruntime=[1.0, 1.0])
    plain = draft.reduce

    def fails(*given: Any, keep: Any = (), **named: Any) -> Any:
        if keep:
            raise KeyError("lost")
        return plain(*given, keep=keep, **named)

    monkeypatch.setattr(draft, "reduce", fails)
    path = built(tmp_path)
    assert [layer.name for layer in load(path).report.layers] == ["head"]
    assert "Making native operators of the model failed with KeyError" in caplog.text
    check(path)


def test_a_race_that_fails_leaves_the_model_to_onnx_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> Any:
        raise KeyError("lost")

    monkeypatch.setattr(race, "measure", fails)
    path = built(tmp_path)
    report = load(path).report
    assert not report.layers
    assert any("Timing the engine failed with KeyError" in note for note in report.notes)
    check(path)


@pytest.mark.parametrize("native", [[0.98, 0.98], [1.04, 1.02, 0.97, 0.98], [0.98, 0.99, 0.96, 0.98]])
def test_a_close_race_is_decided_by_a_longer_one(
    tmp_path: Path, seconds: Callable[..., None], native: list[float]
) -> None:
    seconds(native=native, joined=[1.0], onnxruntime=[1.0])
    path = built(tmp_path)
    report = load(path).report
    assert [layer.name for layer in report.layers] == ["head"]
    assert [time.seconds["native"] for time in report.whole] == native[-2:]
    check(path)


@pytest.mark.parametrize(
    "native", [[1.1, 1.1], [0.5, 1.1], [1.0, 1.0], [0.995, 0.992], [0.95, 0.96, 1.0, 1.01]]
)
def test_a_model_that_does_not_gain_at_every_shape_runs_as_one_part(
    tmp_path: Path, seconds: Callable[..., None], native: list[float]
) -> None:
    seconds(native=native, joined=native, onnxruntime=[1.0, 1.0])
    path = built(tmp_path)
    engine = load(path, threads=1)
    assert [step.op for step in engine._program.steps] == ["fallback"]
    assert "ONNX Runtime runs the whole model, since no native steps made it faster" in " ".join(
        engine.report.notes
    )
    (part,) = engine.report.fallbacks
    assert len(part.nodes) == len(network().graph.node)
    # What had no native step says why, and what had one that it had.
    assert "Einsum 'c0': openwork does not run Einsum" in part.reason
    assert "MatMul 'head': it is left to ONNX Runtime with its neighbours." in part.reason
    assert engine.report.whole[0].seconds[WHOLE] == 1.0
    check(path)


def test_a_shape_at_which_the_model_does_not_run_is_left_out(tmp_path: Path) -> None:
    rows = numpy_helper.from_array(np.array([4, -1, 8]), "rows")
    weight = numpy_helper.from_array(np.eye(8, dtype=np.float32), "w")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "product"),
        helper.make_node("Reshape", ["a", "rows"], ["y"], "fold"),
    ]
    ports = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, "rest", 8]),
    ]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], [rows, weight])
    model = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 18)])
    options: dict[str, Any] = {"native": "on", "progress": False, "timing_cache": tmp_path / "t.json"}
    report = build(model, tmp_path / "m.engine", shapes=[[3], [8]], **options)
    assert [time.shape for time in report.whole] == [(8,)]
    assert [note for note in report.notes if note.startswith("At 3 the model does not run: ")]
    report = build(model, tmp_path / "m.engine", shapes=[[3]], **options)
    assert [note for note in report.notes if "was not timed beside the model in ONNX Runtime" in note]


def test_smaller_shapes_are_tried_for_a_model_that_runs_at_none() -> None:
    assert list(race._tried([(16, 128), (1, 32)])) == [
        *((16, 128), (1, 32)),
        *((1, 16), (1, 8), (1, 4), (1, 2), (1, 1)),
    ]
    assert list(race._tried([()])) == [()]


def test_force_and_off(tmp_path: Path) -> None:
    path = built(tmp_path, native="force")
    assert len(operators(path)) > 1
    check(path)
    path = built(tmp_path, native="off")
    assert len(operators(path)) == 1
    assert not load(path).report.layers
    check(path)


def test_the_variable_is_the_default_and_a_wrong_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENWORK_NATIVE", "off")
    assert not load(built(tmp_path, native=None)).report.layers
    monkeypatch.setenv("OPENWORK_NATIVE", "maybe")
    with pytest.raises(ValueError, match="The environment variable OPENWORK_NATIVE is one of on, off, force"):
        built(tmp_path, native=None)
    with pytest.raises(ValueError, match="The native mode is one of on, off, force, but it is 'never'"):
        built(tmp_path, native="never")


def test_a_real_race_gives_a_right_engine(tmp_path: Path) -> None:
    path = built(tmp_path)
    assert len(load(path).report.whole) == 2
    check(path)


def two_inputs(first: str, second: str) -> Program:
    values = (Value("f32", (first, 8)), Value("f32", (second, 8)))
    return Program((Named("a", 0), Named("b", 1)), (), values, ())


def test_names_that_are_one_size_take_one_size_or_two_that_agree() -> None:
    merged, inputs = two_inputs("rows_a", "rows_a"), [("rows_a", 8), ("rows_b", 8)]
    assert fitted([4, 4], inputs, merged) == (4,)
    assert fitted([4], inputs, merged) == (4,)
    assert fitted([4, 5], inputs, two_inputs("rows_a", "rows_b")) == (4, 5)
    with pytest.raises(ValueError, match=r"'rows_b' and 'rows_a' are one size in this model, .* 5 and 4"):
        fitted([4, 5], inputs, merged)


def test_sizes_go_from_one_program_to_another() -> None:
    merged, apart = two_inputs("rows_a", "rows_a"), two_inputs("rows_a", "rows_b")
    assert translated({"rows_a": 4}, merged, apart) == {"rows_a": 4, "rows_b": 4}
    assert translated({"rows_a": 4, "rows_b": 4}, apart, merged) == {"rows_a": 4}

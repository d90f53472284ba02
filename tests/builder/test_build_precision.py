"""What the float products of a model become: FP32, BF16 where that is faster, or a sentence about INT8."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import openwork
from engine_files import rewritten
from engine_samples import pruned
from openwork import _native
from openwork.backends.cpu.backend import Cpu
from openwork.builder import tactics
from openwork.builder.builder import build
from openwork.builder.differences import TOLERANCE, tolerance_of
from openwork.builder.lower import BuildError
from openwork.engine.engine_file import read_engine
from openwork.engine.inspection import inspect_engine
from openwork.engine.problem import Tactic
from openwork.graph.reference import linear_float
from openwork.support import bf16
from openwork.support.fields import EngineFileError
from qdq_models import two_layers

CHANNELS, WIDTH, OUT = 3, 32, 10


def gains(half: float) -> Callable[..., Any]:
    """A timer by which a tactic of BF16 takes `half` of what FP32 takes, and a sparse one half of dense."""

    def time(_: Cpu, problem: Any, weight: Any, chosen: Sequence[Tactic], rows: int, target: Any) -> Any:
        each = [
            (half if tactic.element == "bf16" else 1.0) * (0.5 if tactic.form.startswith(("w", "b")) else 1.0)
            for tactic in chosen
        ]
        return lambda repeats: np.repeat(np.array(each)[:, None], repeats, axis=1)

    return time


@pytest.fixture(autouse=True)
def timed(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    monkeypatch.setattr(Cpu, "time", gains(0.5))
    return lambda half: monkeypatch.setattr(Cpu, "time", gains(half))


def weights(pattern: str | None = None, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    drawn = {
        "w0": rng.standard_normal((WIDTH, CHANNELS, 3, 3)) / 5,
        "w1": rng.standard_normal((WIDTH, WIDTH, 3, 3)) / 17,
        "w2": rng.standard_normal((WIDTH, WIDTH, 1, 1)) / 6,
        "w3": rng.standard_normal((OUT, WIDTH)) / 6,
    }
    made = {name: array.astype(np.float32) for name, array in drawn.items()}
    if pattern is not None:
        for name in ("w1", "w2"):
            n, k, height, width = made[name].shape
            rows = made[name].transpose(2, 3, 0, 1).reshape(-1, k)
            kept = pruned(rows, pattern).astype(np.float32).reshape(height, width, n, k)
            made[name] = np.ascontiguousarray(kept.transpose(2, 3, 0, 1))
        made["w3"] = pruned(made["w3"], pattern).astype(np.float32)
    return made


def network(stored: dict[str, np.ndarray]) -> onnx.ModelProto:
    """A stem, two convolutions around which a residual goes, the mean over the pixels, and a product."""
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["a"], "stem", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("Conv", ["b", "w1"], ["c"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["d"], "relu1"),
        helper.make_node("Conv", ["d", "w2"], ["e"], "second"),
        helper.make_node("Add", ["e", "b"], ["f"], "sum"),
        helper.make_node("GlobalAveragePool", ["f"], ["g"], "mean"),
        helper.make_node("Flatten", ["g"], ["h"], "flatten"),
        helper.make_node("Gemm", ["h", "w3"], ["y"], "head", transB=1),
    ]
    taken = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", CHANNELS, 16, 16])
    made = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", OUT])
    held = [numpy_helper.from_array(array, name) for name, array in stored.items()]
    graph = helper.make_graph(nodes, "network", [taken], [made], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def built(
    folder: Path, model: onnx.ModelProto, precision: str | None, **options: Any
) -> openwork.BuildReport:
    chosen = {"native": "force", "strict": True, "shapes": [[2]], "threads": 1, "progress": False, **options}
    cache = folder / "timings.json"
    return build(model, folder / "m.engine", precision=precision, timing_cache=cache, **chosen)


def image(batch: int = 2) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(3).standard_normal((batch, CHANNELS, 16, 16)).astype(np.float32)}


def run(folder: Path, batch: int = 2) -> np.ndarray:
    return np.asarray(openwork.load(folder / "m.engine", threads=1).run(image(batch))["y"])


@pytest.mark.parametrize("precision", [None, "fp32"])
def test_nothing_is_reduced_unless_it_is_asked_for(precision: str | None, tmp_path: Path) -> None:
    report = built(tmp_path, network(weights()), precision)
    assert report.settings.precision == "fp32"
    assert {layer.element for layer in report.layers} == {"f32"}
    texts = [text for layer in report.layers for bucket in layer.buckets for text in bucket.seconds]
    assert all(Tactic.parse(text).element == "f32" for text in texts)


@pytest.mark.parametrize("pattern", [None, "2:4", "4:16"])
def test_where_bf16_is_faster_layers_run_in_it(pattern: str | None, tmp_path: Path) -> None:
    stored = weights(pattern)
    report = built(tmp_path, network(stored), "bf16")
    assert report.settings.precision == "bf16"
    assert [layer.element for layer in report.layers] == ["bf16"] * 4
    assert "BF16 runs 4 of 4 float layers, as asked." in report.notes
    assert all("times as fast as f32:" in layer.why for layer in report.layers)
    first = report.layers[1]
    assert first.sparse == (pattern is not None)
    assert first.bytes_dense == 2 * stored["w1"].size
    assert {Tactic.parse(pick.tactic).element for pick in first.picks} == {"bf16"}
    file = read_engine(tmp_path / "m.engine")
    assert [array.dtype for array in file.tensors.values()].count(np.dtype("<u2")) == 4
    assert inspect_engine(tmp_path / "m.engine", verify=True).report == report


@pytest.mark.parametrize("isa", _native.isas())
@pytest.mark.parametrize("pattern", [None, "2:4"])
def test_every_instruction_set_runs_them(
    pattern: str | None, isa: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = network(weights(pattern))
    built(tmp_path, exact, "fp32")
    expected = run(tmp_path, 3)
    built(tmp_path, exact, "bf16")
    monkeypatch.setenv("OPENWORK_ISA", isa)
    found = run(tmp_path, 3)
    # Four products in a row, each of two factors that are moved by at most a unit roundoff of themselves.
    moved = np.linalg.norm(found - expected)
    assert 0 < moved <= 4 * 2 * bf16.UNIT_ROUNDOFF * np.linalg.norm(expected)


def test_where_it_is_no_faster_they_stay_as_they_are(timed: Callable[[float], None], tmp_path: Path) -> None:
    timed(0.98)
    report = built(tmp_path, network(weights()), "bf16")
    assert [layer.element for layer in report.layers] == ["f32"] * 4
    assert "BF16 runs 0 of 4 float layers, as asked; it makes 4 others no faster." in report.notes
    assert all("bf16:dense" in text for layer in report.layers for text in [str(layer.buckets[0].seconds)])
    built_exact = run(tmp_path)
    built(tmp_path, network(weights()), "fp32")
    np.testing.assert_array_equal(run(tmp_path), built_exact)


def test_it_must_lose_at_no_number_of_rows() -> None:
    def bucket(rows: int, half: float) -> tactics.Bucket:
        return tactics.Bucket(rows, {"f32:dense": 1.0, "bf16:dense": half}, "f32:dense", False)

    assert tactics.reduced_is_faster([bucket(1, 1.0), bucket(9, 0.5)])
    assert not tactics.reduced_is_faster([bucket(1, 1.1), bucket(9, 0.5)])
    assert not tactics.reduced_is_faster([bucket(1, 0.99), bucket(9, 0.99)])


def test_a_weight_that_bf16_does_not_hold_stays_f32(tmp_path: Path) -> None:
    stored = weights()
    stored["w2"][0, 0] = 3.4e38
    report = built(tmp_path, network(stored), "bf16", verify=False)
    assert [layer.element for layer in report.layers] == ["bf16", "bf16", "f32", "bf16"]


def test_the_activations_between_two_products_are_rounded_where_they_are_made(tmp_path: Path) -> None:
    built(tmp_path, network(weights()), "bf16")
    engine = openwork.load(tmp_path / "m.engine", threads=1)
    steps = [step.name for step in engine.profile(image(), 1)]
    # Of the image, and of what is a residual as well; between the two convolutions there is none.
    assert sum(name.startswith("round_bf16") for name in steps) == 2


def test_a_product_has_the_meaning_of_its_reference(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    weight = rng.standard_normal((OUT, 64)).astype(np.float32)
    x = rng.standard_normal((7, 64)).astype(np.float32)
    node = helper.make_node("Gemm", ["x", "w"], ["y"], "head", transB=1)
    taken = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["rows", 64])
    made = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["rows", OUT])
    graph = helper.make_graph([node], "g", [taken], [made], [numpy_helper.from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    built(tmp_path, model, "bf16")
    found = openwork.load(tmp_path / "m.engine", threads=1).run({"x": x})["y"]
    expected = linear_float(x, None, np.asarray(bf16.weights(weight)), None, {"activation": "none"})
    # Exact products, summed in an order of the form's own: 64 roundings of at most 2^-24 of the magnitudes.
    bound = 64 * 2.0**-24 * (np.abs(x) @ np.abs(weight).T) * (1 + 2 * bf16.UNIT_ROUNDOFF) ** 2
    assert (np.abs(found - expected) <= bound).all()


def test_steps_that_share_a_weight_share_what_became_of_it(tmp_path: Path) -> None:
    stored = weights()
    model = network(stored)
    model.graph.node[4].input[1] = "w1"
    attributes = [helper.make_attribute("pads", [1, 1, 1, 1])]
    model.graph.node[4].attribute.extend(attributes)
    model.graph.initializer.remove(next(each for each in model.graph.initializer if each.name == "w2"))
    report = built(tmp_path, model, "bf16")
    assert [layer.element for layer in report.layers] == ["bf16"] * 4
    steps = read_engine(tmp_path / "m.engine").program.steps
    assert len({step.tensors["weight"] for step in steps if step.tactics}) == 3


def test_int8_is_refused_for_a_float_model_and_the_sentence_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        BuildError, match=r"The precision int8 needs a quantized model, .*\(`openwork quantize"
    ):
        built(tmp_path, network(weights()), "int8")
    assert not (tmp_path / "m.engine").exists()
    report = built(tmp_path, two_layers(), "int8", shapes=[[3]])
    assert {layer.element for layer in report.layers} == {"i8"}


def test_integer_products_stay_integer_products_in_every_precision(tmp_path: Path) -> None:
    report = built(tmp_path, two_layers(), "bf16", shapes=[[3]])
    assert {layer.element for layer in report.layers} == {"i8"}


def test_another_precision_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="The precision is one of fp32, bf16, int8, but it is 'fp16'"):
        built(tmp_path, network(weights()), "fp16")


def test_the_tolerance_grows_with_the_products_in_bf16() -> None:
    assert tolerance_of(0) == TOLERANCE
    assert tolerance_of(16) == pytest.approx(TOLERANCE + 4 * 2 * bf16.UNIT_ROUNDOFF)


def test_a_wrong_type_of_a_stored_weight_is_refused(tmp_path: Path) -> None:
    built(tmp_path, network(weights()), "bf16")

    def integers(header: dict[str, Any], program: dict[str, Any]) -> None:
        step = next(step for step in program["steps"] if step["op"] == "linear")
        entry = header[step["tensors"]["weight"]]
        entry |= {"dtype": "I8", "shape": [OUT, 2 * WIDTH]}

    lie = tmp_path / "lie.engine"
    lie.write_bytes(rewritten(tmp_path / "m.engine", integers))
    message = r"'weight' of step 'head' to be f32 or bf16 \[N,K\] since 'x_scale' is absent, found s8"
    with pytest.raises(EngineFileError, match=message):
        openwork.load(lie, threads=1)

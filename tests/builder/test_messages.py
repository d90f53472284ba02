"""What users read of a build and of a run: by the model's own names, and nothing that does not hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from typer.testing import CliRunner

from graph_models import Builder
from openwork import build, load
from openwork.builder.eligibility import judge
from openwork.cli.app import app
from openwork.engine.report import BuildReport


def kept_rows() -> onnx.ModelProto:
    """relu(x) + the rows of z whose sum is positive; the model states that these are as many as there are."""
    b = Builder(np.random.default_rng(0))
    x, z = b.input("x", ["n", 8]), b.input("z", ["n", 8])
    positive = b.add("Greater", b.add("ReduceSum", z, b.integers(1), keepdims=0), b.number(0.0))
    kept = b.add("Compress", z, positive, axis=0)
    model = b.model(y=b.add("Add", b.add("Relu", x), b.add("Tanh", kept)))
    model.graph.value_info.append(helper.make_tensor_value_info(kept, TensorProto.FLOAT, ["n", 8]))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 8]))
    return model


def built(model: onnx.ModelProto, folder: Path, **options: object) -> BuildReport:
    given = {"progress": False, "threads": 1, "timing_cache": folder / "t.json", **options}
    return build(model, folder / "m.engine", **given)  # type: ignore[arg-type]


def test_sizes_that_a_step_makes_are_named_by_that_step(tmp_path: Path) -> None:
    built(kept_rows(), tmp_path, verify=False)
    engine = load(tmp_path / "m.engine", threads=1)
    ones = np.ones((3, 8), np.float32)
    assert engine.run({"x": ones, "z": ones})["y"].shape == (3, 8)
    z = ones.copy()
    z[1] = -1
    said = (
        r"^What the step '.*' makes has the shape \[2, 8\], but dimension 0 must be 3 there, since 'n' is 3 "
        r"in the input 'x'; feed inputs of sizes that agree"
    )
    with pytest.raises(ValueError, match=said):
        engine.run({"x": ones, "z": z})
    assert engine.run({"x": ones, "z": ones})["y"].shape == (3, 8)


def chosen_rows() -> onnx.ModelProto:
    """The rows whose sum is positive, without any layer behind them."""
    b = Builder(np.random.default_rng(0))
    x = b.input("x", ["n", 8])
    positive = b.add("Greater", b.add("ReduceSum", x, b.integers(1), keepdims=0), b.number(0.0))
    return b.model(y=b.add("Sin", b.add("Compress", x, positive, axis=0)))


@pytest.mark.parametrize("native", ["off", "force"])
def test_sizes_are_sought_for_layers_alone(native: str, tmp_path: Path) -> None:
    report = built(chosen_rows(), tmp_path, native=native)
    assert not [note for note in report.notes if "The sizes of" in note]


def test_an_engine_without_layers_has_a_sentence_and_no_table(tmp_path: Path) -> None:
    onnx.save(chosen_rows(), tmp_path / "m.onnx")
    arguments = ["build", tmp_path / "m.onnx", "-o", tmp_path / "m.engine", "--threads", 1]
    found = CliRunner().invoke(app, [*map(str, arguments), "--timing-cache", str(tmp_path / "t.json")])
    assert found.exit_code == 0, found.output
    said = "m.onnx: no layer with weights runs in a native step; ONNX Runtime runs what is named below.\n"
    assert found.stdout.startswith(said)
    assert "Pattern" not in found.stdout


def test_what_openwork_does_not_run_is_said_plainly(tmp_path: Path) -> None:
    b = Builder(np.random.default_rng(0))
    x = b.input("x", ["n", 8])
    report = built(b.model(y=b.add("Pow", b.add("Sin", b.add("Relu", x)), b.number(2.5))), tmp_path)
    (part,) = report.fallbacks
    assert "Sin 'Sin_1': openwork does not run Sin 'Sin_1' of ['n', 8] itself." in part.reason
    assert "openwork does not run Pow 'Pow_2' of ['n', 8], [] itself." in part.reason


@pytest.mark.parametrize(("zeros", "said"), [(0.05, False), (0.45, True)])
def test_zeros_below_the_threshold_are_told_of_it(zeros: float, said: bool) -> None:
    rng = np.random.default_rng(0)
    weight = rng.integers(1, 128, (64, 64)).astype(np.int8)
    weight[rng.random(weight.shape) < zeros] = 0
    found = judge(weight, "on", lambda *_: {})
    assert found.pattern is None
    assert ("zeros anywhere are taken for a pattern from 50% of the weights on" in found.reason) == said

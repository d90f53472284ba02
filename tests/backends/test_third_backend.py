"""A back end that only this test has: the builder and the runtime use it without a line that knows it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import openwork
from engine_samples import as_model
from openwork.backends.backend import Array, Made, Outlook, Seconds, StepTime, Tensors
from openwork.backends.registry import backend_named, backends, register, unregister
from openwork.backends.target import Target
from openwork.builder import tactics
from openwork.builder.builder import build
from openwork.builder.lower import BuildError
from openwork.engine.engine_file import read_engine
from openwork.engine.parts import Part
from openwork.engine.problem import Problem, Tactic
from openwork.engine.program import Program, Step
from openwork.graph.model import is_openwork
from openwork.graph.reference import run as reference
from openwork.support.fields import EngineFileError
from qdq_models import two_layers

OTHERS = ("cpu", "onnxruntime")


@dataclass(frozen=True)
class NumpyReference:
    """The NumPy reference as a back end, for all openwork operators or some."""

    operators: frozenset[str] | None = None
    name: str = "numpy"
    title: str = "NumPy"
    takes_models: bool = False
    elements: frozenset[str] = frozenset()

    def refusal(self, node: ir.Node) -> str | None:
        if is_openwork(node) and (self.operators is None or node.op_type in self.operators):
            return None
        return f"NumPy does not do {node.op_type}"

    def unavailable(self) -> str | None:
        return None

    def work_or_reason(self, problem: Problem, weight: Array, target: Target) -> Outlook | str:
        return "NumPy has one way."

    def tactics(self, problem: Problem, rows: int) -> tuple[Tactic, ...]:
        return ()

    def time(
        self, problem: Problem, weight: Array, tactics: Sequence[Tactic], rows: int, target: Target
    ) -> Callable[[int], Seconds]:
        raise AssertionError("A back end without elements is never asked for times.")

    def check(self, step: Step, program: Program, tensors: Tensors) -> None:
        raise AssertionError("A back end that takes no models has none to check.")

    def made_shapes(
        self, step: Step, program: Program, tensors: Tensors, inputs: Sequence[tuple[int, ...]]
    ) -> Made | str:
        raise AssertionError("A back end that takes no models makes no sizes of its own.")

    def bind(self, part: Part, tensors: Tensors, target: Target) -> NumpyPart:
        return NumpyPart(part, as_model(part.program, tensors))


@dataclass(frozen=True)
class NumpyPart:
    part: Part
    model: ir.Model

    def runner(self, threads: int) -> NumpyRunner:
        return NumpyRunner(self)


@dataclass
class NumpyRunner:
    bound: NumpyPart
    seconds: list[float] = field(default_factory=list)

    def run(self, inputs: list[Array]) -> list[Array]:
        begin = time.perf_counter()
        program = self.bound.part.program
        feed = {port.name: array for port, array in zip(program.inputs, inputs, strict=True)}
        made = reference(self.bound.model, feed)
        self.seconds.append(time.perf_counter() - begin)
        return [made[port.name] for port in program.outputs]

    def enable_profile(self, enabled: bool) -> None:
        self.seconds.clear()

    def profile(self) -> list[StepTime]:
        return [StepTime("numpy", sum(self.seconds), len(self.seconds))]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tactics, "_SECONDS_PER_PROBLEM", 0.0)


@pytest.fixture
def registered(request: pytest.FixtureRequest) -> Iterator[NumpyReference]:
    backend = NumpyReference(getattr(request, "param", None))
    register(backend)
    yield backend
    unregister(backend.name)


def built(folder: Path, names: Sequence[str] | None, exotic: str | None = "Sin", **options: object) -> Path:
    path = folder / f"{'-'.join(names or ('default',))}.engine"
    options = {"shapes": [[3]], "threads": 1, "timing_cache": folder / "t.json", "progress": False} | options
    build(two_layers(exotic=exotic), path, backends=names, **options)
    return path


def outputs(path: Path) -> np.ndarray:
    x = np.random.default_rng(1).standard_normal((9, 64)).astype(np.float32)
    return openwork.load(path, threads=1).run({"x": x})["y"]


def places(path: Path) -> dict[str, str]:
    return {step.op: step.backend for step in read_engine(path).program.steps}


def test_it_runs_what_it_takes_with_the_same_bits(registered: NumpyReference, tmp_path: Path) -> None:
    expected = outputs(built(tmp_path, OTHERS))
    path = built(tmp_path, ("numpy", *OTHERS))
    assert places(path) == {"quantize": "numpy", "linear": "numpy", "fallback": "onnxruntime"}
    np.testing.assert_array_equal(outputs(path), expected)
    report = openwork.load(path, threads=1).report
    assert report.layers == ()
    assert [part.backend for part in report.fallbacks] == ["ONNX Runtime"]
    said = "Sin 'sin6': NumPy does not do Sin; openwork does not run Sin"
    assert report.fallbacks[0].reason.startswith(said)


def test_the_first_that_takes_a_node_runs_it(registered: NumpyReference, tmp_path: Path) -> None:
    assert places(built(tmp_path, None)) == places(built(tmp_path, OTHERS))
    assert [backend.name for backend in backends()] == ["cpu", "onnxruntime", "numpy"]


@pytest.mark.parametrize("registered", [frozenset({"Quantize"}), frozenset({"Linear"})], indirect=True)
def test_stages_of_three_back_ends_alternate(registered: NumpyReference, tmp_path: Path) -> None:
    expected = outputs(built(tmp_path, OTHERS))
    path = built(tmp_path, ("numpy", *OTHERS))
    found = places(path)
    assert set(found.values()) == {"numpy", "cpu", "onnxruntime"}
    np.testing.assert_array_equal(outputs(path), expected)
    steps = openwork.load(path, threads=1).profile({"x": np.ones((3, 64), np.float32)}, repeats=2)
    assert [step.calls for step in steps] == [2] * len(steps)
    report = openwork.load(path, threads=1).report
    timed = {layer.name for layer in report.layers}
    assert timed == (set() if found["linear"] == "numpy" else {"first", "second"})
    assert {part.backend for part in report.fallbacks} == {"openwork", "ONNX Runtime"}


def test_strict_means_the_first_back_end_alone(registered: NumpyReference, tmp_path: Path) -> None:
    built(tmp_path, ("numpy", "cpu"), exotic=None, strict=True)
    with pytest.raises(BuildError, match=r"The build is strict, but .* NumPy does not do Sin"):
        built(tmp_path, ("numpy", *OTHERS), strict=True)
    with pytest.raises(BuildError, match="No back end runs Sin 'sin6': NumPy does not do Sin; openwork"):
        built(tmp_path, ("numpy", "cpu"))


def test_an_engine_of_an_unknown_back_end_is_refused(tmp_path: Path) -> None:
    register(NumpyReference())
    path = built(tmp_path, ("numpy", *OTHERS))
    unregister("numpy")
    with pytest.raises(EngineFileError, match="There is no back end 'numpy'; known are cpu, onnxruntime"):
        openwork.load(path, threads=1)
    with pytest.raises(ValueError, match="There is no back end 'numpy'"):
        built(tmp_path, ("numpy",))
    with pytest.raises(ValueError, match="needs at least one back end; known are cpu, onnxruntime"):
        build(two_layers(), tmp_path / "x.engine", backends=(), progress=False)
    assert backend_named("cpu").title == "openwork"

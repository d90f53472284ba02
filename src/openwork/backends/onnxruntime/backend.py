"""The back end that takes whatever has no native operator."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from openwork.backends.backend import Array, Made, Outlook, Seconds, StepTime, Tensors
from openwork.backends.onnxruntime.session import FallbackSession, checked_model
from openwork.backends.target import Target
from openwork.engine.parts import Part
from openwork.engine.ports import TensorInfo, check_made, outputs_of
from openwork.engine.problem import Problem, Tactic
from openwork.engine.program import FALLBACK, Program, Step

if TYPE_CHECKING:
    import onnx_ir as ir


class OnnxRuntime:
    """ONNX Runtime, for every node that is standard ONNX or one of its own operators."""

    name, title, takes_models = "onnxruntime", "ONNX Runtime", True

    @property
    def elements(self) -> frozenset[str]:
        return frozenset()

    def refusal(self, node: ir.Node) -> str | None:
        from openwork.backends.onnxruntime.model_checks import foreign_operator
        from openwork.graph.model import describe, is_openwork

        if is_openwork(node):
            return f"{describe(node)} is an operator of openwork alone"
        return foreign_operator(node.domain, node.op_type)

    def unavailable(self) -> str | None:
        try:
            import onnxruntime  # noqa: F401
        except ImportError as error:
            return f"ONNX Runtime, which would run it, is not installed ({error})"
        return None

    def work_or_reason(self, problem: Problem, weight: Array, target: Target) -> Outlook | str:
        return "ONNX Runtime chooses its kernels by itself."

    def bases(self, problem: Problem, weight: Array, target: Target) -> tuple[Tactic, ...]:
        return problem.bases

    def tactics(self, problem: Problem, rows: int) -> tuple[Tactic, ...]:
        return ()

    def time(
        self, problem: Problem, weight: Array, tactics: Sequence[Tactic], rows: int, target: Target
    ) -> Callable[[int], Seconds]:
        raise ValueError("ONNX Runtime chooses its kernels by itself; there are no tactics to time.")

    def adapted(self, model: Any) -> Any:
        from openwork.backends.onnxruntime.adapting import adapted

        return adapted(model)

    def check(self, step: Step, program: Program, tensors: Tensors) -> None:
        checked_model(step, program.values, tensors)

    def made_shapes(
        self, step: Step, program: Program, tensors: Tensors, inputs: Sequence[tuple[int, ...]]
    ) -> Made | str:
        from openwork.backends.onnxruntime.shapes import made_shapes

        return made_shapes(step, program.values, tensors, inputs)

    def bind(self, part: Part, tensors: Tensors, target: Target) -> OnnxRuntimePart:
        step = part.program.steps[0]
        if step.op != FALLBACK:
            raise ValueError(
                f"ONNX Runtime runs steps that are ONNX models, but the step '{step.name}' is a {step.op}."
            )
        session = FallbackSession(step, part.program.values, tensors, target.threads, part.alone)
        return OnnxRuntimePart(session, outputs_of(part.program))


@dataclass(frozen=True)
class OnnxRuntimePart:
    """One session, which all contexts share; its threads are those that the engine was loaded with."""

    session: FallbackSession
    expected: tuple[TensorInfo, ...]

    def runner(self, threads: int) -> OnnxRuntimeRunner:
        return OnnxRuntimeRunner(self.session, self.expected)


@dataclass
class OnnxRuntimeRunner:
    """A context's use of a session: what it made is checked, and timed where asked."""

    session: FallbackSession
    expected: tuple[TensorInfo, ...]
    seconds: list[float] | None = None

    def run(self, inputs: list[Array]) -> list[Array]:
        begin = time.perf_counter()
        made = self.session.run(inputs)
        for info, array in zip(self.expected, made, strict=True):
            check_made(self.session.name, info, array)
        if self.seconds is not None:
            self.seconds.append(time.perf_counter() - begin)
        return [np.asarray(array, order="C") for array in made]

    def enable_profile(self, enabled: bool) -> None:
        self.seconds = [] if enabled else None

    def profile(self) -> list[StepTime]:
        return [StepTime(self.session.name, sum(self.seconds or ()), len(self.seconds or ()))]

"""The back end of the native kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from openwork.backends.backend import Array, Made, Outlook, Seconds, StepTime, Tensors
from openwork.backends.cpu.bind import Bound, bind
from openwork.backends.cpu.packing import Layer, bases, expected_work, pack, sparse_forms
from openwork.backends.cpu.rivals import rivals
from openwork.backends.library import native
from openwork.backends.target import Target
from openwork.engine.parts import Part
from openwork.engine.ports import inputs_of
from openwork.engine.problem import Convolution, Problem, Tactic
from openwork.engine.program import Program, Step

if TYPE_CHECKING:
    import onnx_ir as ir

ELEMENTS = frozenset({"i8", "f32", "bf16"})
"""The element types whose products run packed weights in a program."""


class Cpu:
    """openwork's own kernels: every openwork operator."""

    name, title, takes_models = "cpu", "openwork", False

    @property
    def elements(self) -> frozenset[str]:
        return ELEMENTS

    def refusal(self, node: ir.Node) -> str | None:
        from openwork.graph.reduce import why_not_native

        return why_not_native(node)

    def unavailable(self) -> str | None:
        return None

    def work_or_reason(self, problem: Problem, weight: Array, target: Target) -> Outlook | str:
        forms = sparse_forms(target.isa, problem.element)
        if not forms:
            return f"The instruction set {target.isa} has no sparse forms for {problem.element}."
        of = _layer(problem, weight, target)
        return {of.tactic(form): work for form, work in expected_work(of, forms).items()}

    def bases(self, problem: Problem, weight: Array, target: Target) -> tuple[Tactic, ...]:
        of = _layer(problem, weight, target)
        return tuple(map(of.tactic, bases(of)))

    def tactics(self, problem: Problem, rows: int) -> tuple[Tactic, ...]:
        work = {tactic.form: value for tactic, value in problem.work.items() if tactic not in problem.bases}
        tactics = {tactic.form: tactic for tactic in problem.work}
        return (*problem.bases, *(tactics[form] for form in rivals(work, rows)))

    def time(
        self, problem: Problem, weight: Array, tactics: Sequence[Tactic], rows: int, target: Target
    ) -> Callable[[int], Seconds]:
        of = _layer(problem, weight, target)
        layers = {element: of.of_element(element) for element in {tactic.element for tactic in tactics}}
        packed = [pack(layers[tactic.element], tactic) for tactic in tactics]
        given: dict[str, Any] = {"activation": problem.activation, "quantized": problem.output == "u8"}
        given["floats"] = of.element != "i8"
        sizes, size = problem.sizes, tuple[Any, ...]((rows,))
        time: Any = native().time_linear
        if isinstance(sizes, Convolution):
            time, size = native().time_conv, (sizes.image,)
            given |= {name: getattr(sizes, name) for name in ("strides", "dilations", "pads")}

        def timed(repeats: int) -> Seconds:
            seconds: Seconds = time(packed, *size, threads=target.threads, repeats=repeats, **given)
            return seconds

        return timed

    def adapted(self, model: Any) -> Any:
        return model

    def check(self, step: Step, program: Program, tensors: Tensors) -> None:
        """Its steps are checked as they are lowered."""

    def made_shapes(
        self, step: Step, program: Program, tensors: Tensors, inputs: Sequence[tuple[int, ...]]
    ) -> Made | str:
        return "its steps are operators, whose shapes follow from their contract"

    def bind(self, part: Part, tensors: Tensors, target: Target) -> CpuPart:
        empty = tuple(bool(info.may_be_zero) for info in inputs_of(part.program))
        return CpuPart(bind(part.program, tensors, target.isa), empty)


def _layer(problem: Problem, weight: Array, target: Target) -> Layer:
    sizes = problem.sizes
    if isinstance(sizes, Convolution):
        return Layer(weight, target.isa, sizes.groups, sizes.dilations)
    return Layer(weight, target.isa)


@dataclass(frozen=True)
class CpuPart:
    """A native program, which its contexts share with its packed weights.

    may_be_empty : of each input, whether it may have a dimension of 0.
    """

    bound: Bound
    may_be_empty: tuple[bool, ...]

    def runner(self, threads: int) -> CpuRunner:
        return CpuRunner(native().Context(self.bound.program, threads), self.may_be_empty)


@dataclass(frozen=True)
class CpuRunner:
    """A native context: a pool of threads and scratch memory."""

    context: Any
    may_be_empty: tuple[bool, ...]

    def run(self, inputs: list[NDArray[Any]]) -> list[NDArray[Any]]:
        for array, empty in zip(inputs, self.may_be_empty, strict=True):
            if not array.size and not empty:
                raise ValueError(
                    f"A native step reads an array of the shape {list(array.shape)}, which a step before it "
                    "made, but it takes none that is empty; feed inputs that leave something, or build with "
                    "backends=['onnxruntime']."
                )
        return list(self.context.run(inputs))

    def enable_profile(self, enabled: bool) -> None:
        self.context.enable_profile(enabled)

    def profile(self) -> list[StepTime]:
        return [StepTime(*entry) for entry in self.context.profile()]

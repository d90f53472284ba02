"""What a back end is: all that the builder and the runtime ask of one.

They reach back ends by name, through `openwork.backends.registry`, and never ask which one it is. A further
back end is a class with these members and one call of `register`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from openwork.backends.target import Target
from openwork.engine.parts import Part
from openwork.engine.problem import Problem, Tactic
from openwork.engine.program import Program, Step

if TYPE_CHECKING:
    import onnx_ir as ir

Array = NDArray[Any]
Tensors = Mapping[str, Array]
Seconds = NDArray[np.float64]
Outlook = Mapping[Tactic, float | str]
"""For each sparse tactic the work that it is expected to take for a weight, dense taking 1, or why it does
not hold the weight."""


@dataclass(frozen=True)
class StepTime:
    """What one step took in a profile: its name, total seconds, and calls."""

    name: str
    seconds: float
    calls: int


class Made(NamedTuple):
    """The shapes of what a step makes; not exact where they follow from the data, and these were only
    samples."""

    shapes: tuple[tuple[int, ...], ...]
    exact: bool


class Runner(Protocol):
    """A part of a program with the threads and the memory of one context."""

    def run(self, inputs: list[Array]) -> list[Array]:
        """The part's outputs for its inputs, both in order; raises ValueError where they cannot be made."""

    def enable_profile(self, enabled: bool) -> None:
        """Start, from zero, or stop timing each step."""

    def profile(self) -> list[StepTime]:
        """What each step took since then, in order."""


class BoundPart(Protocol):
    """A part of a program with all that its contexts share, its packed weights above all."""

    def runner(self, threads: int) -> Runner:
        """What runs the part in a further context of so many threads."""


class Backend(Protocol):
    """One way to run parts of a program."""

    @property
    def name(self) -> str:
        """What steps and options call it."""

    @property
    def title(self) -> str:
        """What a report calls it."""

    @property
    def takes_models(self) -> bool:
        """Whether consecutive nodes become one step, an ONNX model of its own; otherwise each becomes a
        step."""

    @property
    def elements(self) -> frozenset[str]:
        """The element types of the products that it has tactics for; other products it runs in one way."""

    def refusal(self, node: ir.Node) -> str | None:
        """Why it does not run a node of a reduced graph; None where it does."""

    def unavailable(self) -> str | None:
        """Why it cannot run here at all, to follow a comma; None where it can."""

    def work_or_reason(self, problem: Problem, weight: Array, target: Target) -> Outlook | str:
        """What its sparse tactics are expected to take for a weight [n, k], or a convolution's [n, kernel
        height, kernel width, channels of a group], or why it has none for the problem."""

    def bases(self, problem: Problem, weight: Array, target: Target) -> tuple[Tactic, ...]:
        """The tactics that hold the weight whatever its zeros are, first the one for its work."""

    def tactics(self, problem: Problem, rows: int) -> tuple[Tactic, ...]:
        """What is worth timing for a problem with its work, at a number of rows: its bases first."""

    def time(
        self, problem: Problem, weight: Array, tactics: Sequence[Tactic], rows: int, target: Target
    ) -> Callable[[int], Seconds]:
        """Make tactics ready for a weight; what is returned takes a number of repeats and gives the
        seconds of each, [tactics, repeats], one tactic after the other in turn.

        Beside those of a weight of f32 there may be tactics of bf16: they round the weight and, in the time
        that they are given, x."""

    def adapted(self, model: Any) -> Any:
        """The model of a part (onnx.ModelProto) as this back end has kernels for it."""

    def check(self, step: Step, program: Program, tensors: Tensors) -> None:
        """Refuse, with a ValueError, a step that `bind` would refuse for its contents; for who writes an
        engine."""

    def made_shapes(
        self, step: Step, program: Program, tensors: Tensors, inputs: Sequence[tuple[int, ...]]
    ) -> Made | str:
        """The shapes of what a step that is a model makes of inputs of these shapes, or why they are not
        known."""

    def bind(self, part: Part, tensors: Tensors, target: Target) -> BoundPart:
        """Make a part ready to run.

        Raises ValueError for steps or tensors that it cannot run, ImportError where a package is missing.
        """

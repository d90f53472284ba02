"""The native library, and weights packed for one of its instruction sets."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openwork.backends.library import native
from openwork.engine.problem import DENSE
from openwork.engine.program import Step
from openwork.patterns.pattern import Pattern
from openwork.patterns.stored import Weight, assemble

log = logging.getLogger(__name__)

ELEMENTS = {np.dtype(np.int8): "i8", np.dtype(np.uint16): "bf16", np.dtype(np.float32): "f32"}
"""What weights of a NumPy type multiply; BF16 stands in uint16."""

Tensors = Mapping[str, NDArray[Any]]


def pack(weight: NDArray[Any], form: str, isa: str) -> Any:
    """A weight s8, BF16 (as uint16) or f32 [n, k] packed for one instruction set.

    Raises ValueError where the instruction set lacks the form or the form cannot hold the weight.
    """
    return native().PackedWeights.pack(weight, form, isa)


def sparse_forms(isa: str, element: str = "i8") -> tuple[str, ...]:
    """The forms that leave zeros out, of those that an instruction set has for weights of an element type."""
    return tuple(form.name for form in native().forms(isa, element) if form.sparse)


def for_few_rows(form: str) -> bool:
    """Whether a form is for few rows alone; one that this build does not know counts as for all."""
    known = native().form(form)
    return known is not None and known.few_rows


def rows_at_once(form: str) -> int:
    """The rows that a form makes together, whether there are as many or not; 1 for one that this build does
    not know."""
    known = native().form(form)
    return 1 if known is None else int(known.rows_at_once)


def expected_work(weight: NDArray[Any], forms: Iterable[str], isa: str) -> dict[str, float | str]:
    """The work that each form is expected to take for a row, the dense one taking 1; or why it does not hold
    the weight [n, k]."""
    return dict(native().expected_work(np.ascontiguousarray(weight), list(forms), isa))


def stored_weight(step: Step, tensors: Tensors, k: int) -> Weight:
    """The weight of a linear step as the engine stores it; raises ValueError where its pattern is none."""
    pattern = None if step.pattern is None else Pattern.parse(step.pattern)
    return assemble(tensors, step.tensors["weight"], pattern, k)


def available(tactic: str, weight: NDArray[Any], isa: str) -> str:
    """The form that runs a tactic's form here: itself, or where this machine lacks it the one of least work.

    A form for few rows, or with rows in the lanes, stands in for its own kind alone. Of equals the one with
    the longest reach is taken, and dense where nothing takes less work.
    """
    element = ELEMENTS[weight.dtype]
    if any(form.name == tactic for form in native().forms(isa, element)):
        return tactic
    work = expected_work(weight, _stand_ins(tactic, isa, element), isa)
    known = {form: value for form, value in work.items() if not isinstance(value, str)}
    form = min(reversed(known), key=known.__getitem__, default=DENSE)
    chosen = form if known.get(form, 1.0) < 1.0 else DENSE
    log.info("The tactic %s is not on %s here; %s runs in its place.", tactic, isa, chosen)
    return chosen


def _stand_ins(tactic: str, isa: str, element: str) -> list[str]:
    """The sparse forms for any number of rows, and those made for few or for many as the tactic is."""

    def suits(form: str) -> bool:
        return for_few_rows(form) <= for_few_rows(tactic) and rows_at_once(form) <= rows_at_once(tactic)

    return [form for form in sparse_forms(isa, element) if suits(form)]

"""The native library, and weights packed for one of its instruction sets."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openwork.backends.library import native
from openwork.engine.dtypes import ELEMENTS
from openwork.engine.problem import DENSE, WHOLE, Tactic
from openwork.engine.program import Step
from openwork.engine.weights import as_matrix
from openwork.patterns.pattern import Pattern
from openwork.patterns.stored import Weight, assemble
from openwork.support import bf16

log = logging.getLogger(__name__)

Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Layer:
    """What decides how a product's weight may be packed: it, the instruction set, and of a convolution its
    groups and dilations."""

    weight: NDArray[Any]
    isa: str
    groups: int = 1
    dilations: tuple[int, int] = (1, 1)

    @property
    def element(self) -> str:
        """What it multiplies."""
        return ELEMENTS[self.weight.dtype]

    def of_element(self, element: str) -> Layer:
        """The same, its weight of f32 rounded where it multiplies BF16; raises ValueError where BF16 does not
        hold the weight."""
        if element == self.element:
            return self
        rounded = bf16.weights(self.weight) if element == "bf16" and self.element == "f32" else None
        if rounded is None:
            raise ValueError(f"A weight of {self.element} cannot be made one of {element}.")
        return replace(self, weight=rounded)

    @property
    def forms(self) -> tuple[str, ...]:
        """All forms that the instruction set has for weights of its type."""
        return tuple(form.name for form in native().forms(self.isa, self.element))

    def run(self, form: str) -> str:
        """What a run of activations best holds in a form; "" for a matrix, whose rows are runs."""
        if self.weight.ndim == 2:
            return ""
        shape, dilations = list(self.weight.shape), list(self.dilations)
        return str(native().conv_run(shape, self.groups, dilations, form, self.element))

    def refusal(self, form: str) -> str:
        """Why a form of the instruction set does not hold the weight; empty where it does."""
        return str(native().refusal(self.weight, form, self.isa, self.groups, self.run(form) or "tap"))

    def tactic(self, form: str) -> Tactic:
        """The tactic of a form, with the run that suits it."""
        return Tactic(form, self.element, self.run(form))


def layer(weight: NDArray[Any], attributes: Mapping[str, Any], isa: str) -> Layer:
    """The layer of a step with these attributes."""
    if weight.ndim == 2:
        return Layer(weight, isa)
    return Layer(weight, isa, attributes["groups"], tuple(attributes["dilations"]))


def pack(of: Layer, tactic: Tactic) -> Any:
    """A layer's weight, s8, BF16 (as uint16) or f32, packed for a tactic.

    Raises ValueError where the instruction set lacks the form or the form cannot hold the weight.
    """
    return native().PackedWeights.pack(of.weight, tactic.form, of.isa, of.groups, tactic.run or "tap")


def sparse_forms(isa: str, element: str = "i8") -> tuple[str, ...]:
    """The forms that leave zeros out, of those that an instruction set has for weights of an element type."""
    return tuple(form.name for form in native().forms(isa, element) if form.sparse)


def for_few_rows(form: str) -> bool:
    """Whether a form is for few rows alone; one that this build does not know counts as for all."""
    known = native().form(form)
    return known is not None and known.few_rows


def on_tiles(form: str) -> bool:
    """Whether a form is a matrix unit's."""
    known = native().form(form)
    return known is not None and known.body == "tiles"


def rows_at_once(form: str) -> int:
    """The rows that a form makes together, whether there are as many or not; 1 for one that this build does
    not know."""
    known = native().form(form)
    return 1 if known is None else int(known.rows_at_once)


def expected_work(of: Layer, forms: Iterable[str]) -> dict[str, float | str]:
    """The work that each form is expected to take for a row, a dense product taking 1; or why it does not
    hold the weight."""
    forms = list(forms)
    runs = [] if of.weight.ndim == 2 else [of.run(form) for form in forms]
    return dict(native().expected_work(np.ascontiguousarray(of.weight), forms, of.isa, of.groups, runs))


def base(of: Layer) -> str:
    """The form that holds a weight whatever its zeros are, and by which others are measured.

    Dense, or each channel for itself where a convolution's groups have one; where the dense form does not
    hold the groups, as they are narrower than its channels, the form with a shuffle of the least work.
    """
    depthwise = of.weight.ndim == 4 and of.weight.shape[3] == 1 and of.groups == len(of.weight)
    for form in ("depthwise",) * depthwise + (DENSE,):
        if form in of.forms and not of.refusal(form):
            return form
    # As if nothing were zero: what leaves zeros out is measured by it.
    full = replace(of, weight=np.ones_like(of.weight))
    held = {form: work for form, work in expected_work(full, of.forms).items() if not isinstance(work, str)}
    if not held:
        raise ValueError(f"No form of {of.isa} holds a weight {of.element} of shape {list(of.weight.shape)}.")
    return min(held, key=held.__getitem__)


def bases(of: Layer) -> tuple[str, ...]:
    """The base, and the others that hold the weight whatever its zeros are: a matrix unit's."""
    first = base(of)
    return first, *(form for form in of.forms if form in WHOLE - {first} and not of.refusal(form))


def stored_weight(step: Step, tensors: Tensors, width: int) -> Weight:
    """The matrix of a product's weight as the engine stores it, which has so many columns; raises ValueError
    where its pattern is none."""
    name = step.tensors["weight"]
    if step.pattern is None:
        return as_matrix(tensors[name])
    return assemble(tensors, name, Pattern.parse(step.pattern), width)


def available(tactic: Tactic, of: Layer) -> Tactic:
    """The tactic that runs in the place of one here: itself, or where this machine lacks its form or the form
    does not hold the weight the one of least work.

    A form for few rows, or with rows in the lanes, stands in for its own kind alone. Of equals the one with
    the longest reach is taken, and the base where nothing takes less work.
    """
    if tactic.form in of.forms and not of.refusal(tactic.form):
        return tactic if tactic.run or of.weight.ndim == 2 else of.tactic(tactic.form)
    plain, asked = base(of), native().form(tactic.form)
    if asked is not None and not asked.sparse:
        return of.tactic(plain)
    work = expected_work(of, [*_stand_ins(tactic.form, of.isa, of.element), plain])
    known = {form: value for form, value in work.items() if not isinstance(value, str)}
    form = min(reversed(known), key=known.__getitem__, default=plain)
    chosen = form if known.get(form, 1.0) < known.get(plain, 1.0) else plain
    log.info("The tactic %s is not on %s here; %s runs in its place.", tactic, of.isa, chosen)
    return of.tactic(chosen)


def _stand_ins(tactic: str, isa: str, element: str) -> list[str]:
    """The sparse forms for any number of rows, and those made for few or for many as the tactic is."""

    def suits(form: str) -> bool:
        return for_few_rows(form) <= for_few_rows(tactic) and rows_at_once(form) <= rows_at_once(tactic)

    return [form for form in sparse_forms(isa, element) if suits(form)]

"""The native library, and weights packed for one of its instruction sets."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openwork.program import Step
from openwork.sparsity import GroupPattern, Pattern
from openwork.sparsity.compressed import Compressed, decompress

log = logging.getLogger(__name__)

DENSE = "dense"
# What runs a sparse layer where the engine's own tactic is not on this machine, best first.
_SPARSE_FORMS = ("window64", "window16", "window8")

Weight = NDArray[np.int8] | Compressed
Tensors = Mapping[str, NDArray[Any]]


def native() -> Any:
    """The native module; raises ImportError, saying what to do, where the package was not built."""
    try:
        from openwork import _native
    except ImportError as error:
        raise ImportError(
            f"The native part of openwork could not be loaded ({error}); install the package with 'pip "
            f"install .'."
        ) from error
    return _native


def chosen_isa(isa: str | None) -> str:
    """The instruction set to run on: `isa`, or what OPENWORK_ISA says, or the best of this machine.

    Raises ValueError where it is unknown or this machine lacks it.
    """
    if isa is None:
        return str(native().active_isa())
    usable = native().isas()
    if isa not in usable:
        raise ValueError(
            f"The instruction set '{isa}' is unknown or this machine lacks it; usable here: "
            f"{', '.join(usable)}."
        )
    return isa


def pack(weight: Weight, form: str, isa: str) -> Any:
    """Weights packed for one instruction set, from either stored form.

    Raises ValueError where the form cannot hold the weight's pattern.
    """
    dense = decompress(weight) if isinstance(weight, Compressed) else weight
    return native().PackedWeights.pack(dense, form, isa)


def sparse_forms(isa: str) -> tuple[str, ...]:
    """The sparse forms that an instruction set has."""
    return tuple(form for form in native().forms(isa) if form != DENSE)


def stored_weight(step: Step, tensors: Tensors, k: int) -> Weight:
    """The weight of a linear step as the engine stores it."""
    name = step.tensors["weight"]
    if step.pattern is None:
        return tensors[name]
    pattern = Pattern.parse(step.pattern)
    if not isinstance(pattern, GroupPattern):
        raise ValueError(
            f"The step '{step.name}' stores its weight in {pattern}, which has no compressed form."
        )
    return Compressed(tensors[f"{name}.values"], tensors[f"{name}.indices"], pattern.kept, pattern.group, k)


def available(tactic: str, weight: Weight, isa: str) -> str:
    """The form that runs a tactic here: its own, or where this machine lacks it another sparse one, or
    dense."""
    forms = native().forms(isa)
    if tactic in forms:
        return tactic
    if isinstance(weight, Compressed):
        for form in _SPARSE_FORMS:
            if form in forms and refusal(weight, form, isa) is None:
                log.info("The tactic %s is not on %s here; %s runs in its place.", tactic, isa, form)
                return form
    return DENSE


def refusal(weight: Compressed, form: str, isa: str) -> str | None:
    """Why a form cannot hold weights of this pattern, or None if it can; only the first row is packed to
    see."""
    first = replace(weight, values=weight.values[:1], indices=weight.indices[:1])
    try:
        pack(first, form, isa)
    except ValueError as error:
        return str(error)
    return None

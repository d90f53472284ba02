"""Least squares on the logarithm of times (or of gains): every figure counts by its factor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from openwork.prediction.machines import Error, FormCost, Machine

Floats = NDArray[np.float64]
Predicted = Callable[[Machine], Sequence[float]]

# A cost at least and at most, in cycles or in bytes a cycle. None is nothing: its logarithm is fitted.
LOWEST, HIGHEST = 1e-3, 1e5
# A few figures that something disturbed must not bend the rest: from this difference of logarithms on they
# count less.
SOFT = 0.1


def fitted(start: Machine, names: Sequence[str], predicted: Predicted, found: Sequence[float]) -> Machine:
    """`start` with the numbers of these names fitted so that `predicted` of it comes nearest to `found`.

    names : of fields of the machine, or "FORM.row" and "FORM.tile".
    """
    target = np.log(found)
    begin = np.log([_get(start, name) for name in names])

    def differences(logs: Floats) -> Floats:
        return np.log(predicted(_with(start, names, np.exp(logs)))) - target

    bounds = (np.log(LOWEST), np.log(HIGHEST))
    solved = least_squares(differences, begin, bounds=bounds, loss="soft_l1", f_scale=SOFT)
    machine = _with(start, names, [float(f"{value:.4g}") for value in np.exp(solved.x)])
    return replace(machine, error=error(predicted(machine), found))


def error(predicted: Sequence[float], found: Sequence[float]) -> Error:
    """How far the figures are from those that were found, as factors."""
    factors = np.exp(np.abs(np.log(predicted) - np.log(found)))
    return Error(round(float(np.median(factors)), 3), round(float(np.max(factors)), 3), len(factors))


def _get(machine: Machine, name: str) -> float:
    form, _, part = name.partition(".")
    return float(getattr(machine.forms[form], part) if part else getattr(machine, form))


def _with(machine: Machine, names: Sequence[str], values: Sequence[float] | Floats) -> Machine:
    forms, plain = dict(machine.forms), {}
    for name, value in zip(names, values, strict=True):
        form, _, part = name.partition(".")
        if part:
            forms[form] = replace(forms[form], **{part: float(value)})
        else:
            plain[form] = float(value)
    return replace(machine, forms=forms, **plain)


def costs(forms: Sequence[str], row: float, tile: float) -> dict[str, FormCost]:
    """A cost for each form to begin with."""
    return dict.fromkeys(forms, FormCost(row, tile))

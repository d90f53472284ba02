"""What a build may be asked for, and whether it was asked for properly."""

from __future__ import annotations

import os

from openwork.builder.eligibility import SPARSITY_MODES
from openwork.engine.sizes import whole_shapes
from openwork.graph import check_rounding

PRECISIONS = ("fp32", "bf16", "int8")
NATIVE_MODES = ("on", "off", "force")
VARIABLE = "OPENWORK_NATIVE"


def native_mode(native: str | None) -> str:
    """What was asked for, or what OPENWORK_NATIVE says, or "on".

    Raises ValueError for anything that is not one of NATIVE_MODES.
    """
    source = "The native mode" if native is not None else f"The environment variable {VARIABLE}"
    mode = os.environ.get(VARIABLE) or "on" if native is None else native
    if mode not in NATIVE_MODES:
        raise ValueError(f"{source} is one of {', '.join(NATIVE_MODES)}, but it is {mode!r}.")
    return mode


def precision_of(precision: str | None) -> str:
    """What was asked for, or "fp32"; raises ValueError for anything that is not one of PRECISIONS."""
    chosen = "fp32" if precision is None else precision
    if chosen not in PRECISIONS:
        raise ValueError(f"The precision is one of {', '.join(PRECISIONS)}, but it is {precision!r}.")
    return chosen


def check_options(sparsity: str, rounding: str, shapes: object, **switches: object) -> None:
    """Raise ValueError or TypeError for an option that is not one that a build knows.

    switches : options that are True or False, by name.
    """
    check_rounding(rounding)
    for name, switch in switches.items():
        if not isinstance(switch, bool):
            raise TypeError(f"The option {name} is True or False, but it is {switch!r}.")
    if sparsity not in SPARSITY_MODES:
        raise ValueError(f"The sparsity mode is one of {', '.join(SPARSITY_MODES)}, but it is {sparsity!r}.")
    if shapes is not None:
        whole_shapes(shapes)

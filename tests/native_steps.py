"""Single steps of native programs, as tests write them: slots, tensors, attributes by name in one call."""

from __future__ import annotations

from typing import Any

import numpy as np

from openwork.engine.operators import OPERATORS

INPUTS = {slot.name for row in OPERATORS.values() for slot in row.activations}
OUTPUTS = {slot.name for row in OPERATORS.values() for slot in row.outputs}


def add_step(program: Any, op: str, name: str, *, weights: Any = (), **given: Any) -> None:
    """Add a step: handles by the slots that operators have, arrays as tensors, all else as attributes.

    What is None is left out. weights: packed weights for any number of rows, or pairs with the most rows.
    """
    given = {key: value for key, value in given.items() if value is not None}
    tensors = {key: value for key, value in given.items() if isinstance(value, np.ndarray)}
    pairs = weights if isinstance(weights, (list, tuple)) else [(weights, -1)]
    program.step(
        op,
        name,
        {key: value for key, value in given.items() if key in INPUTS and key not in tensors},
        {key: value for key, value in given.items() if key in OUTPUTS},
        tensors,
        {key: value for key, value in given.items() if key not in {*INPUTS, *OUTPUTS, *tensors}},
        list(pairs),
    )

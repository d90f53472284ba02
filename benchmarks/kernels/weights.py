"""Random weights that hold a pattern, at random places."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from openwork import Pattern
from openwork.patterns import drawn

from .shapes import Shape

Mask = NDArray[np.bool_]
DENSE = "dense"


def mask(rng: np.random.Generator, shape: Shape, pattern: str) -> Mask:
    """Where a weight of the shape is kept: over the input channels of each tap, as the pattern reads.

    Gives bool [n, taps, channels of a tap]. Raises ValueError for a text that is no pattern.
    """
    return drawn.drawn_mask(rng, (shape.n, shape.taps, shape.k // shape.taps), _parsed(pattern))


def refusal(shape: Shape, pattern: str) -> str | None:
    """Why the pattern means nothing on this shape, or None."""
    return drawn.refusal(shape.k // shape.taps, _parsed(pattern))


def _parsed(pattern: str) -> Pattern | None:
    return None if pattern == DENSE else Pattern.parse(pattern)

"""The attributes of a product: the quantizer of what it reads, and what happens to its sums."""

from __future__ import annotations

from openwork.engine.operators.activations import ACTIVATIONS
from openwork.engine.operators.attribute import Attribute, flag, number, quantizer
from openwork.engine.operators.slot_words import tensor

EPILOGUE_ATTRIBUTES = (
    *quantizer("x"),
    Attribute("activation", "string", choices=tuple(ACTIVATIONS)),
    number("alpha", optional=True),
    number("beta", optional=True),
    flag("activation_last"),
    *quantizer("y"),
    *quantizer("residual", needs=("residual",)),
    *quantizer("sum", needs=("residual",)),
)
"""docs/arithmetic.md, Epilogue."""

OUTPUT_TENSORS = (
    tensor("y_multiplier", "f32", "N", optional=True, needs=("y_scale",)),
    tensor("lookup", "u8", "256", optional=True, needs=("y_scale",)),
)
"""What a quantized output may have: a factor of each channel before its rounding, and a table of bytes."""

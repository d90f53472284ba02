"""What products have in common: the quantizer of what they read, what becomes of their sums, tensors."""

from __future__ import annotations

from openwork.engine.operators.activations import ACTIVATIONS
from openwork.engine.operators.attribute import Attribute, flag, number, quantizer
from openwork.engine.operators.contract import Slot
from openwork.engine.operators.slot_words import tensor

ACTIVATION_ATTRIBUTES = (
    Attribute("activation", "string", choices=tuple(ACTIVATIONS)),
    number("alpha", optional=True),
    number("beta", optional=True),
    flag("activation_last"),
)
EPILOGUE_ATTRIBUTES = (
    *quantizer("x"),
    *ACTIVATION_ATTRIBUTES,
    *quantizer("y"),
    *quantizer("residual", needs=("residual",)),
    *quantizer("sum", needs=("residual",)),
)
"""docs/arithmetic.md, Epilogue."""


def product_tensors(weight: str) -> tuple[Slot, ...]:
    """What a product stores: its weight of this shape, N output channels first, their scales and bias, and
    for a quantized output a factor of each channel before its rounding and a table of bytes behind."""
    return (
        tensor("weight", "s8|f32|bf16", weight, scale="x_scale"),
        tensor("weight_scale", "f32", "N", needs=("x_scale",)),
        tensor("bias", "f32", "N", optional=True),
        tensor("y_multiplier", "f32", "N", optional=True, needs=("y_scale",)),
        tensor("lookup", "u8", "256", optional=True, needs=("y_scale",)),
    )

"""The table of operators, from `openwork.operators`, which the runtime reads without onnx-ir."""

from openwork.operators import (
    ACTIVATIONS,
    DOMAIN,
    OPERATORS,
    PACKED_ATTENTION,
    QUANTIZATION,
    VERSION,
    Operator,
    Slot,
    operator,
)

__all__ = [
    "ACTIVATIONS",
    "DOMAIN",
    "OPERATORS",
    "PACKED_ATTENTION",
    "QUANTIZATION",
    "VERSION",
    "Operator",
    "Slot",
    "operator",
]

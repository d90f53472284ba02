"""The table of operators, which stands in `openwork.operators` so that the runtime reads it without
onnx-ir.
"""

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

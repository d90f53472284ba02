"""The table of operators, from `openwork.operators`, which the runtime reads without onnx-ir."""

from openwork.operators import (
    ACTIVATIONS,
    DOMAIN,
    OPERATORS,
    PACKED_ATTENTION,
    QUANTIZATION,
    RESIDUAL_QUANTIZATION,
    VERSION,
    Operator,
    Slot,
    operator,
    operator_of_activation,
)

__all__ = [
    "ACTIVATIONS",
    "DOMAIN",
    "OPERATORS",
    "PACKED_ATTENTION",
    "QUANTIZATION",
    "RESIDUAL_QUANTIZATION",
    "VERSION",
    "Operator",
    "Slot",
    "operator",
    "operator_of_activation",
]

"""Export: a torch module to standard ONNX with Q/DQ, in the dialect of the engine that takes it.

`targets` needs nothing but onnx; the other names need torch and are imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from openwork.qdq.targets import TARGETS, FreeDimension, Target, next_steps, parse_target
from openwork.support.late_names import late_names

if TYPE_CHECKING:
    from openwork.export.exporter import export
    from openwork.export.options import OPSET, ExportOptions

_HOMES = {
    "ExportOptions": "openwork.export.options",
    "OPSET": "openwork.export.options",
    "export": "openwork.export.exporter",
}

__all__ = [
    "OPSET",
    "TARGETS",
    "ExportOptions",
    "FreeDimension",
    "Target",
    "export",
    "next_steps",
    "parse_target",
]


__getattr__ = late_names(__name__, _HOMES)

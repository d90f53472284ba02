"""Export: a torch module to standard ONNX with Q/DQ, in the dialect of the engine that takes it.

`targets` needs nothing but onnx; the other names need torch and are imported when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from openwork.qdq.targets import TARGETS, FreeDimension, Target, next_steps, parse_target

if TYPE_CHECKING:
    from openwork.export.exporter import export
    from openwork.export.options import OPSET, ExportOptions

_HOMES = {"export": "exporter", "ExportOptions": "options", "OPSET": "options"}

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


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'openwork.export' has no attribute {name!r}")
    return getattr(import_module(f"openwork.export.{_HOMES[name]}"), name)

"""Where quantizers go: the run of an example, the choices, and the modules rewritten for them.

`Prepared` and `prepare` are imported when first used: they need `folding`, which reads the recordings here.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from openwork.quantization.placement.choices import LayerChoice, table
from openwork.quantization.placement.grouping import Group
from openwork.quantization.placement.options import STYLES, QuantizationOptions, Rules, Style

if TYPE_CHECKING:
    from openwork.quantization.placement.prepared import Prepared, prepare

__all__ = [
    "STYLES",
    "Group",
    "LayerChoice",
    "Prepared",
    "QuantizationOptions",
    "Rules",
    "Style",
    "prepare",
    "table",
]


def __getattr__(name: str) -> Any:
    if name in ("Prepared", "prepare"):
        return getattr(import_module("openwork.quantization.placement.prepared"), name)
    raise AttributeError(f"module 'openwork.quantization.placement' has no attribute {name!r}")

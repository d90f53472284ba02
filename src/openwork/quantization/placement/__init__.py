"""Where quantizers go: the run of an example, the choices, and the modules rewritten for them.

`Prepared` and `prepare` are imported when first used: they rewrite modules, and most who ask for options or
choices need none of that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from openwork.quantization.placement.choices import LayerChoice, table
from openwork.quantization.placement.groups import Group
from openwork.quantization.placement.options import STYLES, QuantizationOptions, Rules, Style
from openwork.support.late_names import late_names

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


_HOMES = {
    "Prepared": "openwork.quantization.placement.prepared",
    "prepare": "openwork.quantization.placement.prepared",
}

__getattr__ = late_names(__name__, _HOMES)

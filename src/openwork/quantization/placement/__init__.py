"""Where quantizers go: the run of an example, the choices, and the modules rewritten for them."""

from openwork.quantization.placement.choices import LayerChoice, table
from openwork.quantization.placement.grouping import Group
from openwork.quantization.placement.options import STYLES, QuantizationOptions, Rules, Style
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

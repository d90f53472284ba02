"""Quantization after training: scales from calibration data, fake-quantized modules.

`affine` needs NumPy only; the other names need torch and are imported when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from openwork.quantization.affine import (
    Activation,
    Affine,
    choose_affine,
    choose_affines,
    quantize_weight,
    weight_scales,
)

if TYPE_CHECKING:
    from openwork.quantization.calibration import Prepared, QuantizationOptions, calibrate, prepare, quantize
    from openwork.quantization.conversion import LayerChoice, choose_layers, convert
    from openwork.quantization.fake_quant import FakeQuantize, FakeQuantizeOptions
    from openwork.quantization.modules import QuantLinear
    from openwork.quantization.observer import (
        EntropyObserver,
        MaxObserver,
        MovingObserver,
        MseObserver,
        Observer,
        PercentileObserver,
        RowObserver,
        make_observer,
    )
    from openwork.quantization.observer_merge import merge_across_workers
    from openwork.quantization.search import InputQuantization

_TORCH = {
    "calibration": ("Prepared", "QuantizationOptions", "calibrate", "prepare", "quantize"),
    "conversion": ("LayerChoice", "choose_layers", "convert"),
    "modules": ("QuantLinear",),
    "fake_quant": ("FakeQuantize", "FakeQuantizeOptions"),
    "observer": (
        "EntropyObserver",
        "MaxObserver",
        "MovingObserver",
        "MseObserver",
        "Observer",
        "PercentileObserver",
        "RowObserver",
        "make_observer",
    ),
    "observer_merge": ("merge_across_workers",),
    "search": ("InputQuantization",),
}

__all__ = [
    "Activation",
    "Affine",
    "EntropyObserver",
    "FakeQuantize",
    "FakeQuantizeOptions",
    "InputQuantization",
    "LayerChoice",
    "MaxObserver",
    "MovingObserver",
    "MseObserver",
    "Observer",
    "PercentileObserver",
    "Prepared",
    "QuantLinear",
    "QuantizationOptions",
    "RowObserver",
    "calibrate",
    "choose_affine",
    "choose_affines",
    "choose_layers",
    "convert",
    "make_observer",
    "merge_across_workers",
    "prepare",
    "quantize",
    "quantize_weight",
    "weight_scales",
]


def __getattr__(name: str) -> Any:
    for module, names in _TORCH.items():
        if name in names:
            return getattr(import_module(f"openwork.quantization.{module}"), name)
    raise AttributeError(f"module 'openwork.quantization' has no attribute {name!r}")

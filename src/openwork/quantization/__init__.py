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
    from openwork.quantization.bias_correction import BiasCorrection, correct_biases
    from openwork.quantization.calibration import calibrate, quantize
    from openwork.quantization.equalization import Equalized, equalize
    from openwork.quantization.error_measure import measure_errors
    from openwork.quantization.error_report import ErrorReport, LayerError
    from openwork.quantization.fake_quant import FakeQuantize, FakeQuantizeOptions
    from openwork.quantization.folding import fold_batchnorm
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
    from openwork.quantization.placement import LayerChoice, Prepared, QuantizationOptions, prepare
    from openwork.quantization.qat import QuantizationAwareTraining, freeze_batchnorm
    from openwork.quantization.search import InputQuantization
    from openwork.quantization.suggestion import Suggestion, suggest

_TORCH = {
    "bias_correction": ("BiasCorrection", "correct_biases"),
    "calibration": ("calibrate", "quantize"),
    "equalization": ("Equalized", "equalize"),
    "error_measure": ("measure_errors",),
    "error_report": ("ErrorReport", "LayerError"),
    "suggestion": ("Suggestion", "suggest"),
    "folding": ("fold_batchnorm",),
    "qat": ("QuantizationAwareTraining", "freeze_batchnorm"),
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
    "placement": ("LayerChoice", "Prepared", "QuantizationOptions", "prepare"),
    "search": ("InputQuantization",),
}

__all__ = [
    "Activation",
    "Affine",
    "BiasCorrection",
    "EntropyObserver",
    "Equalized",
    "ErrorReport",
    "FakeQuantize",
    "FakeQuantizeOptions",
    "InputQuantization",
    "LayerChoice",
    "LayerError",
    "MaxObserver",
    "MovingObserver",
    "MseObserver",
    "Observer",
    "PercentileObserver",
    "Prepared",
    "QuantLinear",
    "QuantizationAwareTraining",
    "QuantizationOptions",
    "RowObserver",
    "Suggestion",
    "calibrate",
    "choose_affine",
    "choose_affines",
    "correct_biases",
    "equalize",
    "fold_batchnorm",
    "freeze_batchnorm",
    "make_observer",
    "measure_errors",
    "merge_across_workers",
    "prepare",
    "quantize",
    "quantize_weight",
    "suggest",
    "weight_scales",
]


def __getattr__(name: str) -> Any:
    for module, names in _TORCH.items():
        if name in names:
            return getattr(import_module(f"openwork.quantization.{module}"), name)
    raise AttributeError(f"module 'openwork.quantization' has no attribute {name!r}")

"""Quantization after training: scales from calibration data, fake-quantized modules.

`affine` needs NumPy only; the other names need torch and are imported when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from openwork.qdq.affine import (
    Activation,
    Affine,
    choose_affine,
    choose_affines,
    quantize_weight,
    weight_scales,
)

if TYPE_CHECKING:
    from openwork.quantization.calibration.calibration import calibrate, quantize
    from openwork.quantization.corrections.batch_norm import fold_batchnorm
    from openwork.quantization.corrections.bias_correction import BiasCorrection, correct_biases
    from openwork.quantization.corrections.equalization import Equalized, equalize
    from openwork.quantization.errors.measure import measure_errors
    from openwork.quantization.errors.report import ErrorReport, LayerError
    from openwork.quantization.errors.suggestion import Suggestion, suggest
    from openwork.quantization.fake_quantization.fake_quant import FakeQuantize, FakeQuantizeOptions
    from openwork.quantization.fake_quantization.modules import QuantLinear
    from openwork.quantization.observers.merge import merge_across_workers
    from openwork.quantization.observers.observer import (
        EntropyObserver,
        MaxObserver,
        MovingObserver,
        MseObserver,
        Observer,
        PercentileObserver,
        RowObserver,
        make_observer,
    )
    from openwork.quantization.placement import LayerChoice, Prepared, QuantizationOptions, prepare
    from openwork.quantization.qat import QuantizationAwareTraining, freeze_batchnorm
    from openwork.quantization.scales.search import InputQuantization

_TORCH = {
    "corrections.bias_correction": ("BiasCorrection", "correct_biases"),
    "calibration.calibration": ("calibrate", "quantize"),
    "corrections.equalization": ("Equalized", "equalize"),
    "errors.measure": ("measure_errors",),
    "errors.report": ("ErrorReport", "LayerError"),
    "errors.suggestion": ("Suggestion", "suggest"),
    "corrections.batch_norm": ("fold_batchnorm",),
    "qat": ("QuantizationAwareTraining", "freeze_batchnorm"),
    "fake_quantization.modules": ("QuantLinear",),
    "fake_quantization.fake_quant": ("FakeQuantize", "FakeQuantizeOptions"),
    "observers.observer": (
        "EntropyObserver",
        "MaxObserver",
        "MovingObserver",
        "MseObserver",
        "Observer",
        "PercentileObserver",
        "RowObserver",
        "make_observer",
    ),
    "observers.merge": ("merge_across_workers",),
    "placement": ("LayerChoice", "Prepared", "QuantizationOptions", "prepare"),
    "scales.search": ("InputQuantization",),
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

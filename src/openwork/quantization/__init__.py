"""Quantization after training: scales from calibration data, fake-quantized modules.

`affine` needs NumPy only; the other names need torch and are imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from openwork.qdq.affine import (
    Activation,
    Affine,
    choose_affine,
    choose_affines,
    quantize_weight,
    weight_scales,
)
from openwork.support.late_names import late_names

if TYPE_CHECKING:
    from openwork.quantization.calibration.models import calibrate, quantize
    from openwork.quantization.corrections.batch_norm import fold_batchnorm
    from openwork.quantization.corrections.bias_correction import BiasCorrection, correct_biases
    from openwork.quantization.corrections.equalization import Equalized, equalize
    from openwork.quantization.errors.measurement import measure_errors
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


_HOMES = {
    "BiasCorrection": "openwork.quantization.corrections.bias_correction",
    "EntropyObserver": "openwork.quantization.observers.observer",
    "Equalized": "openwork.quantization.corrections.equalization",
    "ErrorReport": "openwork.quantization.errors.report",
    "FakeQuantize": "openwork.quantization.fake_quantization.fake_quant",
    "FakeQuantizeOptions": "openwork.quantization.fake_quantization.fake_quant",
    "InputQuantization": "openwork.quantization.scales.search",
    "LayerChoice": "openwork.quantization.placement",
    "LayerError": "openwork.quantization.errors.report",
    "MaxObserver": "openwork.quantization.observers.observer",
    "MovingObserver": "openwork.quantization.observers.observer",
    "MseObserver": "openwork.quantization.observers.observer",
    "Observer": "openwork.quantization.observers.observer",
    "PercentileObserver": "openwork.quantization.observers.observer",
    "Prepared": "openwork.quantization.placement",
    "QuantLinear": "openwork.quantization.fake_quantization.modules",
    "QuantizationAwareTraining": "openwork.quantization.qat",
    "QuantizationOptions": "openwork.quantization.placement",
    "RowObserver": "openwork.quantization.observers.observer",
    "Suggestion": "openwork.quantization.errors.suggestion",
    "calibrate": "openwork.quantization.calibration.models",
    "correct_biases": "openwork.quantization.corrections.bias_correction",
    "equalize": "openwork.quantization.corrections.equalization",
    "fold_batchnorm": "openwork.quantization.corrections.batch_norm",
    "freeze_batchnorm": "openwork.quantization.qat",
    "make_observer": "openwork.quantization.observers.observer",
    "measure_errors": "openwork.quantization.errors.measurement",
    "merge_across_workers": "openwork.quantization.observers.merge",
    "prepare": "openwork.quantization.placement",
    "quantize": "openwork.quantization.calibration.models",
    "suggest": "openwork.quantization.errors.suggestion",
}

__getattr__ = late_names(__name__, _HOMES)

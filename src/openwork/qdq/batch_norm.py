"""The arithmetic of BatchNorm folded into the layer before it; NumPy only.

    (W x + b - mean) * factor + beta = (factor W) x + b * factor + (beta - mean * factor)
    factor = gamma / sqrt(variance + epsilon)

Each output channel of the weight is scaled, so zeros stay zeros and a mask holds. Source: Jacob et al. 2018,
"Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openwork.qdq.affine import along

Double = NDArray[np.float64]
SMALLEST = np.finfo(np.float32).tiny


@dataclass(frozen=True, eq=False)
class BatchNorm:
    """A normalization with fixed statistics: mean and variance [C]; gamma and beta [C], None for 1 and 0."""

    gamma: NDArray[np.floating] | None
    beta: NDArray[np.floating] | None
    mean: NDArray[np.floating]
    variance: NDArray[np.floating]
    epsilon: float

    @property
    def factor(self) -> Double:
        """What each channel is multiplied by, f64 [C]."""
        root = np.sqrt(self.variance.astype(np.float64) + self.epsilon)
        return np.asarray((1.0 if self.gamma is None else self.gamma.astype(np.float64)) / root)

    def folded_bias(self, bias: NDArray[np.floating] | None) -> Double:
        """The bias after folding, f64 [C], of the bias before it: [C], or None for none."""
        beta = 0.0 if self.beta is None else self.beta.astype(np.float64)
        shift = beta - self.mean.astype(np.float64) * self.factor
        return np.asarray(shift if bias is None else bias.astype(np.float64) * self.factor + shift)


def along_outputs(
    factor: Double, shape: tuple[int, ...], transposed: bool = False, groups: int = 1
) -> Double:
    """The factors [C] in a shape that multiplies a weight over its output channels.

    shape: of the weight, [C, ...], or [inputs, C / groups, ...] of a transposed convolution.
    """
    ones = [1] * (len(shape) - 2)
    if not transposed:
        return factor.reshape(-1, 1, *ones)
    spread = np.repeat(factor.reshape(groups, -1), shape[0] // groups, axis=0)
    return spread.reshape(*shape[:2], *ones)


def scaled_integers(
    integers: NDArray[np.int8], scale: NDArray[np.float32], factor: Double, axis: int
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Integers and scales f32 [C] of a quantized weight whose channels along `axis` take the factors.

    The scales take their magnitudes, so an integer stays as it is but for its sign where a factor is
    negative. A channel whose scale would be no normal binary32 number becomes zero. scale: f32 [] or [C].
    """
    scaled = np.broadcast_to(scale, factor.shape) * np.abs(factor)
    dead = scaled < SMALLEST
    sign = np.where(dead, 0, np.where(factor < 0, -1, 1)).astype(np.int8)
    return integers * along(sign, integers.ndim, axis), np.where(dead, 1, scaled).astype(np.float32)

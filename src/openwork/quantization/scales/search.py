"""The range, and the multiplier of each channel, that disturb a layer's output least."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from openwork.qdq.affine import (
    RANGES,
    Activation,
    Affine,
    choose_affine,
    quantize_weight,
    weight_scales,
)
from openwork.quantization.scales.migration import STRENGTHS, multiplier

# Parts of the observed range that are tried as the clipped range.
COARSE = (1.0, 0.7, 0.45)
FINE = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)

# A multiplier costs a peer an operator of its own, so it must earn this much.
WORTHWHILE = 0.7


@dataclass(frozen=True, eq=False)
class InputQuantization:
    """How a layer's input is quantized: an affine map, after a multiplier f32 [K] if there is one."""

    affine: Affine
    multiplier: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Sample:
    """What a search looks at.

    rows: f32 [R, K], inputs of the layers. low, high: f32 [K], each channel's observed range.
    weight: f32 [N, K], the weights of all layers that read the input. exact: f32 [R, N], the layers' outputs.
    """

    rows: Tensor
    low: Tensor
    high: Tensor
    weight: Tensor
    exact: Tensor

    def scaled(self, by: Tensor) -> Sample:
        """The same layers after migration by `by`, f32 [K], which leaves their outputs as they are."""
        return Sample(self.rows * by, self.low * by, self.high * by, self.weight / by, self.exact)


class _Error:
    """Mean over the rows of |Q(x) Q(W)^T - x W^T|^2 / |x W^T|^2.

    Relative to each row, because a layer norm follows sooner or later and makes rows of any size count alike.
    """

    def __init__(self, sample: Sample, activation: Activation, name: str) -> None:
        self.rows, self.exact, self.limits = sample.rows, sample.exact, RANGES[activation]
        weight = sample.weight.numpy()
        scales = weight_scales(weight, name)
        self.weight = torch.from_numpy(quantize_weight(weight, scales)) * torch.from_numpy(scales)[:, None]
        self.energy = self.exact.square().sum(1).clamp(min=torch.finfo(torch.float32).tiny)

    def __call__(self, affine: Affine) -> float:
        x = torch.fake_quantize_per_tensor_affine(self.rows, affine.scale, affine.zero_point, *self.limits)
        return float(((x @ self.weight.T - self.exact).square().sum(1) / self.energy).mean())


def search(sample: Sample, activation: Activation, migrate: bool, name: str) -> InputQuantization:
    """The multiplier and the clipped range with the least relative error of the layers' output.

    migrate: try multipliers; one is taken only if it earns its cost. name: the layer, for messages.
    """
    plain, plain_error = _best_range(sample, activation, name)
    if not migrate:
        return InputQuantization(plain)
    by = _best_multiplier(sample, activation, name)
    moved, moved_error = _best_range(sample.scaled(by), activation, name)
    return (
        InputQuantization(moved, by) if moved_error < WORTHWHILE * plain_error else InputQuantization(plain)
    )


def _best_multiplier(sample: Sample, activation: Activation, name: str) -> Tensor:
    input_max, weight_max = torch.maximum(-sample.low, sample.high), sample.weight.abs().amax(0)
    tried = [multiplier(input_max, weight_max, strength) for strength in STRENGTHS]
    errors = []
    for by in tried:
        moved = sample.scaled(by)
        errors.append(_least(_Error(moved, activation, name), _upper_ends(moved, activation, COARSE))[1])
    return tried[errors.index(min(errors))]


def _best_range(sample: Sample, activation: Activation, name: str) -> tuple[Affine, float]:
    """The best of the upper ends, then with it the best of the lower ends, and its error."""
    error = _Error(sample, activation, name)
    top, least = _least(error, _upper_ends(sample, activation, FINE))
    if activation == "s8":
        return top, least
    low, reach = min(float(sample.low.min()), 0.0), (255 - top.zero_point) * top.scale
    return _least(error, [choose_affine(low * part, reach, activation) for part in FINE])


def _upper_ends(sample: Sample, activation: Activation, parts: Sequence[float]) -> list[Affine]:
    # Every grid holds 0, so a range that does not reach it begins or ends there: without this the part of a
    # high that lies close to a positive low would fall below it.
    low, high = min(float(sample.low.min()), 0.0), max(float(sample.high.max()), 0.0)
    if activation == "s8":
        low, high = 0.0, max(-low, high)
    return [choose_affine(low, high * part, activation) for part in parts]


def _least(error: _Error, candidates: Iterable[Affine]) -> tuple[Affine, float]:
    """The first minimum: a narrower range costs more from where clipping outweighs the finer steps."""
    best: tuple[Affine, float] | None = None
    for affine in candidates:
        found = error(affine)
        if best is not None and found > best[1]:
            break
        best = affine, found
    assert best is not None
    return best

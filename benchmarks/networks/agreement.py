"""Whether an engine gives the scores that ONNX Runtime gives on the same file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

Array = np.ndarray
_LEVELS = 255


@dataclass(frozen=True)
class Agreement:
    """within: the share of scores no more than a step (INT8) or the tolerance (FP32) away. top1: the share of
    images with the same best class. largest: the largest difference, as a share of the largest score.
    """

    within: float
    top1: float
    largest: float
    images: int


def agreement(found: Sequence[Array], expected: Sequence[Array], step: float) -> Agreement:
    """Compare scores [N, classes], batch by batch. step: the difference that is allowed."""
    one, other = np.concatenate(found), np.concatenate(expected)
    away = np.abs(one.astype(np.float64) - other)
    same = one.argmax(1) == other.argmax(1)
    # A step of float32 numbers is itself rounded.
    within = away <= step * (1 + 1e-5)
    return Agreement(
        float(within.mean()), float(same.mean()), float(away.max() / np.abs(other).max()), len(one)
    )


def int8_step(path: Path, expected: Sequence[Array]) -> float:
    """A step of the scores: of the quantizer that gives them, or, where they leave a product as floats, the
    part of their range that an 8-bit quantizer would make a step.
    """
    graph = onnx.load(path).graph
    last = next(node for node in graph.node if graph.output[0].name in node.output)
    if last.op_type == "DequantizeLinear":
        scale = next((t for t in graph.initializer if t.name == last.input[1]), None)
        if scale is not None:
            return float(numpy_helper.to_array(scale))
    scores = np.concatenate(expected)
    return float((scores.max() - scores.min()) / _LEVELS)


def float_tolerance(path: Path, expected: Sequence[Array]) -> float:
    """How far scores may lie apart by summing in another order: each layer's sums of k products are off by
    about sqrt(k) half units in the last place, of numbers as large as its outputs; layers add theirs up, and
    16 times that leaves room for cancellation.
    """
    weights = [t for t in onnx.load(path).graph.initializer if len(t.dims) >= 2]
    longest = max(int(np.prod(t.dims[1:])) for t in weights)
    relative = 16 * len(weights) * longest**0.5 * float(np.finfo(np.float32).eps) / 2
    return relative * float(np.abs(np.concatenate(expected)).max())

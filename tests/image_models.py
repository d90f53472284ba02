"""Small Q/DQ graphs on images, and engines of them beside ONNX Runtime within derived bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from graph_models import Array, Builder, runtime
from openwork import build, load
from qdq_bounds import Bounds, bounds_of, judge

SCALE, POINT = 0.05, 117
"""Of the quantizer of what is fed: normal numbers of deviation 1 stay inside."""


@dataclass
class Weight:
    """How the weight of a convolution is stored: its type, whether its scale and zero point are one number or
    one for each output channel, and whether its zero points lie where they like."""

    dtype: type = np.int8
    per_tensor: bool = False
    asymmetric: bool = False

    def points(self, rng: np.random.Generator, outputs: int) -> Array:
        info = np.iinfo(self.dtype)
        middle = (int(info.min) + int(info.max) + 1) // 2
        drawn = rng.integers(info.min + 1, info.max, outputs) if self.asymmetric else np.full(outputs, middle)
        return np.asarray(drawn[0] if self.per_tensor else drawn, self.dtype)


def quantized_weight(
    b: Builder, shape: Sequence[int], form: Weight | None = None, name: str = "layer.weight"
) -> tuple[str, Array]:
    """A dequantized weight [outputs, channels of a group, kernel..], and its scales f32 [outputs] or []."""
    form = form or Weight()
    info, outputs = np.iinfo(form.dtype), shape[0]
    values = b.rng.integers(info.min if form.asymmetric else info.min + 1, info.max + 1, shape)
    root = np.float32(100 * np.sqrt(np.prod(shape[1:])))
    scales = (b.rng.uniform(0.5, 1.5, outputs).astype(np.float32) / root).astype(np.float32)
    scale = np.asarray(scales[0] if form.per_tensor else scales)
    points = form.points(b.rng, outputs)
    given = b.constant(values.astype(form.dtype), name), b.constant(scale), b.constant(points)
    return b.add("DequantizeLinear", *given, axis=0), scale


def integer_bias(b: Builder, outputs: int, scale: Array) -> str:
    """A bias INT32 of the sums' scale, dequantized, as ONNX Runtime's quantizer writes it."""
    values = b.constant(b.rng.integers(-3000, 3000, outputs).astype(np.int32), "layer.bias")
    sums = np.asarray(np.float32(SCALE) * scale, np.float32)
    return b.add(
        "DequantizeLinear", values, b.constant(sums), b.constant(np.zeros(sums.shape, np.int32)), axis=0
    )


def fed(b: Builder, *shape: int, name: str = "x", free: Sequence[int] = (0,)) -> tuple[str, dict[str, Array]]:
    """An image that is fed, quantized and dequantized; free: its axes whose size the model leaves open."""
    sizes = [f"{name}_{axis}" if axis in free else size for axis, size in enumerate(shape)]
    source = b.input(name, sizes)
    return b.round_trip(source, SCALE, POINT), {name: away_from_ties(b.rng, shape)}


def away_from_ties(rng: np.random.Generator, shape: Sequence[int]) -> Array:
    """Numbers of deviation 1 that the quantizer of `fed` rounds without doubt: one at a tie would leave every
    window open that it lies in."""
    steps = np.rint(rng.standard_normal(shape) / SCALE) + rng.uniform(-0.45, 0.45, shape)
    return np.asarray(steps * SCALE, np.float32)


def quantized(b: Builder, value: str, scale: float = 0.04, point: int = 120) -> str:
    """What makes integers of a value."""
    return b.add("QuantizeLinear", value, *b.quantizer(scale, point))


@dataclass(frozen=True)
class Built:
    """The steps of an engine and what it gave."""

    steps: list[str]
    outputs: Mapping[str, Array]
    reasons: tuple[str, ...]


def built(
    model: onnx.ModelProto, feeds: Mapping[str, Array], folder: Path, strict: bool = True, **options: Any
) -> Built:
    """Build with native steps throughout (strict: nothing else), load, run."""
    path = folder / "m.engine"
    chosen = {
        "native": "force",
        "threads": 1,
        "progress": False,
        "timing_cache": folder / "t.json",
        **options,
    }
    report = build(model, path, strict=strict, **chosen)
    engine = load(path, threads=1)
    outputs = engine.run(feeds)
    return Built([s.op for s in engine._program.steps], outputs, tuple(p.reason for p in report.fallbacks))


def assert_inside(bounds: Mapping[str, Bounds], outputs: Mapping[str, Array], where: str) -> None:
    """Every output lies in its bounds, and few integers are uncertain, or the bounds would say too little.

    One at a tie inside of the graph leaves every window open that reads it.
    """
    for name, found in outputs.items():
        verdict = judge(bounds[name], found)
        assert not verdict.outside, f"{where}, {name}: {verdict.outside} of {verdict.elements} lie outside"
        if found.dtype != np.float32:
            assert verdict.uncertain <= max(2, 0.1 * verdict.elements), name


def agrees(
    model: onnx.ModelProto,
    feeds: Mapping[str, Array],
    folder: Path,
    strict: bool = True,
    twin: onnx.ModelProto | None = None,
    **options: Any,
) -> Built:
    """Both runners give what the graph means; twin: the same in operators that `qdq_bounds` knows."""
    bounds = bounds_of(twin or model, feeds)
    expected, found = runtime(model, feeds), built(model, feeds, folder, strict, **options)
    assert_inside(bounds, expected, "ONNX Runtime")
    for name, array in expected.items():
        assert found.outputs[name].dtype == array.dtype, name
        assert found.outputs[name].shape == array.shape, name
    assert_inside(bounds, found.outputs, "the engine")
    return found

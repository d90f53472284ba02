"""Resize of images to whole multiples of their size, every pixel several times, into Upsample."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import onnx_ir as ir

from openwork.engine.operators.windows import LARGEST_WINDOW
from openwork.graph.layout import IMAGE_AXES, around
from openwork.graph.model import attributes, constant, dims, needed, operand
from openwork.graph.rewrite import Replacement, Rule

HALF = Fraction(1, 2)
CENTRED = ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric")
ROUNDINGS = {
    "floor": math.floor,
    "ceil": math.ceil,
    "round_prefer_floor": lambda at: math.ceil(at - HALF),
    "round_prefer_ceil": lambda at: math.floor(at + HALF),
}


@dataclass(frozen=True)
class _Resize:
    """A Resize of x by these factors of height and width, or why it is none that is run."""

    node: ir.Node
    factors: list[int] | str


def _scales(node: ir.Node) -> list[float] | str:
    """How many times as large each axis becomes."""
    shape, given = dims(needed(node, 0)) or (), attributes(node)
    axes = [int(axis) % len(shape) for axis in given.get("axes", range(len(shape)))]
    scales, sizes = (constant(operand(node, index)) for index in (2, 3))
    whole = [1.0] * len(shape)
    if scales is not None and scales.size:
        found = scales.reshape(-1).tolist()
    elif sizes is not None and sizes.size and given.get("keep_aspect_ratio_policy", "stretch") == "stretch":
        before = [shape[axis] for axis in axes]
        if not all(isinstance(size, int) for size in before):
            return "it is enlarged to a stated size, of a free one"
        found = [made / int(size) for made, size in zip(sizes.reshape(-1).tolist(), before, strict=True)]  # type: ignore[arg-type]
    else:
        return "how much it is enlarged is not constant"
    for axis, factor in zip(axes, found, strict=True):
        whole[axis] = factor
    return whole


def _repeats(given: Mapping[str, Any], factor: int) -> bool:
    """Whether output pixel i of an axis is input pixel i div factor by the node's coordinates."""
    mode, rounding = given.get("coordinate_transformation_mode", "half_pixel"), given.get("nearest_mode")
    if mode not in ("asymmetric", *CENTRED):
        return False
    rounded = ROUNDINGS[rounding or "round_prefer_floor"]
    moved = HALF if mode in CENTRED else 0
    # Beyond one pixel everything repeats.
    return all(rounded(Fraction(i + moved) / factor - moved) == i // factor for i in range(2 * factor))


def _match(node: ir.Node) -> _Resize:
    shape, given = dims(needed(node, 0)), attributes(node)
    if shape is None or len(shape) != IMAGE_AXES or not isinstance(shape[1], int):
        return _Resize(node, "its input is no image with a known number of channels")
    if given.get("mode", "nearest") != "nearest" or given.get("antialias", 0):
        return _Resize(node, f"it is of the mode {given.get('mode')}; whole repetitions of pixels are run")
    scales = _scales(node)
    if isinstance(scales, str):
        return _Resize(node, scales)
    factors = [int(scale) for scale in scales]
    if factors[:2] != [1, 1] or scales != factors or not 1 <= min(factors) <= max(factors) <= LARGEST_WINDOW:
        return _Resize(node, f"its factors {scales} are not whole numbers of height and width alone")
    if not all(_repeats(given, factor) for factor in factors[2:]):
        return _Resize(node, "its coordinates do not repeat every pixel as often as all others")
    return _Resize(node, factors[2:])


def _check(found: _Resize) -> str | None:
    if isinstance(found.factors, str):
        return found.factors
    if needed(found.node, 0).dtype not in (ir.DataType.FLOAT, ir.DataType.UINT8):
        return "its input is neither float32 nor uint8"
    return None


def _replace(found: _Resize) -> Replacement:
    node = found.node
    values = {"factors": found.factors}
    nodes = around("Upsample", {"x": needed(node, 0)}, values, node.name or "", node.outputs[0])
    return Replacement(nodes, [(node.outputs[0], nodes[-1].outputs[0])])


UPSAMPLE = Rule("upsample", frozenset({"Resize"}), _match, _check, _replace)

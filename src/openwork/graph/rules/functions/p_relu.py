"""PRelu with a constant slope for each channel of an image, or for each number of the last axis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from openwork.graph.edit import add_initializer
from openwork.graph.layout import FIRST, IMAGE_AXES, LAST, moved
from openwork.graph.model import Array, constant, dims, make, needed
from openwork.graph.rewrite import Replacement, Rule, home


@dataclass(frozen=True)
class _Sloped:
    """A node, its slopes f32 [C], and whether these go with the channels of an image."""

    node: ir.Node
    slope: Array
    image: bool


def _match(node: ir.Node) -> _Sloped | None:
    x, slope = needed(node, 0), constant(needed(node, 1))
    shape = dims(x)
    if slope is None or not shape:
        return None
    image = len(shape) == IMAGE_AXES
    channels = shape[1] if image else shape[-1]
    if not isinstance(channels, int) or slope.size not in (1, channels):
        return _Sloped(node, np.zeros(0, np.float32), image)
    # ONNX lines a slope up with the last axes: that of channels has one number for each, and two axes behind.
    by_channel = slope.size == 1 or (
        slope.shape[-3:] == (channels, 1, 1) if image else slope.shape[-1] == channels
    )
    numbers = np.broadcast_to(slope.reshape(-1), (channels,)) if by_channel else np.zeros(0, np.float32)
    return _Sloped(node, np.ascontiguousarray(numbers), image)


def _check(found: _Sloped) -> str | None:
    if needed(found.node, 0).dtype != ir.DataType.FLOAT or found.slope.dtype != np.float32:
        return "its input or its slope is not float32"
    if not found.slope.size:
        return "its slope has neither one number nor one for each channel"
    return None if np.isfinite(found.slope).all() else "its slope holds numbers that are not finite"


def _replace(found: _Sloped) -> Replacement:
    node, x, name = found.node, needed(found.node, 0), found.node.name or ""
    slope = add_initializer(home(node), f"{name}.slope", found.slope)
    if not found.image:
        made = make("PRelu", {"x": x, "slope": slope}, {}, name)
        return Replacement([made], [(node.outputs[0], made.outputs[0])])
    before = moved(LAST, x, f"{name}.x")
    made = make("PRelu", {"x": before.outputs[0], "slope": slope}, {}, name)
    back = moved(FIRST, made.outputs[0], f"{name}.y")
    return Replacement([before, made, back], [(node.outputs[0], back.outputs[0])])


P_RELU = Rule("prelu", frozenset({"PRelu"}), _match, _check, _replace)

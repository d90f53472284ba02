"""Sequences [B, C, L] as images of height 1, for the operators that want images with their channels last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx_ir as ir

from openwork.graph.layout import IMAGE_AXES, around
from openwork.graph.model import dims
from openwork.graph.views import reshaped


def over_images(
    op_type: str, inputs: Mapping[str, ir.Value], values: Mapping[str, Any], name: str, old: ir.Value
) -> list[ir.Node]:
    """The operator for images [B, C, H, W], or for sequences [B, C, L] as images [B, C, 1, L]: the nodes in
    order, of which the last makes its output in the place of `old`.

    inputs: by slot; "x" is the image or the sequence. values: the attributes.
    """
    x, made = inputs["x"], dims(old)
    if len(dims(x) or ()) == IMAGE_AXES or made is None:
        return around(op_type, inputs, values, name, old)
    batch, channels, length = dims(x) or (None, None, None)
    tall = reshaped(x, (batch, channels, 1, length), f"{name}.x.image")
    image = ir.Value(shape=ir.Shape((*made[:2], 1, *made[2:])))
    nodes = around(op_type, {**inputs, "x": tall.outputs[0]}, values, name, image)
    return [tall, *nodes, reshaped(nodes[-1].outputs[0], made, f"{name}.y.sequence")]

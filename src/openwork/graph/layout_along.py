"""Moves of the channels of images behind what works along an axis of them: Concat and Slice."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from openwork.engine.operators import DOMAIN
from openwork.graph.layout import FIRST, IMAGE_AXES, LAST, moved
from openwork.graph.model import attributes, constant, consumers, dims, is_openwork, make, native_producer
from openwork.graph.rewrite import Replacement, Rule, never
from openwork.graph.slots import filled

AXIS_FIRST_TO_LAST = (0, 3, 1, 2)
"""Where an axis of an image with channels first stands with channels last."""
ALONG_AXIS = frozenset({"Concat", "Slice"})
FEWEST_CHANNELS = 8
"""Of a slice that is cut from each pixel: copying fewer at a time takes longer than moving them all."""


@dataclass(frozen=True)
class _Along:
    """A node along an axis of images, all of which ToChannelsFirst makes, and what these read."""

    node: ir.Node
    values: list[ir.Value | None]


def _match_along(node: ir.Node) -> _Along | None:
    """Concat and Slice of images that are moved, half of them at least, or where the result is moved back."""
    images = [value for value in node.inputs if value is not None and constant(value) is None]
    made = [native_producer(value, FIRST) for value in images]
    shape = dims(node.outputs[0])
    if shape is None or len(shape) != IMAGE_AXES or not any(made) or _is_sliver(node, shape[1]):
        return None
    back = all(is_openwork(reader, LAST) for reader in consumers(node.outputs[0]))
    many = 2 * sum(move is not None for move in made) >= len(made)
    return _Along(node, list(node.inputs)) if many or back else None


def _is_sliver(node: ir.Node, channels: int | str | None) -> bool:
    """Whether a node cuts so few channels that each stands better where it is one plane."""
    cuts_channels = node.op_type == "Slice" and attributes(node)["axis"] == 1
    return cuts_channels and isinstance(channels, int) and channels < FEWEST_CHANNELS


def _replace_along(found: _Along) -> Replacement:
    node, nodes = found.node, list[ir.Node]()
    inputs: list[ir.Value | None] = []
    for number, value in enumerate(found.values):
        if value is None or constant(value) is not None:
            inputs.append(value)
            continue
        move = native_producer(value, FIRST)
        if move is None:
            nodes.append(moved(LAST, value, f"{node.name}.{number}"))
        inputs.append(nodes[-1].outputs[0] if move is None else filled(move, "x"))
    values = attributes(node)
    values["axis"] = AXIS_FIRST_TO_LAST[values["axis"]]
    made = make(node.op_type, inputs, values, node.name or "")
    back = moved(FIRST, made.outputs[0], f"{node.name}.y")
    return Replacement([*nodes, made, back], [(node.outputs[0], back.outputs[0])])


PUSH_ALONG = Rule(
    "move channels behind what works along an axis",
    ALONG_AXIS,
    _match_along,
    never,
    _replace_along,
    domain=DOMAIN,
)

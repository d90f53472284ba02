"""A step that takes an epilogue, and what already follows its sums."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from openwork.graph.model import attributes, dims, only_consumer
from openwork.graph.slots import has_epilogue, slot


@dataclass(frozen=True)
class Follow:
    """A node that reads the output of a step, and the other operand of it."""

    node: ir.Node
    step: ir.Node
    other: ir.Value | None = None


def maker(value: ir.Value | None) -> ir.Node | None:
    """The node that makes the value, if what follows may go into it."""
    node = value.producer() if value is not None else None
    return node if has_epilogue(node) else None


def channels(step: ir.Node) -> int:
    """The number of output channels; 0 where it is not known."""
    last = (dims(step.outputs[0]) or (0,))[-1]
    return last if isinstance(last, int) else 0


def is_float(step: ir.Node) -> bool:
    """Whether no quantizer follows yet."""
    return "y_scale" not in attributes(step)


def is_plain(step: ir.Node) -> bool:
    """Whether nothing follows the sum and the bias yet."""
    return attributes(step)["activation"] == "none" and slot(step, "residual") is None and is_float(step)


def alone(found: Follow) -> str | None:
    """Why a step's output cannot become another value; None where only the node reads it."""
    if only_consumer(found.step.outputs[0]) is None:
        return "the product is read by other nodes too"
    return None

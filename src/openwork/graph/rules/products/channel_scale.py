"""What scales and shifts each channel of an image (BatchNorm, a constant for each channel): into the
convolution before it, or a convolution of its own that sees each channel alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from openwork.graph.edit import add_initializer
from openwork.graph.layout import FIRST, IMAGE_AXES, around
from openwork.graph.model import (
    Array,
    attributes,
    constant,
    dims,
    native_producer,
    needed,
    only_consumer,
    operand,
)
from openwork.graph.operands import split_constant
from openwork.graph.rewrite import Replacement, Rule, home
from openwork.graph.rules.products.followed import is_plain, maker
from openwork.graph.slots import filled, rebuilt, slot
from openwork.graph.stated_patterns import carry_pattern
from openwork.qdq.batch_norm import BatchNorm, along_outputs, scaled_integers

Double = NDArray[np.float64]
ALONE = {"kernel": [1, 1], "strides": [1, 1], "dilations": [1, 1], "pads": [0, 0, 0, 0]}
BATCH_NORM_EPSILON = 1e-5


@dataclass(frozen=True)
class _Scaled:
    """y = x * factor + shift, f64 [C], for each channel of x."""

    node: ir.Node
    x: ir.Value
    factor: Double
    shift: Double
    reason: str | None = None

    @property
    def product(self) -> ir.Node | None:
        """The convolution that it may go into: only it is read here, and nothing follows its sums."""
        move = native_producer(self.x, FIRST)
        if move is None or only_consumer(self.x) is None:
            return None
        step = maker(filled(move, "x"))
        alone = step is not None and only_consumer(step.outputs[0]) is not None
        return step if step is not None and alone and is_plain(step) else None


def _channels(x: ir.Value) -> int | None:
    shape = dims(x)
    if shape is None or len(shape) != IMAGE_AXES or not isinstance(shape[1], int):
        return None
    return shape[1]


def _match_norm(node: ir.Node) -> _Scaled | None:
    x, given = needed(node, 0), [constant(operand(node, index)) for index in range(1, 5)]
    channels = _channels(x)
    if channels is None:
        return None
    nothing, reason = np.zeros(0), None
    if attributes(node).get("training_mode", 0):
        reason = "it normalizes by the batch that it sees"
    known = [array for array in given if array is not None]
    if len(known) < len(given) or any(array.shape != (channels,) for array in known):
        reason = "its numbers are not constants, one for each channel"
    if reason is not None:
        return _Scaled(node, x, nothing, nothing, reason)
    gamma, beta, mean, variance = known
    norm = BatchNorm(gamma, beta, mean, variance, float(attributes(node).get("epsilon", BATCH_NORM_EPSILON)))
    return _Scaled(node, x, norm.factor, norm.folded_bias(None))


def _by_channel(array: Array, channels: int) -> Double | None:
    """[C] of a constant that has one number for each channel of an image.

    One for all is left to what knows functions: the scale of attention's scores, the 3 of a hard sigmoid.
    """
    if array.dtype != np.float32 or array.size != channels or array.ndim < IMAGE_AXES - 1:
        return None
    return array.reshape(-1).astype(np.float64) if array.shape[-IMAGE_AXES + 1] == channels else None


def _match_constant(node: ir.Node) -> _Scaled | None:
    split = split_constant(node)
    channels = None if split is None else _channels(split[0])
    if split is None or channels is None or split[0].dtype != ir.DataType.FLOAT:
        return None
    numbers = _by_channel(split[1], channels)
    if numbers is None:
        return None
    ones, zeros = np.ones(channels), np.zeros(channels)
    first = split[0] is needed(node, 0)
    if node.op_type == "Mul":
        return _Scaled(node, split[0], numbers, zeros)
    if node.op_type == "Add":
        return _Scaled(node, split[0], ones, numbers)
    if node.op_type == "Sub":
        return _Scaled(node, split[0], ones if first else -ones, -numbers if first else numbers)
    if not first:
        return None
    with np.errstate(divide="ignore"):
        return _Scaled(node, split[0], 1 / numbers, zeros)


def _check(found: _Scaled) -> str | None:
    if found.reason is not None:
        return found.reason
    if found.x.dtype != ir.DataType.FLOAT:
        return "its input is not float32"
    with np.errstate(over="ignore"):
        numbers = np.stack([found.factor, found.shift]).astype(np.float32)
    return None if np.isfinite(numbers).all() else "what it scales or shifts a channel by is not finite"


def _replace(found: _Scaled) -> Replacement:
    product = found.product
    return _on_its_own(found) if product is None else _into(found, product)


def _into(found: _Scaled, product: ir.Node) -> Replacement:
    graph, name = home(found.node), product.name or ""
    weight, bias = constant(filled(product, "weight")), constant(slot(product, "bias"))
    scale = constant(slot(product, "weight_scale"))
    assert weight is not None
    changed: dict[str, ir.Value | None] = {}
    if scale is None:
        scaled: Array = (weight * along_outputs(found.factor, weight.shape)).astype(np.float32)
    else:
        scaled, scales = scaled_integers(weight, scale, found.factor, 0)
        changed["weight_scale"] = add_initializer(graph, f"{name}.weight_scale", scales)
    held = add_initializer(graph, f"{name}.weight", scaled)
    changed["weight"] = carry_pattern([filled(product, "weight")], held)
    shifted = found.shift if bias is None else bias.astype(np.float64) * found.factor + found.shift
    changed["bias"] = add_initializer(graph, f"{name}.bias", shifted.astype(np.float32))
    made = rebuilt(product, changed)
    move = native_producer(found.x, FIRST)
    assert move is not None
    back = rebuilt(move, {"x": made.outputs[0]})
    return Replacement([made, back], [(found.node.outputs[0], back.outputs[0])])


def _on_its_own(found: _Scaled) -> Replacement:
    """A convolution of floats, one pixel and one channel wide.

    Of an image's three channels too: a product and a sum with a number for each took longer, 0.5 ms each of
    224x224 pixels where the convolution takes 0.7 (AMD EPYC of Zen 4, one thread).
    """
    graph, name, channels = home(found.node), found.node.name or "", len(found.factor)
    inputs = {
        "x": found.x,
        "weight": add_initializer(
            graph, f"{name}.weight", found.factor.astype(np.float32).reshape(channels, 1, 1, 1)
        ),
        "bias": add_initializer(graph, f"{name}.bias", found.shift.astype(np.float32)),
    }
    values = {**ALONE, "groups": channels, "activation": "none"}
    nodes = around("Conv", inputs, values, name, found.node.outputs[0])
    return Replacement(nodes, [(found.node.outputs[0], nodes[-1].outputs[0])])


BATCH_NORM = Rule("batch norm", frozenset({"BatchNormalization"}), _match_norm, _check, _replace)
CHANNEL_SCALE = Rule(
    "scale and shift of channels", frozenset({"Mul", "Add", "Sub", "Div"}), _match_constant, _check, _replace
)
